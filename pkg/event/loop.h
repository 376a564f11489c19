/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread, one loop a process. Level-triggered epoll, timers, and jobs put off
 * to the end of the round.
 *
 * Sources, timers and jobs are embedded in their owner, which finds itself with container_of().
 * Rules: no callback blocks; a source is removed before its descriptor is closed; an owner that
 * may be on the call stack frees itself with a deferred job. Removing a source or a timer inside
 * any callback is safe: an event already fetched for it is dropped, and so is one that is no longer
 * wanted. Jobs put off by jobs belong to the same round, so a job must not put itself off again.
 */
#ifndef KYB_EVENT_LOOP_H
#define KYB_EVENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/list.h"
#include "base/time.h"

struct loop;

/* A descriptor in the loop. Zero-initialised means "not added". */
struct source {
	struct loop *loop; /* NULL = not added */
	int fd;            /* borrowed */
	uint32_t want;     /* EPOLLIN, EPOLLOUT, ... */
	void (*ready)(struct source *src, uint32_t events);
};

/* A one-shot timer. Zero-initialised means "not set". */
struct timer {
	struct loop *loop; /* NULL = not set */
	nsec_t at;         /* absolute, CLOCK_MONOTONIC */
	void (*expired)(struct timer *t);
	struct list node;
};

/* Work for the end of this round. Zero-initialised means "not put off". */
struct job {
	struct loop *loop; /* NULL = not put off */
	void (*run)(struct job *job);
	struct list node;
};

/* Returns 0 or -errno. Free with loop_free(), after all sources have been removed. */
int loop_new(struct loop **ret);
void loop_free(struct loop *loop);

/* Runs until loop_stop(). Returns 0, or -errno when epoll itself fails. */
int loop_run(struct loop *loop);
/* One round: waits at most until deadline (absolute), dispatches. Returns 0 or -errno. */
int loop_round(struct loop *loop, nsec_t deadline);
/* Makes loop_run() return at the end of this round. */
void loop_stop(struct loop *loop);
/* The time at the start of this round; cheaper than time_now() and good for new deadlines. */
nsec_t loop_now(const struct loop *loop);

/* Returns 0 or -errno (-EPERM: the descriptor cannot be polled, a regular file for instance). */
int source_add(struct loop *loop, struct source *src, int fd, uint32_t want,
	       void (*ready)(struct source *src, uint32_t events));
/* Changes what is waited for; 0 = nothing but errors and hang-ups. Asserts that it worked. */
void source_want(struct source *src, uint32_t want);
/* Harmless when not added. */
void source_remove(struct source *src);

/* Sets, or moves, a timer. */
void timer_set(struct loop *loop, struct timer *t, nsec_t at, void (*expired)(struct timer *t));
/* Harmless when not set. */
void timer_cancel(struct timer *t);

/* Puts a job off to the end of this round; harmless when it is already. */
void job_put_off(struct loop *loop, struct job *job, void (*run)(struct job *job));
void job_cancel(struct job *job);

#endif
