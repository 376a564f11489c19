/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

int fd_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

int fd_cloexec_from(int first)
{
	if (close_range((unsigned int)first, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int fd_write_all(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t got = write(fd, at, n);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		at += got;
		n -= (size_t)got;
	}
	return 0;
}

int file_read(int dirfd, const char *path, struct buf *out)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t step = 4096;

	if (fd < 0)
		return -errno;
	for (;;) {
		uint8_t *to = buf_reserve(out, step);
		ssize_t got;

		if (!to) {
			/* Near the maximum: read byte-wise to find out whether that was all. */
			if (errno != EMSGSIZE)
				return -errno;
			if (step == 1) {
				char extra;

				got = read(fd, &extra, 1);
				return got < 0 ? -errno : got == 0 ? 0 : -EFBIG;
			}
			step = step > 64 ? 64 : 1;
			continue;
		}
		got = read(fd, to, step);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return 0;
		buf_commit(out, (size_t)got);
	}
}

int file_read_line(int dirfd, const char *path, char *buf, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(size);
	int r = file_read(dirfd, path, &b);
	size_t n;

	if (r < 0)
		return r;
	n = strcspn(buf_str(&b), "\n");
	if (n >= size)
		return -EFBIG;
	memcpy(buf, buf_str(&b), n);
	buf[n] = 0;
	return 0;
}

static int sync_dir_of(int dirfd, const char *name)
{
	_cleanup_close_ int fd = -1;
	char dir[PATH_MAX];
	const char *slash = strrchr(name, '/');

	if (slash == name)
		(void)snprintf(dir, sizeof(dir), "/");
	else if (slash)
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - name), name);
	else
		(void)snprintf(dir, sizeof(dir), ".");
	fd = openat(dirfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int file_write(int dirfd, const char *name, const void *p, size_t n, mode_t mode,
	       enum file_flags flags)
{
	_cleanup_close_ int fd = -1;
	char tmp[PATH_MAX];
	int r;

	if (snprintf(tmp, sizeof(tmp), "%s.new", name) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	/* What a crash left under that name would keep its own mode and its other names. */
	if (unlinkat(dirfd, tmp, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, p, n);
	if (r == 0 && (flags & FILE_SYNC) && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = -errno;
	if (r == 0 && (flags & FILE_SYNC))
		return sync_dir_of(dirfd, name);
	if (r < 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}

int file_put(int dirfd, const char *path, const char *text)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
	size_t n = strlen(text);
	ssize_t put;

	if (fd < 0)
		return -errno;
	do
		put = write(fd, text, n);
	while (put < 0 && errno == EINTR);
	if (put < 0)
		return -errno;
	return (size_t)put == n ? 0 : -EIO;
}
