/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/follow.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "artifact/manifest.h"

#define PATTERN   "pages-*.img"
#define FILES_MAX 256
/* Chunks that are read anew before any is believed: the first, the last, and some in between. */
#define SAMPLES   9

struct followed {
	int fd; /* kept open: no other file gets its inode's number */
	bool given_up;
	struct stat st; /* as it was first seen */
	off_t size; /* as it was last seen: it only grows */
	struct digest *chunks; /* MANIFEST_FILE_CHUNKS_MAX */
	size_t n;
};

struct follow {
	DIR *dir;
	uint64_t chunk_size;
	struct digester *digester;
	struct followed files[FILES_MAX];
	size_t n_files;
};

int follow_new(int dirfd, uint64_t expected, struct follow **ret)
{
	struct follow *f = calloc(1, sizeof(*f));
	int r, fd;

	if (!f)
		return -ENOMEM;
	if (expected < MANIFEST_TREE_MIN)
		expected = MANIFEST_TREE_MIN;
	f->chunk_size = manifest_chunk_size(expected, 1);
	r = digester_new(&f->digester);
	if (r == 0) {
		/* Not a duplicate, which would share its position with the caller's. */
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		f->dir = fd < 0 ? NULL : fdopendir(fd);
		if (!f->dir) {
			r = -errno;
			if (fd >= 0)
				(void)close(fd);
		}
	}
	if (r < 0)
		follow_free(f);
	else
		*ret = f;
	return r;
}

void follow_free(struct follow *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n_files; i++) {
		(void)close(f->files[i].fd);
		free(f->files[i].chunks);
	}
	if (f->dir)
		(void)closedir(f->dir);
	digester_free(f->digester);
	free(f);
}

/* -- while it is written --------------------------------------------------------------------- */

static bool is_followed(const struct follow *f, const struct stat *st)
{
	for (size_t i = 0; i < f->n_files; i++)
		if (f->files[i].st.st_ino == st->st_ino && f->files[i].st.st_dev == st->st_dev)
			return true;
	return false;
}

/* Returns whether it is one to follow; then it is among the files. */
static bool add(struct follow *f, const char *name)
{
	struct followed *new = &f->files[f->n_files];
	struct stat st;

	if (fstatat(dirfd(f->dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0 || is_followed(f, &st))
		return false;
	*new = (struct followed){ .fd = openat(dirfd(f->dir), name, O_RDONLY | O_NOFOLLOW |
							 O_NONBLOCK | O_NOCTTY | O_CLOEXEC) };
	if (new->fd < 0)
		return false;
	new->chunks = calloc(MANIFEST_FILE_CHUNKS_MAX, sizeof(*new->chunks));
	if (!new->chunks || fstat(new->fd, &new->st) < 0 || !S_ISREG(new->st.st_mode) ||
	    new->st.st_nlink != 1 || new->st.st_uid != geteuid()) {
		free(new->chunks);
		(void)close(new->fd);
		return false;
	}
	new->size = new->st.st_size;
	f->n_files++;
	return true;
}

static bool find_files(struct follow *f)
{
	bool found = false;
	struct dirent *e;

	rewinddir(f->dir);
	while (f->n_files < FILES_MAX && (e = readdir(f->dir)))
		if (fnmatch(PATTERN, e->d_name, 0) == 0 && add(f, e->d_name))
			found = true;
	return found;
}

/* Returns whether it has hashed a chunk. */
static bool hash_next(struct follow *f, struct followed *file)
{
	uint64_t at = file->n * f->chunk_size;
	struct stat st;

	if (file->given_up || file->n == MANIFEST_FILE_CHUNKS_MAX)
		return false;
	if (fstat(file->fd, &st) < 0 || st.st_size < file->size) {
		file->given_up = true;
		return false;
	}
	file->size = st.st_size;
	if ((uint64_t)st.st_size - at < f->chunk_size)
		return false;
	if (digester_range(f->digester, file->fd, at, f->chunk_size, &file->chunks[file->n],
			   NULL) < 0) {
		file->given_up = true;
		return false;
	}
	file->n++;
	/* A hint: what matters is the fsync() of the sealing. */
	(void)sync_file_range(file->fd, (off_t)at, (off_t)f->chunk_size, SYNC_FILE_RANGE_WRITE);
	return true;
}

int follow_step(struct follow *f)
{
	for (size_t i = 0; i < f->n_files; i++)
		if (hash_next(f, &f->files[i]))
			return 1;
	return find_files(f);
}

/* -- when it has been written ---------------------------------------------------------------- */

static bool is_still(struct follow *f, const struct followed *file, size_t chunk)
{
	struct digest now;

	return digester_range(f->digester, file->fd, chunk * f->chunk_size, f->chunk_size, &now,
			      NULL) == 0 &&
	       digest_equal(&now, &file->chunks[chunk]);
}

static bool samples_are_still(struct follow *f, const struct followed *file, size_t n)
{
	for (size_t i = 0; i < SAMPLES; i++)
		if (!is_still(f, file, i * (n - 1) / (SAMPLES - 1)))
			return false;
	return true;
}

size_t follow_known(struct follow *f, const struct scan_file *file, uint64_t chunk_min,
		    const struct digest **ret, uint64_t *ret_chunk_size)
{
	for (size_t i = 0; i < f->n_files; i++) {
		struct followed *one = &f->files[i];
		uint64_t whole = file->size ? (file->size - 1) / f->chunk_size : 0;
		size_t n = one->n < whole ? one->n : (size_t)whole;

		if (one->st.st_ino != file->ino || one->st.st_dev != file->dev)
			continue;
		if (one->given_up || n == 0 || file->size < one->n * f->chunk_size ||
		    chunk_min == 0 || f->chunk_size < chunk_min)
			return 0;
		if (!samples_are_still(f, one, n)) {
			one->given_up = true;
			return 0;
		}
		*ret = one->chunks;
		*ret_chunk_size = f->chunk_size;
		return n;
	}
	return 0;
}
