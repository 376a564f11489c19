/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/*
 * What a main thread gets by default: NVIDIA's tool makes these calls from its main thread, and
 * how deep the driver goes is its own affair. Only pages that are touched cost memory.
 */
#define STACK_SIZE ((size_t)8 << 20)

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;  /* there is a ready job, or stopping */
	pthread_cond_t left;  /* a thread has left */
	pthread_attr_t attr;
	struct list ready;    /* pool_job.node */
	struct list active;   /* pool_job.active: ready and running ones */
	struct list done;     /* pool_job.node */
	unsigned int threads, idle, max_threads;
	unsigned int n_ready, n_running, n_behind;
	nsec_t idle_time;
	int fd;
	bool stopping;
};

static void lock(struct pool *p)
{
	int r = pthread_mutex_lock(&p->lock);

	assert(r == 0);
	(void)r;
}

static void unlock(struct pool *p)
{
	int r = pthread_mutex_unlock(&p->lock);

	assert(r == 0);
	(void)r;
}

/* Called with the lock held; so are the functions that follow up to work(). */
static void make_ready(struct pool *p, struct pool_job *job)
{
	list_append(&p->active, &job->active);
	list_append(&p->ready, &job->node);
	p->n_ready++;
	(void)pthread_cond_signal(&p->work);
}

/* The job leaves the front of its key: the next one behind it takes its place. */
static void leave_front(struct pool *p, struct pool_job *job)
{
	struct pool_job *next = list_first(&job->behind, struct pool_job, node);

	list_remove(&job->active);
	if (!next)
		return;
	list_remove(&next->node);
	list_splice(&next->behind, &job->behind);
	p->n_behind--;
	make_ready(p, next);
}

static void finish(struct pool *p, struct pool_job *job)
{
	uint64_t one = 1;
	bool first = list_empty(&p->done);

	p->n_running--;
	leave_front(p, job);
	list_append(&p->done, &job->node);
	/* The counter cannot overflow: it is cleared before a list that is not empty. */
	if (first && write(p->fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
		abort(); /* the owner would never hear of it */
}

/* Waits for a ready job; NULL when the thread is to leave. */
static struct pool_job *next_job(struct pool *p)
{
	nsec_t end = time_add(time_now(), p->idle_time);
	struct timespec ts = { .tv_sec = (time_t)(end / NSEC_PER_SEC),
			       .tv_nsec = (long)(end % NSEC_PER_SEC) };
	struct pool_job *job;

	p->idle++;
	while (list_empty(&p->ready) && !p->stopping)
		if (pthread_cond_timedwait(&p->work, &p->lock, &ts) == ETIMEDOUT)
			break;
	p->idle--;
	job = list_first(&p->ready, struct pool_job, node);
	if (!job)
		return NULL;
	list_remove(&job->node);
	job->begun = true;
	p->n_ready--;
	p->n_running++;
	return job;
}

static void *work(void *arg)
{
	struct pool *p = arg;
	struct pool_job *job;

	lock(p);
	while ((job = next_job(p))) {
		unlock(p);
		job->run(job);
		lock(p);
		finish(p, job);
	}
	p->threads--;
	(void)pthread_cond_signal(&p->left);
	unlock(p);
	return NULL;
}

/* Starts one more thread, all signals blocked in it from its first instruction on. */
static int add_thread(struct pool *p)
{
	sigset_t all, old;
	pthread_t thread;
	int r;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &p->attr, work, p);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		p->threads++;
	return -r;
}

static int init(struct pool *p)
{
	pthread_condattr_t attr;
	int r = pthread_mutex_init(&p->lock, NULL);

	if (r == 0)
		r = pthread_condattr_init(&attr);
	if (r == 0)
		r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (r == 0)
		r = pthread_cond_init(&p->work, &attr);
	if (r == 0)
		r = pthread_cond_init(&p->left, &attr);
	if (r == 0)
		r = pthread_attr_init(&p->attr);
	if (r == 0)
		r = pthread_attr_setstacksize(&p->attr, STACK_SIZE);
	if (r == 0)
		r = pthread_attr_setdetachstate(&p->attr, PTHREAD_CREATE_DETACHED);
	return -r;
}

int pool_new(unsigned int max_threads, nsec_t idle, struct pool **ret)
{
	struct pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	list_init(&p->ready);
	list_init(&p->active);
	list_init(&p->done);
	p->max_threads = max_threads;
	p->idle_time = idle;
	r = init(p); /* on Linux these do not fail */
	if (r == 0) {
		p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r = p->fd < 0 ? -errno : 0;
	}
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	lock(p);
	assert(list_empty(&p->active) && list_empty(&p->done));
	p->stopping = true;
	(void)pthread_cond_broadcast(&p->work);
	while (p->threads)
		(void)pthread_cond_wait(&p->left, &p->lock);
	unlock(p);
	(void)pthread_mutex_destroy(&p->lock);
	(void)pthread_cond_destroy(&p->work);
	(void)pthread_cond_destroy(&p->left);
	(void)pthread_attr_destroy(&p->attr);
	(void)close(p->fd);
	free(p);
}

static struct pool_job *front_of(struct pool *p, uint64_t key)
{
	struct pool_job *job;

	list_for_each(job, &p->active, active)
		if (job->key == key)
			return job;
	return NULL;
}

int pool_submit(struct pool *p, struct pool_job *job)
{
	struct pool_job *front;
	int r = 0;

	job->begun = false;
	list_init(&job->node);
	list_init(&job->active);
	list_init(&job->behind);
	lock(p);
	front = front_of(p, job->key);
	if (front) {
		list_append(&front->behind, &job->node);
		p->n_behind++;
		unlock(p);
		return 0;
	}
	/* Idle threads that are already meant for a ready job do not count. */
	if (p->idle <= p->n_ready && p->threads < p->max_threads)
		r = add_thread(p);
	if (r == 0)
		make_ready(p, job);
	unlock(p);
	return r;
}

bool pool_cancel(struct pool *p, struct pool_job *job)
{
	bool mine;

	lock(p);
	mine = !job->begun;
	if (mine) {
		list_remove(&job->node);
		if (list_linked(&job->active)) {
			p->n_ready--;
			leave_front(p, job);
		} else {
			p->n_behind--;
		}
	}
	unlock(p);
	return mine;
}

int pool_fd(const struct pool *p)
{
	return p->fd;
}

void pool_clear_fd(struct pool *p)
{
	uint64_t count;

	/* EAGAIN when nothing was written since: fine. */
	(void)!read(p->fd, &count, sizeof(count));
}

struct pool_job *pool_collect(struct pool *p)
{
	struct pool_job *job;

	lock(p);
	job = list_first(&p->done, struct pool_job, node);
	if (job)
		list_remove(&job->node);
	unlock(p);
	return job;
}

void pool_stats(struct pool *p, struct pool_stats *ret)
{
	lock(p);
	*ret = (struct pool_stats){ .threads = p->threads,
				    .running = p->n_running,
				    .waiting = p->n_ready + p->n_behind };
	unlock(p);
}
