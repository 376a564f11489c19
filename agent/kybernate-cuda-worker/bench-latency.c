/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we add to a driver call: agent -> worker -> driver -> worker -> agent, with a driver that
 * returns at once. meson test --benchmark -C build cuda-worker-latency -v
 */
#include "test-support.h"

#define CALLS  5000
#define GROUPS 200

static int by_size(const void *a, const void *b)
{
	nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *what, nsec_t *times, size_t n)
{
	qsort(times, n, sizeof(*times), by_size);
	(void)printf("%-28s p50 %6.1f us   p90 %6.1f us   p99 %6.1f us   max %7.1f us\n", what,
		     (double)times[n / 2] / 1e3, (double)times[n * 9 / 10] / 1e3,
		     (double)times[n * 99 / 100] / 1e3, (double)times[n - 1] / 1e3);
}

/* One call after the other, as a single operation makes them. */
static void one_by_one(struct fixture *f)
{
	static nsec_t times[CALLS], inside[CALLS];

	for (int i = -100; i < CALLS; i++) {
		struct probe p = { 0 };
		nsec_t start = time_now();

		gpu_worker_state_of(f->worker, &p.call, getpid(), in_ms(20000), probe_done);
		UNTIL(f, p.done);
		assert_int_equal(p.call.result, 0);
		if (i < 0)
			continue; /* warming up */
		times[i] = p.at - start;
		inside[i] = p.call.took;
	}
	print("one call, there and back", times, CALLS);
	print("  of it in the driver", inside, CALLS);
}

/* A group of processes at once, until the last one is back. */
static void together(struct fixture *f, int n)
{
	struct probe *p = calloc((size_t)n, sizeof(*p));
	pid_t *pids = calloc((size_t)n, sizeof(*pids));
	static nsec_t times[GROUPS];
	char what[64];

	assert_non_null(p);
	assert_non_null(pids);
	for (int i = 0; i < n; i++) {
		pids[i] = sleeper_start();
		(void)fake_add(f->fake.cuda, pids[i]);
	}
	for (int g = 0; g < GROUPS; g++) {
		nsec_t start = time_now(), last = 0;

		for (int i = 0; i < n; i++) {
			p[i].done = 0;
			gpu_worker_state_of(f->worker, &p[i].call, pids[i], in_ms(20000),
					    probe_done);
		}
		for (int i = 0; i < n; i++) {
			UNTIL(f, p[i].done);
			assert_int_equal(p[i].call.result, 0);
			if (p[i].at > last)
				last = p[i].at;
		}
		times[g] = last - start;
	}
	(void)snprintf(what, sizeof(what), "%d processes at once", n);
	print(what, times, GROUPS);
	for (int i = 0; i < n; i++)
		sleeper_stop(pids[i]);
	free(pids);
	free(p);
}

int main(void)
{
	struct fixture f;
	nsec_t start = time_now();

	fixture_open(&f);
	(void)fake_add(f.fake.cuda, getpid());
	fixture_start(&f);
	UNTIL(&f, f.readies);
	(void)printf("worker ready after %.1f ms\n", (double)(time_now() - start) / 1e6);
	one_by_one(&f);
	together(&f, 8);
	together(&f, 100);
	fixture_close(&f);
	return 0;
}
