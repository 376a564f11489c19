/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of operations that failed: the end of CRIU's log, for whoever wants to know why. The
 * folder that CRIU wrote it to goes with the container's bundle, or with the unfinished checkpoint.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/store-internal.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define LOGS   "." LAYOUT_LOGS
#define SUFFIX ".log"

struct tail {
	char *text;
	size_t n;
};

/* Whoever names the path is trusted with a log, not with making us hang on a FIFO. */
static int read_tail(const char *path, struct tail *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	_cleanup_free_ char *text = malloc(STORE_LOG_TAIL);
	struct stat st;
	off_t at;
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	at = st.st_size > (off_t)STORE_LOG_TAIL ? st.st_size - (off_t)STORE_LOG_TAIL : 0;
	while (n < STORE_LOG_TAIL) {
		ssize_t r = pread(fd, text + n, STORE_LOG_TAIL - n, at + (off_t)n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	if (n == 0)
		return -ENODATA;
	*ret = (struct tail){ TAKE_PTR(text), n };
	return 0;
}

static int open_logs(const struct store *s)
{
	if (mkdirat(s->fd, LOGS, 0700) < 0 && errno != EEXIST)
		return -errno;
	return store_open_dir(s, LOGS);
}

/* Only what can be a log of ours: whatever else lies there stays, and takes nobody's place. */
static bool is_log(int dirfd, const char *name)
{
	size_t n = strlen(name);
	struct stat st;

	if (*name == '.' || n <= sizeof(SUFFIX) - 1 ||
	    strcmp(name + n - (sizeof(SUFFIX) - 1), SUFFIX) != 0)
		return false;
	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* Their names begin with the time, so the first is the oldest. Returns how many there are. */
static int find_oldest(int dirfd, char *oldest, size_t size)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		int r = -errno;

		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while ((errno = 0, e = readdir(dir))) {
		if (!is_log(fd, e->d_name))
			continue;
		if (n++ == 0 || strcmp(e->d_name, oldest) < 0)
			(void)snprintf(oldest, size, "%s", e->d_name);
	}
	return errno ? -errno : n;
}

static int make_room(int dirfd)
{
	char oldest[NAME_MAX + 1];
	int n;

	while ((n = find_oldest(dirfd, oldest, sizeof(oldest))) >= STORE_LOGS_MAX)
		if (unlinkat(dirfd, oldest, 0) < 0)
			return -errno;
	return n < 0 ? n : 0;
}

static int log_name(const char *id, const char *kind, char *ret, size_t size)
{
	time_t now = (time_t)(time_wall() / NSEC_PER_SEC);
	struct tm tm = { 0 };
	char random[9];
	int r = id_valid(id) ? store_random(random) : -EINVAL;

	if (r < 0)
		return r;
	(void)gmtime_r(&now, &tm);
	return path_printf(ret, size, "%04d%02d%02dT%02d%02d%02dZ-%.4s-%.64s-%s" SUFFIX,
			   tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
			   tm.tm_sec, random, id, kind);
}

int store_keep_log(struct store *s, const char *id, const char *kind, const char *from, char *ret,
		   struct error *err)
{
	_cleanup_close_ int dir = -1;
	char name[NAME_MAX - 8]; /* file_write() appends to it */
	struct tail tail = { 0 };
	int r;

	assert(s->access == STORE_OWNER);
	if (*from != '/')
		return fail_sys(err, -EINVAL, "keep a log");
	r = read_tail(from, &tail);
	if (r == 0)
		r = dir = open_logs(s);
	if (r >= 0)
		r = make_room(dir);
	if (r == 0)
		r = log_name(id, kind, name, sizeof(name));
	if (r == 0)
		r = file_write(dir, name, tail.text, tail.n, 0600, FILE_PLAIN);
	free(tail.text);
	store_look_later(s);
	if (r == 0)
		r = path_printf(ret, PATH_MAX, "%s/" LOGS "/%s", s->path, name);
	return r < 0 ? fail_sys(err, r, "keep the log of a failure") : 0;
}
