/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much room there is: on the file system, and within the limit that the node's owner has set.
 *
 * The loop waits while we count, and a store may hold a million files. What is sealed does not change
 * any more, so it is counted once and remembered; each look after that counts the few directories
 * that are being made or removed. Who only shows the sum gets that of the last look.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/layout.h"
#include "artifact/store-internal.h"
#include "base/cleanup.h"

#define LEVELS 2   /* STORE/REF/criu/: files lie no deeper */
#define BLOCK  512 /* of st_blocks, whatever the file system's own is: stat(3) */

/* So that many changes in a row are one look. */
#define LOOK_LATER NSEC_PER_SEC

/* -- counting -------------------------------------------------------------------------------- */

static int add_dir(int at, const char *name, int levels, uint64_t *sum);

/* What vanishes while we look is being removed, and counts no more. */
static int add_entry(int at, const char *name, int levels, uint64_t *sum)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	*sum += (uint64_t)st.st_blocks * BLOCK;
	if (!S_ISDIR(st.st_mode) || levels == 0)
		return 0;
	return add_dir(at, name, levels - 1, sum);
}

/* Opens a directory to read. Returns 0 or -errno. */
static int open_dir(int at, const char *name, DIR **ret)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	*ret = fdopendir(fd);
	if (*ret)
		return 0;
	r = -errno;
	(void)close(fd);
	return r;
}

/*
 * The next entry but "." and "..". Returns 1, 0 at the end, or -errno: -E2BIG when there are more than
 * the loop can wait for, because a sum that leaves some out would let the limit be passed.
 */
static int next_entry(DIR *dir, unsigned int *n, const char **ret)
{
	struct dirent *e;

	while ((errno = 0, e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if ((*n)++ == STORE_ENTRIES_MAX)
			return -E2BIG;
		*ret = e->d_name;
		return 1;
	}
	return -errno;
}

static int add_dir(int at, const char *name, int levels, uint64_t *sum)
{
	_cleanup_closedir_ DIR *dir = NULL;
	int r = open_dir(at, name, &dir);
	unsigned int n = 0;
	const char *entry;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	while ((r = next_entry(dir, &n, &entry)) > 0) {
		r = add_entry(dirfd(dir), entry, levels, sum);
		if (r < 0)
			return r;
	}
	return r;
}

/* -- what is sealed -------------------------------------------------------------------------- */

/* By its inode: its name may come again. Another's that has the same was changed since. */
static int compare_sealed(const void *a, const void *b)
{
	const struct store_sealed *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static bool is_sealed(const struct store *s, const char *name)
{
	char path[STORE_NAME_MAX + LAYOUT_NAME_MAX];

	return path_printf(path, sizeof(path), "%s/%s", name, layout_checkpoint.description) == 0 &&
	       faccessat(s->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int remember(struct store_used *used, const struct store_sealed *one)
{
	if (used->n == used->cap) {
		size_t cap = used->cap ? 2 * used->cap : 64;
		void *at = reallocarray(used->sealed, cap, sizeof(*used->sealed));

		if (!at)
			return -ENOMEM;
		used->sealed = at;
		used->cap = cap;
	}
	used->sealed[used->n++] = *one;
	return 0;
}

/* A checkpoint, from old where that has it; or anything else that lies in the store. */
static int add_top(const struct store *s, const char *name, const struct store_used *old,
		   struct store_used *used)
{
	const struct store_sealed *known = NULL;
	struct store_sealed one;
	struct stat st;
	int r;

	if (!ref_valid(name))
		return add_entry(s->fd, name, LEVELS, &used->bytes);
	if (fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	one = (struct store_sealed){ .ino = st.st_ino, .changed = st.st_ctim };
	if (old->n)
		known = bsearch(&one, old->sealed, old->n, sizeof(one), compare_sealed);
	if (known && known->changed.tv_sec == one.changed.tv_sec &&
	    known->changed.tv_nsec == one.changed.tv_nsec) {
		used->bytes += known->bytes;
		return remember(used, known);
	}
	r = add_entry(s->fd, name, LEVELS, &one.bytes);
	used->bytes += one.bytes;
	if (r == 0 && S_ISDIR(st.st_mode) && is_sealed(s, name))
		r = remember(used, &one);
	return r;
}

static int count(const struct store *s, const struct store_used *old, struct store_used *used)
{
	_cleanup_closedir_ DIR *dir = NULL;
	int r = open_dir(s->fd, ".", &dir);
	unsigned int n = 0;
	const char *entry;
	struct stat st;

	if (r < 0)
		return r;
	if (fstat(s->fd, &st) < 0)
		return -errno;
	used->bytes = (uint64_t)st.st_blocks * BLOCK;
	while ((r = next_entry(dir, &n, &entry)) > 0) {
		r = add_top(s, entry, old, used);
		if (r < 0)
			return r;
	}
	return r;
}

/* -- when ------------------------------------------------------------------------------------ */

void store_look(struct store *s)
{
	struct store_used used = { 0 };
	int r;

	if (!s->limit)
		return;
	timer_cancel(&s->look);
	r = count(s, &s->used, &used);
	if (r == -E2BIG)
		(void)error_reason(&used.err, REASON_STORE_FULL, r,
				   "a directory of the store has more than %d entries: what it "
				   "holds cannot be counted, so limits.store_size counts as reached",
				   STORE_ENTRIES_MAX);
	else if (r < 0)
		(void)fail_sys(&used.err, r, "look how much the store holds");
	/* What was counted before a failure need not be counted again. */
	if (used.n)
		qsort(used.sealed, used.n, sizeof(*used.sealed), compare_sealed);
	free(s->used.sealed);
	s->used = used;
}

static void look_now(struct timer *t)
{
	store_look(container_of(t, struct store, look));
}

void store_look_later(struct store *s)
{
	if (s->limit && !s->look.loop)
		timer_set(s->env->loop, &s->look, time_add(time_now(), LOOK_LATER), look_now);
}

void store_forget_used(struct store *s)
{
	timer_cancel(&s->look);
	free(s->used.sealed);
	s->used = (struct store_used){ 0 };
}

int store_set_limit(struct store *s, uint64_t bytes, struct error *err)
{
	store_forget_used(s);
	s->limit = bytes;
	store_look(s);
	if (s->used.err.code && err)
		*err = s->used.err;
	return s->used.err.code;
}

/* -- telling --------------------------------------------------------------------------------- */

int store_space_known(const struct store *s, struct store_space *ret, struct error *err)
{
	struct store_space space;
	struct statvfs v;
	uint64_t left;

	if (s->limit && s->used.err.code) {
		if (err)
			*err = s->used.err;
		return s->used.err.code;
	}
	if (fstatvfs(s->fd, &v) < 0)
		return fail_sys(err, errno, "look at the file system of the store");
	space = (struct store_space){
		.total_bytes = (uint64_t)v.f_blocks * v.f_frsize,
		.free_bytes = (uint64_t)v.f_bavail * v.f_frsize,
		.total_files = v.f_files,
		.free_files = v.f_favail,
	};
	if (s->limit) {
		left = s->used.bytes < s->limit ? s->limit - s->used.bytes : 0;
		space.limited = left < space.free_bytes;
		if (space.limited)
			space.free_bytes = left;
		if (s->limit < space.total_bytes)
			space.total_bytes = s->limit;
	}
	*ret = space;
	return 0;
}

int store_space(struct store *s, struct store_space *ret, struct error *err)
{
	store_look(s);
	return store_space_known(s, ret, err);
}
