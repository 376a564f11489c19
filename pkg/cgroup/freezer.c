/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/freezer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cgroup/parse.h"

#define BACKOFF_MAX (10 * NSEC_PER_MSEC)
#define THAW_EVERY  16 /* tries, version 1 */

static bool is_v2(const struct cgroup *cg)
{
	return cg->host->mode == CGROUP_V2;
}

/* A cgroup's file that is removed under our hands gives ENODEV. */
static int gone_or(int r)
{
	return r == -ENODEV ? -ENOENT : r;
}

static int open_dir(const struct cgroup *cg)
{
	int dir = cgroup_dir(cg, CGROUP_FREEZER);

	return dir == -ENOENT && cgroup_exists(cg) ? -EOPNOTSUPP : dir;
}

/* The first byte of a file that holds "0" or "1". 1, 0 or -errno. */
static int flag(int dir, const char *file)
{
	char text[16];
	int r = file_read_line(dir, file, text, sizeof(text));

	return r < 0 ? gone_or(r) : text[0] == '1';
}

/* "frozen 1" in cgroup.events, read from its start: that also arms the next poll. */
static int read_events(int fd)
{
	char text[256];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	if (n < 0)
		return gone_or(-errno);
	return parse_find(bytes_of(text, (size_t)n), "frozen") == 1;
}

/* Version 2 does not say whether a parent is frozen: look at each. */
static int parents_frozen(const struct cgroup *cg)
{
	char path[PATH_MAX];
	const char *root = cg->host->root;
	int r = cgroup_path(cg, CGROUP_FREEZER, path, sizeof(path));

	while (r == 0) {
		_cleanup_close_ int dir = -1;
		char *slash = strrchr(path, '/');

		if (!slash || (size_t)(slash - path) <= strlen(root))
			return 0; /* the root cgroup cannot be frozen */
		*slash = 0;
		dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return -errno;
		r = flag(dir, "cgroup.freeze");
		if (r == 1)
			return 1;
	}
	return r;
}

static int state_v2(const struct cgroup *cg, int dir, int events, struct freezer_state *ret)
{
	struct freezer_state s = { 0 };
	int r = flag(dir, "cgroup.freeze");

	if (r < 0)
		return r == -ENOENT && cgroup_exists(cg) ? -EOPNOTSUPP : r;
	s.self = r == 1;
	r = read_events(events);
	if (r < 0)
		return r;
	s.frozen = r == 1;
	r = parents_frozen(cg);
	if (r < 0)
		return r;
	s.parent = r == 1;
	*ret = s;
	return 0;
}

static int state_v1(int dir, struct freezer_state *ret)
{
	struct freezer_state s = { 0 };
	char text[32];
	int r = file_read_line(dir, "freezer.state", text, sizeof(text));

	if (r < 0)
		return gone_or(r);
	s.frozen = strcmp(text, "FROZEN") == 0;
	/* Linux before 3.8 does not tell by whom. */
	r = flag(dir, "freezer.self_freezing");
	s.self = r < 0 ? strcmp(text, "THAWED") != 0 : r == 1;
	s.parent = flag(dir, "freezer.parent_freezing") == 1;
	*ret = s;
	return 0;
}

int freezer_state(const struct cgroup *cg, struct freezer_state *ret, struct error *err)
{
	_cleanup_close_ int dir = open_dir(cg), events = -1;
	int r = dir < 0 ? dir : 0;

	if (r == 0 && is_v2(cg)) {
		events = openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC);
		r = events < 0 ? -errno : state_v2(cg, dir, events, ret);
	} else if (r == 0) {
		r = state_v1(dir, ret);
	}
	return r < 0 ? error_sys(err, r, "read the freezer's state") : 0;
}

static int write_wanted(const struct freezer *f, bool freeze)
{
	int r;

	if (is_v2(f->cg))
		r = file_put(f->dir, "cgroup.freeze", freeze ? "1" : "0");
	else
		r = file_put(f->dir, "freezer.state", freeze ? "FROZEN" : "THAWED");
	return gone_or(r);
}

static void release(struct freezer *f)
{
	source_remove(&f->src);
	timer_cancel(&f->retry);
	timer_cancel(&f->deadline);
	job_cancel(&f->first);
	if (f->events >= 0)
		(void)close(f->events);
	if (f->dir >= 0)
		(void)close(f->dir);
	f->dir = f->events = -1;
	f->loop = NULL;
}

static void finish(struct freezer *f, int r, struct error *err)
{
	if (r < 0 && err->code == 0)
		(void)error_sys(err, r, "%s the cgroup", f->freeze ? "freeze" : "thaw");
	release(f);
	f->done(f, r, err);
}

/* 0 = reached, 1 = not yet, or -errno. */
static int reached(struct freezer *f, struct error *err)
{
	struct freezer_state s;
	int r = is_v2(f->cg) ? state_v2(f->cg, f->dir, f->events, &s) : state_v1(f->dir, &s);

	if (r < 0)
		return r;
	if (f->freeze)
		return s.frozen && s.self ? 0 : 1;
	if (s.parent)
		return error_set(err, -EBUSY, "thaw the cgroup: one above it is frozen");
	return s.frozen || s.self ? 1 : 0;
}

static void look(struct freezer *f);

static void again(struct timer *t)
{
	struct freezer *f = container_of(t, struct freezer, retry);

	f->tries++;
	look(f);
}

static void changed(struct source *src, uint32_t events)
{
	(void)events;
	look(container_of(src, struct freezer, src));
}

/*
 * Version 1: written again, since what is frozen is decided when it is written; and thawed for a
 * moment every so often, which lets a process finish that holds up another.
 */
static int push_v1(struct freezer *f)
{
	bool breathe = f->freeze && f->tries % THAW_EVERY == THAW_EVERY - 1;

	return write_wanted(f, f->freeze && !breathe);
}

static void look(struct freezer *f)
{
	struct error err = ERROR_NULL;
	nsec_t wait = NSEC_PER_MSEC << (f->tries < 8 ? f->tries : 8);
	int r = reached(f, &err);

	if (r == 1 && !is_v2(f->cg)) {
		r = push_v1(f);
		r = r < 0 ? r : 1;
	}
	if (r != 1) {
		finish(f, r, &err);
		return;
	}
	/* With a source the kernel tells. Else ask again: soon, then every 10 ms. */
	if (!f->src.loop)
		timer_set(f->loop, &f->retry,
			  time_add(time_now(), wait < BACKOFF_MAX ? wait : BACKOFF_MAX), again);
}

static void first_look(struct job *job)
{
	look(container_of(job, struct freezer, first));
}

static void too_late(struct timer *t)
{
	struct freezer *f = container_of(t, struct freezer, deadline);
	struct error err = ERROR_NULL;

	/* Half frozen is the worst of all: some processes wait for others that never answer. */
	if (f->freeze && !f->was_self)
		(void)write_wanted(f, false);
	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "%s the cgroup: a process does not %s in time",
			   f->freeze ? "freeze" : "thaw", f->freeze ? "stop" : "resume");
	finish(f, -ETIMEDOUT, &err);
}

static int prepare(struct freezer *f)
{
	struct freezer_state s;
	int r;

	f->dir = open_dir(f->cg);
	if (f->dir < 0)
		return f->dir;
	if (is_v2(f->cg)) {
		f->events = openat(f->dir, "cgroup.events", O_RDONLY | O_CLOEXEC);
		if (f->events < 0)
			return -errno;
		r = state_v2(f->cg, f->dir, f->events, &s);
		/*
		 * The poll tells of changes since the file was last read. Where it cannot be
		 * polled (no cgroup file system), the timer asks.
		 */
		if (r == 0)
			r = source_add(f->loop, &f->src, f->events, EPOLLPRI, changed);
		if (r == -EPERM)
			r = 0;
	} else {
		r = state_v1(f->dir, &s);
	}
	if (r < 0)
		return r;
	f->was_self = s.self;
	return write_wanted(f, f->freeze);
}

static int begin(struct freezer *f, struct loop *loop, const struct cgroup *cg, bool freeze,
		 nsec_t deadline, void (*done)(struct freezer *f, int r, const struct error *err),
		 struct error *err)
{
	int r;

	assert(!f->loop);
	*f = (struct freezer){ .loop = loop, .cg = cg, .freeze = freeze, .dir = -1, .events = -1,
			       .done = done };
	r = prepare(f);
	if (r < 0) {
		release(f);
		return error_sys(err, r, "%s the cgroup", freeze ? "freeze" : "thaw");
	}
	job_put_off(loop, &f->first, first_look);
	if (deadline != NSEC_NEVER)
		timer_set(loop, &f->deadline, deadline, too_late);
	return 0;
}

int freezer_freeze(struct freezer *f, struct loop *loop, const struct cgroup *cg, nsec_t deadline,
		   void (*done)(struct freezer *f, int r, const struct error *err),
		   struct error *err)
{
	return begin(f, loop, cg, true, deadline, done, err);
}

int freezer_thaw(struct freezer *f, struct loop *loop, const struct cgroup *cg, nsec_t deadline,
		 void (*done)(struct freezer *f, int r, const struct error *err),
		 struct error *err)
{
	return begin(f, loop, cg, false, deadline, done, err);
}

void freezer_cancel(struct freezer *f)
{
	if (f->loop)
		release(f);
}
