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

#define DAYS_OF_4_YEARS   1461U
#define DAYS_OF_CENTURY   36524U
#define DAYS_OF_400_YEARS 146097U

struct date {
	unsigned int year, month, day;
};

/*
 * The Gregorian date of a day counted from 1970-01-01. gmtime_r() would do, but it brings the time
 * zones with it, their files and their scanf(): 60 kB of a static program. Years begin in March
 * here, so that a leap day is the last of its year.
 */
static struct date date_of(uint64_t days)
{
	unsigned int since = (unsigned int)days + 719468U; /* 0000-03-01 */
	unsigned int era = since / DAYS_OF_400_YEARS, day = since % DAYS_OF_400_YEARS;
	/* Less the leap days before: then every year has 365 days. */
	unsigned int year = (day - day / (DAYS_OF_4_YEARS - 1) + day / DAYS_OF_CENTURY -
			     day / (DAYS_OF_400_YEARS - 1)) / 365;
	unsigned int of_year = day - (365 * year + year / 4 - year / 100);
	unsigned int month = (5 * of_year + 2) / 153; /* five months have 153 days, from March on */

	return (struct date){ .year = 400 * era + year + (month >= 10),
			      .month = month < 10 ? month + 3 : month - 9,
			      .day = of_year - (153 * month + 2) / 5 + 1 };
}

const char *time_rfc3339(nsec_t wall, char *buf)
{
	uint64_t sec = wall / NSEC_PER_SEC;
	unsigned int of_day = (unsigned int)(sec % 86400);
	struct date d = date_of(sec / 86400);

	(void)snprintf(buf, TIME_RFC3339_MAX, "%04u-%02u-%02uT%02u:%02u:%02u.%09uZ", d.year,
		       d.month, d.day, of_day / 3600, of_day / 60 % 60, of_day % 60,
		       (unsigned int)(wall % NSEC_PER_SEC));
	return buf;
}
