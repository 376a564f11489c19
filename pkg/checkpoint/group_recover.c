/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to a group from wherever its members are: bring back, hold, confirm. */
#include "checkpoint/group-private.h"

#include <errno.h>
#include <inttypes.h>

#include "proc/procfs.h"

/* --- recover -------------------------------------------------------------------------------- */

static void recover_look(struct gpu_group *g);

static bool any(const struct gpu_group *g, group_wants which)
{
	const struct member *m;

	list_for_each(m, &g->members, node)
		if (which(&m->pub))
			return true;
	return false;
}

/* On the way from one state to another, or in one that we do not know. */
static bool in_between(const struct gpu_member *m)
{
	return !m->gone && m->state != CUDA_STATE_RUNNING && m->state != CUDA_STATE_FAILED;
}

static void try_again(struct timer *t)
{
	struct gpu_group *g = container_of(t, struct gpu_group, timer);

	g->pausing = false;
	g->err = ERROR_NULL;
	g->last_op = 0;
	recover_look(g);
}

/* A step went wrong: once more after a pause, while there is time. */
static void recover_later(struct gpu_group *g)
{
	nsec_t at = time_add(time_now(), backoff_next(&g->backoff));

	if (g->canceled || at >= g->deadline) {
		group_finish(g);
		return;
	}
	g->pausing = true;
	timer_set(g->loop, &g->timer, at, try_again);
}

static void recover_pass(struct gpu_group *g, enum gpu_op op, group_wants which)
{
	struct error err = ERROR_NULL;

	/* It was done, the driver said so, and nothing has changed: do not do it for ever. */
	if (g->last_op == op) {
		g->last_op = 0;
		(void)error_reason(&err, REASON_CUDA_STATE_WRONG, -EPROTO,
				   "the driver reports that %s succeeded, but the state is as before",
				   gpu_op_name(op));
		group_note(g, &err);
		recover_later(g);
		return;
	}
	g->last_op = op;
	group_pass(g, op, which, recover_look);
}

static void recover_saved(struct gpu_group *g)
{
	if (group_failed(g))
		recover_later(g);
	else
		recover_pass(g, GPU_OP_RESTORE, group_checkpointed);
}

static void recover_looked(struct gpu_group *g)
{
	list_remove(&g->returning_node); /* what is back is NVML's to count */
	if (group_failed(g)) {
		recover_later(g);
		return;
	}
	/* All have their memory back before any goes on: they may be waiting for each other. */
	if (any(g, group_checkpointed))
		group_room(g, recover_saved);
	else if (any(g, group_locked))
		recover_pass(g, GPU_OP_UNLOCK, group_locked);
	else if (group_all_in(g, CUDA_STATE_RUNNING) || !any(g, in_between))
		group_finish(g); /* all that can be helped have been */
	else
		recover_later(g); /* a state that passes, or one from the future */
}

static void recover_look(struct gpu_group *g)
{
	if (group_failed(g))
		recover_later(g);
	else
		group_pass(g, GPU_OP_STATE, group_living, recover_looked);
}

void gpu_group_recover(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, recover_look);
	g->recovering = true;
	g->last_op = 0;
}

/* --- hold ----------------------------------------------------------------------------------- */

static void hold_look(struct gpu_group *g);

static void hold_pass(struct gpu_group *g, enum gpu_op op, group_wants which)
{
	struct error err = ERROR_NULL;

	if (g->last_op == op) {
		(void)error_reason(&err, REASON_CUDA_STATE_WRONG, -EPROTO,
				   "the driver reports that %s succeeded, but the state is as before",
				   gpu_op_name(op));
		group_note(g, &err);
		group_finish(g);
		return;
	}
	g->last_op = op;
	group_pass(g, op, which, hold_look);
}

static void hold_looked(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else if (any(g, group_running))
		hold_pass(g, GPU_OP_LOCK, group_running);
	else if (any(g, group_locked))
		hold_pass(g, GPU_OP_CHECKPOINT, group_locked);
	else {
		(void)group_all_in(g, CUDA_STATE_CHECKPOINTED);
		group_finish(g);
	}
}

static void hold_look(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_STATE, group_living, hold_looked);
}

void gpu_group_hold(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	g->last_op = 0;
	group_begin(g, deadline, done, data, hold_look);
}

/* --- confirm -------------------------------------------------------------------------------- */

static void confirmed(struct gpu_group *g)
{
	struct error err = ERROR_NULL;

	if (!group_failed(g) && g->n != g->n_before) {
		(void)error_reason(&err, REASON_CUDA_LOCK_FAILED, -EAGAIN,
				   "a process became a CUDA process after the others were saved");
		group_note(g, &err);
	}
	group_finish(g);
}

static void confirm_begin(struct gpu_group *g)
{
	struct member *m;
	uint64_t start;

	list_for_each(m, &g->members, node)
		if (procfs_start_time(m->pub.pid, &start) < 0 || start != m->pub.start_time)
			m->pub.gone = true;
	group_discover(g, confirmed);
}

void gpu_group_confirm(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, confirm_begin);
}
