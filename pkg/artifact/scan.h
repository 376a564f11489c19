/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a directory that an enemy may have filled: what is in it, and its files, each opened so
 * that nothing but a regular file with one name, of ours or root's, is ever opened, no symbolic link
 * is followed and nothing blocks.
 *
 * Background: containerd's advisories GHSA-rgh6-rfwx-v388, GHSA-cvxm-645q-p574 and
 * GHSA-33vj-92qq-66hc, all of them checkpoints with contents that led elsewhere.
 *
 * All of this blocks on the disk.
 */
#ifndef KYB_ARTIFACT_SCAN_H
#define KYB_ARTIFACT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "artifact/layout.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

#define SCAN_DIRS_MAX 32

/* A file as it was when it was looked at: any change leaves a trace in one of these. */
struct scan_file {
	const char *path; /* relative to the directory scanned */
	uint64_t size;
	unsigned int mode; /* permission bits */
	dev_t dev;
	ino_t ino;
	struct timespec mtime, ctime;
};

struct scan {
	struct scan_file *files; /* sorted by path */
	size_t n_files, cap;
	const char *dirs[SCAN_DIRS_MAX]; /* sub-directories */
	size_t n_dirs;
	struct arena arena;
};

#define SCAN_NULL                                                                                  \
	(struct scan)                                                                              \
	{                                                                                          \
		.arena = ARENA_LIMIT((size_t)16 << 20)                                             \
	}
void scan_done(struct scan *s);
#define _cleanup_scan_ _cleanup_(scan_done)

/*
 * Lists a directory of that layout into s, which is SCAN_NULL. The directory and all in it have to
 * belong to the caller's user or to root, and nobody else may be able to write to a directory.
 * Returns 0; -EBADMSG with REASON_IMAGE_CORRUPT when something is there that may not be; or another
 * -errno with REASON_STORE_FAILED. scan_done() in every case.
 */
int scan_dir(int dirfd, const struct layout *layout, struct scan *s, struct error *err);

/* The file of that path, or NULL. */
const struct scan_file *scan_find(const struct scan *s, const char *path);

/* Is the file still what it was? Only what fstat() tells is compared. */
bool scan_same(const struct scan_file *f, const struct stat *st);

/*
 * Opens a file of the list for reading and checks that it is still the same.
 * Returns 0, -EBADMSG with REASON_IMAGE_CORRUPT, or -errno with REASON_STORE_FAILED.
 */
int scan_open(int dirfd, const struct scan_file *f, int *ret_fd, struct error *err);
/* The same check again, for after the file was read. */
int scan_recheck(int fd, const struct scan_file *f, struct error *err);

/*
 * The whole content of a small file, into out, which is empty and whose maximum it has to be
 * smaller than. Returns 0, -ENOENT with
 * REASON_IMAGE_MISSING, -EBADMSG with REASON_IMAGE_CORRUPT, or -errno with REASON_STORE_FAILED.
 */
int scan_read(int dirfd, const char *path, struct buf *out, struct error *err);

#endif
