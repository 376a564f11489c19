/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for calls that block: the only threads of the project, in the CUDA worker alone (see
 * docs/decisions/). The owner's thread submits jobs and collects them when they are done; in
 * between a job belongs to the pool.
 *
 * Jobs of one key run one after the other, in the order they were submitted; jobs of different
 * keys run at the same time, as many as there are threads. Threads are started when needed, up to
 * a maximum, and leave when they have had nothing to do for a while. All signals are blocked in
 * them. Nothing can stop a job that runs.
 */
#ifndef KYB_GPU_POOL_H
#define KYB_GPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/time.h"

struct pool;

struct pool_job {
	uint64_t key;
	void (*run)(struct pool_job *job); /* in a thread of the pool */
	/* the pool's */
	struct list node;   /* ready, behind another one, or done */
	struct list active; /* those that nothing is in front of */
	struct list behind; /* jobs of the same key that wait for this one */
	bool begun;
};

/*
 * idle: how long a thread without work stays. Returns 0 or -errno.
 */
int pool_new(unsigned int max_threads, nsec_t idle, struct pool **ret);

/*
 * Ends the idle threads and frees the pool. Only when no job is in it: a thread that hangs in a
 * job cannot be ended. (The worker itself just exits.)
 */
void pool_free(struct pool *p);

/*
 * Hands job over; key and run are set. Returns 0, or -errno when a thread that it needs cannot be
 * started: the job is not taken then, for others may be waiting for what it does. From the
 * owner's thread.
 */
int pool_submit(struct pool *p, struct pool_job *job);

/*
 * Takes a job out that has not begun: true, and it is the caller's again, never to be collected.
 * False when it runs or is done.
 */
bool pool_cancel(struct pool *p, struct pool_job *job);

/* An eventfd (non-blocking) that becomes readable when jobs are done. The pool's. */
int pool_fd(const struct pool *p);
/* Clears the eventfd; call it before collecting. */
void pool_clear_fd(struct pool *p);
/* The next job that is done, or NULL. */
struct pool_job *pool_collect(struct pool *p);

struct pool_stats {
	unsigned int threads, running, waiting;
};
void pool_stats(struct pool *p, struct pool_stats *ret);

#endif
