/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/cleanup.h"
#include "human.h"
#include "tests/cmocka.h"

#define KIB ((uint64_t)1024)
#define MIB (KIB * KIB)
#define GIB (KIB * MIB)

static void sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1.0 KiB" },
		{ 1536, "1.5 KiB" },
		{ MIB - 1, "1.0 MiB" },
		{ MIB - 52, "1023.9 KiB" },
		{ 40 * GIB, "40.0 GiB" },
		{ 40 * GIB + GIB / 20 + 1, "40.1 GiB" },
		{ 1023 * GIB, "1023.0 GiB" },
		{ 1024 * GIB - 1, "1.0 TiB" },
		{ UINT64_MAX, "16.0 EiB" },
	};
	char buf[HUMAN_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(human_size(cases[i].bytes, buf), cases[i].text);
	assert_string_equal(human_part(3 * GIB + GIB / 2, 40 * GIB, buf), "3.5/40.0 GiB");
	assert_string_equal(human_part(0, 512, buf), "0/512 B");
	assert_string_equal(human_part(1, 40 * GIB, buf), "0.0/40.0 GiB");
	assert_string_equal(human_part(2 * GIB, MIB, buf), "2.0/0.0 GiB");
	assert_string_equal(human_part(UINT64_MAX, UINT64_MAX, buf), "16.0/16.0 EiB");
}

static void rates(void **state)
{
	char buf[HUMAN_MAX];

	(void)state;
	assert_string_equal(human_rate(1512 * 1000000ULL, NSEC_PER_SEC, buf), "1512 MB/s");
	assert_string_equal(human_rate(500000, NSEC_PER_SEC, buf), "0.5 MB/s");
	assert_string_equal(human_rate(9960000, NSEC_PER_SEC, buf), "10 MB/s");
	assert_string_equal(human_rate(1, 0, buf), "");
	(void)human_rate(UINT64_MAX, 1, buf); /* fits */
}

static void durations(void **state)
{
	static const struct {
		nsec_t d;
		const char *text;
	} cases[] = {
		{ 0, "0s" },
		{ 1, "<0.1ms" },
		{ 300 * NSEC_PER_USEC, "0.3ms" },
		{ 960 * NSEC_PER_USEC, "1ms" },
		{ 45 * NSEC_PER_MSEC, "45ms" },
		{ 999 * NSEC_PER_MSEC + 600 * NSEC_PER_USEC, "1.0s" },
		{ 8100 * NSEC_PER_MSEC, "8.1s" },
		{ 59940 * NSEC_PER_MSEC, "59.9s" },
		{ 59960 * NSEC_PER_MSEC, "1m00s" },
		{ 125 * NSEC_PER_SEC, "2m05s" },
		{ 3599600 * NSEC_PER_MSEC, "1h00m" },
		{ 11220 * NSEC_PER_SEC, "3h07m" },
		{ NSEC_NEVER, "5124095h34m" },
	};
	char buf[HUMAN_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(human_duration(cases[i].d, buf), cases[i].text);
}

static void ages(void **state)
{
	static const struct {
		uint64_t seconds;
		const char *text;
	} cases[] = {
		{ 0, "just now" },          { 1, "1s ago" },
		{ 119, "119s ago" },        { 120, "2m ago" },
		{ 7199, "119m ago" },       { 7200, "2h ago" },
		{ 2 * 86400, "2d ago" },    { 2 * 86400 - 1, "47h ago" },
		{ 730 * 86400, "2y ago" },  { 729 * 86400, "729d ago" },
	};
	char buf[HUMAN_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(human_age(cases[i].seconds * NSEC_PER_SEC, buf),
				    cases[i].text);
	assert_string_equal(human_age(NSEC_NEVER, buf), "584y ago");
}

static void times(void **state)
{
	static const struct {
		const char *text;
		uint64_t sec, nsec;
	} good[] = {
		{ "1970-01-01T00:00:00Z", 0, 0 },
		{ "2026-11-23T15:22:01Z", 1795447321, 0 },
		{ "2026-11-23T15:22:01.123456789Z", 1795447321, 123456789 },
		{ "2026-11-23T15:22:01.5Z", 1795447321, 500000000 },
		{ "2026-11-23T15:22:01.1234567891239Z", 1795447321, 123456789 },
		{ "2026-11-23T16:52:01+01:30", 1795447321, 0 },
		{ "2026-11-23T10:22:01-05:00", 1795447321, 0 },
		{ "2024-02-29T00:00:00Z", 1709164800, 0 },
	};
	static const char *const bad[] = {
		"", "yesterday", "2026-11-23", "2026-11-23T15:22:01", "2026-11-23 15:22:01Z",
		"2026-11-23T15:22Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
		"2026-01-32T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
		"2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00+1:00",
		"2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00+24:00",
		"2026-01-01T00:00:00Zx", "2026-01-01T00:00:00+01:00x", "20261-01-01T00:00:00Z",
		"-026-01-01T00:00:00Z", "2026-01-01T00:00:00",
	};
	nsec_t t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(human_time(good[i].text, &t), 0);
		assert_true(t == good[i].sec * NSEC_PER_SEC + good[i].nsec);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (human_time(bad[i], &t) != -EINVAL)
			fail_msg("'%s' is taken for a time", bad[i]);
	assert_int_equal(human_time("1969-12-31T23:59:59Z", &t), -ERANGE);
	assert_int_equal(human_time("1970-01-01T00:00:00+01:00", &t), -ERANGE);
	assert_int_equal(human_time("9999-12-31T23:59:59Z", &t), -ERANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes), cmocka_unit_test(rates), cmocka_unit_test(durations),
		cmocka_unit_test(ages),  cmocka_unit_test(times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
