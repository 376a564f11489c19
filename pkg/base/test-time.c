/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"

#include <time.h>

#include "base/cleanup.h"
#include "tests/cmocka.h"

static void sums_do_not_overflow(void **state)
{
	(void)state;
	assert_int_equal(time_add(1, 2), 3);
	assert_true(time_add(NSEC_NEVER, 1) == NSEC_NEVER);
	assert_true(time_add(1, NSEC_NEVER) == NSEC_NEVER);
	assert_true(time_add(NSEC_NEVER - 1, NSEC_NEVER - 1) == NSEC_NEVER);
}

/* A peer who means "for ever" must not get a few nanoseconds. */
static void milliseconds_do_not_overflow(void **state)
{
	static const struct {
		uint64_t ms;
		nsec_t want;
	} cases[] = {
		{ 0, 0 },
		{ 1, NSEC_PER_MSEC },
		{ 60000, 60 * NSEC_PER_SEC },
		{ UINT64_MAX / NSEC_PER_MSEC, UINT64_MAX / NSEC_PER_MSEC * NSEC_PER_MSEC },
		{ UINT64_MAX / NSEC_PER_MSEC + 1, NSEC_NEVER },
		{ UINT64_MAX, NSEC_NEVER },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_true(time_from_ms(cases[i].ms) == cases[i].want);
}

/* Each day of six centuries, as libc has it. */
static void dates_are_those_of_libc(void **state)
{
	char buf[TIME_RFC3339_MAX], want[TIME_RFC3339_MAX];

	(void)state;
	for (time_t day = 0; day < 584 * 365; day++) {
		time_t sec = day * 86400 + day % 86400;
		struct tm tm;

		assert_non_null(gmtime_r(&sec, &tm));
		assert_true(strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.000000007Z", &tm) > 0);
		assert_string_equal(time_rfc3339((nsec_t)sec * NSEC_PER_SEC + 7, buf), want);
	}
}

static void dates_are_rfc3339(void **state)
{
	char buf[TIME_RFC3339_MAX];

	(void)state;
	assert_string_equal(time_rfc3339(0, buf), "1970-01-01T00:00:00.000000000Z");
	assert_string_equal(time_rfc3339(1795447321ULL * NSEC_PER_SEC + 123456789, buf),
			    "2026-11-23T15:22:01.123456789Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_do_not_overflow),
		cmocka_unit_test(milliseconds_do_not_overflow),
		cmocka_unit_test(dates_are_rfc3339),
		cmocka_unit_test(dates_are_those_of_libc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
