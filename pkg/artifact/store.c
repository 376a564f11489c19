/* SPDX-License-Identifier: Apache-2.0 */
/* The store itself: opening it, and reading what is in it. */
#include "artifact/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/scan.h"
#include "artifact/store-internal.h"
#include "artifact/verify.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define MARKER      ".kybernate-store"
#define MARKER_TEXT "kybernate.io/store/v1\n"
#define PARENTS_MAX 64

/* -- opening --------------------------------------------------------------------------------- */

static int refuse(struct error *err, int code, const char *path, const char *why)
{
	return error_reason(err, REASON_STORE_FAILED, code, "the store %s %s", path, why);
}

static int make_dir(const char *path, struct error *err)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int r = 0;

	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	if (errno == ENOENT && slash > path) {
		(void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		r = path_mkdirs(parent, 0755);
		if (r == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
			r = -errno;
	} else {
		r = -errno;
	}
	return r < 0 ? fail_sys(err, r, "create the store %s", path) : 0;
}

/*
 * Whoever can write to a directory above the store can put another one in its place. A sticky one
 * such as /tmp lets nobody rename what is ours.
 */
static int check_parents(const struct store *s, struct error *err)
{
	_cleanup_close_ int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	struct stat child, parent;

	if (fd < 0 || fstat(fd, &child) < 0)
		return fail_sys(err, errno, "look at the store");
	for (int i = 0; i < PARENTS_MAX; i++) {
		int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (up < 0)
			return fail_sys(err, errno, "look above the store");
		(void)close(fd);
		fd = up;
		if (fstat(fd, &parent) < 0)
			return fail_sys(err, errno, "look above the store");
		if (parent.st_dev == child.st_dev && parent.st_ino == child.st_ino)
			return 0; /* the root is its own parent */
		if (parent.st_uid != 0 && parent.st_uid != geteuid())
			return refuse(err, -EPERM, s->path,
				      "lies below a directory that belongs to somebody else");
		if ((parent.st_mode & 022) && !(parent.st_mode & S_ISVTX))
			return refuse(err, -EPERM, s->path,
				      "lies below a directory that others can write to");
		child = parent;
	}
	return refuse(err, -ELOOP, s->path, "lies too deep");
}

static int check_dir(const struct store *s, struct error *err)
{
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return fail_sys(err, errno, "look at the store %s", s->path);
	/* Root's store may be read by others whom root has given that right: the sidecar. */
	if (st.st_uid != geteuid() && !(s->access == STORE_READER && st.st_uid == 0))
		return refuse(err, -EPERM, s->path, "belongs to another user");
	/* Checkpoints hold the memory of workloads, with whatever secrets are in it. */
	if (st.st_mode & 077)
		return refuse(err, -EPERM, s->path, "is open to others: its mode has to be 0700");
	return check_parents(s, err);
}

/* Only what a fresh file system has, or a crash while the marker was written? */
static int is_empty(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		int r = -errno;

		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while ((errno = 0, e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    strcmp(e->d_name, "lost+found") != 0 &&
		    strcmp(e->d_name, MARKER ".new") != 0)
			return 0;
	return errno ? -errno : 1;
}

static int make_marker(const struct store *s, struct error *err)
{
	int r = is_empty(s->fd);

	if (r == 0)
		return refuse(err, -ENOTEMPTY, s->path,
			      "is neither a checkpoint store nor empty: refusing to use it as one");
	if (r > 0)
		r = file_write(s->fd, MARKER, MARKER_TEXT, strlen(MARKER_TEXT), 0600, FILE_SYNC);
	return r < 0 ? fail_sys(err, r, "mark the store %s", s->path) : 0;
}

static int check_marker(struct store *s, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(256);
	int r = scan_read(s->fd, MARKER, &text, err);

	if (r == -ENOENT && s->access == STORE_READER)
		return refuse(err, -ENOENT, s->path, "is not a checkpoint store");
	if (r == -ENOENT)
		return make_marker(s, err);
	if (r < 0) {
		/* It is the store that is wrong, not a checkpoint in it. */
		if (err && err->reason == REASON_IMAGE_CORRUPT)
			err->reason = REASON_STORE_FAILED;
		return error_wrap(err, r, "the store %s", s->path);
	}
	if (strcmp(buf_str(&text), MARKER_TEXT) != 0)
		return refuse(err, -EPROTO, s->path, "is of a version that this kybernate does not "
						     "know: see " MARKER);
	return 0;
}

static int take_ownership(struct store *s, struct error *err)
{
	int r;

	s->lock_fd = path_open_beneath(s->fd, MARKER, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	if (s->lock_fd < 0)
		return fail_sys(err, s->lock_fd, "open " MARKER);
	r = store_lock(s->lock_fd, LOCK_EX);
	if (r == -EWOULDBLOCK)
		return refuse(err, -EBUSY, s->path, "is in use by another agent");
	return r < 0 ? fail_sys(err, r, "lock the store %s", s->path) : 0;
}

static int open_store(struct store *s, struct error *err)
{
	int r = s->access == STORE_OWNER ? make_dir(s->path, err) : 0;

	if (r < 0)
		return r;
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->fd < 0)
		return fail_sys(err, errno, "open the store %s", s->path);
	r = check_dir(s, err);
	if (r == 0)
		r = check_marker(s, err);
	if (r == 0 && s->access == STORE_OWNER)
		r = take_ownership(s, err);
	return r;
}

int store_open(const char *path, enum store_access access, const struct bulk_env *env,
	       struct store **ret, struct error *err)
{
	struct store *s;
	int r;

	/* What is appended is bounded: "/.new-REF/criu". */
	if (*path != '/' || strlen(path) > PATH_MAX - STORE_NAME_MAX - 16)
		return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
				    "the store's path has to be absolute, and shorter than %d",
				    PATH_MAX - STORE_NAME_MAX - 16);
	s = calloc(1, sizeof(*s));
	if (!s)
		return fail_sys(err, -ENOMEM, "open the store");
	s->fd = s->lock_fd = -1;
	s->access = access;
	s->entries_max = STORE_ENTRIES_MAX;
	s->env = env;
	(void)snprintf(s->path, sizeof(s->path), "%s", path);
	r = open_store(s, err);
	if (r < 0)
		store_close(s);
	else
		*ret = s;
	return r;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	bulk_release(&s->sweep);
	job_cancel(&s->sweep_failed);
	timer_cancel(&s->sweep_retry);
	store_forget_used(s);
	if (s->lock_fd >= 0)
		(void)close(s->lock_fd);
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s);
}

const char *store_path(const struct store *s)
{
	return s->path;
}

/* -- names ----------------------------------------------------------------------------------- */

int store_check_ref(const char *ref, struct error *err)
{
	if (ref && ref_valid(ref))
		return 0;
	return error_reason(err, REASON_REF_INVALID, -EINVAL,
			    "not a valid checkpoint reference: 1 to %d letters, digits, '.', '_' "
			    "and '-', the first a letter or digit", REF_MAX);
}

int store_missing(const char *ref, struct error *err)
{
	return error_reason(err, REASON_IMAGE_MISSING, -ENOENT, "there is no checkpoint '%s'", ref);
}

int store_open_dir(const struct store *s, const char *name)
{
	return path_open_beneath(s->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

int store_is_named(const struct store *s, const char *name, int fd)
{
	struct stat a, b;

	if (fstatat(s->fd, name, &a, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &b) < 0)
		return -errno;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int store_lock(int fd, int operation)
{
	while (flock(fd, operation | LOCK_NB) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int store_random(char ret[9])
{
	uint32_t v;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		return -EIO;
	(void)snprintf(ret, 9, "%08x", v);
	return 0;
}

/* Opens the directory of a checkpoint. */
static int open_checkpoint(const struct store *s, const char *ref, int *ret, struct error *err)
{
	int r = store_check_ref(ref, err), fd;

	if (r < 0)
		return r;
	fd = store_open_dir(s, ref);
	if (fd == -ENOENT)
		return store_missing(ref, err);
	if (fd == -ENOTDIR || fd == -ELOOP)
		return fail_corrupt(err, "checkpoint '%s' is not a directory", ref);
	if (fd < 0)
		return fail_sys(err, fd, "open checkpoint '%s'", ref);
	*ret = fd;
	return 0;
}

/* -- reading --------------------------------------------------------------------------------- */

int store_get(const struct store *s, const char *ref, struct arena *arena, struct metadata *ret,
	      struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(METADATA_TEXT_MAX + 1);
	_cleanup_close_ int fd = -1;
	struct metadata m;
	int r = open_checkpoint(s, ref, &fd, err);

	if (r < 0)
		return r;
	r = scan_read(fd, layout_checkpoint.description, &text, err);
	if (r == -ENOENT)
		return store_missing(ref, err);
	if (r == 0)
		r = metadata_read(buf_bytes(&text), arena, &m, err);
	if (r < 0)
		return error_wrap(err, r, "checkpoint '%s': %s", ref,
				  layout_checkpoint.description);
	if (strcmp(m.ref, ref) != 0)
		return fail_corrupt(err, "checkpoint '%s': its metadata is that of '%s'", ref,
				    m.ref);
	*ret = m;
	return 0;
}

int store_get_files(const struct store *s, const struct metadata *m, struct arena *arena,
		    struct manifest *ret, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = open_checkpoint(s, m->ref, &fd, err);

	if (r == 0)
		r = verify_manifest(fd, &layout_checkpoint, &m->manifest, arena, ret, err);
	return r < 0 ? error_wrap(err, r, "checkpoint '%s'", m->ref ? m->ref : "") : 0;
}

int store_pin(const struct store *s, const char *ref, struct store_pin *ret, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = open_checkpoint(s, ref, &fd, err);

	if (r < 0)
		return r;
	r = store_lock(fd, LOCK_SH);
	/* Whoever deletes it locks it first and renames it then: it may have gone in between. */
	if (r == 0)
		r = store_is_named(s, ref, fd);
	if (r == 0 || r == -EWOULDBLOCK)
		return store_missing(ref, err);
	if (r < 0)
		return fail_sys(err, r, "lock checkpoint '%s'", ref);
	(void)snprintf(ret->ref, sizeof(ret->ref), "%s", ref);
	(void)path_printf(ret->path, sizeof(ret->path), "%s/%s", s->path, ref);
	(void)path_printf(ret->criu_path, sizeof(ret->criu_path), "%s/%s/" LAYOUT_CRIU, s->path,
			  ref);
	ret->fd = TAKE_FD(fd);
	return 0;
}

void store_unpin(struct store_pin *p)
{
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
}

int store_verify(const struct store *s, const struct store_pin *p, unsigned int workers,
		 bool background, uint64_t max_bytes, nsec_t deadline, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err)
{
	struct protocol_job job = {
		.op = PROTOCOL_VERIFY,
		.workers = workers,
		.background = background,
		.max_bytes = max_bytes,
	};

	(void)snprintf(job.name, sizeof(job.name), "%s", p->ref);
	return bulk_start(b, s->env, &job, p->fd, deadline, ops, err);
}

/* -- listing --------------------------------------------------------------------------------- */

struct names {
	char (*at)[REF_MAX + 1];
	size_t n, cap;
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int add_name(struct names *names, const char *name)
{
	if (names->n == names->cap) {
		size_t cap = names->cap ? 2 * names->cap : 64;
		void *at = cap > STORE_ENTRIES_MAX ? NULL
						   : reallocarray(names->at, cap,
								  sizeof(*names->at));

		if (!at)
			return -ENOMEM;
		names->at = at;
		names->cap = cap;
	}
	/* A valid ref, so it fits. */
	(void)snprintf(names->at[names->n++], REF_MAX + 1, "%.*s", REF_MAX, name);
	return 0;
}

static int read_names(const struct store *s, const char *after, struct names *names,
		      struct error *err)
{
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = fail_sys(err, errno, "list the store");
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(dir)))
		if (ref_valid(e->d_name) && (!after || strcmp(e->d_name, after) > 0))
			r = add_name(names, e->d_name);
	if (r == 0 && errno)
		r = -errno;
	return r < 0 ? fail_sys(err, r, "list the store") : 0;
}

/* Returns 0, 1 when it is no checkpoint, or -errno. */
static int fill_entry(const struct store *s, const char *ref, struct store_entry *e,
		      struct error *err)
{
	struct error problem = ERROR_NULL;
	int r;

	*e = (struct store_entry){ .arena = ARENA_LIMIT(METADATA_MEMORY_MAX) };
	(void)snprintf(e->ref, sizeof(e->ref), "%s", ref);
	r = store_get(s, ref, &e->arena, &e->metadata, &problem);
	if (r == 0)
		return 0;
	arena_done(&e->arena);
	if (r == -ENOENT)
		return 1;
	if (problem.reason != REASON_IMAGE_CORRUPT && r != -EIO) {
		if (err)
			*err = problem; /* ours, not the checkpoint's: out of descriptors, say */
		return r;
	}
	e->damaged = true;
	e->problem = problem;
	return 0;
}

int store_list(const struct store *s, const char *after, size_t max, struct store_list *ret,
	       struct error *err)
{
	struct store_list list = { 0 };
	struct names names = { 0 };
	int r = read_names(s, after, &names, err);
	size_t i;

	if (r == 0 && names.n)
		qsort(names.at, names.n, sizeof(*names.at), compare_names);
	if (r == 0) {
		list.entries = calloc((names.n < max ? names.n : max) + 1, sizeof(*list.entries));
		if (!list.entries)
			r = fail_sys(err, -ENOMEM, "list the store");
	}
	for (i = 0; r >= 0 && i < names.n && list.n_entries < max; i++) {
		r = fill_entry(s, names.at[i], &list.entries[list.n_entries], err);
		if (r == 0)
			list.n_entries++;
	}
	list.more = i < names.n;
	free(names.at);
	if (r < 0)
		store_list_done(&list);
	else
		*ret = list;
	return r < 0 ? r : 0;
}

void store_list_done(struct store_list *l)
{
	for (size_t i = 0; i < l->n_entries; i++)
		arena_done(&l->entries[i].arena);
	free(l->entries);
	*l = (struct store_list){ 0 };
}
