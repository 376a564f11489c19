/* SPDX-License-Identifier: Apache-2.0 */
#include "human.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MINUTE (60 * NSEC_PER_SEC)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define YEAR   (365 * DAY)

static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };

/* v in units of 1024^power, as tenths, rounded to the nearest. */
static uint64_t tenths(uint64_t v, unsigned int power)
{
	unsigned int shift = 10 * power;
	uint64_t whole, rest;

	if (power == 0)
		return v * 10;
	whole = v >> shift;
	rest = v & ((UINT64_C(1) << shift) - 1);
	/* Bits that do not count to a tenth go first, so that nothing overflows. */
	if (shift > 50) {
		rest >>= shift - 50;
		shift = 50;
	}
	return whole * 10 + ((rest * 10 + (UINT64_C(1) << (shift - 1))) >> shift);
}

/* The unit in which v has at most four digits in front of the point. */
static unsigned int unit_of(uint64_t v)
{
	unsigned int power = 0;

	if (v < 1024)
		return 0;
	while (power < 6 && tenths(v, power) >= 10240)
		power++;
	return power;
}

const char *human_size(uint64_t bytes, char *buf)
{
	unsigned int power = unit_of(bytes);
	uint64_t v;

	if (power == 0) {
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 " B", bytes);
		return buf;
	}
	v = tenths(bytes, power);
	(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 ".%u %s", v / 10, (unsigned int)(v % 10),
		       units[power]);
	return buf;
}

const char *human_part(uint64_t done, uint64_t total, char *buf)
{
	unsigned int power = unit_of(total > done ? total : done);
	uint64_t a, b;

	if (power == 0) {
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 "/%" PRIu64 " B", done, total);
		return buf;
	}
	a = tenths(done, power);
	b = tenths(total, power);
	(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 ".%u/%" PRIu64 ".%u %s", a / 10,
		       (unsigned int)(a % 10), b / 10, (unsigned int)(b % 10), units[power]);
	return buf;
}

const char *human_rate(uint64_t bytes, nsec_t took, char *buf)
{
	/* A display: the precision of a double is plenty. */
	double rate = took ? (double)bytes * 1e3 / (double)took : 0;

	if (took)
		(void)snprintf(buf, HUMAN_MAX, rate < 9.95 ? "%.1f MB/s" : "%.0f MB/s", rate);
	else
		buf[0] = 0;
	return buf;
}

const char *human_duration(nsec_t d, char *buf)
{
	uint64_t v = d / 100 + (d % 100 >= 50); /* tenths of a microsecond; cannot overflow below */
	uint64_t tenth_ms = (v + 500) / 1000, ms = (v + 5000) / 10000;
	uint64_t tenth_s = (v + 500000) / 1000000, s = (v + 5000000) / 10000000;

	if (d == 0)
		(void)snprintf(buf, HUMAN_MAX, "0s");
	else if (tenth_ms == 0)
		(void)snprintf(buf, HUMAN_MAX, "<0.1ms");
	else if (tenth_ms < 10)
		(void)snprintf(buf, HUMAN_MAX, "0.%" PRIu64 "ms", tenth_ms);
	else if (ms < 1000)
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 "ms", ms);
	else if (tenth_s < 600)
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 ".%us", tenth_s / 10,
			       (unsigned int)(tenth_s % 10));
	else if (s < 3600)
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 "m%02us", s / 60, (unsigned int)(s % 60));
	else
		(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 "h%02um", s / 3600,
			       (unsigned int)(s / 60 % 60));
	return buf;
}

const char *human_age(nsec_t d, char *buf)
{
	static const struct {
		nsec_t below, unit;
		char name;
	} steps[] = { { 2 * MINUTE, NSEC_PER_SEC, 's' },
		      { 2 * HOUR, MINUTE, 'm' },
		      { 2 * DAY, HOUR, 'h' },
		      { 2 * YEAR, DAY, 'd' },
		      { NSEC_NEVER, YEAR, 'y' } };
	size_t i = 0;

	if (d < NSEC_PER_SEC) {
		(void)snprintf(buf, HUMAN_MAX, "just now");
		return buf;
	}
	while (d >= steps[i].below && steps[i].below != NSEC_NEVER)
		i++;
	(void)snprintf(buf, HUMAN_MAX, "%" PRIu64 "%c ago", d / steps[i].unit, steps[i].name);
	return buf;
}

/* --- times ---------------------------------------------------------------------------------- */

/* n digits as a number, -1 when they are none; *s moves on. */
static int digits(const char **s, int n)
{
	int v = 0;

	for (; n > 0; n--, (*s)++) {
		if (**s < '0' || **s > '9')
			return -1;
		v = v * 10 + (**s - '0');
	}
	return v;
}

static bool literal(const char **s, char c)
{
	return *(*s)++ == c;
}

/* The fraction of a second; what is finer than a nanosecond does not count. */
static int fraction(const char **s, nsec_t *ret)
{
	nsec_t unit = NSEC_PER_SEC;

	*ret = 0;
	if (**s != '.')
		return 0;
	(*s)++;
	if (**s < '0' || **s > '9')
		return -EINVAL;
	for (; **s >= '0' && **s <= '9'; (*s)++) {
		unit /= 10;
		*ret += (nsec_t)(**s - '0') * unit;
	}
	return 0;
}

/* "Z", "+01:00", "-05:30" to the end of the text: seconds east of Greenwich. */
static int offset(const char *s, int *ret)
{
	int sign = *s == '-' ? -1 : 1, hours, minutes;

	*ret = 0;
	if (strcmp(s, "Z") == 0)
		return 0;
	if (*s != '+' && *s != '-')
		return -EINVAL;
	s++;
	hours = digits(&s, 2);
	if (hours < 0 || hours > 23 || !literal(&s, ':'))
		return -EINVAL;
	minutes = digits(&s, 2);
	if (minutes < 0 || minutes > 59 || *s)
		return -EINVAL;
	*ret = sign * (hours * 3600 + minutes * 60);
	return 0;
}

int human_time(const char *rfc3339, nsec_t *ret)
{
	const char *s = rfc3339;
	struct tm tm = { 0 };
	nsec_t part;
	time_t t;
	int east;

	/* In this order: the first part that is wrong ends it, before what follows is read. */
	if ((tm.tm_year = digits(&s, 4)) < 0 || !literal(&s, '-') ||
	    (tm.tm_mon = digits(&s, 2)) < 0 || !literal(&s, '-') ||
	    (tm.tm_mday = digits(&s, 2)) < 0 || !literal(&s, 'T') ||
	    (tm.tm_hour = digits(&s, 2)) < 0 || !literal(&s, ':') ||
	    (tm.tm_min = digits(&s, 2)) < 0 || !literal(&s, ':') ||
	    (tm.tm_sec = digits(&s, 2)) < 0 || fraction(&s, &part) < 0 || offset(s, &east) < 0)
		return -EINVAL;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return -EINVAL;
	if (tm.tm_year < 1970 || tm.tm_year > 2500)
		return -ERANGE;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	t = timegm(&tm) - east;
	if (t < 0)
		return -ERANGE;
	*ret = (nsec_t)t * NSEC_PER_SEC + part;
	return 0;
}
