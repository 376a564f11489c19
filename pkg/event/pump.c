/* SPDX-License-Identifier: Apache-2.0 */
#include "event/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define COPY_SIZE     ((size_t)32 << 10)
#define SPLICE_SIZE   ((size_t)1 << 20)
#define STEPS_A_ROUND 16 /* then other sources get their turn */

enum step {
	STEP_MORE,  /* bytes were moved, there may be more */
	STEP_EMPTY, /* nothing to read now */
	STEP_FULL,  /* nothing can be written now */
	STEP_END,   /* from has ended, or one of the two failed */
};

static void deliver_end(struct job *job)
{
	struct pump *p = container_of(job, struct pump, end);

	p->done(p);
}

static void unwatch_to(struct pump *p)
{
	source_remove(&p->out);
	if (p->twin >= 0)
		(void)close(TAKE_FD(p->twin));
}

static void finish(struct pump *p)
{
	p->ended = true;
	timer_cancel(&p->again);
	source_remove(&p->in);
	unwatch_to(p);
	job_put_off(p->loop, &p->end, deliver_end);
}

/* Pipe to pipe: the kernel moves the pages. */
static enum step step_splice(struct pump *p)
{
	ssize_t n = splice(p->from, NULL, p->to, NULL, SPLICE_SIZE,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	int queued = 0;

	if (n > 0 || (n < 0 && errno == EINTR))
		return STEP_MORE;
	if (n == 0 || errno != EAGAIN)
		return STEP_END;
	/* EAGAIN does not say which of the two: ask whether there is anything to move. */
	return ioctl(p->from, FIONREAD, &queued) == 0 && queued > 0 ? STEP_FULL : STEP_EMPTY;
}

static enum step write_held(struct pump *p)
{
	while (p->held_at < p->held_n) {
		size_t left = p->held_n - p->held_at;
		ssize_t n = p->to < 0 ? (ssize_t)left : write(p->to, p->held + p->held_at, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return STEP_FULL;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO))
			n = (ssize_t)left; /* a full disk loses the log, but must not stop the
					    * container: go on reading */
		if (n < 0)
			return STEP_END;
		p->held_at += (size_t)n;
	}
	p->held_at = p->held_n = 0;
	return STEP_MORE;
}

static enum step step_copy(struct pump *p)
{
	enum step s;
	ssize_t n;

	if (!p->held) {
		p->held = malloc(COPY_SIZE);
		if (!p->held)
			return STEP_END;
	}
	s = write_held(p);
	if (s != STEP_MORE)
		return s;
	n = read(p->from, p->held, COPY_SIZE);
	if (n > 0) {
		p->held_n = (size_t)n;
		return write_held(p);
	}
	if (n < 0 && errno == EINTR)
		return STEP_MORE;
	if (n < 0 && errno == EAGAIN)
		return STEP_EMPTY;
	if (n < 0 && errno == EIO && p->terminal)
		return STEP_EMPTY; /* nobody has the other side open right now */
	return STEP_END;
}

static void readable(struct source *src, uint32_t events);
static void writable(struct source *src, uint32_t events);

/*
 * An epoll takes a descriptor once, and the owner of a borrowed one may have added it: then a
 * duplicate is watched, which lives only as long as the wait.
 */
static int watch_to(struct pump *p)
{
	if (p->out.loop)
		return 0;
	if (p->borrows_to) {
		p->twin = fcntl(p->to, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (p->twin < 0)
			return -errno;
	}
	return source_add(p->loop, &p->out, p->borrows_to ? p->twin : p->to,
			  (uint32_t)(EPOLLOUT | EPOLLET), writable);
}

/*
 * Waits for from, or for to when that is full; never for both: a hang-up of the other one cannot
 * be masked and would be reported for ever. to, and a terminal, are watched edge-triggered: a
 * terminal's hang-up is no end and lasts until somebody opens its other side again. An edge that
 * was there before is reported when the source is added, so none is missed.
 */
static int watch(struct pump *p, bool full)
{
	if (full) {
		source_remove(&p->in);
		return watch_to(p);
	}
	unwatch_to(p);
	return p->in.loop ? 0
			  : source_add(p->loop, &p->in, p->from,
				       p->terminal ? (uint32_t)(EPOLLIN | EPOLLET) : EPOLLIN,
				       readable);
}

static void run(struct pump *p);

static void run_again(struct timer *t)
{
	run(container_of(t, struct pump, again));
}

static void run(struct pump *p)
{
	enum step s = STEP_MORE;

	for (int i = 0; i < STEPS_A_ROUND && s == STEP_MORE; i++)
		s = p->splice ? step_splice(p) : step_copy(p);
	if (p->held && !p->held_n) {
		free(p->held); /* an idle pump holds no memory */
		p->held = NULL;
	}
	if (s == STEP_EMPTY && p->finishing)
		s = STEP_END;
	if (s != STEP_END && watch(p, s == STEP_FULL) < 0)
		s = STEP_END;
	if (s == STEP_END) {
		finish(p);
		return;
	}
	/* Edges come once, and finishing needs no event at all: do not wait for one. */
	if (s == STEP_MORE && (p->terminal || p->finishing))
		timer_set(p->loop, &p->again, time_now(), run_again);
}

static void readable(struct source *src, uint32_t events)
{
	(void)events; /* read() tells more exactly */
	run(container_of(src, struct pump, in));
}

static void writable(struct source *src, uint32_t events)
{
	(void)events;
	run(container_of(src, struct pump, out));
}

static bool is_pipe(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

int pump_open(struct pump *p, struct loop *loop, int from, int to, enum pump_flags flags,
	      void (*done)(struct pump *p))
{
	int r;

	*p = (struct pump){ .loop = loop, .from = from, .to = to, .twin = -1, .done = done };
	p->terminal = flags & PUMP_TERMINAL;
	p->borrows_to = flags & PUMP_BORROWS_TO;
	p->splice = is_pipe(from) && is_pipe(to);
	r = fd_nonblock(from, true);
	if (r == 0 && to >= 0)
		r = fd_nonblock(to, true);
	if (r == 0)
		r = watch(p, false);
	if (r < 0)
		pump_close(p);
	return r;
}

bool pump_idle(const struct pump *p)
{
	int queued = 0;

	return !pump_is_open(p) || p->ended ||
	       (!p->held_n && ioctl(p->from, FIONREAD, &queued) == 0 && queued == 0);
}

void pump_finish(struct pump *p)
{
	if (!pump_is_open(p) || p->ended || p->finishing)
		return;
	p->finishing = true;
	run(p);
}

void pump_close(struct pump *p)
{
	if (!pump_is_open(p))
		return;
	timer_cancel(&p->again);
	job_cancel(&p->end);
	source_remove(&p->in);
	unwatch_to(p);
	(void)close(p->from);
	if (p->to >= 0 && !p->borrows_to)
		(void)close(p->to);
	free(p->held);
	*p = (struct pump){ .from = -1, .to = -1, .twin = -1 };
}
