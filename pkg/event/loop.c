/* SPDX-License-Identifier: Apache-2.0 */
#include "event/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define EVENTS_A_ROUND 64

struct loop {
	int epoll;
	bool stop;
	nsec_t now;
	/* Sorted by time. A process has a few dozen timers at most, so a list is enough. */
	struct list timers;
	struct list jobs;
	/* The events of this round not yet dispatched; source_remove() clears its own. */
	struct epoll_event events[EVENTS_A_ROUND];
	int n_events;
};

int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		free(loop);
		return -errno;
	}
	list_init(&loop->timers);
	list_init(&loop->jobs);
	loop->now = time_now();
	*ret = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	(void)close(loop->epoll);
	free(loop);
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
}

nsec_t loop_now(const struct loop *loop)
{
	return loop->now;
}

/* One that is set anew in its callback, even for a time gone by, has its turn next round. */
static void run_timers(struct loop *loop)
{
	struct list due;
	struct timer *t;

	list_init(&due);
	while ((t = list_first(&loop->timers, struct timer, node)) && t->at <= loop->now) {
		list_remove(&t->node);
		list_append(&due, &t->node);
	}
	while ((t = list_first(&due, struct timer, node))) {
		timer_cancel(t);
		t->expired(t);
	}
}

static void run_jobs(struct loop *loop)
{
	struct job *job;

	while ((job = list_first(&loop->jobs, struct job, node))) {
		job_cancel(job);
		job->run(job);
	}
}

/* Milliseconds until deadline, rounded up so that a timer is due when the wait ends. */
static int wait_ms(nsec_t now, nsec_t deadline)
{
	nsec_t ms;

	if (deadline == NSEC_NEVER)
		return -1;
	if (deadline <= now)
		return 0;
	ms = (deadline - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

int loop_round(struct loop *loop, nsec_t deadline)
{
	struct timer *first;
	int n;

	run_jobs(loop); /* those put off outside a round */
	first = list_first(&loop->timers, struct timer, node);
	if (first && first->at < deadline)
		deadline = first->at;
	if (loop->stop)
		deadline = 0;
	n = epoll_wait(loop->epoll, loop->events, EVENTS_A_ROUND, wait_ms(time_now(), deadline));
	loop->now = time_now();
	if (n < 0 && errno != EINTR)
		return -errno;
	loop->n_events = n < 0 ? 0 : n;
	for (int i = 0; i < loop->n_events; i++) {
		struct source *src = loop->events[i].data.ptr;
		uint32_t got = loop->events[i].events;

		/* Another callback of this round may have removed it, or changed what it wants. */
		if (src)
			got &= src->want | EPOLLERR | EPOLLHUP;
		if (src && got)
			src->ready(src, got);
	}
	loop->n_events = 0;
	run_timers(loop);
	run_jobs(loop);
	return 0;
}

int loop_run(struct loop *loop)
{
	while (!loop->stop) {
		int r = loop_round(loop, NSEC_NEVER);

		if (r < 0)
			return r;
	}
	loop->stop = false;
	return 0;
}

int source_add(struct loop *loop, struct source *src, int fd, uint32_t want,
	       void (*ready)(struct source *src, uint32_t events))
{
	struct epoll_event ev = { .events = want, .data.ptr = src };

	assert(!src->loop);
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*src = (struct source){ .loop = loop, .fd = fd, .want = want, .ready = ready };
	return 0;
}

void source_want(struct source *src, uint32_t want)
{
	struct epoll_event ev = { .events = want, .data.ptr = src };
	int r;

	assert(src->loop);
	if (src->want == want)
		return;
	r = epoll_ctl(src->loop->epoll, EPOLL_CTL_MOD, src->fd, &ev);
	assert(r == 0);
	src->want = want;
}

void source_remove(struct source *src)
{
	struct loop *loop = src->loop;
	int r;

	if (!loop)
		return;
	r = epoll_ctl(loop->epoll, EPOLL_CTL_DEL, src->fd, NULL);
	assert(r == 0); /* else the descriptor was closed too early */
	for (int i = 0; i < loop->n_events; i++)
		if (loop->events[i].data.ptr == src)
			loop->events[i].data.ptr = NULL;
	src->loop = NULL;
}

void timer_set(struct loop *loop, struct timer *t, nsec_t at, void (*expired)(struct timer *t))
{
	struct timer *other;

	timer_cancel(t);
	t->loop = loop;
	t->at = at;
	t->expired = expired;
	list_for_each(other, &loop->timers, node)
		if (other->at > at)
			break;
	list_append(&other->node, &t->node); /* in front of the first later one, or at the end */
}

void timer_cancel(struct timer *t)
{
	if (!t->loop)
		return;
	list_remove(&t->node);
	t->loop = NULL;
}

void job_put_off(struct loop *loop, struct job *job, void (*run)(struct job *job))
{
	if (job->loop)
		return;
	job->loop = loop;
	job->run = run;
	list_append(&loop->jobs, &job->node);
}

void job_cancel(struct job *job)
{
	if (!job->loop)
		return;
	list_remove(&job->node);
	job->loop = NULL;
}
