/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's half of a Pause that suspends (GPU memory to host memory, then the freezer) and of the
 * Resume after it. It carries out the agent's orders, one at a time:
 *
 *	QUIESCE	no exec comes in any more
 *	FREEZE	stand still; what the agent says that the container holds is kept with it
 *	THAW	let it run, so that the driver can bring the GPU memory back
 *	RELEASE	the GPU memory is back
 *
 * A Pause that fails leaves the container running, a Resume that fails leaves it paused. A GPU
 * container whose pod did not ask for suspend is frozen and no more, unless an operator asks the
 * agent for it at this moment: the agent is asked whether that is so, and where there is none, or it
 * does not answer, it is not so.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "cgroup/freezer.h"
#include "shim/gpu.h"

struct suspend {
	struct op *op;
	bool resume;
	bool if_asked;
	struct agent_op *agent;
	enum agent_order order; /* being carried out; AGENT_ORDER_NONE = none */
	nsec_t order_start;
	bool opened;  /* the way to the agent */
	bool heard;   /* it has answered */
	bool ordered; /* it has given an order */
	bool frozen;
	bool over;   /* it has said its last word */
	int result;
	struct error err;
	struct freezer freezer;
	struct timer timer;
};

static void wind_up(struct suspend *s);

static struct loop *loop_of(const struct suspend *s)
{
	return s->op->c->shim->loop;
}

static nsec_t quiesce_limit(const struct suspend *s)
{
	return time_add(time_now(), s->op->c->shim->settings.timeouts.quiesce);
}

static void order_done(struct suspend *s, int r, const struct error *err)
{
	enum agent_order order = s->order;

	s->order = AGENT_ORDER_NONE;
	if (s->over)
		wind_up(s); /* the agent went away in the middle of it */
	else
		agent_op_result(s->agent, order, r, err, 0, time_now() - s->order_start);
}

/* --- orders --------------------------------------------------------------------------------- */

static void set_freeze(struct suspend *s, bool freeze,
		       void (*done)(struct freezer *f, int r, const struct error *err))
{
	struct error err = ERROR_NULL;
	int r;

	s->freezer = (struct freezer){ 0 };
	r = freeze ? freezer_freeze(&s->freezer, loop_of(s), &s->op->c->cgroup, quiesce_limit(s),
				    done, &err)
		   : freezer_thaw(&s->freezer, loop_of(s), &s->op->c->cgroup, quiesce_limit(s), done,
				  &err);
	if (r < 0)
		done(&s->freezer, r, &err);
}

static void frozen(struct freezer *f, int r, const struct error *err)
{
	struct suspend *s = container_of(f, struct suspend, freezer);

	s->frozen = s->frozen || r == 0;
	order_done(s, r, err);
}

static void thawed(struct freezer *f, int r, const struct error *err)
{
	struct suspend *s = container_of(f, struct suspend, freezer);

	if (r == -ENOENT)
		r = 0; /* the container is gone; that is told elsewhere */
	if (r == 0)
		s->frozen = false;
	order_done(s, r, err);
}

/* Those execs that were being started are in. */
static void gate_empty(struct gate *g)
{
	struct suspend *s = container_of(g, struct container, exec_gate)->suspending;

	timer_cancel(&s->timer);
	order_done(s, 0, NULL);
}

static void gate_stuck(struct timer *t)
{
	struct suspend *s = container_of(t, struct suspend, timer);
	struct error err = ERROR_NULL;

	gate_open(&s->op->c->exec_gate);
	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "an exec that is being started did not get ready in time");
	order_done(s, err.code, &err);
}

static void quiesce(struct suspend *s)
{
	struct error err = ERROR_NULL;

	if (s->op->c->exec_gate.closed) {
		(void)error_reason(&err, REASON_INTERNAL, -EPROTO, "the container is quiet already");
		order_done(s, err.code, &err);
		return;
	}
	timer_set(loop_of(s), &s->timer, quiesce_limit(s), gate_stuck);
	gate_close(&s->op->c->exec_gate, gate_empty);
}

/* Nothing is held where no process uses CUDA: then it is frozen, and no more. */
static void order_freeze(struct suspend *s, const struct agent_reply *reply)
{
	struct error err = ERROR_NULL;
	int r;

	if (!s->resume) {
		buf_done(&s->op->c->held);
		r = buf_append(&s->op->c->held, reply->held.p, reply->held.n);
		if (r < 0) {
			order_done(s, error_sys(&err, r, "keep what the container holds"), &err);
			return;
		}
	}
	set_freeze(s, true, frozen);
}

/* --- the stream ----------------------------------------------------------------------------- */

static void replied(void *data, const struct agent_reply *reply)
{
	struct suspend *s = data;
	struct error err = ERROR_NULL;

	if (!s->heard)
		timer_cancel(&s->timer);
	s->heard = true;
	if (reply->order == AGENT_ORDER_NONE || s->order != AGENT_ORDER_NONE)
		return;
	s->ordered = true;
	s->order = reply->order;
	s->order_start = time_now();
	switch (reply->order) {
	case AGENT_ORDER_QUIESCE:
		quiesce(s);
		break;
	case AGENT_ORDER_FREEZE:
		order_freeze(s, reply);
		break;
	case AGENT_ORDER_THAW:
		set_freeze(s, false, thawed);
		break;
	case AGENT_ORDER_RELEASE:
		order_done(s, 0, NULL);
		break;
	default:
		(void)error_reason(&err, REASON_INTERNAL, -EPROTO,
				   "order %d makes no sense in a %s", (int)reply->order,
				   s->resume ? "resume" : "suspend");
		order_done(s, err.code, &err);
	}
}

static void ended(void *data, int r, const struct error *err)
{
	struct suspend *s = data;

	s->agent = NULL;
	s->over = true;
	s->result = r;
	s->err = *err;
	if (!s->heard)
		timer_cancel(&s->timer);
	if (s->order == AGENT_ORDER_NONE)
		wind_up(s);
}

/* --- the end -------------------------------------------------------------------------------- */

static void finish(struct suspend *s)
{
	struct op *op = s->op;
	struct container *c = op->c;
	bool resume = s->resume;
	struct error err = s->err;
	int r = s->result;

	if (r < 0)
		log_error(resume ? "resume failed" : "suspend failed", F_STR("container", c->id),
			  F_STR("reason", reason_name(err.reason)), F_ERR(&err));
	if (resume ? r == 0 : r < 0)
		buf_done(&c->held);
	free(s);
	if (resume)
		resume_end(op, r, &err);
	else
		pause_end(op, r, &err);
}

static void as_it_was(struct freezer *f, int r, const struct error *err)
{
	struct suspend *s = container_of(f, struct suspend, freezer);

	if (r < 0 && r != -ENOENT)
		log_error("the container could not be brought back into the state it was in",
			  F_STR("container", s->op->c->id), F_ERR(err));
	finish(s);
}

/* It is as frozen, or as running, as containerd is going to be told. */
static void wind_up(struct suspend *s)
{
	struct op *op = s->op;
	struct container *c = op->c;
	bool gone = c->init.exited_at || c->init_reaped, freeze;

	c->suspending = NULL;
	gate_open(&c->exec_gate);
	if (!s->ordered && s->if_asked &&
	    (s->result == 0 || !s->opened || s->err.reason == REASON_AGENT_UNAVAILABLE)) {
		free(s);
		pause_plainly(op);
		return;
	}
	if (s->result == 0 && s->frozen == s->resume)
		s->result = error_reason(&s->err, REASON_INTERNAL, -EPROTO,
					 "the agent reports a %s that it has not ordered",
					 s->resume ? "resume" : "suspend");
	if (s->result == 0)
		s->result = process_allow(op->p, s->resume ? "resume" : "pause",
					  s->resume ? IN(PAUSED) : IN(RUNNING), &s->err);
	freeze = !gone && s->resume == (s->result < 0);
	if (freeze != s->frozen)
		set_freeze(s, freeze, as_it_was);
	else
		finish(s);
}

/* --- the calls ------------------------------------------------------------------------------ */

static void unheard(struct timer *t)
{
	struct suspend *s = container_of(t, struct suspend, timer);

	agent_op_cancel(s->agent);
	s->agent = NULL;
	s->over = true;
	s->result = error_reason(&s->err, REASON_AGENT_UNAVAILABLE, -ETIMEDOUT,
				 "the node agent does not answer");
	wind_up(s);
}

static void begin(struct op *op, bool resume)
{
	static const struct agent_ops ops = { .reply = replied, .ended = ended };
	struct container *c = op->c;
	const struct shim_settings *settings = &c->shim->settings;
	struct suspend *s = calloc(1, sizeof(*s));
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(GPU_REQUEST_MEMORY);
	struct agent_request req;
	struct error err = ERROR_NULL;
	int r;

	if (!s) {
		r = error_set(&err, -ENOMEM, "out of memory");
		if (resume)
			resume_end(op, r, &err);
		else
			pause_end(op, r, &err);
		return;
	}
	s->op = op;
	s->resume = s->frozen = resume;
	s->if_asked = !resume && !c->intent.suspend_on_pause;
	s->err = ERROR_NULL;
	c->suspending = s;
	r = gpu_request(c, AGENT_SUSPEND, &mem, &req, &s->err);
	if (r == 0 && !c->cgroup.host)
		r = error_reason(&s->err, REASON_CONTAINER_MISSING, -ENOENT,
				 "the container has no cgroup of its own");
	if (r == 0) {
		req.resume = resume;
		req.if_asked = s->if_asked;
		req.held = buf_bytes(&c->held);
		req.timeout_ms = gpu_timeout_ms(op->call);
		r = agent_op_open(&s->agent, loop_of(s), settings->agent_socket, &req,
				  gpu_stream_deadline(c, op->call), &ops, s, &s->err);
	}
	if (r < 0) {
		s->over = true;
		s->result = r;
		wind_up(s);
		return;
	}
	s->opened = true;
	timer_set(loop_of(s), &s->timer, time_add(time_now(), settings->timeouts.agent), unheard);
}

void gpu_pause(struct op *op)
{
	begin(op, false);
}

void gpu_resume(struct op *op)
{
	begin(op, true);
}
