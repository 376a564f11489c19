/* SPDX-License-Identifier: Apache-2.0 */
/* Unmounting a tree: mnt_unmount_all() of mnt.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mountinfo.h"
#include "mnt/helper.h"
#include "mnt/mnt.h"

#define POINTS_MAX   65536
#define RETRY_EVERY  (10 * NSEC_PER_MSEC)
#define HELPER_LIMIT (5 * NSEC_PER_SEC)

struct point {
	char *path;
	size_t len;
	bool fuse;
};

struct points {
	const char *below;
	struct point *p;
	size_t n, cap;
};

static void clear(struct points *all)
{
	for (size_t i = 0; i < all->n; i++)
		free(all->p[i].path);
	free(all->p);
	*all = (struct points){ .below = all->below };
}

static bool is_fuse(struct bytes type)
{
	return type.n >= 4 && memcmp(type.p, "fuse", 4) == 0 &&
	       (type.n == 4 || type.p[4] == '.' || type.n == strlen("fuseblk"));
}

static int collect(void *arg, const struct mountinfo *m)
{
	struct points *all = arg;
	size_t n = strlen(all->below);
	char path[PATH_MAX];

	if (mountinfo_unescape(m->point, path, sizeof(path)) < 0)
		return 0; /* no system call would take it either */
	if (strncmp(path, all->below, n) != 0 || (path[n] && path[n] != '/'))
		return 0;
	if (all->n == all->cap) {
		size_t cap = all->cap ? all->cap * 2 : 16;
		struct point *more;

		if (cap > POINTS_MAX)
			return -E2BIG;
		more = realloc(all->p, cap * sizeof(*more));
		if (!more)
			return -ENOMEM;
		all->p = more;
		all->cap = cap;
	}
	all->p[all->n].path = strdup(path);
	if (!all->p[all->n].path)
		return -ENOMEM;
	all->p[all->n].len = strlen(path);
	all->p[all->n++].fuse = is_fuse(m->type);
	return 0;
}

/* A mount below another has the longer path. */
static int deepest_first(const void *a, const void *b)
{
	size_t x = ((const struct point *)a)->len, y = ((const struct point *)b)->len;

	return (x < y) - (x > y);
}

/*
 * The kernel lets root unmount FUSE like anything else, and unlike statfs(2), which containerd
 * asks for the type, umount(2) does not talk to a server that may hang. Who is not root has a
 * helper for it that is.
 */
static int unmount_one(const struct point *p)
{
	const char *argv[] = { "fusermount3", "-u", p->path, NULL };
	int r;

	if (umount2(p->path, UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (!p->fuse || errno != EPERM)
		return -errno;
	r = helper_run(argv, HELPER_LIMIT, NULL);
	if (r == -ENOENT) {
		argv[0] = "fusermount";
		r = helper_run(argv, HELPER_LIMIT, NULL);
	}
	return r < 0 ? -EPERM : 0;
}

/* One pass over all. Returns how many are gone; *ret_r is the first failure, or 0. */
static size_t unmount_found(struct points *all, int *ret_r, struct error *err)
{
	size_t gone = 0;

	*ret_r = 0;
	if (all->n) /* there is no array else */
		qsort(all->p, all->n, sizeof(*all->p), deepest_first);
	for (size_t i = 0; i < all->n; i++) {
		int r = unmount_one(&all->p[i]);

		if (r == 0)
			gone++;
		else if (*ret_r == 0 || *ret_r == -EINVAL)
			*ret_r = error_sys(err, r, "unmount %s", all->p[i].path);
	}
	return gone;
}

/*
 * The path as the kernel has it in mountinfo. The descriptor is opened with O_PATH, which asks
 * no file system about its root, and is closed again: it would keep the mount busy.
 */
static int canonical(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
	char link[64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, size - 1);
	if (n < 0)
		return -errno;
	if ((size_t)n >= size - 1)
		return -ENAMETOOLONG;
	buf[n] = 0;
	return 0;
}

int mnt_unmount_all(const char *path, nsec_t patience, struct error *err)
{
	const struct timespec pause = { .tv_nsec = (long)RETRY_EVERY };
	nsec_t deadline = time_add(time_now(), patience);
	struct error last = ERROR_NULL; /* a failure that a later pass makes good is none */
	struct points all = { 0 };
	char real[PATH_MAX];
	int r = canonical(path, real, sizeof(real));

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_sys(err, r, "unmount %s", path);
	if (strcmp(real, "/") == 0)
		return error_set(err, -EINVAL, "unmount %s: refused", path);
	all.below = real;
	for (;;) {
		size_t gone = 0, found;

		r = mountinfo_each("/proc/self/mountinfo", collect, &all);
		if (r < 0)
			(void)error_sys(&last, r, "list the mounts below %s", path);
		else
			gone = unmount_found(&all, &r, &last);
		found = all.n;
		clear(&all);
		if (gone == found && r == 0)
			return 0;
		/*
		 * EINVAL and ENOENT: another mount lies over it. That one is gone now, or is
		 * busy.
		 */
		if (gone > 0)
			continue;
		if (r != -EBUSY || time_now() >= deadline)
			break;
		(void)nanosleep(&pause, NULL);
	}
	if (err)
		*err = last;
	return r;
}
