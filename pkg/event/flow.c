/* SPDX-License-Identifier: Apache-2.0 */
#include "event/flow.h"

#include <assert.h>
#include <errno.h>

const struct flow_step *flow_step(const struct flow *f)
{
	if (f->direction == FLOW_IDLE || f->at >= f->ops->n_steps)
		return NULL;
	return &f->ops->steps[f->at];
}

static void tell(struct flow *f, enum flow_event event, const struct error *err)
{
	if (f->ops->observe)
		f->ops->observe(f, flow_step(f), event, err);
}

static void cancel_step(struct flow *f)
{
	const struct flow_step *step = flow_step(f);

	if (f->canceled)
		return;
	f->canceled = true;
	if (step->cancel)
		step->cancel(f);
}

static void time_over(struct timer *t)
{
	struct flow *f = container_of(t, struct flow, timer);
	struct error *err = f->direction == FLOW_FORWARD ? &f->err : &f->late;

	if (err->code == 0)
		(void)error_reason(err, REASON_TIMEOUT, -ETIMEDOUT,
				   "phase %s did not end in %llu ms", flow_step(f)->name,
				   (unsigned long long)((time_now() - f->step_start) /
							NSEC_PER_MSEC));
	cancel_step(f);
}

/* Starts run() or undo() of the present step. */
static int begin_step(struct flow *f)
{
	const struct flow_step *step = flow_step(f);
	bool forward = f->direction == FLOW_FORWARD;
	int (*call)(struct flow *, struct error *) = forward ? step->run : step->undo;
	nsec_t limit = NSEC_NEVER;
	int r;

	f->canceled = false;
	f->late = ERROR_NULL;
	f->step_start = time_now();
	if (!call)
		return 0;
	tell(f, forward ? FLOW_BEGIN : FLOW_UNDO, NULL);
	if (forward && f->err.code != 0)
		return f->err.code;
	r = call(f, forward ? &f->err : &f->late);
	if (r != FLOW_WAIT)
		return r;
	if (f->ops->timeout)
		limit = f->ops->timeout(f, step);
	f->waiting = true;
	if (limit != NSEC_NEVER)
		timer_set(f->loop, &f->timer, time_add(f->step_start, limit), time_over);
	return FLOW_WAIT;
}

static void finish(struct flow *f, int r)
{
	f->direction = FLOW_IDLE;
	f->ops->done(f, r, &f->err);
}

/* Books the end of the present step and moves on. */
static void end_step(struct flow *f, int r)
{
	if (f->direction == FLOW_FORWARD) {
		if (r == 0) {
			tell(f, FLOW_END, NULL);
			f->at++;
			return;
		}
		if (f->err.code == 0)
			(void)error_sys(&f->err, r, "%s", flow_step(f)->name);
		tell(f, FLOW_FAILED, &f->err);
		f->direction = FLOW_BACKWARD; /* from this very step on */
		return;
	}
	if (flow_step(f)->undo)
		tell(f, r < 0 ? FLOW_UNDO_FAILED : FLOW_UNDONE, r < 0 ? &f->late : NULL);
	if (f->at == 0) {
		f->at = f->ops->n_steps; /* nothing left */
		return;
	}
	f->at--;
}

static void advance(struct flow *f)
{
	while (f->at < f->ops->n_steps) {
		int r;

		if (f->direction == FLOW_FORWARD && f->err.code != 0) {
			/* Aborted between two steps: this one was never begun. */
			f->direction = FLOW_BACKWARD;
			if (f->at-- == 0)
				break;
		}
		r = begin_step(f);
		if (r == FLOW_WAIT)
			return;
		end_step(f, r);
	}
	finish(f, f->direction == FLOW_FORWARD ? 0 : f->err.code);
}

static void begin(struct job *job)
{
	advance(container_of(job, struct flow, begin));
}

void flow_start(struct flow *f, struct loop *loop, const struct flow_ops *ops)
{
	assert(ops->n_steps > 0);
	*f = (struct flow){ .ops = ops, .loop = loop, .direction = FLOW_FORWARD };
	job_put_off(loop, &f->begin, begin);
}

void flow_resume(struct flow *f, int r, const struct error *err)
{
	struct error *mine = f->direction == FLOW_FORWARD ? &f->err : &f->late;

	assert(f->waiting);
	f->waiting = false;
	timer_cancel(&f->timer);
	if (mine->code != 0)
		r = mine->code; /* canceled: whatever came of it, the step counts as failed */
	else if (r < 0 && err)
		*mine = *err;
	end_step(f, r);
	advance(f);
}

void flow_abort(struct flow *f, const struct error *err)
{
	if (f->direction != FLOW_FORWARD || f->err.code != 0)
		return;
	f->err = *err;
	if (f->err.code == 0)
		f->err.code = -ECANCELED;
	if (f->waiting)
		cancel_step(f);
	/* Else advance() sees it before it begins the next step. */
}
