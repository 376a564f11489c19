/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/issue.h"

#include <string.h>

#include "tests/cmocka.h"

static void every_issue_is_told_in_full(void **state)
{
	const struct gpu_issue *issues;
	size_t n;

	(void)state;
	issues = gpu_issues(&n);
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(issues[i].last == 0 || issues[i].last >= issues[i].first);
		assert_true(issues[i].source[0] && issues[i].what[0] && issues[i].guard[0]);
		assert_null(strchr(issues[i].what, '|')); /* they go into a Markdown table */
		assert_null(strchr(issues[i].guard, '|'));
	}
}

static void branches_are_a_range(void **state)
{
	const struct gpu_issue all = { 0 }, from = { .first = 580 },
			       range = { .first = 550, .last = 575 };

	(void)state;
	assert_true(gpu_issue_concerns(&all, 0));
	assert_true(gpu_issue_concerns(&all, 615));
	assert_false(gpu_issue_concerns(&from, 575));
	assert_true(gpu_issue_concerns(&from, 580));
	assert_true(gpu_issue_concerns(&from, 615));
	assert_true(gpu_issue_concerns(&range, 575));
	assert_false(gpu_issue_concerns(&range, 580));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_issue_is_told_in_full),
		cmocka_unit_test(branches_are_a_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
