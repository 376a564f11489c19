/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/fake-worker.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "gpu/capability.h"
#include "proc/procfs.h"
#include "tests/clock.h"

#define CALL_TAKES NSEC_PER_MSEC

static struct fake_worker *the_worker;

/* --- what a call does ----------------------------------------------------------------------- */

struct fake_process *fake_find(struct fake_worker *w, pid_t pid)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->procs[i].pid == pid)
			return &w->procs[i];
	return NULL;
}

static const struct {
	unsigned int from, to;
} transitions[GPU_OP_LAST + 1] = {
	[GPU_OP_LOCK] = { CUDA_STATE_RUNNING, CUDA_STATE_LOCKED },
	[GPU_OP_CHECKPOINT] = { CUDA_STATE_LOCKED, CUDA_STATE_CHECKPOINTED },
	[GPU_OP_RESTORE] = { CUDA_STATE_CHECKPOINTED, CUDA_STATE_LOCKED },
	[GPU_OP_UNLOCK] = { CUDA_STATE_LOCKED, CUDA_STATE_RUNNING },
};

static bool moves(unsigned int op)
{
	return transitions[op].from != transitions[op].to;
}

static void fails(struct gpu_call *call, int code, enum reason reason)
{
	call->result = error_reason(&call->err, reason, code, "process %d: %s: scripted", call->pid,
				    gpu_op_name(call->op));
}

static void act(struct fake_worker *w, struct gpu_call *call, struct fake_process *p)
{
	if (p->gone || p->start_time != call->start_time) {
		call->gone = true;
		fails(call, -ESRCH, REASON_CONTAINER_MISSING);
	} else if (call->op == GPU_OP_PROBE) {
		call->restore_tid = p->cuda ? p->pid : 0;
	} else if (!p->cuda) {
		fails(call, -ENXIO, REASON_CUDA_STATE_WRONG);
	} else if (call->op == GPU_OP_STATE) {
		call->state = p->state;
		if (p->state == CUDA_STATE_FAILED)
			fails(call, -ENOTRECOVERABLE, REASON_CUDA_STATE_LOST);
	} else if (p->state != transitions[call->op].from) {
		w->refused++;
		fails(call, -EBUSY, REASON_CUDA_STATE_WRONG);
	} else {
		p->state = transitions[call->op].to;
	}
}

static void act_wrongly(struct fake_worker *w, struct gpu_call *call, struct fake_process *p,
			const struct fake_fault *fault)
{
	if ((fault->kind == FAKE_DID_FAIL || fault->kind == FAKE_DID_HANG) && moves(call->op))
		act(w, call, p);
	switch (fault->kind) {
	case FAKE_LIE:
		call->state = fault->lie_state;
		break;
	case FAKE_GONE:
		p->gone = true;
		act(w, call, p);
		break;
	case FAKE_HANG:
	case FAKE_DID_HANG:
		fails(call, -ETIMEDOUT, REASON_TIMEOUT);
		break;
	default:
		fails(call, fault->code, fault->reason);
	}
}

static void measure(struct fake_worker *w, struct gpu_call *call)
{
	struct gpu_memory *m = call->memory;

	memset(m, 0, sizeof(*m));
	m->n_devices = 1;
	m->devices[0].free = w->gpu_free ? w->gpu_free : GPU_BYTES_UNKNOWN;
	for (size_t i = 0; i < w->n && m->n_processes < GPU_PROCESSES_MAX; i++)
		if (w->procs[i].cuda && !w->procs[i].gone &&
		    w->procs[i].state != CUDA_STATE_CHECKPOINTED)
			m->processes[m->n_processes++] =
				(struct gpu_process){ .pid = w->procs[i].pid, .bytes = 1000 };
}

/* --- the course of a call ------------------------------------------------------------------- */

static struct fake_fault *hit(struct fake_worker *w, unsigned int op, pid_t pid)
{
	for (int i = 0; i < FAKE_FAULTS; i++) {
		struct fake_fault *f = &w->faults[i];

		if (f->op != op || (f->pid && f->pid != pid))
			continue;
		if (f->skip) {
			f->skip--;
			continue;
		}
		if (f->times && --f->times == 0) {
			static struct fake_fault last;

			last = *f;
			*f = (struct fake_fault){ 0 };
			return &last;
		}
		return f;
	}
	return NULL;
}

static void end_call(struct fake_worker *w, struct gpu_call *call)
{
	struct fake_process *p = call->op == GPU_OP_MEMORY ? NULL : fake_find(w, call->pid);

	list_remove(&call->node);
	call->phase = GPU_CALL_IDLE;
	if (p && p->start_time == call->start_time)
		p->busy = false;
	if (w->ended)
		w->ended(w, call->op, p);
	call->done(call);
}

static void tick(struct timer *t)
{
	struct fake_worker *w = container_of(t, struct fake_worker, tick);
	struct list due;
	struct gpu_call *call, *next;

	list_init(&due);
	list_for_each_safe(call, next, &w->open, node) {
		if (call->begun > time_now())
			continue;
		list_remove(&call->node);
		if (w->backwards)
			list_prepend(&due, &call->node);
		else
			list_append(&due, &call->node);
	}
	timer_set(w->loop, t, time_now() + CALL_TAKES, tick);
	while ((call = list_first(&due, struct gpu_call, node)))
		end_call(w, call);
}

static void take(struct gpu_call *call, unsigned int op, pid_t pid, nsec_t deadline,
		 struct gpu_memory *memory, void (*done)(struct gpu_call *call))
{
	struct fake_worker *w = the_worker;
	struct fake_process *p = memory ? NULL : fake_find(w, pid);
	const struct fake_fault *fault;
	uint64_t start_time = call->start_time;

	assert_int_equal(call->phase, GPU_CALL_IDLE);
	*call = (struct gpu_call){ .start_time = start_time, .op = op, .pid = pid, .done = done,
				   .memory = memory, .deadline = deadline,
				   .phase = GPU_CALL_SENT, .begun = time_now() + CALL_TAKES };
	w->calls[op]++;
	list_append(&w->open, &call->node);
	fault = hit(w, op, pid);
	if (fault && (fault->kind == FAKE_HANG || fault->kind == FAKE_DID_HANG))
		call->begun = deadline;
	if (memory) {
		bool late = w->ready_at > deadline;

		if (time_now() < w->ready_at)
			call->begun = late ? deadline : w->ready_at;
		if (late)
			fails(call, -ETIMEDOUT, REASON_TIMEOUT);
		else if (fault)
			fails(call, fault->code, fault->reason);
		else
			measure(w, call);
		return;
	}
	assert_non_null(p);
	if (p->start_time == start_time) {
		assert_false(p->busy); /* never two at a time for one process */
		p->busy = true;
	}
	if (fault)
		act_wrongly(w, call, p, fault);
	else
		act(w, call, p);
}

/* --- in place of gpu/worker-call.c ---------------------------------------------------------- */

#define WRAP(name) __wrap_gpu_worker_##name

void WRAP(probe)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		 void (*done)(struct gpu_call *call));
void WRAP(state_of)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		    void (*done)(struct gpu_call *call));
void WRAP(lock)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t timeout,
		nsec_t deadline, void (*done)(struct gpu_call *call));
void WRAP(checkpoint)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		      void (*done)(struct gpu_call *call));
void WRAP(restore)(struct gpu_worker *w, struct gpu_call *call, pid_t pid,
		   const struct cuda_gpu_pair *pairs, uint32_t n_pairs, nsec_t deadline,
		   void (*done)(struct gpu_call *call));
void WRAP(unlock)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		  void (*done)(struct gpu_call *call));
void WRAP(memory)(struct gpu_worker *w, struct gpu_call *call, struct gpu_memory *ret,
		  nsec_t deadline, void (*done)(struct gpu_call *call));
void __wrap_gpu_call_cancel(struct gpu_call *call);
void __wrap_gpu_call_forget(struct gpu_call *call);
int WRAP(usable)(const struct gpu_worker *w, struct error *err);
const struct gpu_hello *WRAP(info)(const struct gpu_worker *w);
int __wrap_procfs_start_time(pid_t pid, uint64_t *ret);

int WRAP(usable)(const struct gpu_worker *w, struct error *err)
{
	const struct fake_worker *fake = the_worker;

	(void)w;
	if (!fake)
		return 0;
	if (time_now() < fake->ready_at)
		return error_reason(err, REASON_WORKER_FAILED, -EAGAIN, "it is being started");
	if (fake->unusable)
		return error_reason(err, REASON_DRIVER_UNAVAILABLE, fake->unusable, "no driver");
	return 0;
}

const struct gpu_hello *WRAP(info)(const struct gpu_worker *w)
{
	static const struct gpu_hello hello = { .driver_version = FAKE_DRIVER_VERSION,
						.caps = GPU_CAP_ALL };

	(void)w;
	return &hello;
}

void WRAP(probe)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		 void (*done)(struct gpu_call *call))
{
	(void)w;
	take(call, GPU_OP_PROBE, pid, deadline, NULL, done);
}

void WRAP(state_of)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		    void (*done)(struct gpu_call *call))
{
	(void)w;
	take(call, GPU_OP_STATE, pid, deadline, NULL, done);
}

void WRAP(lock)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t timeout,
		nsec_t deadline, void (*done)(struct gpu_call *call))
{
	(void)w;
	/* The driver's own time-out, which ends well, comes before the one that costs a worker. */
	assert_true(timeout > 0 && time_now() + timeout < deadline);
	take(call, GPU_OP_LOCK, pid, deadline, NULL, done);
}

void WRAP(checkpoint)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		      void (*done)(struct gpu_call *call))
{
	(void)w;
	take(call, GPU_OP_CHECKPOINT, pid, deadline, NULL, done);
}

void WRAP(restore)(struct gpu_worker *w, struct gpu_call *call, pid_t pid,
		   const struct cuda_gpu_pair *pairs, uint32_t n_pairs, nsec_t deadline,
		   void (*done)(struct gpu_call *call))
{
	(void)w;
	assert_int_equal(pairs != NULL, n_pairs != 0);
	take(call, GPU_OP_RESTORE, pid, deadline, NULL, done);
}

void WRAP(unlock)(struct gpu_worker *w, struct gpu_call *call, pid_t pid, nsec_t deadline,
		  void (*done)(struct gpu_call *call))
{
	(void)w;
	take(call, GPU_OP_UNLOCK, pid, deadline, NULL, done);
}

void WRAP(memory)(struct gpu_worker *w, struct gpu_call *call, struct gpu_memory *ret,
		  nsec_t deadline, void (*done)(struct gpu_call *call))
{
	(void)w;
	take(call, GPU_OP_MEMORY, 0, deadline, ret, done);
}

/* All are in the driver already, which cannot be interrupted. */
void __wrap_gpu_call_cancel(struct gpu_call *call)
{
	(void)call;
}

void __wrap_gpu_call_forget(struct gpu_call *call)
{
	struct fake_process *p;

	if (!gpu_call_open(call))
		return;
	list_remove(&call->node);
	call->phase = GPU_CALL_IDLE;
	p = fake_find(the_worker, call->pid);
	if (p && p->start_time == call->start_time)
		p->busy = false;
}

int __wrap_procfs_start_time(pid_t pid, uint64_t *ret)
{
	const struct fake_process *p = fake_find(the_worker, pid);

	if (!p || p->gone)
		return -ESRCH;
	*ret = p->start_time;
	return 0;
}

/* --- for the test --------------------------------------------------------------------------- */

void fake_worker_open(struct fake_worker *w, struct loop *loop)
{
	*w = (struct fake_worker){ .loop = loop };
	list_init(&w->open);
	the_worker = w;
	timer_set(loop, &w->tick, time_now(), tick);
}

void fake_worker_close(struct fake_worker *w)
{
	assert_true(list_empty(&w->open));
	timer_cancel(&w->tick);
	the_worker = NULL;
}

struct gpu_worker *fake_worker_of(struct fake_worker *w)
{
	return (struct gpu_worker *)(void *)w;
}

struct fake_process *fake_process(struct fake_worker *w)
{
	struct fake_process *p = &w->procs[w->n];

	assert_true(w->n < FAKE_MAX);
	*p = (struct fake_process){ .pid = FAKE_PID + (pid_t)w->n, .start_time = 7 + w->n,
				    .cuda = true, .listed = true };
	w->n++;
	return p;
}

ssize_t fake_list(void *data, pid_t *pids, size_t max)
{
	struct fake_worker *w = data;
	size_t n = 0;

	w->listed++;
	if (w->list_error)
		return w->list_error;
	for (size_t i = 0; i < w->n; i++) {
		if (!w->procs[i].listed)
			continue;
		assert_true(n < max);
		pids[n++] = w->procs[i].pid;
	}
	return (ssize_t)n;
}

unsigned int fake_count(const struct fake_worker *w, unsigned int state)
{
	unsigned int n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += w->procs[i].cuda && !w->procs[i].gone && w->procs[i].state == state;
	return n;
}

void fake_round(struct fake_worker *w)
{
	assert_int_equal(loop_round(w->loop, 0), 0);
	clock_advance(CALL_TAKES);
}
