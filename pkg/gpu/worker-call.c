/* SPDX-License-Identifier: Apache-2.0 */
/* The calls as their owners make them. */
#include <assert.h>

#include "gpu/worker-private.h"

/* What a call asks for; the rest of it is set anew by begin(). */
struct ask {
	enum gpu_op op;
	pid_t pid;
	uint32_t timeout_ms, n_pairs;
	const struct cuda_gpu_pair *pairs;
	struct gpu_memory *memory;
};

static void begin(struct gpu_worker *w, struct gpu_call *call, const struct ask *ask,
		  nsec_t deadline, void (*done)(struct gpu_call *call))
{
	uint64_t start_time = call->start_time;

	assert(!gpu_call_open(call));
	*call = (struct gpu_call){ .start_time = start_time,
				   .worker = w,
				   .done = done,
				   .op = ask->op,
				   .pid = ask->pid,
				   .timeout_ms = ask->timeout_ms,
				   .n_pairs = ask->n_pairs,
				   .pairs = ask->pairs,
				   .memory = ask->memory,
				   .begun = time_now(),
				   .deadline = deadline };
	worker_take(w, call);
}

void gpu_worker_probe(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		      void (*done)(struct gpu_call *call))
{
	begin(w, call, &(struct ask){ .op = GPU_OP_PROBE, .pid = pid }, deadline, done);
}

void gpu_worker_state_of(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
			 void (*done)(struct gpu_call *call))
{
	begin(w, call, &(struct ask){ .op = GPU_OP_STATE, .pid = pid }, deadline, done);
}

void gpu_worker_lock(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t timeout,
		     nsec_t deadline, void (*done)(struct gpu_call *call))
{
	nsec_t ms = timeout / NSEC_PER_MSEC + (timeout % NSEC_PER_MSEC != 0);
	struct ask ask = { .op = GPU_OP_LOCK, .pid = pid };

	/* Never 0: to the driver that means for ever. */
	ask.timeout_ms = ms == 0 ? 1 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
	begin(w, call, &ask, deadline, done);
}

void gpu_worker_checkpoint(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
			   void (*done)(struct gpu_call *call))
{
	begin(w, call, &(struct ask){ .op = GPU_OP_CHECKPOINT, .pid = pid }, deadline, done);
}

void gpu_worker_restore(struct gpu_worker *w, struct gpu_call *call, pid_t pid,
			const struct cuda_gpu_pair *pairs, uint32_t n_pairs, nsec_t deadline,
			void (*done)(struct gpu_call *call))
{
	begin(w, call,
	      &(struct ask){ .op = GPU_OP_RESTORE, .pid = pid, .pairs = pairs, .n_pairs = n_pairs },
	      deadline, done);
}

void gpu_worker_unlock(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		       void (*done)(struct gpu_call *call))
{
	begin(w, call, &(struct ask){ .op = GPU_OP_UNLOCK, .pid = pid }, deadline, done);
}

void gpu_worker_memory(struct gpu_worker *w, struct gpu_call *call, struct gpu_memory *ret,
		       nsec_t deadline, void (*done)(struct gpu_call *call))
{
	begin(w, call, &(struct ask){ .op = GPU_OP_MEMORY, .memory = ret }, deadline, done);
}

void gpu_call_cancel(struct gpu_call *call)
{
	if (gpu_call_open(call))
		worker_cancel(call->worker, call);
}

void gpu_call_forget(struct gpu_call *call)
{
	if (gpu_call_open(call))
		worker_forget(call->worker, call);
}
