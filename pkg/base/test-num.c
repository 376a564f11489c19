/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "tests/cmocka.h"

static void numbers(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(num_parse("0", 0, &v), 0);
	assert_true(v == 0);
	assert_int_equal(num_parse("007", UINT64_MAX, &v), 0);
	assert_true(v == 7);
	assert_int_equal(num_parse("18446744073709551615", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(num_parse("65535", 65535, &v), 0);
	assert_int_equal(num_parse_n("123456", 3, UINT64_MAX, &v), 0);
	assert_true(v == 123);
}

static void refused_numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t max;
		int r;
	} cases[] = {
		{ "", UINT64_MAX, -EINVAL },
		{ "-1", UINT64_MAX, -EINVAL },
		{ "+1", UINT64_MAX, -EINVAL },
		{ " 1", UINT64_MAX, -EINVAL },
		{ "1 ", UINT64_MAX, -EINVAL },
		{ "1\n", UINT64_MAX, -EINVAL },
		{ "0x10", UINT64_MAX, -EINVAL },
		{ "1e3", UINT64_MAX, -EINVAL },
		{ "1", 0, -ERANGE },
		{ "65536", 65535, -ERANGE },
		{ "18446744073709551616", UINT64_MAX, -ERANGE },
		{ "99999999999999999999999", UINT64_MAX, -ERANGE },
		/* Too long, and no number either: what a person must hear is the latter. */
		{ "99999999999999999999999x", UINT64_MAX, -EINVAL },
		{ "184467440737095516160:1", UINT64_MAX, -EINVAL },
	};
	uint64_t v = 42;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (num_parse(cases[i].text, cases[i].max, &v) != cases[i].r)
			fail_msg("'%s' is not refused with %d", cases[i].text, cases[i].r);
	assert_int_equal(num_parse_n("1", 0, UINT64_MAX, &v), -EINVAL);
	assert_true(v == 42);
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		nsec_t v;
	} cases[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "90s", 90 * NSEC_PER_SEC },
		{ "1m30s", 90 * NSEC_PER_SEC },
		{ "250ms", 250 * NSEC_PER_MSEC },
		{ "17us", 17 * NSEC_PER_USEC },
		{ "2h", 7200 * NSEC_PER_SEC },
		{ "1h1m1s1ms1us", 3661001001 * NSEC_PER_USEC },
		{ "18446744073s", 18446744073 * NSEC_PER_SEC },
	};
	nsec_t v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		v = 1;
		if (num_parse_duration(cases[i].text, &v) != 0 || v != cases[i].v)
			fail_msg("'%s' gives %llu", cases[i].text, (unsigned long long)v);
	}
}

static void refused_durations(void **state)
{
	static const struct {
		const char *text;
		int r;
	} cases[] = {
		{ "", -EINVAL },	  { "1", -EINVAL },	     { "s", -EINVAL },
		{ "-1s", -EINVAL },	  { "1.5s", -EINVAL },	     { "1 s", -EINVAL },
		{ "1s ", -EINVAL },	  { "1d", -EINVAL },	     { "1sm", -EINVAL },
		{ "1s1", -EINVAL },	  { "1M", -EINVAL },	     { "00", -EINVAL },
		{ "18446744074s", -ERANGE }, { "5124096h", -ERANGE },
		{ "18446744073s18446744073s", -ERANGE },
	};
	nsec_t v = 42;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (num_parse_duration(cases[i].text, &v) != cases[i].r)
			fail_msg("'%s' is not refused with %d", cases[i].text, cases[i].r);
	assert_true(v == 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(refused_numbers),
		cmocka_unit_test(durations),
		cmocka_unit_test(refused_durations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
