/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA worker as the agent sees it: a process that is started, watched and replaced, and calls
 * that end, one way or the other, by their deadline. Everything is asynchronous in the event loop.
 *
 *	gpu_worker_lock(w, &p->call, p->pid, 10 * NSEC_PER_SEC, deadline, locked);
 *	...
 *	static void locked(struct gpu_call *call)
 *	{
 *		struct process *p = container_of(call, struct process, call);
 *
 *		if (call->result < 0)
 *			... call->err says why, for people and by reason
 *
 * Any number of calls may be open, up to GPU_CALLS_MAX. Those for different processes are made at
 * the same time, those for one process one after the other, in their order. So what is begun
 * after a call that was given up comes after that one in the driver as well.
 *
 * A driver call cannot be interrupted. When one is not back by its deadline, the worker is killed
 * and a new one started; all calls that were open end with an error, and nobody knows how far the
 * driver got: ops->restarted() then tells the owner to read the states of all processes
 * concerned before it does anything else. Never are two workers of one struct gpu_worker alive:
 * the next is started when the last has been reaped.
 */
#ifndef KYB_GPU_WORKER_H
#define KYB_GPU_WORKER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "event/loop.h"
#include "event/reaper.h"
#include "gpu/protocol.h"

struct gpu_worker;

struct gpu_worker_config {
	const char *program; /* kybernate-cuda-worker: absolute, or a name to look up in PATH */
	/*
	 * Its whole environment, "NAME=value", NULL-terminated; NULL = none. Nothing of ours gets
	 * in by itself: the driver heeds far too many variables. LD_LIBRARY_PATH where the driver
	 * is not in the loader's own places.
	 */
	const char *const *env;
	const char *libcuda, *libnvml; /* NULL = libcuda.so.1, libnvidia-ml.so.1 */
	int stderr_fd;                 /* for its log line and the driver's words; -1 = nowhere */
	nsec_t start_timeout; /* until it has opened the driver: many GPUs take many seconds */
	nsec_t ping_interval; /* how often it is asked whether it lives, */
	nsec_t ping_timeout;  /* and when no answer means that it hangs */
	nsec_t kill_timeout;  /* how long a killed one may take to die: the driver tidies up */
	/* The pause before the first restart, doubled each time up to the second; it is as the
	 * first again once a worker has lived for a while. */
	nsec_t backoff_min, backoff_max;
	nsec_t recheck; /* where there is no usable driver: when to look again. NSEC_NEVER: don't */
};

#define GPU_WORKER_CONFIG_DEFAULT                                                                  \
	(struct gpu_worker_config)                                                                 \
	{                                                                                          \
		.program = "kybernate-cuda-worker", .stderr_fd = 2,                                \
		.start_timeout = 60 * NSEC_PER_SEC, .ping_interval = 5 * NSEC_PER_SEC,             \
		.ping_timeout = 30 * NSEC_PER_SEC, .kill_timeout = 5 * NSEC_PER_SEC,               \
		.backoff_min = 100 * NSEC_PER_MSEC, .backoff_max = 30 * NSEC_PER_SEC,              \
		.recheck = 60 * NSEC_PER_SEC                                                       \
	}

enum gpu_worker_state {
	GPU_WORKER_DOWN,     /* none; the next is started after a pause */
	GPU_WORKER_STARTING, /* it opens the driver */
	GPU_WORKER_READY,
	GPU_WORKER_DYING,    /* killed, not yet reaped */
};

struct gpu_worker_ops {
	/*
	 * Optional. A worker is ready that took the place of one that was lost. Called before any
	 * call made since then is sent, and those made in it are sent first.
	 */
	void (*restarted)(void *owner);
	/* Optional. The state has changed; why is set where that is a failure, else NULL. For logs
	 * and metrics. */
	void (*changed)(void *owner, enum gpu_worker_state state, const struct error *why);
};

struct gpu_worker_health {
	enum gpu_worker_state state;
	pid_t pid;              /* 0 = none */
	unsigned int starts;    /* workers started */
	unsigned int losses;    /* workers that died, hung or could not be started */
	unsigned int open;      /* calls open */
	bool stuck;             /* killed, but it does not die: held fast in the kernel */
	nsec_t next_start;      /* when DOWN: CLOCK_MONOTONIC */
	struct error last;      /* the last failure; code 0 = none yet */
};

/*
 * Prepares a worker; config's strings are copied. reaper_sweep() must be called on SIGCHLD. owner
 * is what ops are called with; ops is borrowed. Returns 0 or -ENOMEM.
 */
int gpu_worker_new(struct loop *loop, struct reaper *reaper, const struct gpu_worker_config *config,
		   const struct gpu_worker_ops *ops, void *owner, struct gpu_worker **ret);

/* Starts it. A failure is treated as that of any later start: reported and tried again. */
void gpu_worker_start(struct gpu_worker *w);

/*
 * Kills the worker and forgets all calls: no done() is called any more. Not from within one of
 * our own callbacks. NULL is fine.
 */
void gpu_worker_free(struct gpu_worker *w);

/* What the worker said of driver and GPUs, or NULL when there was none yet. The last worker's
 * words stay while the next one starts. */
const struct gpu_hello *gpu_worker_info(const struct gpu_worker *w);
void gpu_worker_health(const struct gpu_worker *w, struct gpu_worker_health *ret);
/* "READY" and so on. Never NULL. */
const char *gpu_worker_state_name(enum gpu_worker_state state);
/*
 * 0 when a worker is ready and its driver can be used; else negative with err and reason
 * DRIVER_UNAVAILABLE, DRIVER_TOO_OLD or WORKER_FAILED. For a preflight: calls say the same.
 */
int gpu_worker_usable(const struct gpu_worker *w, struct error *err);

/* A call, embedded by its owner. Zero-initialise it once. */
struct gpu_call {
	/*
	 * In, set before the call is made and kept by us: when the process started
	 * (procfs_start_time()), so that another one with its number is left alone. 0 = unchecked.
	 */
	uint64_t start_time;

	/* Out, valid from done() on. */
	int result;       /* 0, or negative: see gpu/outcome.h */
	struct error err; /* with reason and text; code 0 on success */
	int code;         /* the driver's CUresult; 0 also where it was not asked */
	unsigned int state;  /* gpu_worker_state_of(): enum cuda_state; also with CUDA_STATE_LOST */
	pid_t restore_tid;   /* gpu_worker_probe(): 0 = the process has no CUDA */
	bool gone;           /* the process has exited */
	nsec_t took;         /* in the driver */

	/* Ours. */
	enum { GPU_CALL_IDLE, GPU_CALL_QUEUED, GPU_CALL_SENT, GPU_CALL_ENDED } phase;
	struct gpu_worker *worker;
	void (*done)(struct gpu_call *call);
	struct list node;
	unsigned int slot, op;
	pid_t pid;
	uint32_t timeout_ms, n_pairs;
	const struct cuda_gpu_pair *pairs;
	struct gpu_memory *memory;
	nsec_t begun, deadline;
};

/*
 * The calls. Each ends with done(), called once, from the loop and never from inside these; in it
 * the call may be freed or used again. deadline is absolute. Which errors there are is said in
 * gpu/outcome.h; beyond these:
 *
 *	TIMEOUT, -ETIMEDOUT	not back by its deadline: the worker is being replaced
 *	WORKER_FAILED, -EIO	the worker died or was killed while the call was open
 *	WORKER_FAILED, -EAGAIN	too many calls
 *
 * While there is no worker a call waits for the next one, up to its deadline, unless the last
 * attempt to start one failed: then it ends at once with that failure.
 */

/* Is pid a CUDA process? restore_tid says so. An error is no answer: never take it for "no". */
void gpu_worker_probe(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		      void (*done)(struct gpu_call *call));
void gpu_worker_state_of(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
			 void (*done)(struct gpu_call *call));
/* timeout is the driver's own, rounded up to milliseconds; keep deadline well behind it. */
void gpu_worker_lock(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t timeout,
		     nsec_t deadline, void (*done)(struct gpu_call *call));
void gpu_worker_checkpoint(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
			   void (*done)(struct gpu_call *call));
/* pairs (borrowed until done()): every GPU of the checkpoint; n_pairs 0 = the same GPUs. At most
 * GPU_DEVICES_MAX. */
void gpu_worker_restore(struct gpu_worker *w, struct gpu_call *call, pid_t pid,
			const struct cuda_gpu_pair *pairs, uint32_t n_pairs, nsec_t deadline,
			void (*done)(struct gpu_call *call));
void gpu_worker_unlock(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		       void (*done)(struct gpu_call *call));
/* What uses which GPU now. *ret is written on success, before done(). */
void gpu_worker_memory(struct gpu_worker *w, struct gpu_call *call, struct gpu_memory *ret,
		       nsec_t deadline, void (*done)(struct gpu_call *call));

/*
 * No longer wanted: if the driver has not been called for it, it ends soon with CANCELED, else as
 * it would have. done() follows in either case. Harmless when not open.
 */
void gpu_call_cancel(struct gpu_call *call);
/*
 * The owner goes away: no done() any more, the memory may be freed. The driver's call, if it is
 * under way, runs on and is still watched. Harmless when not open.
 */
void gpu_call_forget(struct gpu_call *call);

static inline bool gpu_call_open(const struct gpu_call *call)
{
	return call->phase != GPU_CALL_IDLE;
}

#endif
