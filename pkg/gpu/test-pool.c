/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/cmocka.h"

#define MSEC     1000 /* for usleep() */
#define PATIENCE 10000 /* ms */

struct work {
	struct pool_job job;
	unsigned int ms;
	atomic_bool *gate; /* waited for */
	/* what the jobs of a test share */
	atomic_uint *inside, *most, *order;
	unsigned int came; /* when it was its turn */
	bool signals_blocked;
};

static void work(struct pool_job *job)
{
	struct work *w = container_of(job, struct work, job);
	unsigned int inside = atomic_fetch_add(w->inside, 1) + 1, most = atomic_load(w->most);
	sigset_t set;

	while (inside > most && !atomic_compare_exchange_weak(w->most, &most, inside))
		;
	w->came = atomic_fetch_add(w->order, 1);
	(void)pthread_sigmask(SIG_SETMASK, NULL, &set);
	w->signals_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGCHLD);
	while (w->gate && !atomic_load(w->gate))
		(void)usleep(MSEC);
	(void)usleep(w->ms * MSEC);
	atomic_fetch_sub(w->inside, 1);
}

struct fixture {
	struct pool *pool;
	atomic_uint inside, most, order;
	atomic_bool gate;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(pool_new(64, NSEC_PER_SEC, &f->pool), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pool_free(f->pool);
	free(f);
	return 0;
}

static struct work make(struct fixture *f, uint64_t key, unsigned int ms)
{
	return (struct work){ .job = { .key = key, .run = work },
			      .ms = ms,
			      .inside = &f->inside,
			      .most = &f->most,
			      .order = &f->order };
}

static struct work *collect(struct fixture *f)
{
	struct pollfd p = { .fd = pool_fd(f->pool), .events = POLLIN };

	for (;;) {
		struct pool_job *job = pool_collect(f->pool);

		if (job)
			return container_of(job, struct work, job);
		assert_int_equal(poll(&p, 1, PATIENCE), 1);
		pool_clear_fd(f->pool);
	}
}

static void jobs_of_different_keys_run_together(void **state)
{
	struct fixture *f = *state;
	struct work jobs[50];
	struct pool_stats stats;

	for (unsigned int i = 0; i < 50; i++) {
		jobs[i] = make(f, i, 0);
		jobs[i].gate = &f->gate;
		assert_int_equal(pool_submit(f->pool, &jobs[i].job), 0);
	}
	for (int i = 0; i < PATIENCE && atomic_load(&f->inside) < 50; i++)
		(void)usleep(MSEC);
	pool_stats(f->pool, &stats);
	assert_int_equal(stats.running, 50);
	assert_int_equal(stats.threads, 50);
	atomic_store(&f->gate, true);
	for (int i = 0; i < 50; i++)
		assert_true(collect(f)->signals_blocked);
	assert_int_equal(f->most, 50);
	assert_null(pool_collect(f->pool));
}

static void jobs_of_one_key_run_in_order(void **state)
{
	struct fixture *f = *state;
	struct work jobs[20];

	for (unsigned int i = 0; i < 20; i++) {
		jobs[i] = make(f, 7, i % 3);
		assert_int_equal(pool_submit(f->pool, &jobs[i].job), 0);
	}
	for (unsigned int i = 0; i < 20; i++)
		assert_ptr_equal(collect(f), &jobs[i]);
	for (unsigned int i = 0; i < 20; i++)
		assert_int_equal(jobs[i].came, i);
	assert_int_equal(f->most, 1);
}

static void no_more_threads_than_allowed(void **state)
{
	struct fixture *f = *state;
	struct work jobs[200];
	struct pool_stats stats;

	for (unsigned int i = 0; i < 200; i++) {
		jobs[i] = make(f, i, 1);
		assert_int_equal(pool_submit(f->pool, &jobs[i].job), 0);
	}
	for (int i = 0; i < 200; i++)
		(void)collect(f);
	pool_stats(f->pool, &stats);
	assert_in_range(stats.threads, 1, 64);
	assert_in_range(f->most, 2, 64);
	assert_int_equal(stats.running + stats.waiting, 0);
}

static void one_that_hangs_holds_up_its_own_key_only(void **state)
{
	struct fixture *f = *state;
	struct work stuck = make(f, 1, 0), behind = make(f, 1, 0), other = make(f, 2, 0);

	stuck.gate = &f->gate;
	assert_int_equal(pool_submit(f->pool, &stuck.job), 0);
	assert_int_equal(pool_submit(f->pool, &behind.job), 0);
	assert_int_equal(pool_submit(f->pool, &other.job), 0);
	assert_ptr_equal(collect(f), &other);
	(void)usleep(20 * MSEC);
	assert_null(pool_collect(f->pool));
	atomic_store(&f->gate, true);
	assert_ptr_equal(collect(f), &stuck);
	assert_ptr_equal(collect(f), &behind);
}

static void what_has_not_begun_can_be_taken_back(void **state)
{
	struct fixture *f = *state;
	struct work front = make(f, 1, 0), a = make(f, 1, 0), b = make(f, 1, 0);

	front.gate = &f->gate;
	assert_int_equal(pool_submit(f->pool, &front.job), 0);
	assert_int_equal(pool_submit(f->pool, &a.job), 0);
	assert_int_equal(pool_submit(f->pool, &b.job), 0);
	for (int i = 0; i < PATIENCE && !atomic_load(&f->inside); i++)
		(void)usleep(MSEC);
	assert_true(pool_cancel(f->pool, &a.job));
	assert_false(pool_cancel(f->pool, &front.job));
	atomic_store(&f->gate, true);
	assert_ptr_equal(collect(f), &front);
	assert_ptr_equal(collect(f), &b);
	assert_int_equal(f->order, 2);
}

/* One that waits for a thread, with another of its key behind it, is taken back. */
static void a_ready_one_can_be_taken_back_too(void **state)
{
	struct fixture *f = *state;
	struct work busy[64], ready = make(f, 100, 0), behind = make(f, 100, 0);

	for (unsigned int i = 0; i < 64; i++) {
		busy[i] = make(f, i, 0);
		busy[i].gate = &f->gate;
		assert_int_equal(pool_submit(f->pool, &busy[i].job), 0);
	}
	assert_int_equal(pool_submit(f->pool, &ready.job), 0);
	assert_int_equal(pool_submit(f->pool, &behind.job), 0);
	assert_true(pool_cancel(f->pool, &ready.job));
	atomic_store(&f->gate, true);
	for (int i = 0; i < 65; i++)
		assert_ptr_not_equal(collect(f), &ready);
	assert_null(pool_collect(f->pool));
}

static void idle_threads_leave(void **state)
{
	struct fixture *f = *state;
	struct pool_stats stats = { .threads = 1 };
	struct pool *p;
	struct work w = make(f, 1, 0);

	assert_int_equal(pool_new(4, 5 * NSEC_PER_MSEC, &p), 0);
	assert_int_equal(pool_submit(p, &w.job), 0);
	for (int i = 0; i < PATIENCE && stats.threads; i++) {
		(void)usleep(MSEC);
		pool_stats(p, &stats);
	}
	assert_int_equal(stats.threads, 0);
	assert_ptr_equal(pool_collect(p), &w.job);
	/* and come back */
	assert_int_equal(pool_submit(p, &w.job), 0);
	while (!pool_collect(p))
		(void)usleep(MSEC);
	pool_free(p);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Rather told at once than left waiting: others may wait for what this job does. */
static void without_a_thread_a_job_is_refused(void **state)
{
	struct fixture *f = *state;
	struct work a = make(f, 1, 0), b = make(f, 2, 0), c = make(f, 1, 0);
	struct rlimit old, none;

#ifdef SANITIZED
	skip(); /* they cannot live with a limit on address space */
#endif
	a.gate = &f->gate;
	assert_int_equal(pool_submit(f->pool, &a.job), 0);
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit){ .rlim_cur = 1, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	assert_int_equal(pool_submit(f->pool, &b.job), -EAGAIN);
	assert_int_equal(pool_submit(f->pool, &c.job), 0); /* behind a: needs none of its own */
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	atomic_store(&f->gate, true);
	assert_ptr_equal(collect(f), &a);
	assert_ptr_equal(collect(f), &c);
	assert_null(pool_collect(f->pool));
	assert_int_equal(pool_submit(f->pool, &b.job), 0);
	assert_ptr_equal(collect(f), &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		/* First: libc keeps the stacks of threads that have left for later ones. */
		T(without_a_thread_a_job_is_refused),
		T(jobs_of_different_keys_run_together),
		T(jobs_of_one_key_run_in_order),
		T(no_more_threads_than_allowed),
		T(one_that_hangs_holds_up_its_own_key_only),
		T(what_has_not_begun_can_be_taken_back),
		T(a_ready_one_can_be_taken_back_too),
		T(idle_threads_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
