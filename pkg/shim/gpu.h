/* SPDX-License-Identifier: Apache-2.0 */
/* What checkpoint.c, restore.c and create.c share of talking to the agent. */
#ifndef KYB_SHIM_GPU_H
#define KYB_SHIM_GPU_H

#include <limits.h>

#include "oci/criu_log.h"
#include "shim/hooks/agent.h"
#include "shim/task.h"

#define GPU_REQUEST_MEMORY ((size_t)1 << 20) /* enough for every environment that a kernel takes */

/*
 * Fills req with everything the container's spec says; pointers lead into the container and mem,
 * whose limit is GPU_REQUEST_MEMORY or more. Returns 0, or negative with err (SEAT_MISMATCH:
 * environment and annotation disagree).
 */
int gpu_request(const struct container *c, enum agent_kind kind, struct arena *mem,
		struct agent_request *req, struct error *err);

/* What is left until the call's deadline, for the request; 0 = the caller set none, or call is NULL. */
uint64_t gpu_timeout_ms(const struct ttrpc_call *call);
/* The deadline of the stream: the operation's, and a little for its last word. */
nsec_t gpu_stream_deadline(const struct container *c, const struct ttrpc_call *call);

/* Does Start of this container need the agent to restore it? */
bool gpu_restores(const struct container *c);

/*
 * Makes the nodes of the container's GPUs that its restored /dev lacks. Returns 0 or negative with
 * err (GPU_MISMATCH).
 */
int gpu_make_nodes(const struct container *c, struct error *err);

/*
 * Before a dump the mounts to be kept with it are looked at by a helper process, the shim's own
 * program with the action "look-at-mounts": this is what it does. Returns its exit status.
 */
int gpu_look_main(const char *bundle);

/*
 * Before a restore: what CRIU has to be told of them, as oci/mounts.h says. All into mem. Returns 0
 * or negative with err (MOUNT_MISMATCH).
 */
int gpu_map_mounts(const struct container *c, const struct mount_records *then, struct arena *mem,
		   struct mount_maps *ret, struct error *err);
/* After the restore: all of them are there. */
int gpu_verify_mounts(const struct container *c, const struct mount_records *then,
		      struct error *err);
/* The description of a checkpoint takes 2 MiB of text. */
#define GPU_MOUNTS_MEMORY ((size_t)1 << 20)

/* The flags of a dump by name, to be kept with the images and used again at the restore. */
#define GPU_FLAGS_MAX 4
size_t gpu_flags_name(const struct runtime_checkpoint *args, const char *flags[GPU_FLAGS_MAX]);
void gpu_flags_apply(char *const *flags, size_t n, struct runtime_restore *args);

/*
 * Holds a checkpoint of the agent's store while CRIU reads or writes image_path, a folder in it: as
 * long as the descriptor is open nobody removes it, also when the agent is restarted meanwhile
 * (artifact/store.h: whoever removes one wants the exclusive lock). Returns it, or negative with
 * err: IMAGE_MISSING when it is being removed.
 */
int gpu_hold_images(const char *image_path, struct error *err);
/*
 * Lets go of it, at once, though a child that was just made has a copy of the descriptor until it
 * has closed it (cgroup/forewarn.h); a close() alone would leave the lock to that one. 0 = none.
 */
void gpu_let_go(int *hold);

/* What is known of a CRIU run that failed. */
struct gpu_failure {
	struct criu_digest digest; /* without lines when CRIU did not get as far as to log any */
	char log_path[PATH_MAX];   /* "" = there is none */
};

/*
 * The log of a CRIU run that failed: its digest into err and ret (NULL = not wanted), and a copy in
 * the bundle as criu-dump.log or criu-restore.log, where containerd's users look for it. Is it
 * something that passes, so that a second attempt may do better?
 */
bool gpu_criu_failure(const struct container *c, const char *work_path, bool dump,
		      struct gpu_failure *ret, struct error *err);
/* The same for the agent; leads into f. */
struct agent_detail gpu_failure_detail(const struct gpu_failure *f);

/*
 * Puts CRIU's log of a dump that went well beside its images, as dump.log: the folder that it was
 * written to may go with the bundle. Not where it is kept anyway.
 */
void gpu_keep_dump_log(const struct container *c, const char *work_path, const char *image_path);

#endif
