/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "daemon/calllog.h"
#include "daemon/fault.h"
#include "tests/cmocka.h"

static struct rule *add(struct list *rules, struct rule rule)
{
	static uint64_t last;
	struct rule *r = malloc(sizeof(*r));

	assert_non_null(r);
	*r = rule;
	r->id = ++last;
	list_append(rules, &r->node);
	return r;
}

static void the_first_rule_that_fits_decides(void **state)
{
	struct list rules;
	struct plan plan;
	struct rule *r;

	(void)state;
	list_init(&rules);
	assert_false(fault_match(&rules, FG_CALL_LOCK, 1, false, &plan));
	(void)add(&rules, (struct rule){ .call = FG_CALL_LOCK, .pid = 7, .plan.code = 1 });
	r = add(&rules, (struct rule){ .call = FG_CALLS, .plan.code = 2 });
	assert_true(fault_match(&rules, FG_CALL_LOCK, 7, false, &plan));
	assert_int_equal(plan.code, 1);
	assert_true(fault_match(&rules, FG_CALL_LOCK, 8, false, &plan));
	assert_int_equal(plan.code, 2);
	assert_int_equal(plan.rule, r->id);
	assert_true(fault_match(&rules, FG_CALL_RESTORE, 7, false, &plan));
	assert_int_equal(plan.code, 2);
	assert_int_equal(r->hits, 2);
	assert_false(fault_match(&rules, FG_CALL_LOCK, 7, true, &plan)); /* not afterwards */
	assert_int_equal(plan.rule, 0);
	fault_clear(&rules, r->id);
	assert_false(fault_match(&rules, FG_CALL_RESTORE, 7, false, &plan));
	fault_clear(&rules, 0);
	assert_true(list_empty(&rules));
}

static void a_rule_skips_and_runs_out(void **state)
{
	struct list rules;
	struct plan plan;

	(void)state;
	list_init(&rules);
	(void)add(&rules, (struct rule){ .call = FG_CALL_LOCK, .skip = 2, .count = 1 });
	assert_false(fault_match(&rules, FG_CALL_LOCK, 1, false, &plan));
	assert_false(fault_match(&rules, FG_CALL_UNLOCK, 1, false, &plan)); /* does not count */
	assert_false(fault_match(&rules, FG_CALL_LOCK, 1, false, &plan));
	assert_true(fault_match(&rules, FG_CALL_LOCK, 1, false, &plan));
	assert_false(fault_match(&rules, FG_CALL_LOCK, 1, false, &plan));
	fault_clear(&rules, 0);
}

static void the_log_keeps_the_newest(void **state)
{
	struct calllog log;
	struct calllog_entry *e;
	uint64_t first;

	(void)state;
	assert_int_equal(calllog_init(&log), 0);
	assert_null(calllog_get(&log, 0));
	assert_null(calllog_get(&log, 1));
	e = calllog_add(&log);
	first = e->id;
	assert_int_equal(e->code, CALLLOG_UNDER_WAY);
	assert_ptr_equal(calllog_get(&log, first), e);
	for (int i = 0; i < CALLLOG_MAX - 1; i++)
		assert_true(calllog_add(&log)->begin.tick > e->begin.tick);
	assert_ptr_equal(calllog_get(&log, first), e);
	(void)calllog_add(&log);
	assert_null(calllog_get(&log, first));
	calllog_clear(&log);
	assert_null(calllog_get(&log, log.last));
	assert_true(calllog_add(&log)->id > first);
	calllog_done(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_rule_that_fits_decides),
		cmocka_unit_test(a_rule_skips_and_runs_out),
		cmocka_unit_test(the_log_keeps_the_newest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
