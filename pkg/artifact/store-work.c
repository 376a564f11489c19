/* SPDX-License-Identifier: Apache-2.0 */
/* Making a checkpoint: from a claimed name to the sealing. And the same for image directories. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/layout.h"
#include "artifact/scan.h"
#include "artifact/store-internal.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define REF_STAMP "-20261123T152201Z-1a2b"
#define REF_TRIES 16

static void work_name(const char *ref, char ret[STORE_NAME_MAX])
{
	(void)snprintf(ret, STORE_NAME_MAX, STORE_WORK_PREFIX "%s", ref);
}

/* 1, 0 or -errno. */
static int exists(const struct store *s, const char *name)
{
	struct stat st;

	if (fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	return errno == ENOENT ? 0 : -errno;
}

/* -- names ----------------------------------------------------------------------------------- */

/* What a ref can begin with, out of any text. */
static void clean_hint(const char *hint, char *ret, size_t size)
{
	size_t n = 0;

	for (; hint && *hint && n + 1 < size; hint++) {
		bool alnum = (*hint >= 'a' && *hint <= 'z') || (*hint >= 'A' && *hint <= 'Z') ||
			     (*hint >= '0' && *hint <= '9');

		if (n == 0 && !alnum)
			continue;
		ret[n++] = (char)(alnum || strchr("._-", *hint) ? *hint : '-');
	}
	if (n == 0)
		n = (size_t)snprintf(ret, size, "checkpoint");
	ret[n] = 0;
}

int store_new_ref(const struct store *s, const char *hint, char *ret, struct error *err)
{
	char name[REF_MAX + 1 - (sizeof(REF_STAMP) - 1)], work[STORE_NAME_MAX], random[9];
	time_t now = (time_t)(time_wall() / NSEC_PER_SEC);
	struct tm tm = { 0 };
	int r;

	clean_hint(hint, name, sizeof(name));
	(void)gmtime_r(&now, &tm);
	for (int i = 0; i < REF_TRIES; i++) {
		r = store_random(random);
		if (r < 0)
			return fail_sys(err, r, "make up a name");
		r = path_printf(ret, REF_MAX + 1, "%s-%04d%02d%02dT%02d%02d%02dZ-%.4s", name,
				tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
				tm.tm_min, tm.tm_sec, random);
		if (r < 0)
			return fail_sys(err, r, "make up a name");
		work_name(ret, work);
		r = exists(s, ret);
		if (r == 0)
			r = exists(s, work);
		if (r < 0)
			return fail_sys(err, r, "look for a free name");
		if (r == 0)
			return 0;
	}
	return error_reason(err, REASON_STORE_FAILED, -EEXIST, "found no name that is free");
}

/* -- the work directory ---------------------------------------------------------------------- */

static int fill_work(struct store *s, const char *ref, int fd, struct store_work *ret,
		     struct error *err)
{
	int r = store_lock(fd, LOCK_SH);

	if (r < 0)
		return fail_sys(err, r, "lock the work directory of '%s'", ref);
	ret->store = s;
	ret->fd = fd;
	(void)snprintf(ret->ref, sizeof(ret->ref), "%s", ref);
	/* They fit: see store_open(). */
	(void)path_printf(ret->path, sizeof(ret->path), "%s/" STORE_WORK_PREFIX "%s", s->path, ref);
	(void)path_printf(ret->criu_path, sizeof(ret->criu_path),
			  "%s/" STORE_WORK_PREFIX "%s/" LAYOUT_CRIU, s->path, ref);
	(void)path_printf(ret->logs_path, sizeof(ret->logs_path),
			  "%s/" STORE_WORK_PREFIX "%s/" LAYOUT_LOGS, s->path, ref);
	return 0;
}

static int make_contents(int fd, struct error *err)
{
	if (mkdirat(fd, LAYOUT_CRIU, 0700) < 0 || mkdirat(fd, LAYOUT_LOGS, 0700) < 0)
		return fail_sys(err, errno, "create the work directory");
	return 0;
}

static void unmake(struct store *s, const char *name, int fd)
{
	if (fd >= 0) {
		(void)unlinkat(fd, LAYOUT_LOGS, AT_REMOVEDIR);
		(void)unlinkat(fd, LAYOUT_CRIU, AT_REMOVEDIR);
		(void)close(fd);
	}
	(void)unlinkat(s->fd, name, AT_REMOVEDIR);
}

int store_begin(struct store *s, const char *ref, struct store_work *ret, struct error *err)
{
	struct store_work w = { .fd = -1 };
	char name[STORE_NAME_MAX];
	int r = store_check_ref(ref, err), fd;

	assert(s->access == STORE_OWNER);
	if (r < 0)
		return r;
	r = exists(s, ref);
	if (r < 0)
		return fail_sys(err, r, "look for '%s'", ref);
	if (r)
		return error_reason(err, REASON_REF_EXISTS, -EEXIST, "a checkpoint '%s' exists",
				    ref);
	work_name(ref, name);
	if (mkdirat(s->fd, name, 0700) < 0)
		return errno == EEXIST
			       ? error_reason(err, REASON_REF_EXISTS, -EEXIST,
					      "a checkpoint '%s' is being made", ref)
			       : fail_sys(err, errno, "create the work directory");
	fd = store_open_dir(s, name);
	r = fd < 0 ? fail_sys(err, fd, "open the work directory") : make_contents(fd, err);
	if (r == 0)
		r = fill_work(s, ref, fd, &w, err);
	if (r < 0)
		unmake(s, name, fd);
	else
		*ret = w;
	return r;
}

int store_resume(struct store *s, const char *ref, struct store_work *ret, struct error *err)
{
	struct store_work w = { .fd = -1 };
	char name[STORE_NAME_MAX];
	int r = store_check_ref(ref, err), fd;

	assert(s->access == STORE_OWNER);
	if (r < 0)
		return r;
	work_name(ref, name);
	fd = store_open_dir(s, name);
	if (fd == -ENOENT)
		return error_reason(err, REASON_IMAGE_MISSING, -ENOENT,
				    "no checkpoint '%s' is being made", ref);
	if (fd < 0)
		return fail_sys(err, fd, "open the work directory of '%s'", ref);
	r = fill_work(s, ref, fd, &w, err);
	if (r < 0)
		(void)close(fd);
	else
		*ret = w;
	return r;
}

int store_put(const struct store_work *w, const char *name, struct bytes content,
	      struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!layout_name_valid(name) || layout_coverage(&layout_checkpoint, name) != COVERED ||
	    content.n > STORE_SMALL_FILE_MAX)
		return error_reason(err, REASON_INTERNAL, -EINVAL,
				    "a file of a checkpoint has a name or size it may not have");
	fd = openat(w->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_sys(err, errno, "create %s", name);
	r = fd_write_all(fd, content.p, content.n);
	if (r == 0)
		return 0;
	(void)unlinkat(w->fd, name, 0);
	return fail_sys(err, r, "write %s", name);
}

int store_follow(const struct store_work *w, uint64_t expected, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err)
{
	struct protocol_job job = { .op = PROTOCOL_FOLLOW, .workers = 1, .max_bytes = expected };

	work_name(w->ref, job.name);
	return bulk_start(b, w->store->env, &job, w->store->fd, NSEC_NEVER, ops, err);
}

/* With the worker that has followed the writing, where there is one. */
static int commit(const struct bulk_env *env, const struct protocol_job *job, int dirfd,
		  nsec_t deadline, struct bulk *b, const struct bulk_ops *ops, struct error *err)
{
	if (bulk_running(b) && bulk_go_on(b, job, deadline, ops, NULL) == 0)
		return 0;
	return bulk_start(b, env, job, dirfd, deadline, ops, err);
}

int store_commit(const struct store_work *w, const struct metadata *m, unsigned int workers,
		 nsec_t deadline, struct bulk *b, const struct bulk_ops *ops, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct protocol_job job = { .op = PROTOCOL_SEAL, .workers = workers };
	struct metadata named = *m;
	int r;

	named.ref = w->ref;
	r = metadata_write(&named, &text, err);
	if (r < 0)
		return error_wrap(err, r, "%s", layout_checkpoint.description);
	work_name(w->ref, job.name);
	job.description = buf_bytes(&text);
	store_look_later(w->store); /* it is all there; only the manifest comes on top */
	return commit(w->store->env, &job, w->store->fd, deadline, b, ops, err);
}

void store_work_close(struct store_work *w)
{
	if (w->store)
		(void)close(w->fd);
	w->store = NULL;
	w->fd = -1;
}

int store_abort(struct store_work *w, struct error *err)
{
	char name[STORE_NAME_MAX];
	struct store *s = w->store;
	int r;

	work_name(w->ref, name);
	r = store_discard(s, name, w->ref);
	store_work_close(w);
	if (r < 0)
		return fail_sys(err, r, "throw away the unfinished checkpoint '%s'", w->ref);
	store_sweep(s);
	return 0;
}

/* -- image directories ----------------------------------------------------------------------- */

int image_commit(const struct bulk_env *env, int dirfd, const struct metadata *m,
		 unsigned int workers, nsec_t deadline, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct protocol_job job = { .op = PROTOCOL_SEAL_IMAGE, .workers = workers };
	int r = metadata_write_image(m, &text, err);

	if (r < 0)
		return error_wrap(err, r, "%s", layout_image.description);
	job.description = buf_bytes(&text);
	return commit(env, &job, dirfd, deadline, b, ops, err);
}

int image_follow(const struct bulk_env *env, int dirfd, uint64_t expected, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err)
{
	struct protocol_job job = { .op = PROTOCOL_FOLLOW, .workers = 1, .max_bytes = expected };

	return bulk_start(b, env, &job, dirfd, NSEC_NEVER, ops, err);
}

int image_verify(const struct bulk_env *env, int dirfd, unsigned int workers, uint64_t max_bytes,
		 nsec_t deadline, struct bulk *b, const struct bulk_ops *ops, struct error *err)
{
	struct protocol_job job = {
		.op = PROTOCOL_VERIFY_IMAGE, .workers = workers, .max_bytes = max_bytes,
	};

	return bulk_start(b, env, &job, dirfd, deadline, ops, err);
}

int image_get(int dirfd, struct arena *arena, struct metadata *ret, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(METADATA_TEXT_MAX + 1);
	int r = scan_read(dirfd, layout_image.description, &text, err);

	if (r == 0)
		r = metadata_read_image(buf_bytes(&text), arena, ret, err);
	return r == -EBADMSG ? error_wrap(err, r, "%s", layout_image.description) : r;
}
