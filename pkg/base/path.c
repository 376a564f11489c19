/* SPDX-License-Identifier: Apache-2.0 */
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TREE_DEPTH_MAX 64

static bool alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool id_valid(const char *id)
{
	bool separator = true; /* none at the start */
	size_t n;

	for (n = 0; id[n]; n++) {
		if (n >= ID_MAX)
			return false;
		if (alnum(id[n]))
			separator = false;
		else if (separator || !strchr("._-", id[n]))
			return false;
		else
			separator = true;
	}
	return n > 0 && !separator;
}

bool ref_valid(const char *ref)
{
	size_t n;

	if (!alnum(ref[0]))
		return false;
	for (n = 0; ref[n]; n++)
		if (n >= REF_MAX || !(alnum(ref[n]) || strchr("._-", ref[n])))
			return false;
	return true;
}

/* Appends one path element to the cleaned path of length n; returns the new length or -1. */
static ssize_t add_element(char *buf, size_t size, size_t n, const char *el, size_t len)
{
	bool rooted = n > 0 && buf[0] == '/';

	if (len == 0 || (len == 1 && el[0] == '.'))
		return (ssize_t)n;
	if (len == 2 && el[0] == '.' && el[1] == '.') {
		size_t at = n;

		while (at > 0 && buf[at - 1] != '/')
			at--;
		if (!(n - at == 2 && memcmp(buf + at, "..", 2) == 0) && n > (rooted ? 1 : 0)) {
			/* Drop the last element, and the slash in front of it. */
			if (at > (rooted ? 1U : 0U))
				at--;
			return (ssize_t)at;
		}
		if (rooted)
			return (ssize_t)n; /* "/.." is "/" */
	}
	if (n > 0 && buf[n - 1] != '/') {
		if (n + 1 >= size)
			return -1;
		buf[n++] = '/';
	}
	if (len >= size - n)
		return -1;
	memcpy(buf + n, el, len);
	return (ssize_t)(n + len);
}

int path_join(char *buf, size_t size, const char *const *parts)
{
	bool first = true;
	size_t n = 0;

	if (size == 0)
		return -ENAMETOOLONG;
	for (; *parts; parts++) {
		const char *s = *parts;

		if (!*s)
			continue;
		if (first && *s == '/') {
			if (size < 2)
				return -ENAMETOOLONG;
			buf[n++] = '/';
		}
		first = false;
		while (*s) {
			size_t len = strcspn(s, "/");
			ssize_t got = add_element(buf, size, n, s, len);

			if (got < 0)
				return -ENAMETOOLONG;
			n = (size_t)got;
			s += len;
			s += strspn(s, "/");
		}
	}
	if (n == 0 && !first) {
		if (size < 2)
			return -ENAMETOOLONG;
		buf[n++] = '.';
	}
	buf[n] = 0;
	return 0;
}

int path_printf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int path_mkdirs(const char *path, unsigned int mode)
{
	char buf[PATH_MAX];
	size_t n = strlen(path);
	struct stat st;

	if (n == 0)
		return -ENOENT;
	if (n >= sizeof(buf))
		return -ENAMETOOLONG;
	memcpy(buf, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		if (buf[i] != '/' && buf[i] != 0)
			continue;
		buf[i] = 0;
		if (mkdir(buf, mode) < 0 && errno != EEXIST)
			return -errno;
		if (i < n)
			buf[i] = '/';
	}
	/* What was there already may be anything. */
	if (stat(buf, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int remove_tree(int at, const char *name, unsigned int depth)
{
	_cleanup_close_ int fd = -1;
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;
	int r;

	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth >= TREE_DEPTH_MAX)
		return -ELOOP;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	fd = -1; /* dir owns it */
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = remove_tree(dirfd(dir), e->d_name, depth + 1);
		if (r < 0)
			return r;
	}
	if (unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int path_remove_tree(int dirfd, const char *name)
{
	return remove_tree(dirfd, name, 0);
}

/* One component, which is no symbolic link. */
static int open_component(int at, const char *name, int flags)
{
	int fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC);
	int r = -errno;
	struct stat st;

	if (fd >= 0) {
		/* O_PATH opens the link itself, which openat2() does only for who asks for that. */
		if (!(flags & O_PATH) || flags & O_NOFOLLOW)
			return fd;
		r = fstat(fd, &st) < 0 ? -errno : S_ISLNK(st.st_mode) ? -ELOOP : 0;
		if (r == 0)
			return fd;
		(void)close(fd);
		return r;
	}
	/* With O_DIRECTORY a link is "not a directory" before it is a link. */
	if (r == -ENOTDIR && fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISLNK(st.st_mode))
		return -ELOOP;
	return r;
}

/*
 * The same without openat2(), a component at a time: systemd takes the call away by
 * RestrictSUIDSGID=, which DynamicUser= implies, for it cannot see the mode in it.
 */
static int walk_beneath(int dirfd, const char *path, int flags)
{
	_cleanup_close_ int at = -1;
	char copy[PATH_MAX];
	char *rest = copy, *name;
	int from = dirfd;

	if (*path == '/')
		return -EXDEV;
	if (PATH_PRINTF(copy, "%s", path) < 0)
		return -ENAMETOOLONG;
	while ((name = strsep(&rest, "/"))) {
		bool last = !rest || rest[strspn(rest, "/")] == 0;
		int fd;

		if (!*name)
			continue;
		if (strcmp(name, "..") == 0)
			return -EXDEV;
		fd = open_component(from, name, last ? flags : O_PATH | O_DIRECTORY);
		if (last || fd < 0)
			return fd;
		if (at >= 0)
			(void)close(at);
		from = at = fd;
	}
	return -ENOENT; /* "" */
}

int path_open_beneath(int dirfd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

	if (fd < 0 && errno == ENOSYS)
		return walk_beneath(dirfd, path, flags);
	return fd < 0 ? -errno : (int)fd;
}
