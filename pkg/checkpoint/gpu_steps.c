/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/gpu_steps.h"

#include <errno.h>

#include "base/log.h"
#include "checkpoint/degraded.h"
#include "checkpoint/fit.h"
#include "checkpoint/survey.h"

#define LOCK_PAUSE_FIRST (20 * NSEC_PER_MSEC)
#define LOCK_PAUSE_MAX   (2 * NSEC_PER_SEC)
#define LOCK_ATTEMPTS    8
#define NVML_LAG         (1 * NSEC_PER_SEC)

bool gpu_steps_needed(const struct operation *op)
{
	return op->group && gpu_group_size(op->group) > 0;
}

static void lock_attempt(struct operation *op);

static void lock_again(struct timer *t)
{
	lock_attempt(container_of(t, struct operation, timer));
}

/* All have been brought back to RUNNING; if not, or if nobody wants it any more, that is all. */
static void unlocked(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	(void)err;
	if (r < 0 || op->flow.canceled) {
		flow_resume(&op->flow, op->outcome.code, &op->outcome);
		return;
	}
	timer_set(op->node->loop, &op->timer, time_now() + backoff_next(&op->backoff), lock_again);
}

/*
 * A process that just became a CUDA process, or the driver being busy with it, passes. A kernel
 * that outran the whole time-out does not, nor does what the driver cannot do at all; and each
 * attempt stops the workload for a moment, so there are not many.
 */
static bool lock_may_help(const struct operation *op, int r, const struct error *err)
{
	return reason_is_transient(err->reason) && err->reason != REASON_LOCK_TIMEOUT &&
	       err->reason != REASON_TIMEOUT && r != -EOPNOTSUPP && !op->flow.canceled &&
	       op->attempts < LOCK_ATTEMPTS && operation_step_left(op) > 4 * op->backoff.pause;
}

static void locked(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	nsec_t now = time_now();

	if (r < 0 && lock_may_help(op, r, err)) {
		op->outcome = *err;
		op->attempts++;
		log_info("lock is tried again", F_STR("id", op->req.container_id),
			 F_INT("attempt", op->attempts), F_ERR(err));
		gpu_group_recover(op->group, time_add(now, operation_step_left(op) / 2), unlocked,
				  op);
		return;
	}
	flow_resume(&op->flow, r, err);
}

static void lock_attempt(struct operation *op)
{
	gpu_group_lock(op->group, operation_step_deadline(op), locked, op);
}

int gpu_step_lock(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	if (!op->group)
		return 0;
	op->backoff = BACKOFF(LOCK_PAUSE_FIRST, LOCK_PAUSE_MAX);
	op->attempts = 0;
	lock_attempt(op);
	return FLOW_WAIT;
}

void gpu_step_cancel(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	if (op->timer.loop) { /* between two attempts to lock */
		timer_cancel(&op->timer);
		flow_resume(f, -ECANCELED, NULL);
		return;
	}
	gpu_call_cancel(&op->memory_call);
	if (op->group)
		gpu_group_cancel(op->group);
}

static void brought_back(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0 && degraded_add(op, err) == 0)
		op->status = OPERATION_DEGRADED;
	flow_resume(&op->flow, r, err);
}

static void thawed_then_back(struct operation *op, int r, const struct error *err)
{
	if (r < 0)
		log_warning("the container cannot be thawed", F_STR("id", op->req.container_id),
			    F_ERR(err));
	op->dumping = false;
	gpu_group_recover(op->group, operation_step_deadline(op), brought_back, op);
}

int gpu_undo(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	if (!gpu_steps_needed(op))
		return 0;
	/* A shim that has given up may have paused it again: the driver cannot reach it so. */
	if (op->host_lost)
		operation_thaw(op, thawed_then_back);
	else
		gpu_group_recover(op->group, operation_step_deadline(op), brought_back, op);
	return FLOW_WAIT;
}

int gpu_undo_frozen(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (!op->dumping || !gpu_steps_needed(op))
		return gpu_undo(f, err);
	operation_thaw(op, thawed_then_back);
	return FLOW_WAIT;
}

static void freed_known(struct gpu_call *call)
{
	struct operation *op = container_of(call, struct operation, memory_call);
	struct error err = ERROR_NULL;
	int r = call->result < 0 ? 0 : fit_freed(op, &err);

	/* The driver may be a moment ahead of NVML. */
	if (r < 0 && time_now() < op->look_until && !op->flow.canceled) {
		gpu_worker_memory(op->node->worker, &op->memory_call, &op->memory,
				  operation_step_deadline(op), freed_known);
		return;
	}
	/* CRIU would fail on what the driver has not let go of, after minutes perhaps. */
	if (r == 0)
		r = survey_released(op->group, &err);
	if (r == 0) {
		op->cuda_done = true;
		op->bytes_done = op->bytes_total = gpu_group_vram_bytes(op->group);
	}
	flow_resume(&op->flow, r, &err);
}

static void saved(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0) {
		flow_resume(&op->flow, r, err);
		return;
	}
	op->look_until = time_now() + NVML_LAG;
	gpu_worker_memory(op->node->worker, &op->memory_call, &op->memory,
			  operation_step_deadline(op), freed_known);
}

int gpu_step_save(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	if (!gpu_steps_needed(op)) {
		op->cuda_done = true; /* there is nothing of CUDA in it */
		return 0;
	}
	op->bytes_total = gpu_group_vram_bytes(op->group);
	gpu_group_save(op->group, operation_step_deadline(op), saved, op);
	return FLOW_WAIT;
}

static void placed_known(struct gpu_call *call)
{
	struct operation *op = container_of(call, struct operation, memory_call);
	struct error err = ERROR_NULL;
	int r = call->result < 0 ? 0 : fit_placed(op, &err);

	op->misplaced = r < 0;
	flow_resume(&op->flow, r, &err);
}

void gpu_step_restored(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0) {
		flow_resume(&op->flow, r, err);
		return;
	}
	gpu_worker_memory(op->node->worker, &op->memory_call, &op->memory,
			  operation_step_deadline(op), placed_known);
}
