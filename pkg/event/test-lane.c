/* SPDX-License-Identifier: Apache-2.0 */
#include "event/gate.h"
#include "event/lane.h"
#include "tests/cmocka.h"

#define MANY 3

struct world {
	struct loop *loop;
	struct lane lane;
	struct gate gate;
	struct worker {
		struct world *w;
		struct lane_op op;
		struct gate_pass pass;
		int begun;
	} workers[MANY];
	int order[MANY];
	int n;
	int emptied;
};

static void begun(struct lane_op *op)
{
	struct worker *k = container_of(op, struct worker, op);

	k->begun++;
	k->w->order[k->w->n++] = (int)(k - k->w->workers);
}

static void entered(struct gate_pass *pass)
{
	container_of(pass, struct worker, pass)->begun++;
}

static void emptied(struct gate *g)
{
	container_of(g, struct world, gate)->emptied++;
}

static void round_(struct world *w)
{
	assert_int_equal(loop_round(w->loop, 0), 0);
}

static int setup(void **state)
{
	static struct world w;

	w = (struct world){ 0 };
	assert_int_equal(loop_new(&w.loop), 0);
	lane_init(&w.lane, w.loop);
	gate_init(&w.gate, w.loop);
	for (int i = 0; i < MANY; i++)
		w.workers[i].w = &w;
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	loop_free(w->loop);
	return 0;
}

static void a_lane_runs_one_at_a_time_in_order(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < MANY; i++)
		lane_enter(&w->lane, &w->workers[i].op, begun);
	assert_int_equal(w->n, 0); /* never from inside lane_enter() */
	for (int i = 0; i < MANY; i++) {
		round_(w);
		assert_int_equal(w->n, i + 1);
		assert_int_equal(w->order[i], i);
		round_(w);
		assert_int_equal(w->n, i + 1); /* not before the first has left */
		lane_leave(&w->workers[i].op);
	}
	assert_false(lane_busy(&w->lane));
}

static void who_leaves_the_queue_is_never_begun(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < MANY; i++)
		lane_enter(&w->lane, &w->workers[i].op, begun);
	lane_leave(&w->workers[0].op); /* before its turn was announced */
	lane_leave(&w->workers[1].op);
	lane_leave(&w->workers[1].op); /* twice is harmless */
	round_(w);
	assert_int_equal(w->n, 1);
	assert_int_equal(w->order[0], 2);
}

static void many_pass_an_open_gate(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < MANY; i++)
		gate_enter(&w->gate, &w->workers[i].pass, entered);
	round_(w);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(w->workers[i].begun, 1);
}

static void a_closing_gate_waits_for_those_inside(void **state)
{
	struct world *w = *state;

	gate_enter(&w->gate, &w->workers[0].pass, entered);
	round_(w);
	gate_close(&w->gate, emptied);
	gate_enter(&w->gate, &w->workers[1].pass, entered);
	round_(w);
	assert_int_equal(w->emptied, 0);
	assert_int_equal(w->workers[1].begun, 0);
	gate_leave(&w->workers[0].pass);
	round_(w);
	assert_int_equal(w->emptied, 1);
	assert_int_equal(w->workers[1].begun, 0); /* still closed */
	gate_open(&w->gate);
	round_(w);
	assert_int_equal(w->workers[1].begun, 1);
}

static void an_empty_gate_closes_at_once_and_forgets_who_gave_up(void **state)
{
	struct world *w = *state;

	gate_close(&w->gate, emptied);
	gate_enter(&w->gate, &w->workers[0].pass, entered);
	gate_leave(&w->workers[0].pass);
	round_(w);
	assert_int_equal(w->emptied, 1);
	gate_open(&w->gate);
	gate_open(&w->gate);
	round_(w);
	assert_int_equal(w->workers[0].begun, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_lane_runs_one_at_a_time_in_order),
		T(who_leaves_the_queue_is_never_begun),
		T(many_pass_an_open_gate),
		T(a_closing_gate_waits_for_those_inside),
		T(an_empty_gate_closes_at_once_and_forgets_who_gave_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
