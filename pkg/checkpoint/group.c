/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/group-private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Two looks at the process list must agree; a container that forks CUDA processes faster than we
 * can lock them has no moment to checkpoint. */
#define DISCOVERIES_MAX 8
/* How long after the driver's own lock time-out its answer may take. */
#define LOCK_SLACK  (2 * NSEC_PER_SEC)

/* --- the skeleton: passes over all members -------------------------------------------------- */

void group_finish(struct gpu_group *g)
{
	gpu_group_done done = g->done;

	g->done = NULL;
	list_remove(&g->returning_node);
	done(g->data, g->err.code, &g->err);
}

static void run_next(struct timer *t)
{
	struct gpu_group *g = container_of(t, struct gpu_group, timer);
	struct error err = ERROR_NULL;

	/* Nothing more is begun. (A recovery is what follows a cancel: it ends its pauses only.) */
	if (g->canceled && !g->recovering) {
		(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "canceled");
		group_note(g, &err);
		group_finish(g);
		return;
	}
	g->next(g);
}

void group_then(struct gpu_group *g, void (*next)(struct gpu_group *g))
{
	g->next = next;
	if (!g->pending)
		timer_set(g->loop, &g->timer, time_now(), run_next);
}

void group_one_less(struct gpu_group *g)
{
	g->pending--;
	if (!g->pending && g->next)
		timer_set(g->loop, &g->timer, time_now(), run_next);
}

void group_note(struct gpu_group *g, const struct error *err)
{
	if (g->err.code == 0)
		g->err = *err;
}

void group_begin(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data,
		  void (*first)(struct gpu_group *g))
{
	assert(!g->done && !g->pending);
	g->deadline = deadline;
	g->done = done;
	g->data = data;
	g->recovering = g->pausing = g->canceled = false;
	g->err = ERROR_NULL;
	g->discoveries = 0;
	g->backoff = BACKOFF(GROUP_PAUSE_FIRST, GROUP_PAUSE_MAX);
	group_then(g, first);
}

bool group_failed(const struct gpu_group *g)
{
	return g->err.code != 0;
}

static void call_done(struct gpu_call *call)
{
	struct member *m = container_of(call, struct member, call);
	struct gpu_group *g = m->g;

	if (call->gone || call->result == -ESRCH)
		m->pub.gone = true;
	else if (call->result < 0 && !(g->recovering && call->result == -ENOTRECOVERABLE))
		group_note(g, &call->err); /* one that is lost does not stop the others' recovery */
	if (m->op == GPU_OP_STATE && (call->result == 0 || call->result == -ENOTRECOVERABLE))
		m->pub.state = call->state;
	group_one_less(g);
}

bool group_living(const struct gpu_member *m)
{
	return !m->gone;
}

bool group_running(const struct gpu_member *m)
{
	return !m->gone && m->state == CUDA_STATE_RUNNING;
}

bool group_locked(const struct gpu_member *m)
{
	return !m->gone && m->state == CUDA_STATE_LOCKED;
}

bool group_checkpointed(const struct gpu_member *m)
{
	return !m->gone && m->state == CUDA_STATE_CHECKPOINTED;
}

static void issue(struct gpu_group *g, struct member *m, enum gpu_op op)
{
	struct gpu_worker *w = g->worker;
	nsec_t now = time_now(), left = g->deadline > now ? g->deadline - now : NSEC_PER_MSEC;

	m->op = op;
	m->call.start_time = m->pub.start_time;
	switch (op) {
	case GPU_OP_STATE:
		gpu_worker_state_of(w, &m->call, m->pub.pid, g->deadline, call_done);
		break;
	case GPU_OP_LOCK:
		gpu_worker_lock(w, &m->call, m->pub.pid, left, time_add(g->deadline, LOCK_SLACK),
				call_done);
		break;
	case GPU_OP_CHECKPOINT:
		gpu_worker_checkpoint(w, &m->call, m->pub.pid, g->deadline, call_done);
		break;
	case GPU_OP_RESTORE:
		gpu_worker_restore(w, &m->call, m->pub.pid, g->n_pairs ? g->pairs : NULL,
				   g->n_pairs, g->deadline, call_done);
		break;
	case GPU_OP_UNLOCK:
		gpu_worker_unlock(w, &m->call, m->pub.pid, g->deadline, call_done);
		break;
	default:
		assert(!"an operation of a group");
	}
	g->pending++;
}

static bool in_job(const struct gpu_group *g)
{
	const struct member *m;

	list_for_each(m, &g->members, node)
		if (!m->pub.gone && m->pub.job)
			return true;
	return false;
}

/* The next one's turn; a recovery goes on where one fails, for the others' sake. */
static void take_turns(struct gpu_group *g)
{
	struct member *m, *at = g->turn;

	if (group_failed(g) && !g->recovering) {
		g->turn_next(g);
		return;
	}
	list_for_each(m, &g->members, node) {
		if (at) { /* until behind the last one */
			at = m == at ? NULL : at;
			continue;
		}
		if (!g->turn_wants(&m->pub))
			continue;
		g->turn = m;
		g->next = NULL;
		issue(g, m, g->turn_op);
		group_then(g, take_turns);
		return;
	}
	g->turn_next(g);
}

void group_pass(struct gpu_group *g, enum gpu_op op, group_wants which,
		 void (*next)(struct gpu_group *g))
{
	struct member *m;

	if (in_job(g)) {
		g->turn_op = op;
		g->turn_wants = which;
		g->turn_next = next;
		g->turn = NULL;
		group_then(g, take_turns);
		return;
	}
	g->next = NULL; /* not before all have been issued */
	list_for_each(m, &g->members, node)
		if (which(&m->pub))
			issue(g, m, op);
	group_then(g, next);
}

bool group_all_in(struct gpu_group *g, unsigned int state)
{
	const struct member *m;
	struct error err = ERROR_NULL;

	list_for_each(m, &g->members, node) {
		if (m->pub.gone || m->pub.state == state)
			continue;
		(void)error_reason(&err,
				   m->pub.state == CUDA_STATE_FAILED ? REASON_CUDA_STATE_LOST
								     : REASON_CUDA_STATE_WRONG,
				   -EPROTO, "process %d (%s) is %s, it should be %s", m->pub.pid,
				   m->pub.name, gpu_state_name(m->pub.state),
				   gpu_state_name(state));
		group_note(g, &err);
		return false;
	}
	return true;
}

/* --- looks ---------------------------------------------------------------------------------- */

static void discover_only(struct gpu_group *g)
{
	group_discover(g, group_finish);
}

void gpu_group_discover(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, discover_only);
}

static void look_only(struct gpu_group *g)
{
	group_pass(g, GPU_OP_STATE, group_living, group_finish);
}

void gpu_group_look(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, look_only);
}

/* --- lock ----------------------------------------------------------------------------------- */

/* While all are locked nobody allocates, so this is what will be saved. */
static void measure_locked(struct gpu_group *g)
{
	if (group_failed(g) || !group_all_in(g, CUDA_STATE_LOCKED))
		group_finish(g);
	else
		group_measure(g, group_finish);
}

static void measure_found(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_measure(g, group_finish);
}

static void survey_begin(struct gpu_group *g)
{
	group_discover(g, measure_found);
}

void gpu_group_survey(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, survey_begin);
}

static void lock_found(struct gpu_group *g);

static void lock_again(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_discover(g, lock_found);
}

static void lock_new(struct gpu_group *g)
{
	const struct member *m;
	struct error err = ERROR_NULL;

	list_for_each(m, &g->members, node) {
		/* Ours are LOCKED by now, new ones must be RUNNING: else somebody else is at it. */
		if (m->pub.gone || m->pub.state == CUDA_STATE_RUNNING ||
		    (g->discoveries > 1 && m->pub.state == CUDA_STATE_LOCKED))
			continue;
		(void)error_reason(&err,
				   m->pub.state == CUDA_STATE_FAILED ? REASON_CUDA_STATE_LOST
								     : REASON_CUDA_STATE_WRONG,
				   -EBUSY,
				   "process %d (%s) is %s before the lock: is another tool at work "
				   "on it?",
				   m->pub.pid, m->pub.name, gpu_state_name(m->pub.state));
		group_note(g, &err);
	}
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_LOCK, group_running, lock_again);
}

static void lock_found(struct gpu_group *g)
{
	struct error err = ERROR_NULL;

	if (group_failed(g)) {
		group_finish(g);
		return;
	}
	/* Nobody new: all have been locked. Look, do not believe. */
	if (g->discoveries > 1 && g->n == g->n_before) {
		group_pass(g, GPU_OP_STATE, group_living, measure_locked);
		return;
	}
	if (g->discoveries > DISCOVERIES_MAX) {
		(void)error_reason(&err, REASON_CUDA_LOCK_FAILED, -EAGAIN,
				   "new CUDA processes appear faster than they can be locked");
		group_note(g, &err);
		group_finish(g);
		return;
	}
	group_pass(g, GPU_OP_STATE, group_living, lock_new);
}

static void lock_begin(struct gpu_group *g)
{
	group_discover(g, lock_found);
}

void gpu_group_lock(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, lock_begin);
}

/* --- save ----------------------------------------------------------------------------------- */

static void save_alone(struct gpu_group *g)
{
	struct error err = ERROR_NULL;

	if (!group_failed(g) && g->n != g->n_before) {
		(void)error_reason(&err, REASON_CUDA_LOCK_FAILED, -EAGAIN,
				   "a process became a CUDA process while the others were saved");
		group_note(g, &err);
	}
	group_finish(g);
}

static void save_verify(struct gpu_group *g)
{
	if (group_failed(g) || !group_all_in(g, CUDA_STATE_CHECKPOINTED))
		group_finish(g);
	else
		group_discover(g, save_alone);
}

static void save_look(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_STATE, group_living, save_verify);
}

static void save_begin(struct gpu_group *g)
{
	group_pass(g, GPU_OP_CHECKPOINT, group_living, save_look);
}

void gpu_group_save(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, save_begin);
}

/* --- restore, unlock ------------------------------------------------------------------------ */

static void restore_verify(struct gpu_group *g)
{
	if (!group_failed(g))
		(void)group_all_in(g, CUDA_STATE_LOCKED);
	group_finish(g);
}

static void restore_look(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_STATE, group_living, restore_verify);
}

static void restore_all(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_RESTORE, group_living, restore_look);
}

static void restore_begin(struct gpu_group *g)
{
	group_room(g, restore_all);
}

void gpu_group_restore(struct gpu_group *g, const struct cuda_gpu_pair *pairs, uint32_t n_pairs,
		       nsec_t deadline, gpu_group_done done, void *data)
{
	assert(n_pairs <= GPU_DEVICES_MAX);
	if (n_pairs)
		memcpy(g->pairs, pairs, n_pairs * sizeof(*pairs));
	g->n_pairs = n_pairs;
	group_begin(g, deadline, done, data, restore_begin);
}

static void unlock_verify(struct gpu_group *g)
{
	if (!group_failed(g))
		(void)group_all_in(g, CUDA_STATE_RUNNING);
	group_finish(g);
}

static void unlock_look(struct gpu_group *g)
{
	if (group_failed(g))
		group_finish(g);
	else
		group_pass(g, GPU_OP_STATE, group_living, unlock_verify);
}

static void unlock_begin(struct gpu_group *g)
{
	group_pass(g, GPU_OP_UNLOCK, group_living, unlock_look);
}

void gpu_group_unlock(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data)
{
	group_begin(g, deadline, done, data, unlock_begin);
}

/* --- the rest ------------------------------------------------------------------------------- */

static void paused_enough(struct timer *t)
{
	group_finish(container_of(t, struct gpu_group, timer));
}

void gpu_group_cancel(struct gpu_group *g)
{
	struct candidate *c;
	struct member *m;

	if (!g->done)
		return;
	g->canceled = true;
	if (g->pausing)
		timer_set(g->loop, &g->timer, time_now(), paused_enough);
	list_for_each(c, &g->candidates, node)
		gpu_call_cancel(&c->call);
	list_for_each(m, &g->members, node)
		gpu_call_cancel(&m->call);
	gpu_call_cancel(&g->memory_call);
}

int gpu_group_new(struct gpu_group **ret, struct loop *loop, struct gpu_worker *worker,
		  gpu_group_lister list, void *data)
{
	struct gpu_group *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	g->loop = loop;
	g->worker = worker;
	g->list = list;
	g->list_data = data;
	list_init(&g->members);
	list_init(&g->candidates);
	list_init(&g->returning_node);
	*ret = g;
	return 0;
}

void gpu_group_set_lister(struct gpu_group *g, gpu_group_lister list, void *data)
{
	assert(!g->done);
	g->list = list;
	g->list_data = data;
}

void gpu_group_share(struct gpu_group *g, struct list *returning)
{
	g->returning = returning;
}

void gpu_group_free(struct gpu_group *g)
{
	struct member *m;

	if (!g)
		return;
	timer_cancel(&g->timer);
	list_remove(&g->returning_node);
	group_forget_candidates(g);
	gpu_call_forget(&g->memory_call);
	while ((m = list_first(&g->members, struct member, node))) {
		gpu_call_forget(&m->call);
		list_remove(&m->node);
		free(m);
	}
	free(g);
}
