/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suspend: a container's GPU memory goes to host memory and its GPU is free, then it stands still.
 * Resume is the way back. A container that cannot be suspended runs on; one that cannot be resumed
 * stays suspended, with its memory safe, and can be resumed later.
 *
 * What the container holds is handed to the shim (struct gpu_held, by way of operation_host.order)
 * which lives as long as the container does, and comes back with the resume: an agent that is
 * restarted meanwhile loses nothing.
 */
#include "checkpoint/operation.h"

#include <errno.h>

#include "base/log.h"
#include "checkpoint/fit.h"
#include "checkpoint/gpu_steps.h"
#include "checkpoint/survey.h"

/* --- is it as it is said to be? ------------------------------------------------------------- */

static void held_looked(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct error mine = *err;

	for (size_t i = 0; r == 0 && i < gpu_group_size(op->group); i++) {
		const struct gpu_member *m = gpu_group_member(op->group, i);

		if (!m->gone && m->state != CUDA_STATE_CHECKPOINTED)
			r = error_reason(&mine, REASON_CUDA_STATE_WRONG, -EPROTO,
					 "process %d (%s) of a suspended container is %s: has another "
					 "tool resumed it?",
					 m->pid, m->name, gpu_state_name(m->state));
	}
	op->cuda_done = r == 0;
	flow_resume(&op->flow, r, &mine);
}

static void held_confirmed(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct freezer_state state;
	struct error mine = ERROR_NULL;

	if (r == 0)
		r = freezer_state(&op->cgroup, &state, &mine);
	if (r < 0) {
		flow_resume(&op->flow, r, mine.code ? &mine : err);
		return;
	}
	if (state.frozen) {
		op->cuda_done = true;
		flow_resume(&op->flow, 0, NULL);
		return;
	}
	gpu_group_look(op->group, operation_step_deadline(op), held_looked, op);
}

int operation_confirm_held(struct operation *op, struct error *err)
{
	int r = op->group ? gpu_group_adopt(op->group, op->req.held) : -ENXIO;

	if (r < 0)
		return error_sys(err, r, "take over what the container holds");
	gpu_group_confirm(op->group, operation_step_deadline(op), held_confirmed, op);
	return FLOW_WAIT;
}

/* --- both ----------------------------------------------------------------------------------- */

/* At the seat, and when there is a driver, go_on(). */
static int check(struct operation *op, int (*go_on)(struct operation *op, struct error *err),
		 struct error *err)
{
	int r = preflight_seat(op->node, &op->req, err);

	return r < 0 ? r : preflight_driver(op, go_on, err);
}

static int find_container(struct operation *op, struct error *err)
{
	int r = operation_find_processes(op, op->req.task_pid, err);

	if (r == 0)
		r = preflight_pod(&op->req, &op->cgroup, err);
	if (r == 0 && !op->group)
		r = error_reason(err, REASON_NOT_GPU, -ENXIO, "container %s has no GPU",
				 op->req.container_id);
	return r;
}

static void finish(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	operation_finish(op,
			 op->status == OPERATION_DEGRADED ? OPERATION_DEGRADED
			 : r < 0			  ? OPERATION_FAILED
							  : OPERATION_OK,
			 r < 0 ? err : NULL);
}

/* --- suspend -------------------------------------------------------------------------------- */

static int find_and_survey(struct operation *op, struct error *err)
{
	int r = find_container(op, err);

	return r < 0 ? r : survey_operation(op, err);
}

static int step_check(struct flow *f, struct error *err)
{
	return check(operation_of_flow(f), find_and_survey, err);
}

static int step_quiesce(struct flow *f, struct error *err)
{
	return operation_order(operation_of_flow(f), ORDER_QUIESCE, err);
}

static int step_freeze(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	op->dumping = true;
	return operation_order(op, ORDER_FREEZE, err);
}

static void thawed(struct operation *op, int r, const struct error *err)
{
	flow_resume(&op->flow, r, err);
}

/* The driver needs the processes to run before it can bring their memory back. */
static int undo_freeze(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (!op->dumping)
		return 0;
	op->dumping = false;
	if (!op->host_lost)
		return operation_order(op, ORDER_THAW, err);
	operation_thaw(op, thawed);
	return FLOW_WAIT;
}

/* Between the save and the freeze a process may have become a CUDA process. */
static int step_confirm(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	gpu_group_confirm(op->group, operation_step_deadline(op), operation_group_done, op);
	return FLOW_WAIT;
}

static const struct flow_step suspend_steps[] = {
	{ "preflight", step_check, NULL, gpu_step_cancel },
	{ "quiesce", step_quiesce, NULL, NULL },
	{ "lock", gpu_step_lock, gpu_undo, gpu_step_cancel },
	{ "vram_save", gpu_step_save, NULL, gpu_step_cancel },
	{ "freeze", step_freeze, undo_freeze, NULL },
	{ "freeze", step_confirm, NULL, gpu_step_cancel },
};

const struct flow_ops suspend_flow = { .steps = suspend_steps,
				       .n_steps = ARRAY_SIZE(suspend_steps),
				       .timeout = operation_timeout,
				       .observe = operation_observe,
				       .done = finish };

/* --- resume --------------------------------------------------------------------------------- */

static void memory_known(struct gpu_call *call)
{
	struct operation *op = container_of(call, struct operation, memory_call);
	struct error err = call->err;
	int r = call->result;

	if (r == 0)
		r = fit_held(op, &err);
	flow_resume(&op->flow, r, &err);
}

/* The driver's first out-of-memory at a restore is final for the process: look before. */
static int find_and_fit(struct operation *op, struct error *err)
{
	int r = find_container(op, err);

	if (r == 0 && op->req.held)
		r = gpu_group_adopt(op->group, op->req.held);
	if (r < 0)
		return err->code ? r : error_sys(err, r, "take over what the container holds");
	gpu_worker_memory(op->node->worker, &op->memory_call, &op->memory,
			  operation_step_deadline(op), memory_known);
	return FLOW_WAIT;
}

static int step_fit(struct flow *f, struct error *err)
{
	return check(operation_of_flow(f), find_and_fit, err);
}

static void cancel_fit(struct flow *f)
{
	gpu_call_cancel(&operation_of_flow(f)->memory_call);
}

static int step_thaw(struct flow *f, struct error *err)
{
	return operation_order(operation_of_flow(f), ORDER_THAW, err);
}

static int undo_thaw(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	return op->host_lost ? 0 : operation_order(op, ORDER_FREEZE, err);
}

static bool all_in(const struct operation *op, unsigned int state)
{
	for (size_t i = 0; i < gpu_group_size(op->group); i++) {
		const struct gpu_member *m = gpu_group_member(op->group, i);

		if (!m->gone && m->state != state)
			return false;
	}
	return true;
}

/* Usually all are CHECKPOINTED. An earlier way back that failed may have left them otherwise. */
static void back_looked(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0)
		flow_resume(&op->flow, r, err);
	else if (all_in(op, CUDA_STATE_CHECKPOINTED))
		gpu_group_restore(op->group, NULL, 0, operation_step_deadline(op),
				  gpu_step_restored, op);
	else
		gpu_group_recover(op->group, operation_step_deadline(op), operation_group_done, op);
}

static void back_discovered(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0)
		flow_resume(&op->flow, r, err);
	else
		gpu_group_look(op->group, operation_step_deadline(op), back_looked, op);
}

static int step_back(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	op->bytes_total = gpu_group_vram_bytes(op->group);
	gpu_group_discover(op->group, operation_step_deadline(op), back_discovered, op);
	return FLOW_WAIT;
}

/* As it was: held, or, where nobody is left to freeze it again, running. */
static int undo_back(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (op->host_lost)
		return gpu_undo(f, err);
	gpu_group_hold(op->group, operation_step_deadline(op), operation_group_done, op);
	return FLOW_WAIT;
}

static void unlocked(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct error late = ERROR_NULL;

	if (r == 0) {
		r = operation_order(op, ORDER_RELEASE, &late);
		err = &late;
	}
	if (r != FLOW_WAIT)
		flow_resume(&op->flow, r, err);
}

static int step_unlock(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	op->bytes_done = gpu_group_vram_bytes(op->group);
	if (all_in(op, CUDA_STATE_RUNNING))
		return operation_order(op, ORDER_RELEASE, err);
	gpu_group_unlock(op->group, operation_step_deadline(op), unlocked, op);
	return FLOW_WAIT;
}

static const struct flow_step resume_steps[] = {
	{ "preflight", step_fit, NULL, cancel_fit },
	{ "quiesce", step_thaw, undo_thaw, NULL },
	{ "vram_restore", step_back, undo_back, gpu_step_cancel },
	{ "unlock", step_unlock, NULL, gpu_step_cancel },
};

const struct flow_ops resume_flow = { .steps = resume_steps,
				      .n_steps = ARRAY_SIZE(resume_steps),
				      .timeout = operation_timeout,
				      .observe = operation_observe,
				      .done = finish };
