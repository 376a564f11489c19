/* SPDX-License-Identifier: Apache-2.0 */
#include "base/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_doubles_up_to_the_maximum(void **state)
{
	(void)state;
	struct backoff b = BACKOFF(100, 450);
	static const nsec_t whole[] = { 100, 200, 400, 450, 450 };

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
		nsec_t got = backoff_next(&b);

		assert_true(got >= whole[i] / 2);
		assert_true(got <= whole[i]);
	}
}

static void test_first_beyond_maximum(void **state)
{
	(void)state;
	struct backoff b = BACKOFF(1000, 10);

	assert_true(backoff_next(&b) <= 10);
	assert_true(backoff_next(&b) <= 10);
}

static void test_differs(void **state)
{
	(void)state;
	nsec_t first = 0;

	for (int i = 0; i < 100; i++) {
		struct backoff b = BACKOFF(NSEC_PER_SEC, NSEC_PER_SEC);
		nsec_t got = backoff_next(&b);

		if (i == 0)
			first = got;
		else if (got != first)
			return;
	}
	fail_msg("a hundred draws were the same");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_doubles_up_to_the_maximum),
		cmocka_unit_test(test_first_beyond_maximum),
		cmocka_unit_test(test_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
