/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OCI runtime (runc, crun, or another with runc's command line) of one container. The one
 * place that builds its command lines. Source: go-runc repo, runc.go; shim contract, "Driving the
 * OCI runtime".
 *
 * Every command runs without blocking; done() is called once, from the loop. A failed command's
 * error carries the text containerd's own shim would give: what the runtime wrote to its log.
 */
#ifndef KYB_OCI_RUNTIME_H
#define KYB_OCI_RUNTIME_H

#include "base/bytes.h"
#include "base/error.h"
#include "event/loop.h"
#include "event/reaper.h"
#include "oci/mounts.h"
#include "proc/spawn.h"

struct runtime {
	struct loop *loop;
	struct reaper *reaper;
	char *binary; /* "runc", "crun", "/path/to/it" */
	char *root;   /* ROOT/NAMESPACE: where it keeps its state */
	char *bundle;
	char *id;
	char *log;    /* BUNDLE/log.json */
	bool systemd_cgroup;
	bool crun;    /* by its name: crun knows fewer flags */
};

/*
 * root NULL or "": /run/containerd/runc; binary NULL or "": runc. ns is appended to root.
 * Returns 0 or -ENOMEM. Free with runtime_done().
 */
int runtime_init(struct runtime *rt, struct loop *loop, struct reaper *reaper, const char *binary,
		 const char *root, const char *ns, const char *bundle, const char *id,
		 bool systemd_cgroup);
void runtime_done(struct runtime *rt);

/* A command under way. */
struct runtime_call;

/*
 * r = 0, or negative with err. output is what the command printed, where it is captured.
 * The call is freed after this returns.
 */
typedef void (*runtime_result)(void *data, int r, const struct error *err, struct bytes output);

struct runtime_create {
	const char *pid_file;
	const char *console_socket; /* NULL: none */
	bool no_pivot, no_new_keyring;
};

struct runtime_checkpoint {
	const char *image_path, *work_path;
	const char *parent_path; /* NULL: none */
	bool tcp_established, ext_unix_sk, shell_job, file_locks, leave_running;
	char *const *empty_namespaces;
	size_t n_empty_namespaces;
	nsec_t deadline;
	bool no_cuda_plugin; /* keep CRIU's own CUDA plugin out: the agent owns the GPU's state */
	struct mount_maps mounts; /* that the runtime does not know of */
};

struct runtime_restore {
	const char *image_path, *work_path;
	const char *pid_file;
	const char *console_socket;
	bool no_pivot;
	bool tcp_established, ext_unix_sk, shell_job, file_locks;
	nsec_t deadline;
	bool no_cuda_plugin;
	/*
	 * NULL, or the container's cgroup (version 2) below the mount point, to be told to CRIU.
	 * Otherwise it puts the processes into the cgroup that they were dumped in, and makes it anew:
	 * runc before 1.2 and crun before 1.21 do not tell it (runc: criuApplyCgroups()).
	 */
	const char *cgroup_root;
	struct mount_maps mounts; /* that the runtime does not know of */
	/*
	 * In a mount namespace of the runtime's own. runc runs the hooks at a restore too, in a copy
	 * of the mounts whose propagation nobody has cut: where "/" is shared, as under systemd, what
	 * a hook mounts below the root file system appears on the host's mount of it, and on the one
	 * that runc makes for CRIU. When runc unmounts that in the end, the kernel takes it away from
	 * the container as well, which by then has its own in the same place.
	 */
	bool own_mounts;
};

/*
 * All of these return 0 with *ret set (NULL ret: not wanted), or negative with err when the
 * command could not even be started; then done() is not called. io names the descriptors of the
 * container's process (stdio_child()), or is NULL.
 */
int runtime_create(struct runtime *rt, const struct runtime_create *args, const struct spawn *io,
		   runtime_result done, void *data, struct runtime_call **ret, struct error *err);
int runtime_start(struct runtime *rt, runtime_result done, void *data, struct error *err);
int runtime_exec(struct runtime *rt, const char *process_file, const char *pid_file,
		 const char *console_socket, const struct spawn *io, runtime_result done,
		 void *data, struct error *err);
/* The error's rpc code is RPC_NOT_FOUND when the process or container is gone already. */
int runtime_kill(struct runtime *rt, unsigned int signo, bool all, runtime_result done, void *data,
		 struct error *err);
/* A container that the runtime does not know any more is no error. */
int runtime_delete(struct runtime *rt, bool force, runtime_result done, void *data,
		   struct error *err);
int runtime_pause(struct runtime *rt, runtime_result done, void *data, struct error *err);
int runtime_resume(struct runtime *rt, runtime_result done, void *data, struct error *err);
/* resources: JSON of OCI LinuxResources. */
int runtime_update(struct runtime *rt, struct bytes resources, runtime_result done, void *data,
		   struct error *err);
int runtime_checkpoint(struct runtime *rt, const struct runtime_checkpoint *args,
		       runtime_result done, void *data, struct runtime_call **ret,
		       struct error *err);
int runtime_restore(struct runtime *rt, const struct runtime_restore *args, const struct spawn *io,
		    runtime_result done, void *data, struct runtime_call **ret, struct error *err);

/*
 * Where the runtime has its container's cgroup (of version 2), below /sys/fs/cgroup, by the state
 * it keeps: runc's state.json ("cgroup_paths"), crun's status ("cgroup-path"). Returns 0, -ENOENT
 * (it has none, or the state is another runtime's), or another -errno.
 */
int runtime_cgroup(const struct runtime *rt, char *buf, size_t size, struct error *err);

/* Kills the command; done() still follows. */
void runtime_call_kill(struct runtime_call *call);
/* Forgets it without killing: it runs to its end, done() is not called. */
void runtime_call_forget(struct runtime_call *call);

#endif
