/* SPDX-License-Identifier: Apache-2.0 */
/* A loop with a reaper, and a job in the background that is waited for. */
#ifndef KYB_ARTIFACT_TEST_LOOP_H
#define KYB_ARTIFACT_TEST_LOOP_H

#include "artifact/bulk.h"
#include "artifact/test-tree.h"
#include "event/signals.h"

#define PATIENCE (60 * NSEC_PER_SEC)

struct test_loop {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct bulk_env env;
	/* The job under test, and what became of it. */
	struct bulk bulk;
	bool done;
	int r;
	struct error err;
	unsigned int reports; /* of progress */
	void (*on_progress)(struct test_loop *t);
};

static inline void test_loop_caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct test_loop, signals)->reaper);
}

static inline void test_loop_open(struct test_loop *t)
{
	static const int signos[] = { SIGCHLD, 0 };

	*t = (struct test_loop){ 0 };
	assert_int_equal(loop_new(&t->loop), 0);
	reaper_init(&t->reaper);
	assert_int_equal(signals_open(t->loop, &t->signals, signos, test_loop_caught), 0);
	t->env = (struct bulk_env){ .loop = t->loop, .reaper = &t->reaper };
}

static inline void test_loop_close(struct test_loop *t)
{
	bulk_release(&t->bulk);
	signals_close(&t->signals);
	loop_free(t->loop);
}

static inline void test_loop_until(struct test_loop *t, const bool *flag)
{
	nsec_t deadline = time_add(time_now(), PATIENCE);

	while (!*flag) {
		assert_true(time_now() < deadline);
		/* A job may have set the flag before the round waits for anything. */
		assert_int_equal(loop_round(t->loop, time_add(time_now(), 20 * NSEC_PER_MSEC)), 0);
	}
}

static inline void test_loop_progress(struct bulk *b, uint64_t done, uint64_t total)
{
	struct test_loop *t = container_of(b, struct test_loop, bulk);

	assert_true(done <= total);
	t->reports++;
	if (t->on_progress)
		t->on_progress(t);
}

static inline void test_loop_done(struct bulk *b, int r, const struct error *err)
{
	struct test_loop *t = container_of(b, struct test_loop, bulk);

	assert_false(t->done);
	assert_int_equal(r < 0, err != NULL);
	t->done = true;
	t->r = r;
	t->err = err ? *err : ERROR_NULL;
}

static inline const struct bulk_ops *test_loop_ops(void)
{
	static const struct bulk_ops ops = {
		.progress = test_loop_progress, .done = test_loop_done,
	};

	return &ops;
}

/* Waits for a job that was started with t->bulk and test_loop_ops(); returns its result. */
static inline int test_loop_wait(struct test_loop *t)
{
	test_loop_until(t, &t->done);
	t->done = false;
	return t->r;
}

#endif
