/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/call.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/session.h"

/* With settings.lock_expires, a Lock that its restore thread did not answer in its time gets this
 * much more: the thread itself is to give up first if it can. */
#define LOCK_GRACE (100 * NSEC_PER_MSEC)

void call_init(struct call *c)
{
	list_init(&c->node);
}

static struct session *session_of(struct call *c)
{
	return container_of(c, struct session, call);
}

static struct calllog_entry *entry_of(struct call *c)
{
	return calllog_get(&session_of(c)->srv->log, c->entry);
}

/* Is it executed by the target's restore thread? (GetRestoreThreadId needs only /proc.) */
static bool is_remote(enum fg_call id)
{
	return id >= FG_CALL_STATE && id <= FG_CALL_UNLOCK;
}

/* No restore thread works on it any more; one that does will find that it was revoked. */
static void detach(struct call *c)
{
	list_remove(&c->node);
	if (c->helper)
		c->helper->serving = NULL;
	c->helper = NULL;
}

static void over(struct call *c, int code)
{
	struct calllog_entry *e = entry_of(c);

	if (e) {
		e->code = code;
		e->value = c->value;
		e->end = calllog_now(&session_of(c)->srv->log);
	}
	timer_cancel(&c->timer);
	detach(c);
	c->target = NULL;
	c->stage = CALL_IDLE;
}

static void answer(struct call *c)
{
	if (c->plan.has_value && c->code == FG_SUCCESS)
		c->value = c->plan.value;
	session_result(session_of(c), c->seq, c->code, c->value);
	over(c, (int)c->code);
}

static void expired(struct timer *t);

static void proceed(struct call *c)
{
	struct session *s = session_of(c);
	struct fg_msg m = {
		.type = FG_PROCEED, .n = 1, .seq = c->seq, .arg = { c->entry }, .fd = -1
	};

	c->stage = CALL_OUT;
	/* In the queue first: the restore thread may be here before the caller knows. */
	if (c->target && is_remote(c->id))
		list_append(&c->target->calls, &c->node);
	if (c->id == FG_CALL_LOCK && c->timeout_ms && s->srv->settings.lock_expires)
		timer_set(s->srv->loop, &c->timer,
			  time_add(time_now(), c->timeout_ms * NSEC_PER_MSEC + LOCK_GRACE),
			  expired);
	session_send(s, &m);
}

/* The plan's delay and hang are over: the rest of it. */
static void act(struct call *c)
{
	struct session *s = session_of(c);

	if (c->plan.target_signal && c->target)
		(void)syscall(SYS_pidfd_send_signal, c->target->pidfd, c->plan.target_signal, NULL,
			      0);
	if (c->plan.crash) {
		session_send(s, &(struct fg_msg){ .type = FG_CRASH, .seq = c->seq, .fd = -1 });
		over(c, CALLLOG_CRASHED);
		return;
	}
	if (c->plan.has_code) {
		c->code = (uint64_t)c->plan.code;
		answer(c);
	} else if (c->answering || c->plan.noop) {
		answer(c);
	} else {
		proceed(c);
	}
}

static void delayed(struct timer *t)
{
	struct call *c = container_of(t, struct call, timer);

	if (c->plan.hang)
		c->stage = CALL_HELD;
	else
		act(c);
}

static void carry_out(struct call *c, bool answering)
{
	struct server *srv = session_of(c)->srv;
	struct calllog_entry *e = entry_of(c);
	nsec_t wait = c->plan.delay_ms * NSEC_PER_MSEC;

	c->answering = answering;
	if (e && c->plan.rule)
		e->rule = c->plan.rule;
	if (c->id == FG_CALL_INIT && !answering)
		wait = time_add(wait, srv->settings.cuinit_ms * NSEC_PER_MSEC);
	c->stage = CALL_DELAYED;
	if (wait)
		timer_set(srv->loop, &c->timer, time_add(time_now(), wait), delayed);
	else
		delayed(&c->timer);
}

/* The call was done, with that result. */
static void done(struct call *c, uint64_t code, uint64_t value)
{
	struct server *srv = session_of(c)->srv;
	struct calllog_entry *e = entry_of(c);
	struct plan before = c->plan;
	pid_t pid = e && e->pid ? e->pid : session_of(c)->pid;

	timer_cancel(&c->timer);
	detach(c);
	c->code = code;
	c->value = value;
	if (!fault_match(&srv->rules, c->id, pid, true, &c->plan)) {
		c->plan.has_value = before.has_value;
		c->plan.value = before.value;
	}
	carry_out(c, true);
}

static void expired(struct timer *t)
{
	struct call *c = container_of(t, struct call, timer);

	done(c, FG_NOT_READY, 0);
}

int call_begin(struct session *s, const struct fg_msg *m, int fd)
{
	struct call *c = &s->call;
	struct calllog_entry *e;

	if (c->stage != CALL_IDLE || m->arg[0] >= FG_CALLS || m->arg[3] > UINT32_MAX ||
	    m->len > sizeof(c->pairs) || m->len % 32)
		return -EBADMSG;
	e = calllog_add(&s->srv->log);
	c->id = (enum fg_call)m->arg[0];
	c->seq = m->seq;
	c->entry = e->id;
	c->target = fd >= 0 ? process_of_pidfd(s->srv, fd) : NULL;
	c->timeout_ms = m->arg[3];
	c->code = c->value = 0;
	c->pairs_len = m->len;
	if (m->len)
		memcpy(c->pairs, m->data, m->len);
	e->call = c->id;
	e->pid = c->target ? c->target->pid : 0;
	e->caller = s->pid;
	e->tid = s->tid;
	e->timeout_ms = c->timeout_ms;
	(void)fault_match(&s->srv->rules, c->id, e->pid ? e->pid : s->pid, false, &c->plan);
	carry_out(c, false);
	return 0;
}

int call_end(struct session *s, const struct fg_msg *m)
{
	struct call *c = &s->call;

	if (m->seq != c->seq)
		return -EBADMSG;
	/* A remote call may have been answered in the meantime: its target died, say. */
	if (c->stage == CALL_OUT && !c->helper)
		done(c, m->arg[0], m->arg[1]);
	return 0;
}

int call_serve(struct session *helper, const struct fg_msg *m)
{
	struct fg_msg answer = { .type = FG_NONE, .seq = m->seq, .fd = -1 };
	struct process *p = helper->process;
	struct calllog_entry *e;
	struct call *c;

	if (helper->serving || helper->served || !p)
		return -EBADMSG;
	list_for_each(c, &p->calls, node) {
		if (c->entry != m->arg[0])
			continue;
		list_remove(&c->node);
		c->helper = helper;
		helper->serving = c;
		helper->serves = c->id;
		e = entry_of(c);
		if (e)
			e->execute = calllog_now(&helper->srv->log);
		answer = (struct fg_msg){
			.type = FG_REQUEST,
			.n = 3,
			.seq = m->seq,
			.arg = { c->id, c->timeout_ms, c->plan.lies },
			.data = c->pairs,
			.len = c->pairs_len,
			.fd = -1,
		};
		break;
	}
	session_send(helper, &answer);
	return 0;
}

int call_done(struct session *helper, const struct fg_msg *m)
{
	struct fg_msg answer = { .type = FG_REVOKED, .seq = m->seq, .fd = -1 };
	struct call *c = helper->serving;
	struct calllog_entry *e;

	if (helper->served || m->arg[1] > FG_FAILED)
		return -EBADMSG;
	helper->served = true;
	if (helper->process)
		helper->process->state = (int)m->arg[1];
	if (c) {
		answer.type = FG_ACK;
		c->code = m->arg[0];
		c->value = m->arg[1];
		e = entry_of(c);
		if (e) {
			e->executed = calllog_now(&helper->srv->log);
			e->real_code = (int)c->code;
		}
	} else if (helper->process && helper->serves == FG_CALL_LOCK &&
		   m->arg[0] == FG_SUCCESS) {
		/* A real driver was seen to do either with a lock that nobody waits for. */
		if (helper->srv->settings.lock_outlives)
			answer.type = FG_ACK;
		else
			helper->process->state = FG_RUNNING; /* it undoes it */
	}
	session_send(helper, &answer);
	return 0;
}

void call_helper_gone(struct session *helper)
{
	struct call *c = helper->serving;

	if (!c)
		return;
	helper->serving = NULL;
	c->helper = NULL;
	if (helper->served)
		done(c, c->code, c->value);
	else
		done(c, FG_OPERATING_SYSTEM, 0);
}

void call_target_gone(struct call *c)
{
	c->target = NULL;
	if (c->stage == CALL_OUT && is_remote(c->id))
		done(c, FG_OPERATING_SYSTEM, 0);
	else
		detach(c);
}

void call_abandon(struct session *s)
{
	if (s->call.stage != CALL_IDLE)
		over(&s->call, CALLLOG_ABANDONED);
}

unsigned int call_release(struct server *srv, uint64_t rule)
{
	unsigned int n = 0;
	struct session *s;

	list_for_each(s, &srv->sessions, node) {
		if (s->call.stage != CALL_HELD || (rule && s->call.plan.rule != rule))
			continue;
		n++;
		act(&s->call);
	}
	return n;
}
