/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a program of the tests, makes its wall clock jump: what is read of CLOCK_REALTIME
 * is off by the nanoseconds that stand, as an int64_t, in the file that $KYB_TEST_CLOCK names, at
 * any moment. Deadlines that hang on the wall clock are then missed by hours. The monotonic clocks
 * are left alone, as a settimeofday() leaves them; there is no namespace for the wall clock.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

static const volatile int64_t *shift;

/* Early: what is preloaded may have no files, or not these, later on. */
__attribute__((constructor)) static void find_shift(void)
{
	const char *path = getenv("KYB_TEST_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		abort(); /* a test whose clock does not jump would show nothing */
	shift = p;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ts);
	int64_t ns;

	if (r < 0 || !shift || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
		return r;
	ns = (int64_t)ts->tv_sec * SECOND + ts->tv_nsec + *shift;
	ts->tv_sec = ns / SECOND;
	ts->tv_nsec = ns % SECOND;
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *ret)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return -1;
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}
