/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounts of a GPU container that config.json does not tell (oci/mounts.h has the why), looked
 * at before its checkpoint, by a helper process. A container may hold mounts of any kind: one
 * whose FUSE daemon stands still, or whose NFS server is gone, blocks whoever looks, for ever and
 * beyond the reach of a signal. So it is not us, the whole pod's shim, who looks; and a helper that
 * does not come back is killed and forgotten, not waited for. It ends when its file server answers
 * or is aborted.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "oci/mounts.h"
#include "oci/mounts_wire.h"
#include "shim/args.h"
#include "shim/checkpoint.h"

/* In the helper: /proc/PID of the container's init. Unlike the number it is never another's. */
#define PROC_FD 3
#define PROC	"/proc/self/fd/3"

#define SAID_MAX ((size_t)512)

static void end(struct checkpoint *ck, int r, const struct error *err)
{
	timer_cancel(&ck->timer);
	command_release(&ck->look);
	ck->looked(ck, r, err);
}

static void ended(struct command *cmd)
{
	struct checkpoint *ck = container_of(cmd, struct checkpoint, look);
	struct bytes out = buf_bytes(&cmd->out);
	struct error err = ERROR_NULL;
	int r = command_result(cmd, "the look at the container's mounts", &err);

	if (r < 0 && out.n) /* what it says itself is better */
		(void)error_set(&err, r, "%.*s", (int)(out.n < SAID_MAX ? out.n : SAID_MAX),
				(const char *)out.p);
	if (r == 0) {
		r = mounts_wire_take(out, &ck->mounts_mem, &ck->mounts, &err);
		if (r < 0)
			(void)error_wrap(&err, r, "the container's mounts");
	}
	end(ck, r, &err);
}

static void overdue(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, timer);
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "the container's mounts could not be looked at in time: the file system "
			   "of one of them (FUSE, NFS or the like) does not answer");
	end(ck, err.code, &err);
}

static int start(struct checkpoint *ck, struct error *err)
{
	const struct container *c = ck->op.c;
	const struct shim_settings *settings = &c->shim->settings;
	const char *argv[] = { SHIM_NAME, "-namespace", c->shim->ns,      "-id", c->id,
			       "-bundle", c->path,	"look-at-mounts", NULL };
	struct spawn s = { .program = "/proc/self/exe", .argv = argv, .die_with_parent = true };
	_cleanup_buf_ struct buf in = BUF_LIMIT(COMMAND_OUTPUT_MAX);
	_cleanup_close_ int proc = -1;
	struct bytes prefixes;
	char path[64];
	int r = mounts_wire_put_prefixes(&settings->gpu.mount_prefixes, &in);

	if (r < 0)
		return error_sys(err, r, "gpu.mount_prefixes");
	(void)PATH_PRINTF(path, "/proc/%d", c->init.pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return error_sys(err, errno, "%s", path);
	spawn_fd(&s, proc, PROC_FD);
	prefixes = buf_bytes(&in);
	/* The deadline is ours: the command's own waits for the exit of what it has killed. */
	r = command_start(&ck->look, c->shim->loop, &c->shim->reaper, &s,
			  COMMAND_CAPTURE_STDOUT, &prefixes, NSEC_NEVER, ended, err);
	if (r == 0)
		timer_set(c->shim->loop, &ck->timer,
			  time_add(time_now(), settings->timeouts.quiesce), overdue);
	return r;
}

void gpu_look(struct checkpoint *ck,
	      void (*looked)(struct checkpoint *ck, int r, const struct error *err))
{
	struct error err = ERROR_NULL;
	int r;

	ck->looked = looked;
	r = start(ck, &err);
	if (r < 0)
		looked(ck, r, &err);
}

/* --- the helper ----------------------------------------------------------------------------- */

static int look(const char *bundle, struct buf *out, struct error *err)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(GPU_MOUNTS_MEMORY);
	_cleanup_arena_ struct arena own = ARENA_LIMIT(GPU_MOUNTS_MEMORY);
	_cleanup_close_ int fd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf in = BUF_LIMIT(COMMAND_OUTPUT_MAX);
	struct setting_list prefixes;
	struct mount_records records;
	const struct mounts_dump where = {
		.bundle = fd,
		.root = PROC "/root",
		.mountinfo = PROC "/mountinfo",
		.host_mountinfo = "/proc/self/mountinfo",
		.prefixes = &prefixes,
	};
	int r;

	if (fd < 0)
		return error_sys(err, errno, "%s", bundle);
	r = file_read(AT_FDCWD, "/proc/self/fd/0", &in);
	if (r < 0)
		return error_sys(err, r, "the prefixes");
	r = mounts_wire_take_prefixes(buf_bytes(&in), &own, &prefixes, err);
	if (r == 0)
		r = mounts_look(&where, &mem, &records, err);
	if (r < 0)
		return r;
	r = mounts_wire_put(&records, out);
	return r < 0 ? error_sys(err, r, "the container's mounts") : 0;
}

int gpu_look_main(const char *bundle)
{
	_cleanup_buf_ struct buf out = BUF_LIMIT(COMMAND_OUTPUT_MAX);
	struct error err = ERROR_NULL;
	int r = look(bundle, &out, &err);
	struct bytes text = r < 0 ? bytes_of(error_text(&err), strlen(error_text(&err)))
				  : buf_bytes(&out);

	return fd_write_all(STDOUT_FILENO, text.p, text.n) < 0 || r < 0 ? 1 : 0;
}
