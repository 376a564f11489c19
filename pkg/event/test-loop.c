/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "event/loop.h"
#include "tests/cmocka.h"

#define N 3

/* A few of everything, and a trace of what was called. */
struct probe {
	struct loop *loop;
	struct source src[N];
	struct timer timer[N];
	struct job job[N];
	struct buf trace;
	void (*act)(struct probe *p); /* done once, by the next source, timer or job */
};

static void act(struct probe *p)
{
	void (*once)(struct probe *) = p->act;

	p->act = NULL;
	if (once)
		once(p);
}

static void note(struct probe *p, char what, size_t i)
{
	assert_int_equal(buf_printf(&p->trace, "%c%zu ", what, i), 0);
	act(p);
}

#define DEFINE_CALLBACKS(i)                                                                        \
	static void ready##i(struct source *src, uint32_t events)                                  \
	{                                                                                          \
		assert_int_equal(events, EPOLLIN);                                                 \
		note(container_of(src, struct probe, src[i]), 's', i);                             \
	}                                                                                          \
	static void expired##i(struct timer *t)                                                    \
	{                                                                                          \
		note(container_of(t, struct probe, timer[i]), 't', i);                             \
	}                                                                                          \
	static void ran##i(struct job *job)                                                        \
	{                                                                                          \
		note(container_of(job, struct probe, job[i]), 'j', i);                             \
	}
DEFINE_CALLBACKS(0)
DEFINE_CALLBACKS(1)
DEFINE_CALLBACKS(2)

static void (*const ready[])(struct source *, uint32_t) = { ready0, ready1, ready2 };
static void (*const expired[])(struct timer *) = { expired0, expired1, expired2 };
static void (*const ran[])(struct job *) = { ran0, ran1, ran2 };

static int setup(void **state)
{
	struct probe *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	assert_int_equal(loop_new(&p->loop), 0);
	*state = p;
	return 0;
}

static void drop_source(struct probe *p, size_t i)
{
	if (!p->src[i].loop)
		return;
	source_remove(&p->src[i]);
	(void)close(p->src[i].fd);
}

static int teardown(void **state)
{
	struct probe *p = *state;

	for (size_t i = 0; i < N; i++) {
		drop_source(p, i);
		timer_cancel(&p->timer[i]);
		job_cancel(&p->job[i]);
	}
	loop_free(p->loop);
	buf_done(&p->trace);
	free(p);
	return 0;
}

/* A source that is ready at once. */
static void add_ready(struct probe *p, size_t i)
{
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	assert_int_equal(source_add(p->loop, &p->src[i], fd, EPOLLIN, ready[i]), 0);
}

static void round_once(struct probe *p)
{
	assert_int_equal(loop_round(p->loop, time_now() + 200 * NSEC_PER_MSEC), 0);
}

static void assert_trace(struct probe *p, const char *want)
{
	assert_string_equal(buf_str(&p->trace), want);
	buf_clear(&p->trace);
}

static void sources_are_level_triggered(void **state)
{
	struct probe *p = *state;

	add_ready(p, 0);
	round_once(p);
	round_once(p);
	assert_trace(p, "s0 s0 ");
	source_want(&p->src[0], 0);
	assert_int_equal(loop_round(p->loop, 0), 0);
	assert_trace(p, "");
}

static void drop_others(struct probe *p)
{
	drop_source(p, 0);
	drop_source(p, 1);
	drop_source(p, 2);
}

static void the_event_of_a_removed_source_is_dropped(void **state)
{
	struct probe *p = *state;

	for (size_t i = 0; i < N; i++)
		add_ready(p, i);
	p->act = drop_others;
	round_once(p);
	assert_int_equal(buf_len(&p->trace), 3); /* one of the three, whichever came first */
}

static void want_nothing(struct probe *p)
{
	for (size_t i = 0; i < N; i++)
		source_want(&p->src[i], 0);
}

static void an_event_that_is_no_longer_wanted_is_dropped(void **state)
{
	struct probe *p = *state;

	for (size_t i = 0; i < N; i++)
		add_ready(p, i);
	p->act = want_nothing;
	round_once(p);
	assert_int_equal(buf_len(&p->trace), 3);
}

static void timers_fire_in_order_of_time(void **state)
{
	struct probe *p = *state;
	nsec_t now = time_now();

	timer_set(p->loop, &p->timer[0], now + 3, expired[0]);
	timer_set(p->loop, &p->timer[1], now + 1, expired[1]);
	timer_set(p->loop, &p->timer[2], now + 2, expired[2]);
	timer_set(p->loop, &p->timer[1], now + 4, expired[1]); /* moves it */
	round_once(p);
	assert_trace(p, "t2 t0 t1 ");
}

static void a_timer_is_never_early(void **state)
{
	struct probe *p = *state;
	nsec_t at = time_now() + 5 * NSEC_PER_MSEC;

	timer_set(p->loop, &p->timer[0], at, expired[0]);
	while (!buf_len(&p->trace))
		round_once(p);
	assert_true(time_now() >= at);
	assert_true(loop_now(p->loop) >= at);
}

static void cancel_all_timers(struct probe *p)
{
	for (size_t i = 0; i < N; i++)
		timer_cancel(&p->timer[i]);
}

static void a_timer_canceled_by_another_of_the_same_round_stays_silent(void **state)
{
	struct probe *p = *state;

	for (size_t i = 0; i < N; i++)
		timer_set(p->loop, &p->timer[i], 1, expired[i]);
	p->act = cancel_all_timers;
	round_once(p);
	assert_trace(p, "t0 ");
}

static void set_for_the_past(struct probe *p)
{
	p->act = set_for_the_past;
	timer_set(p->loop, &p->timer[0], 0, expired[0]);
}

static void a_timer_set_for_the_past_in_its_callback_waits_for_the_next_round(void **state)
{
	struct probe *p = *state;

	p->act = set_for_the_past;
	timer_set(p->loop, &p->timer[0], 0, expired[0]);
	round_once(p);
	assert_trace(p, "t0 ");
	round_once(p);
	assert_trace(p, "t0 ");
}

static void put_off_second(struct probe *p)
{
	job_put_off(p->loop, &p->job[1], ran[1]);
	job_put_off(p->loop, &p->job[1], ran[1]); /* harmless */
}

static void jobs_run_after_sources_and_timers_and_so_do_their_jobs(void **state)
{
	struct probe *p = *state;

	add_ready(p, 0);
	timer_set(p->loop, &p->timer[0], 0, expired[0]);
	p->act = put_off_second;
	round_once(p);
	assert_trace(p, "s0 t0 j1 ");
	drop_source(p, 0);

	p->act = put_off_second;
	job_put_off(p->loop, &p->job[0], ran[0]);
	assert_int_equal(loop_round(p->loop, 0), 0);
	assert_trace(p, "j0 j1 ");
}

static void cancel_all_jobs(struct probe *p)
{
	for (size_t i = 0; i < N; i++)
		job_cancel(&p->job[i]);
}

static void a_canceled_job_does_not_run(void **state)
{
	struct probe *p = *state;

	for (size_t i = 0; i < N; i++)
		job_put_off(p->loop, &p->job[i], ran[i]);
	p->act = cancel_all_jobs;
	assert_int_equal(loop_round(p->loop, 0), 0);
	assert_trace(p, "j0 ");
}

static void stop(struct probe *p)
{
	loop_stop(p->loop);
}

static void run_ends_with_the_round_that_stopped_it(void **state)
{
	struct probe *p = *state;

	p->act = stop;
	timer_set(p->loop, &p->timer[0], 0, expired[0]);
	job_put_off(p->loop, &p->job[1], ran[1]);
	assert_int_equal(loop_run(p->loop), 0);
	assert_trace(p, "j1 t0 ");

	/* It can run again. */
	p->act = stop;
	timer_set(p->loop, &p->timer[0], 0, expired[0]);
	assert_int_equal(loop_run(p->loop), 0);
	assert_trace(p, "t0 ");
}

static void a_regular_file_is_refused(void **state)
{
	struct probe *p = *state;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(source_add(p->loop, &p->src[0], fd, EPOLLIN, ready[0]), -EPERM);
	assert_null(p->src[0].loop);
	source_remove(&p->src[0]); /* harmless */
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(sources_are_level_triggered),
		T(the_event_of_a_removed_source_is_dropped),
		T(an_event_that_is_no_longer_wanted_is_dropped),
		T(timers_fire_in_order_of_time),
		T(a_timer_is_never_early),
		T(a_timer_canceled_by_another_of_the_same_round_stays_silent),
		T(a_timer_set_for_the_past_in_its_callback_waits_for_the_next_round),
		T(jobs_run_after_sources_and_timers_and_so_do_their_jobs),
		T(a_canceled_job_does_not_run),
		T(run_ends_with_the_round_that_stopped_it),
		T(a_regular_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
