/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"

#include <stdio.h>
#include <time.h>

static nsec_t now(clockid_t clock)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(clock, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

nsec_t time_now(void)
{
	return now(CLOCK_MONOTONIC);
}

nsec_t time_wall(void)
{
	return now(CLOCK_REALTIME);
}

nsec_t time_add(nsec_t a, nsec_t b)
{
	nsec_t sum;

	return __builtin_add_overflow(a, b, &sum) ? NSEC_NEVER : sum;
}

nsec_t time_from_ms(uint64_t ms)
{
	nsec_t t;

	return __builtin_mul_overflow(ms, NSEC_PER_MSEC, &t) ? NSEC_NEVER : t;
}

const char *time_rfc3339(nsec_t wall, char *buf)
{
	time_t sec = (time_t)(wall / NSEC_PER_SEC);
	struct tm tm = { 0 };

	(void)gmtime_r(&sec, &tm);
	(void)snprintf(buf, TIME_RFC3339_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%09uZ",
		       tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
		       tm.tm_sec, (unsigned int)(wall % NSEC_PER_SEC));
	return buf;
}
