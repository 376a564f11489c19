/* SPDX-License-Identifier: Apache-2.0 */
/* Removing: deleted checkpoints, and what crashes have left. First a rename, then a child. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/store-internal.h"
#include "base/cleanup.h"

/* Generous: a terabyte in one file goes in a second, but a dead disk takes for ever. */
#define SWEEP_TIME (3600 * NSEC_PER_SEC)

/* From one that failed to the next try. Each failure is told of, so not too often. */
#define RETRY_FIRST (5 * NSEC_PER_SEC)
#define RETRY_LAST  (600 * NSEC_PER_SEC)

/* -- in the background ----------------------------------------------------------------------- */

static void sweep_anew(struct timer *t)
{
	store_sweep(container_of(t, struct store, sweep_retry));
}

/* What could not be removed takes room all the same: tried again, ever more seldom. */
static void retry_later(struct store *s)
{
	nsec_t wait = s->sweep_wait ? 2 * s->sweep_wait : RETRY_FIRST;

	s->sweep_wait = wait < RETRY_LAST ? wait : RETRY_LAST;
	timer_set(s->env->loop, &s->sweep_retry, time_add(time_now(), s->sweep_wait), sweep_anew);
}

static void sweep_done(struct bulk *b, int r, const struct error *err)
{
	struct store *s = container_of(b, struct store, sweep);
	unsigned int n = (unsigned int)b->result.files;
	struct error copy = r < 0 ? *err : ERROR_NULL;

	if (s->sweep_again)
		store_sweep(s); /* uses b anew */
	else if (r < 0)
		retry_later(s);
	else
		s->sweep_wait = 0;
	store_look(s); /* whoever is told now may look at the room next */
	if (s->swept)
		s->swept(s->swept_arg, n, r, r < 0 ? &copy : NULL);
}

static void sweep_not_started(struct job *job)
{
	struct store *s = container_of(job, struct store, sweep_failed);

	retry_later(s);
	if (s->swept)
		s->swept(s->swept_arg, 0, s->sweep_error.code, &s->sweep_error);
}

void store_sweep(struct store *s)
{
	static const struct bulk_ops ops = { .done = sweep_done };
	const struct protocol_job job = { .op = PROTOCOL_SWEEP, .workers = 1 };

	/* One that runs has perhaps looked already where there is more now. */
	s->sweep_again = bulk_running(&s->sweep);
	if (s->sweep_again)
		return;
	timer_cancel(&s->sweep_retry);
	job_cancel(&s->sweep_failed); /* what it would tell of is being tried again */
	s->sweep_error = ERROR_NULL;
	if (bulk_start(&s->sweep, s->env, &job, s->fd, time_add(time_now(), SWEEP_TIME), &ops,
		       &s->sweep_error) < 0)
		job_put_off(s->env->loop, &s->sweep_failed, sweep_not_started);
}

void store_on_swept(struct store *s,
		    void (*swept)(void *arg, unsigned int n, int r, const struct error *err),
		    void *arg)
{
	s->swept = swept;
	s->swept_arg = arg;
}

bool store_sweeping(const struct store *s)
{
	return bulk_running(&s->sweep) || s->sweep_failed.loop;
}

int store_discard(struct store *s, const char *name, const char *ref)
{
	char gone[STORE_NAME_MAX], random[9];
	int r = store_random(random);

	if (r == 0)
		r = path_printf(gone, sizeof(gone), SWEEP_PREFIX "%s-%s", ref, random);
	if (r == 0 && renameat(s->fd, name, s->fd, gone) < 0)
		r = -errno;
	return r;
}

/* -- deleting -------------------------------------------------------------------------------- */

int store_delete(struct store *s, const char *ref, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = store_check_ref(ref, err);

	assert(s->access == STORE_OWNER);
	if (r < 0)
		return r;
	fd = store_open_dir(s, ref);
	if (fd == -ENOENT)
		return store_missing(ref, err);
	if (fd < 0)
		return fail_sys(err, fd, "open checkpoint '%s'", ref);
	r = store_lock(fd, LOCK_EX);
	if (r == -EWOULDBLOCK)
		return error_reason(err, REASON_BUSY, -EBUSY, "checkpoint '%s' is in use", ref);
	if (r == 0)
		r = store_is_named(s, ref, fd);
	if (r < 0)
		return fail_sys(err, r, "lock checkpoint '%s'", ref);
	if (r == 0)
		return store_missing(ref, err);
	r = store_discard(s, ref, ref);
	if (r < 0)
		return fail_sys(err, r, "delete checkpoint '%s'", ref);
	store_sweep(s);
	return 0;
}

/* -- what crashes have left ------------------------------------------------------------------ */

static nsec_t wall_of(const struct timespec *ts)
{
	return ts->tv_sec < 0 ? 0 : (nsec_t)ts->tv_sec * NSEC_PER_SEC + (nsec_t)ts->tv_nsec;
}

#define WORK_LEVELS 2 /* criu/ and logs/, and the files in them */

/* When it, or anything in it down to so many levels, changed last. */
static int newest_change(int at, const char *name, int levels, nsec_t *newest)
{
	_cleanup_closedir_ DIR *dir = NULL;
	unsigned int n = 0;
	struct dirent *e;
	struct stat st;
	int fd, r;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (wall_of(&st.st_mtim) > *newest)
		*newest = wall_of(&st.st_mtim);
	if (wall_of(&st.st_ctim) > *newest)
		*newest = wall_of(&st.st_ctim);
	if (!S_ISDIR(st.st_mode) || levels == 0)
		return 0;
	fd = path_open_beneath(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return -errno;
	}
	while ((errno = 0, e = readdir(dir)) && n++ < STORE_ENTRIES_MAX) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = newest_change(fd, e->d_name, levels - 1, newest);
		if (r < 0)
			return r;
	}
	return errno ? -errno : 0;
}

static bool is_young(const struct store *s, const char *name, nsec_t min_age, int *ret_r)
{
	nsec_t newest = 0, now = time_wall();

	*ret_r = newest_change(s->fd, name, WORK_LEVELS, &newest);
	/* Either way: a clock that was put back must not keep it for ever. */
	return *ret_r == 0 && (now > newest ? now - newest : newest - now) < min_age;
}

/* Counts what becomes of one work directory, and renames it away if that is what. */
static int clean_work(struct store *s, const char *name, struct store_clean *c)
{
	const char *ref = name + sizeof(STORE_WORK_PREFIX) - 1;
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	if (fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!ref_valid(ref) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
		c->foreign++;
		return 0;
	}
	if (c->keep && c->keep(c->arg, ref)) {
		c->kept++;
		return 0;
	}
	fd = store_open_dir(s, name);
	if (fd < 0)
		return fd;
	r = store_lock(fd, LOCK_EX);
	if (r == -EWOULDBLOCK) {
		c->locked++;
		return 0;
	}
	if (r == 0 && is_young(s, name, c->min_age, &r)) {
		c->young++;
		return 0;
	}
	if (r == 0)
		r = store_discard(s, name, ref);
	c->removed += r == 0;
	return r;
}

int store_clean(struct store *s, struct store_clean *c, struct error *err)
{
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), first = 0;
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	unsigned int n = 0;
	bool trash = false;
	struct dirent *e;

	assert(s->access == STORE_OWNER);
	c->removed = c->locked = c->kept = c->young = c->foreign = 0;
	if (!dir) {
		first = fail_sys(err, errno, "list the store");
		if (fd >= 0)
			(void)close(fd);
		return first;
	}
	while ((errno = 0, e = readdir(dir)) && n++ < STORE_ENTRIES_MAX) {
		int r = 0;

		if (strncmp(e->d_name, SWEEP_PREFIX, sizeof(SWEEP_PREFIX) - 1) == 0)
			trash = true;
		else if (strncmp(e->d_name, STORE_WORK_PREFIX, sizeof(STORE_WORK_PREFIX) - 1) == 0)
			r = clean_work(s, e->d_name, c);
		if (r < 0 && first == 0)
			first = fail_sys(err, r, "clean up after an unfinished checkpoint");
	}
	if (trash || c->removed)
		store_sweep(s);
	return first;
}
