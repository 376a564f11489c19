/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "event/flow.h"
#include "tests/cmocka.h"

/* A flow of three steps that writes down what happens to it. */
struct probe {
	struct flow flow;
	struct loop *loop;
	struct buf trace;
	struct timer later;
	const char *fail; /* step that fails */
	const char *hang; /* step that waits until canceled */
	int result;
	bool done;
	struct error err;
	int resume_with;
};

static struct probe *probe_of(struct flow *f)
{
	return container_of(f, struct probe, flow);
}

static void note(struct flow *f, const char *what)
{
	assert_int_equal(buf_printf(&probe_of(f)->trace, "%s%s ", what,
				    flow_step(f) ? flow_step(f)->name : ""), 0);
}

static void later(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, later);

	flow_resume(&p->flow, p->resume_with, NULL);
}

static int run_now(struct flow *f, struct error *err)
{
	struct probe *p = probe_of(f);

	note(f, "+");
	if (p->fail && strcmp(p->fail, flow_step(f)->name) == 0)
		return error_set(err, -EIO, "%s failed", flow_step(f)->name);
	return 0;
}

static int run_later(struct flow *f, struct error *err)
{
	struct probe *p = probe_of(f);
	int r = run_now(f, err);

	if (r < 0)
		return r;
	if (!p->hang || strcmp(p->hang, flow_step(f)->name) != 0)
		timer_set(p->loop, &p->later, time_now() + NSEC_PER_MSEC, later);
	return FLOW_WAIT;
}

static int undo_now(struct flow *f, struct error *err)
{
	(void)err;
	note(f, "-");
	return 0;
}

static int undo_later(struct flow *f, struct error *err)
{
	struct probe *p = probe_of(f);

	(void)undo_now(f, err);
	p->resume_with = 0;
	timer_set(p->loop, &p->later, time_now() + NSEC_PER_MSEC, later);
	return FLOW_WAIT;
}

static void cancel(struct flow *f)
{
	struct probe *p = probe_of(f);

	note(f, "!");
	timer_set(p->loop, &p->later, time_now(), later);
}

static const struct flow_step steps[] = {
	{ "a", run_now, undo_later, NULL },
	{ "b", run_later, undo_now, cancel },
	{ "c", run_now, NULL, NULL },
};

static nsec_t limit(struct flow *f, const struct flow_step *step)
{
	(void)f;
	(void)step;
	return 20 * NSEC_PER_MSEC;
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct probe *p = probe_of(f);

	p->done = true;
	p->result = r;
	p->err = *err;
	loop_stop(p->loop);
}

static const struct flow_ops ops = {
	.steps = steps, .n_steps = ARRAY_SIZE(steps), .timeout = limit, .done = done
};

static int setup(void **state)
{
	struct probe *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	assert_int_equal(loop_new(&p->loop), 0);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct probe *p = *state;

	timer_cancel(&p->later);
	loop_free(p->loop);
	buf_done(&p->trace);
	free(p);
	return 0;
}

static void run(struct probe *p)
{
	flow_start(&p->flow, p->loop, &ops);
	assert_false(p->done); /* never from inside flow_start() */
	assert_int_equal(loop_run(p->loop), 0);
	assert_true(p->done);
	assert_false(flow_running(&p->flow));
}

static void all_steps_run_in_order(void **state)
{
	struct probe *p = *state;

	run(p);
	assert_int_equal(p->result, 0);
	assert_string_equal(buf_str(&p->trace), "+a +b +c ");
}

static void a_failure_takes_back_what_was_begun(void **state)
{
	struct probe *p = *state;

	p->fail = "c";
	run(p);
	assert_int_equal(p->result, -EIO);
	assert_string_equal(p->err.text, "c failed");
	assert_string_equal(buf_str(&p->trace), "+a +b +c -b -a ");
}

static void the_failing_step_is_taken_back_too(void **state)
{
	struct probe *p = *state;

	p->resume_with = -EBUSY;
	run(p);
	assert_int_equal(p->result, -EBUSY);
	assert_string_equal(buf_str(&p->trace), "+a +b -b -a ");
}

static void a_step_that_hangs_is_canceled_and_counts_as_failed(void **state)
{
	struct probe *p = *state;

	p->hang = "b";
	p->resume_with = 0; /* it ends well after all: too late */
	run(p);
	assert_int_equal(p->result, -ETIMEDOUT);
	assert_int_equal(p->err.reason, REASON_TIMEOUT);
	assert_string_equal(buf_str(&p->trace), "+a +b !b -b -a ");
}

static void abort_it(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, later);
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "no longer wanted");
	flow_abort(&p->flow, &err);
	flow_abort(&p->flow, &err); /* once is enough */
}

static void an_abort_cancels_and_takes_back(void **state)
{
	struct probe *p = *state;

	p->hang = "b";
	timer_set(p->loop, &p->later, time_now() + 2 * NSEC_PER_MSEC, abort_it);
	run(p);
	assert_int_equal(p->result, -ECANCELED);
	assert_string_equal(p->err.text, "no longer wanted");
	assert_string_equal(buf_str(&p->trace), "+a +b !b -b -a ");
}

static void an_abort_before_the_first_step_runs_nothing(void **state)
{
	struct probe *p = *state;
	struct error err = ERROR_NULL;

	(void)error_set(&err, -ECANCELED, "never mind");
	flow_start(&p->flow, p->loop, &ops);
	flow_abort(&p->flow, &err);
	assert_int_equal(loop_run(p->loop), 0);
	assert_int_equal(p->result, -ECANCELED);
	assert_string_equal(buf_str(&p->trace), "");
}

/* Somebody who has to write down a step before it is done, and cannot. */
static void refuse_b(struct flow *f, const struct flow_step *step, enum flow_event event,
		     const struct error *err)
{
	struct error mine = ERROR_NULL;

	(void)err;
	if (event != FLOW_BEGIN || strcmp(step->name, "b") != 0)
		return;
	(void)error_set(&mine, -ENOSPC, "no room to write it down");
	flow_abort(f, &mine);
}

static void an_abort_when_a_step_begins_keeps_it_from_being_run(void **state)
{
	struct probe *p = *state;
	struct flow_ops refusing = ops;

	refusing.observe = refuse_b;
	flow_start(&p->flow, p->loop, &refusing);
	assert_int_equal(loop_run(p->loop), 0);
	assert_int_equal(p->result, -ENOSPC);
	assert_string_equal(buf_str(&p->trace), "+a -b -a ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(all_steps_run_in_order),
		T(a_failure_takes_back_what_was_begun),
		T(the_failing_step_is_taken_back_too),
		T(a_step_that_hangs_is_canceled_and_counts_as_failed),
		T(an_abort_cancels_and_takes_back),
		T(an_abort_before_the_first_step_runs_nothing),
		T(an_abort_when_a_step_begins_keeps_it_from_being_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
