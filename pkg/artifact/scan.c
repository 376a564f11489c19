/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/scan.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "artifact/manifest.h"
#include "base/cleanup.h"
#include "base/path.h"

/* Logs and the like come on top of what a manifest can hold. */
#define FILES_MAX (MANIFEST_FILES_MAX + 16)

/* O_NONBLOCK: opening a FIFO must not wait for its other end. O_NOCTTY: nor a terminal become
 * ours. Neither means anything to the regular files that are let through. */
#define OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY)

void scan_done(struct scan *s)
{
	free(s->files);
	arena_done(&s->arena);
	s->files = NULL;
	s->n_files = s->cap = s->n_dirs = 0;
}

/* A path for an error message: it may hold anything that a file system takes. */
struct shown {
	char text[96];
};

static const char *show(const char *path, struct shown *shown)
{
	return doc_clean_text(path, shown->text, sizeof(shown->text));
}

static const char *kind_of(const struct stat *st)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFLNK:
		return "a symbolic link";
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	case S_IFBLK:
	case S_IFCHR:
		return "a device";
	default:
		return "no regular file";
	}
}

/*
 * Root's as well as ours: one who reads a store of root's without being root (the sidecar) need not
 * fear who could do anything anyway.
 */
static bool is_trusted(uid_t uid)
{
	return uid == geteuid() || uid == 0;
}

static int check_file(const char *path, const struct stat *st, struct error *err)
{
	struct shown s;

	if (!S_ISREG(st->st_mode))
		return fail_corrupt(err, "%s: is %s", show(path, &s), kind_of(st));
	/* A second name may be somewhere that others can write to. */
	if (st->st_nlink != 1)
		return fail_corrupt(err, "%s: has %ju names (hard links)", show(path, &s),
				    (uintmax_t)st->st_nlink);
	if (!is_trusted(st->st_uid))
		return fail_corrupt(err, "%s: belongs to user %u", show(path, &s),
				    (unsigned int)st->st_uid);
	return 0;
}

static int check_dir(const char *path, const struct stat *st, struct error *err)
{
	struct shown s;

	if (!is_trusted(st->st_uid))
		return fail_corrupt(err, "%s: belongs to user %u", show(path, &s),
				    (unsigned int)st->st_uid);
	if (st->st_mode & 022)
		return fail_corrupt(err, "%s: others may write to it (mode %04o)", show(path, &s),
				    (unsigned int)st->st_mode & 07777U);
	return 0;
}

static int add_file(struct scan *s, const char *path, const struct stat *st, struct error *err)
{
	struct scan_file *files;
	const char *copy;

	if (s->n_files >= FILES_MAX)
		return fail_corrupt(err, "there are more than %d files", FILES_MAX);
	if (s->n_files == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;

		files = reallocarray(s->files, cap, sizeof(*files));
		if (!files)
			return fail_sys(err, -ENOMEM, "list the files");
		s->files = files;
		s->cap = cap;
	}
	copy = arena_strdup(&s->arena, path);
	if (!copy)
		return fail_sys(err, -ENOMEM, "list the files");
	s->files[s->n_files++] = (struct scan_file){
		.path = copy,
		.size = (uint64_t)st->st_size,
		.mode = (unsigned int)st->st_mode & 07777U,
		.dev = st->st_dev,
		.ino = st->st_ino,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
	return 0;
}

static int add_dir(struct scan *s, const char *path, struct error *err)
{
	if (s->n_dirs >= SCAN_DIRS_MAX)
		return fail_corrupt(err, "there are more than %d directories", SCAN_DIRS_MAX);
	s->dirs[s->n_dirs] = arena_strdup(&s->arena, path);
	if (!s->dirs[s->n_dirs])
		return fail_sys(err, -ENOMEM, "list the files");
	s->n_dirs++;
	return 0;
}

/* One directory of the tree being listed. */
struct level {
	const struct layout *layout;
	struct scan *scan;
	const char *prefix; /* "" or "criu/" */
	dev_t dev;
};

static int list(int fd, const struct level *level, struct error *err);

static int enter(int at, const char *name, const struct level *level, struct error *err)
{
	_cleanup_close_ int fd = path_open_beneath(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	char prefix[LAYOUT_NAME_MAX + 2];
	struct level below = *level;
	struct stat st;
	int r;

	if (fd < 0)
		return fail_sys(err, fd, "open %s", name);
	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at %s", name);
	if (st.st_dev != level->dev)
		return fail_corrupt(err, "%s: is on another file system", name);
	r = check_dir(name, &st, err);
	if (r == 0)
		r = add_dir(level->scan, name, err);
	if (r < 0)
		return r;
	(void)snprintf(prefix, sizeof(prefix), "%s/", name);
	below.prefix = prefix;
	return list(TAKE_FD(fd), &below, err);
}

static int add_entry(int at, const char *name, const struct level *level, struct error *err)
{
	const struct layout *layout = level->layout;
	char path[PATH_MAX];
	struct shown s;
	struct stat st;
	int r;

	(void)snprintf(path, sizeof(path), "%s%s", level->prefix, name);
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? fail_corrupt(err, "%s: vanished", show(path, &s))
				       : fail_sys(err, errno, "look at %s", show(path, &s));
	if (S_ISDIR(st.st_mode) && !layout->flat && !*level->prefix && layout_name_valid(name))
		return enter(at, name, level, err);
	r = check_file(path, &st, err);
	if (r < 0)
		return r;
	if (!layout_path_valid(layout, path) && layout_coverage(layout, path) != OWN)
		return fail_corrupt(err, "'%s': is not a name that may be here", show(path, &s));
	return add_file(level->scan, path, &st, err);
}

/* Takes over fd. */
static int list(int fd, const struct level *level, struct error *err)
{
	_cleanup_closedir_ DIR *dir = fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		r = fail_sys(err, errno, "list the files");
		(void)close(fd);
		return r;
	}
	while (r == 0) {
		errno = 0;
		e = readdir(dir);
		if (!e)
			return errno ? fail_sys(err, errno, "list the files") : 0;
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = add_entry(dirfd(dir), e->d_name, level, err);
	}
	return r;
}

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct scan_file *)a)->path, ((const struct scan_file *)b)->path);
}

int scan_dir(int dirfd, const struct layout *layout, struct scan *s, struct error *err)
{
	/* Another open file: reading a directory moves the offset, which a dup() would share. */
	_cleanup_close_ int fd = path_open_beneath(dirfd, ".", O_RDONLY | O_DIRECTORY);
	struct level top = { .layout = layout, .scan = s, .prefix = "" };
	struct stat st;
	int r;

	if (fd < 0)
		return fail_sys(err, fd, "open the directory");
	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at the directory");
	top.dev = st.st_dev;
	r = check_dir("the directory", &st, err);
	if (r == 0)
		r = list(TAKE_FD(fd), &top, err);
	if (r == 0 && s->n_files)
		qsort(s->files, s->n_files, sizeof(*s->files), compare_files);
	return r;
}

const struct scan_file *scan_find(const struct scan *s, const char *path)
{
	struct scan_file key = { .path = path };

	if (!s->n_files)
		return NULL;
	return bsearch(&key, s->files, s->n_files, sizeof(key), compare_files);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool scan_same(const struct scan_file *f, const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_nlink == 1 && st->st_dev == f->dev &&
	       st->st_ino == f->ino && (uint64_t)st->st_size == f->size &&
	       ((unsigned int)st->st_mode & 07777U) == f->mode &&
	       same_time(&st->st_mtim, &f->mtime) && same_time(&st->st_ctim, &f->ctime);
}

int scan_recheck(int fd, const struct scan_file *f, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at %s", f->path);
	if (!scan_same(f, &st))
		return fail_corrupt(err, "%s: changed while it was read", f->path);
	return 0;
}

/* What open() says of something that has taken the place of a file since it was listed. */
static bool is_replaced(int r)
{
	return r == -ENOENT || r == -ELOOP || r == -ENXIO || r == -ENOTDIR || r == -EXDEV;
}

int scan_open(int dirfd, const struct scan_file *f, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = path_open_beneath(dirfd, f->path, OPEN_FLAGS);
	int r;

	if (fd < 0)
		return is_replaced(fd) ? fail_corrupt(err, "%s: changed while it was read", f->path)
				       : fail_sys(err, fd, "open %s", f->path);
	r = scan_recheck(fd, f, err);
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static int read_whole(int fd, const char *path, size_t size, struct buf *out, struct error *err)
{
	/* One more than it should have, to see that it ends there. */
	uint8_t *to = buf_reserve(out, size + 1);
	size_t at = 0;
	ssize_t n;

	if (!to)
		return fail_sys(err, errno, "read %s", path);
	do {
		n = read(fd, to + at, size + 1 - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_sys(err, errno, "read %s", path);
		at += (size_t)n;
	} while (n != 0 && at <= size);
	if (at != size)
		return fail_corrupt(err, "%s: changed while it was read", path);
	buf_commit(out, size);
	return 0;
}

int scan_read(int dirfd, const char *path, struct buf *out, struct error *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	/* Looked at before it is opened: opening a device may do something. */
	r = fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	if (r == -ENOENT)
		return error_reason(err, REASON_IMAGE_MISSING, r, "there is no %s", path);
	if (r < 0)
		return fail_sys(err, r, "look at %s", path);
	r = check_file(path, &st, err);
	if (r < 0)
		return r;
	fd = path_open_beneath(dirfd, path, OPEN_FLAGS);
	if (fd < 0)
		return is_replaced(fd) ? fail_corrupt(err, "%s: changed while it was read", path)
				       : fail_sys(err, fd, "open %s", path);
	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at %s", path);
	r = check_file(path, &st, err);
	if (r < 0)
		return r;
	if ((uint64_t)st.st_size >= out->max) /* one more is needed, see read_whole() */
		return fail_corrupt(err, "%s: is larger than %zu bytes", path, out->max);
	return read_whole(fd, path, (size_t)st.st_size, out, err);
}
