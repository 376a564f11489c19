/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order to dump: freeze, empty the output pipes, let the OCI runtime dump.
 *
 * A dump that failed over something that passes (a connection that was just being made) is tried
 * once more: nothing changes in a container that stands still, so it runs for a moment in between.
 * Its GPU memory stays saved meanwhile, as between the save and the freeze before the first dump;
 * whoever calls CUDA waits. The second dump begins in an empty folder, and both have the time of
 * one.
 */
#include "shim/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/path.h"

#define DRAIN_MAX  (500 * NSEC_PER_MSEC)
#define DRAIN_STEP (2 * NSEC_PER_MSEC)

/* Between half a second and one (base/backoff.h): long for an accept(), short for a dump. */
#define AGAIN_PAUSE (1 * NSEC_PER_SEC)
#define IMAGES_MAX  ((unsigned int)65536)

static void freeze_to_dump(struct checkpoint *ck);

static const struct shim_settings *settings_of(const struct checkpoint *ck)
{
	return &ck->op.c->shim->settings;
}

static struct loop *loop_of(const struct checkpoint *ck)
{
	return ck->op.c->shim->loop;
}

/* Nobody wants a dump any more: one that has not begun does not begin. */
static bool is_called_off(const struct checkpoint *ck)
{
	return ck->aborted || ck->over;
}

/* --- the images ----------------------------------------------------------------------------- */

/* Calls each() for every entry until it returns other than 0. Returns that, or -errno. */
static int for_each_image(const char *path, int (*each)(int dirfd, const char *name))
{
	_cleanup_closedir_ DIR *dir = NULL;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), r = 0;
	unsigned int n = 0;
	struct dirent *e;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = ++n > IMAGES_MAX ? -E2BIG : each(fd, e->d_name);
	}
	return r == 0 ? -errno : r;
}

static int is_there(int dirfd, const char *name)
{
	(void)dirfd;
	(void)name;
	return 1;
}

/* What is in it is CRIU's, and later the first dump's: nothing was there before. */
static bool is_empty(const char *path)
{
	return for_each_image(path, is_there) == 0;
}

/*
 * The store's worker keeps the big ones open (artifact/follow.h), and so their blocks, which the
 * second dump needs. What cannot be made empty takes its room until the worker lets go of it.
 */
static void make_empty(int dirfd, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	    st.st_nlink == 1)
		fd = openat(dirfd, name,
			    O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int remove_image(int dirfd, const char *name)
{
	make_empty(dirfd, name);
	return path_remove_tree(dirfd, name);
}

static int clear(const char *path)
{
	return for_each_image(path, remove_image);
}

/* --- once more ------------------------------------------------------------------------------ */

static void give_up(struct checkpoint *ck)
{
	ck->again = DUMP_AGAIN_NEVER;
	checkpoint_order_done(ck, ck->first_err.code, &ck->first_err);
}

static void pause_over(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, timer);
	struct error err = ERROR_NULL;
	int r;

	if (is_called_off(ck)) {
		give_up(ck);
		return;
	}
	ck->again = DUMP_AGAIN_NEVER;
	r = clear(ck->image_path);
	if (r < 0) {
		(void)error_reason(&err, REASON_STORE_FAILED, r,
				   "remove the images of a dump that failed from %s: %s",
				   ck->image_path, strerror(-r));
		checkpoint_order_done(ck, r, &err);
		return;
	}
	freeze_to_dump(ck);
}

static void thawed_for_a_pause(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = container_of(f, struct checkpoint, freezer);
	struct backoff pause = BACKOFF(AGAIN_PAUSE, AGAIN_PAUSE);

	(void)err;
	if (r == 0)
		ck->frozen = false;
	if (r < 0 || is_called_off(ck))
		give_up(ck);
	else
		timer_set(loop_of(ck), &ck->timer, time_now() + backoff_next(&pause), pause_over);
}

/* There is time for as long a dump as the first one was. */
static bool time_is_left(const struct checkpoint *ck)
{
	nsec_t now = time_now();

	return time_add(now, now - ck->order_start + AGAIN_PAUSE) < ck->dump_until;
}

static bool once_more(struct checkpoint *ck, const struct error *err)
{
	const struct process *init = &ck->op.c->init;

	/* What is suspended stays so: nothing would pass. */
	if (ck->again != DUMP_AGAIN_ONCE || ck->over || init->exited_at || !time_is_left(ck) ||
	    buf_len(&ck->op.c->held))
		return false;
	log_info("the dump is tried again", F_STR("container", ck->op.c->id), F_ERR(err));
	ck->again = DUMP_AGAIN_PAUSE;
	ck->first_err = *err;
	checkpoint_freeze(ck, false, settings_of(ck)->timeouts.quiesce, thawed_for_a_pause);
	return true;
}

void gpu_dump_abort(struct checkpoint *ck)
{
	bool pausing = ck->again == DUMP_AGAIN_PAUSE;

	ck->aborted = true;
	ck->again = DUMP_AGAIN_NEVER;
	if (ck->dumping) {
		runtime_call_kill(ck->dumping);
	} else if (pausing && ck->timer.loop) {
		timer_cancel(&ck->timer);
		give_up(ck);
	}
}

/* --- the dump ------------------------------------------------------------------------------- */

static void dumped(void *data, int r, const struct error *err, struct bytes output)
{
	struct checkpoint *ck = data;
	struct error mine = *err;

	(void)output;
	ck->dumping = NULL;
	if (r < 0) {
		bool passes = gpu_criu_failure(ck->op.c, ck->work_path, true, &ck->failure,
					       &mine);

		mine.code = r;
		if (mine.reason == REASON_NONE)
			mine.reason = REASON_CRIU_DUMP_FAILED;
		if (passes && once_more(ck, &mine))
			return;
	} else if (!ck->options.ref && !ck->stop_signal) {
		/* In the store the folder of the logs is a part of the checkpoint. */
		gpu_keep_dump_log(ck->op.c, ck->work_path, ck->image_path);
	}
	checkpoint_order_done(ck, r, &mine);
}

static void dump(struct checkpoint *ck)
{
	struct runtime_checkpoint args;
	struct error err = ERROR_NULL;
	int r;

	/* It came, or the agent left, while the container was frozen or its pipes emptied. */
	if (is_called_off(ck)) {
		(void)error_reason(&err, REASON_CANCELED, -ECANCELED,
				   "the dump was called off before it had begun");
		checkpoint_order_done(ck, err.code, &err);
		return;
	}
	checkpoint_args(ck, &args);
	args.leave_running = true;
	args.no_cuda_plugin = true;
	r = mounts_declare(&ck->mounts, &ck->mounts_mem, &args.mounts);
	if (r < 0)
		(void)error_set(&err, r, "out of memory");
	if (!ck->dump_until)
		ck->dump_until = args.deadline;
	args.deadline = ck->dump_until;
	/* Frozen by us: CRIU finds it so and leaves it so. */
	if (r == 0)
		r = runtime_checkpoint(&ck->op.c->rt, &args, dumped, ck, &ck->dumping, &err);
	if (r < 0)
		checkpoint_order_done(ck, r, &err);
}

static bool all_quiet(const struct container *c)
{
	const struct process *p;

	if (!stdio_quiet(&c->init.io))
		return false;
	list_for_each(p, &c->execs, node)
		if (!stdio_quiet(&p->io))
			return false;
	return true;
}

/* What the container has written is on its way to the client before it is dumped. A client that
 * does not read keeps it in the pipe, where it stays. */
static void drain(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, timer);

	if (!is_called_off(ck) && !all_quiet(ck->op.c) && time_now() < ck->drain_until)
		timer_set(loop_of(ck), t, time_now() + DRAIN_STEP, drain);
	else
		dump(ck);
}

static void frozen_to_dump(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = container_of(f, struct checkpoint, freezer);

	if (r < 0) {
		checkpoint_order_done(ck, r, err);
		return;
	}
	ck->frozen = true;
	ck->drain_until = time_now() + DRAIN_MAX;
	timer_set(loop_of(ck), &ck->timer, time_now(), drain);
}

static void freeze_to_dump(struct checkpoint *ck)
{
	checkpoint_freeze(ck, true, settings_of(ck)->timeouts.quiesce, frozen_to_dump);
}

void gpu_dump(struct checkpoint *ck, const struct agent_reply *reply)
{
	struct error err = ERROR_NULL;
	int r;

	r = PATH_PRINTF(ck->image_path, "%s", reply->image_path);
	if (r == 0 && *reply->work_path && strcmp(reply->work_path, ck->work_path) != 0) {
		/* The agent's own place for logs, kept with the checkpoint. */
		if (ck->remove_work)
			(void)path_remove_tree(AT_FDCWD, ck->work_path);
		ck->remove_work = false;
		r = PATH_PRINTF(ck->work_path, "%s", reply->work_path);
	}
	if (r == 0)
		r = path_mkdirs(ck->image_path, 0700);
	if (r < 0)
		(void)error_reason(&err, REASON_STORE_FAILED, r, "the image folder %s: %s",
				   ck->image_path, strerror(-r));
	if (r == 0 && (ck->options.ref || ck->stop_signal)) {
		r = gpu_hold_images(ck->image_path, &err);
		ck->hold = r > 0 ? r : 0;
	}
	if (r < 0) {
		checkpoint_order_done(ck, r, &err);
		return;
	}
	ck->dump_until = 0;
	ck->aborted = false;
	ck->again = is_empty(ck->image_path) ? DUMP_AGAIN_ONCE : DUMP_AGAIN_NEVER;
	freeze_to_dump(ck);
}
