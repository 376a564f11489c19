/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA processes of one container, and what is done to all of them together: lock, save,
 * restore, unlock. One function, gpu_group_recover(), brings them all back to RUNNING from
 * wherever they are: it is the undo of everything here, and the answer to a worker or an agent
 * that died.
 *
 * Nothing is believed because a call said so: after each step the driver is asked for the state
 * of every process.
 *
 * All members are worked on at the same time. But where one is in a checkpoint job, which the driver
 * wants so, one after the other, in the order of their numbers in the container: the same at a
 * checkpoint and at its restore.
 */
#ifndef KYB_CHECKPOINT_GROUP_H
#define KYB_CHECKPOINT_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "event/loop.h"
#include "gpu/worker.h"

#define GPU_GROUP_MAX  512  /* CUDA processes of a container */
#define GPU_PIDS_MAX   8192 /* processes of a container */

struct gpu_group;

/* A CUDA process. */
struct gpu_member {
	pid_t pid;           /* on the host */
	pid_t ns_pid;        /* in its own pid namespace; 0 = not known */
	uint64_t start_time; /* with pid: which process it is */
	char name[16];
	unsigned int state;  /* enum cuda_state as last read */
	bool gone;           /* it has exited */
	bool apart;          /* it is not below the container's init, so CRIU does not dump it */
	uint64_t vram_bytes; /* before it was saved; GPU_BYTES_UNKNOWN without NVML */
	uint32_t devices;    /* bit i: device i of gpu_group_memory() */
	unsigned int job;    /* 0 = in no checkpoint job; jobfile.h. From 1 when that is saved */
};

/*
 * A group whose members are CHECKPOINTED and stand still, as somebody has written it down who
 * outlives it. Borrowed.
 */
struct gpu_held {
	const struct gpu_member *members; /* pid, start_time, vram_bytes and devices count */
	size_t n_members;
	const struct gpu_memory *memory;  /* its devices: what gpu_member.devices refers to */
};

/* Lists the processes of the container, and of all below it: fills pids (max of them), returns
 * their number or -errno. */
typedef ssize_t (*gpu_group_lister)(void *data, pid_t *pids, size_t max);

/* Returns 0 or -ENOMEM. worker is borrowed. */
int gpu_group_new(struct gpu_group **ret, struct loop *loop, struct gpu_worker *worker,
		  gpu_group_lister list, void *data);
/* From now on processes are listed so. Not while a call is under way. */
void gpu_group_set_lister(struct gpu_group *g, gpu_group_lister list, void *data);
/* Groups that share GPUs: between the look and the end of its restore each counts as taken, for the
 * others in the list, what one is bringing back. Borrowed, outlives the group. */
void gpu_group_share(struct gpu_group *g, struct list *returning);
/* Calls under way are forgotten, done() is not called. NULL is fine. */
void gpu_group_free(struct gpu_group *g);

/* r = 0, or negative with err: the first failure, with the process in its text. */
typedef void (*gpu_group_done)(void *data, int r, const struct error *err);

/*
 * The calls. One at a time; done() is called once, from the loop, and may begin the next one.
 * deadline is absolute; whatever happens, done() follows soon after it.
 */

/* Finds the CUDA processes there are now. None is fine. */
void gpu_group_discover(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/* The same, and what each holds. It may change until they are locked. */
void gpu_group_survey(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/*
 * Adds one that is known from elsewhere (a journal, a checkpoint's description). Returns 0 or
 * -errno.
 */
int gpu_group_add(struct gpu_group *g, pid_t pid, uint64_t start_time);
/* The same with what was found out about it, and about the GPUs, before it was locked. */
int gpu_group_know(struct gpu_group *g, const struct gpu_member *m);
void gpu_group_set_memory(struct gpu_group *g, const struct gpu_memory *memory);

/* Adds those of a group that was held. Returns 0 or -errno. */
int gpu_group_adopt(struct gpu_group *g, const struct gpu_held *held);

/*
 * Locks all, at the same time, and looks again: a process that became a CUDA process meanwhile is
 * locked too, until there is no new one. Then all are LOCKED. After a failure some may be locked:
 * follow with gpu_group_recover().
 */
void gpu_group_lock(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/* Moves the GPU memory of all into host memory; then all are CHECKPOINTED and no further CUDA
 * process has appeared. After a failure follow with gpu_group_recover(). */
void gpu_group_save(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/*
 * The way back: all CHECKPOINTED -> LOCKED. pairs as in gpu_worker_restore(), borrowed. The driver's
 * first out-of-memory is final for a process; so where NVML says, now, that a GPU has no room for
 * what was saved, the driver is not asked (VRAM_SHORT). The same in a recovery, which looks again.
 */
void gpu_group_restore(struct gpu_group *g, const struct cuda_gpu_pair *pairs, uint32_t n_pairs,
		       nsec_t deadline, gpu_group_done done, void *data);
/* All LOCKED -> RUNNING. */
void gpu_group_unlock(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/*
 * From wherever they are to RUNNING. Retries what may succeed later, with growing pauses, until
 * the deadline. r = 0: all that still live are RUNNING. A process that the driver has lost
 * (CUDA_STATE_LOST) cannot be helped: the others are brought back all the same, then that is told.
 */
void gpu_group_recover(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/*
 * From wherever they are to CHECKPOINTED: the undo of a way back that did not succeed. Each step
 * is tried once.
 */
void gpu_group_hold(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/*
 * For a container that stands still. The driver can neither tell nor change anybody's state there
 * (its calls hang, but for the one that tells whether a process has CUDA), so what was CHECKPOINTED
 * when it was frozen still is. Who has exited meanwhile is marked; a CUDA process that is no
 * member is a failure (CUDA_LOCK_FAILED).
 */
void gpu_group_confirm(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);
/* Reads the states, no more. */
void gpu_group_look(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data);

/* Ends the call under way soon: no further driver call is begun (a recovery tries nothing again),
 * and done() follows. Harmless when there is none. */
void gpu_group_cancel(struct gpu_group *g);

void gpu_group_set_job(struct gpu_group *g, size_t i, unsigned int job);
size_t gpu_group_size(const struct gpu_group *g);
const struct gpu_member *gpu_group_member(const struct gpu_group *g, size_t i);
/* Which of them are apart? While they stand still; init is the container's, on the host. */
void gpu_group_find_apart(struct gpu_group *g, pid_t init);
/* What NVML said before the save; n_devices 0 when it was not asked or is not there. */
const struct gpu_memory *gpu_group_memory(const struct gpu_group *g);
/* Known GPU memory of all members together. */
uint64_t gpu_group_vram_bytes(const struct gpu_group *g);

#endif
