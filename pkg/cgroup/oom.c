/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/oom.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "cgroup/parse.h"

#define EVENTS_MAX 1024 /* bytes; memory.events has six short lines */

static bool is_v2(const struct cgroup *cg)
{
	return cg->host->mode == CGROUP_V2;
}

/* From the start of the file: that also arms the next poll. */
static int read_v2(int fd, uint64_t *ret)
{
	char text[EVENTS_MAX];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	if (n < 0)
		return -errno;
	*ret = parse_find(bytes_of(text, (size_t)n), "oom_kill");
	return 0;
}

/* One cgroup's memory.oom_control. Returns 1 when the kernel counts, 0 when not, or -errno. */
static int read_one(int dir, uint64_t *sum)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(EVENTS_MAX);
	int r = file_read(dir, "memory.oom_control", &b);

	if (r < 0)
		return r;
	*sum += parse_find(buf_bytes(&b), "oom_kill");
	return strstr(buf_str(&b), "oom_kill ") ? 1 : 0;
}

/*
 * Version 1 counts a kill only in the victim's own cgroup, so those below are added up. Asked for
 * after an event only; the limits bound a container that makes cgroups without end.
 */
static int read_tree(int dir, unsigned int depth, unsigned int *groups, uint64_t *sum)
{
	_cleanup_closedir_ DIR *list = NULL;
	int counts = read_one(dir, sum), fd;
	struct dirent *e;

	if (counts <= 0)
		return counts;
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		if (fd >= 0)
			(void)close(fd);
		return counts;
	}
	while (depth < CGROUP_DEPTH_MAX && *groups < CGROUP_GROUPS_MAX && (e = readdir(list))) {
		_cleanup_close_ int sub = -1;

		if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
			continue;
		sub = openat(dir, e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (sub < 0)
			continue; /* a file, or removed meanwhile */
		++*groups;
		(void)read_tree(sub, depth + 1, groups, sum);
	}
	return counts;
}

static int read_v1(const struct cgroup *cg, uint64_t *ret)
{
	_cleanup_close_ int dir = cgroup_dir(cg, CGROUP_MEMORY);
	unsigned int groups = 0;

	*ret = 0;
	return dir < 0 ? dir : read_tree(dir, 0, &groups, ret);
}

/*
 * Ours are read first: a kill between the two reads is then taken for another's, never another's for
 * ours. What is ours of it shows in the next look, while there is something to look at.
 */
static void note_others(struct oom_watch *w, uint64_t ours)
{
	uint64_t all = 0;

	if (w->has_above && read_v2(w->above.fd, &all) == 0)
		w->others = all - ours;
}

/* The last thing to be learnt, at once: kills of others that come later are not to be counted. */
static void gone(struct oom_watch *w)
{
	uint64_t all = 0;

	w->unseen = w->has_above && read_v2(w->above.fd, &all) == 0 &&
		    all - w->others > w->kills;
	oom_watch_stop(w);
}

/* Has the count risen? Calls back at most once. Returns 0, or -errno when the cgroup is gone. */
static int look(struct oom_watch *w)
{
	uint64_t kills = 0;
	bool risen;
	int r = is_v2(w->cg) ? read_v2(w->src.fd, &kills) : read_v1(w->cg, &kills);

	if (r < 0)
		return r;
	note_others(w, kills);
	risen = kills > w->kills;
	w->kills = kills; /* falls when a cgroup below is removed */
	if (risen)
		w->killed(w);
	return 0;
}

static void look_again(struct timer *t);

/*
 * The event of version 1 comes before the kill, so the count rises a little later, or not at all:
 * look again after 1, 10, 100 and 1000 ms.
 */
static void look_later(struct oom_watch *w)
{
	nsec_t wait = NSEC_PER_MSEC;

	if (w->tries >= 4)
		return;
	for (unsigned int i = 0; i < w->tries; i++)
		wait *= 10;
	w->tries++;
	timer_set(w->loop, &w->again, time_add(time_now(), wait), look_again);
}

static void look_again(struct timer *t)
{
	struct oom_watch *w = container_of(t, struct oom_watch, again);
	uint64_t before = w->kills;

	if (look(w) < 0)
		oom_watch_stop(w);
	else if (w->loop && w->kills <= before)
		look_later(w);
}

static void event_v1(struct source *src, uint32_t events)
{
	struct oom_watch *w = container_of(src, struct oom_watch, src);
	_cleanup_close_ int dir = -1;
	uint64_t n;

	(void)events;
	if (read(src->fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
		return;
	dir = cgroup_dir(w->cg, CGROUP_MEMORY);
	if (dir < 0) {
		oom_watch_stop(w); /* it was the removal that was told */
		return;
	}
	if (!w->counts) {
		w->killed(w);
		return;
	}
	w->tries = 0;
	look_later(w);
	if (look(w) < 0)
		oom_watch_stop(w);
}

static void look_v2(struct oom_watch *w)
{
	if (look(w) < 0)
		gone(w);
}

static void event_v2(struct source *src, uint32_t events)
{
	(void)events;
	look_v2(container_of(src, struct oom_watch, src));
}

static void event_above(struct source *src, uint32_t events)
{
	(void)events;
	look_v2(container_of(src, struct oom_watch, above));
}

/* The kernel needs the two files only for this call; the eventfd is all that stays open. */
static int start_v1(struct oom_watch *w)
{
	_cleanup_close_ int dir = cgroup_dir(w->cg, CGROUP_MEMORY), control = -1, event = -1;
	char text[32];
	int r;

	if (dir < 0)
		return dir;
	control = openat(dir, "memory.oom_control", O_RDONLY | O_CLOEXEC);
	if (control < 0)
		return -errno;
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event < 0)
		return -errno;
	r = read_v1(w->cg, &w->kills);
	if (r < 0)
		return r;
	w->counts = r == 1;
	(void)snprintf(text, sizeof(text), "%d %d", event, control);
	r = file_put(dir, "cgroup.event_control", text);
	if (r == 0)
		r = source_add(w->loop, &w->src, event, EPOLLIN, event_v1);
	if (r == 0)
		event = -1; /* the source has it */
	return r;
}

/*
 * The count that outlives the cgroup of a systemd scope, which is not only removed by who made it:
 * its parent's, which has all below it counted, removed ones too. A container does without.
 */
static void start_above(struct oom_watch *w)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], *end = NULL;

	if (cgroup_path(w->cg, CGROUP_MEMORY, path, sizeof(path)) < 0)
		return;
	for (char *at = path; (at = strstr(at, ".scope")); at += strlen(".scope"))
		if (at[6] == '/' || !at[6])
			end = at;
	if (!end)
		return;
	*end = 0;
	end = strrchr(path, '/');
	if (path_printf(end, sizeof(path) - (size_t)(end - path), "/memory.events") < 0)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || source_add(w->loop, &w->above, fd, EPOLLPRI, event_above) < 0)
		return;
	fd = -1; /* the source has it */
	w->has_above = true;
	note_others(w, w->kills);
}

static int start_v2(struct oom_watch *w)
{
	_cleanup_close_ int dir = cgroup_dir(w->cg, CGROUP_MEMORY), fd = -1;
	int r;

	if (dir < 0)
		return dir;
	fd = openat(dir, "memory.events", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	w->counts = true;
	r = read_v2(fd, &w->kills);
	if (r == 0)
		r = source_add(w->loop, &w->src, fd, EPOLLPRI, event_v2);
	if (r == 0) {
		fd = -1; /* the source has it */
		start_above(w);
	}
	return r;
}

int oom_watch_start(struct oom_watch *w, struct loop *loop, const struct cgroup *cg,
		    void (*killed)(struct oom_watch *w), struct error *err)
{
	int r;

	assert(!w->loop);
	*w = (struct oom_watch){ .loop = loop, .cg = cg, .killed = killed };
	r = is_v2(cg) ? start_v2(w) : start_v1(w);
	if (r == -ENODEV)
		r = -ENOENT;
	if (r < 0) {
		w->loop = NULL;
		return error_sys(err, r, "watch the cgroup for OOM kills");
	}
	return 0;
}

void oom_watch_check(struct oom_watch *w)
{
	/* Without a count there is nothing to look at; a gone cgroup has no more kills. */
	if (w->loop && w->counts && look(w) < 0)
		gone(w);
}

void oom_watch_infer(struct oom_watch *w)
{
	if (w->unseen) {
		w->unseen = false;
		w->killed(w);
	}
}

void oom_watch_stop(struct oom_watch *w)
{
	if (!w->loop)
		return;
	timer_cancel(&w->again);
	source_remove(&w->src);
	(void)close(w->src.fd);
	if (w->has_above) {
		source_remove(&w->above);
		(void)close(w->above.fd);
		w->has_above = false;
	}
	w->loop = NULL;
}
