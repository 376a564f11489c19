/* SPDX-License-Identifier: Apache-2.0 */
/* Small files and descriptors. Everything opened here is O_CLOEXEC. */
#ifndef KYB_BASE_FD_H
#define KYB_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"

/* Sets or clears O_NONBLOCK. Returns 0 or -errno. */
int fd_nonblock(int fd, bool on);
/* Marks every descriptor from first on close-on-exec. Returns 0 or -errno. */
int fd_cloexec_from(int first);
/* Writes all n bytes to a blocking descriptor, retrying EINTR. Returns 0 or -errno. */
int fd_write_all(int fd, const void *p, size_t n);

/*
 * Appends a file's content to out, which bounds it by its own maximum; dirfd may be AT_FDCWD.
 * Returns 0, -EFBIG when the file is larger, else -errno. Works for /proc and cgroup files.
 */
int file_read(int dirfd, const char *path, struct buf *out);
/* A file of one line into buf (size bytes, NUL-terminated), the newline cut off. */
int file_read_line(int dirfd, const char *path, char *buf, size_t size);

enum file_flags {
	FILE_PLAIN = 0,
	FILE_SYNC = 1, /* fsync the file before, and its directory after the rename */
};

/*
 * Puts a whole file in place so that a reader sees the old or the new content and nothing else:
 * written to "<name>.new" in the same directory, then renamed. Returns 0 or -errno.
 */
int file_write(int dirfd, const char *name, const void *p, size_t n, mode_t mode,
	       enum file_flags flags);
/* Writes to an existing file such as a cgroup's: no O_CREAT, one write(). */
int file_put(int dirfd, const char *path, const char *text);

#endif
