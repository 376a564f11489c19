/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/forewarn.h"

#include <errno.h> /* program_invocation_name */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/membership.h"
#include "base/path.h"

/*
 * A slow runtime on a busy machine comes when the kernel has forgotten again. Each further move finds
 * it as it is wanted, costs nothing, and keeps it so for another grace period.
 */
#define MOVES 3
#define PAUSE (5 * NSEC_PER_MSEC)

/* The mount point of the tree that this line of /proc/self/cgroup is about, or NULL. */
static const char *mount_of(const struct cgroup_host *host, const struct membership *m)
{
	if (host->mode == CGROUP_V2)
		return membership_controls(m, "") ? host->root : NULL;
	for (enum cgroup_controller c = 0; c < CGROUP_CONTROLLERS; c++) {
		const struct cgroup_mount *mount = &host->mounts[c];

		/* Where only a part of the tree is mounted we may be in another part. */
		if (mount->point && strcmp(mount->root, "/") == 0 &&
		    membership_controls(m, cgroup_controller_name(c)))
			return mount->point;
	}
	return NULL;
}

/* The lock is one for all trees: any of them will do. */
static int own_procs(const struct cgroup_host *host, char *buf, size_t size)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT((size_t)64 << 10);
	char path[PATH_MAX];
	struct membership m;
	struct bytes rest;
	int r = PATH_PRINTF(path, "%s/self/cgroup", host->proc);

	if (r == 0)
		r = file_read(AT_FDCWD, path, &text);
	if (r < 0)
		return r;
	rest = buf_bytes(&text);
	while (membership_next(&rest, &m) > 0) {
		const char *point = mount_of(host, &m);

		/* "/..": outside of our cgroup namespace, so below no mount of ours. */
		if (point && membership_path(&m, path, sizeof(path)) == 0 && !strstr(path, "/.."))
			return path_printf(buf, size, "%s%s/cgroup.procs", point,
					   strcmp(path, "/") == 0 ? "" : path);
	}
	return -ENOENT;
}

/* What ps shows, in memory of its own: whoever looks for shims is not to find two. */
static void take_name(const char *name)
{
	size_t n = strlen(program_invocation_name), k = strlen(name);

	(void)prctl(PR_SET_NAME, name);
	memset(program_invocation_name, 0, n);
	memcpy(program_invocation_name, name, k < n ? k : n);
}

/*
 * It moves itself, not us: should somebody move us at this moment, we stay where we were put. It
 * holds nothing open meanwhile: readers of a container's output wait for the last writer.
 */
static _Noreturn void child(const struct cgroup_host *host)
{
	const struct timespec pause = { .tv_nsec = (long)PAUSE };
	char path[PATH_MAX];
	int r;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	take_name("kyb-forewarn");
	(void)!chdir("/");
	(void)close_range(0, ~0U, 0);
	r = own_procs(host, path, sizeof(path));
	for (int i = 0; i < MOVES && r == 0; i++) {
		if (i > 0)
			(void)nanosleep(&pause, NULL);
		r = file_put(AT_FDCWD, path, "0"); /* "0": who writes */
	}
	_exit(0);
}

static void ended(struct child *c, const struct exit_record *rec)
{
	(void)c; /* it is not watched any more: that is all we wanted */
	(void)rec;
}

void forewarn_init(struct forewarn *f, const struct cgroup_host *host, struct reaper *reaper)
{
	*f = (struct forewarn){.host = host, .reaper = reaper};
}

void forewarn_done(struct forewarn *f)
{
	reaper_unwatch(&f->child);
}

int forewarn_moves(struct forewarn *f)
{
	pid_t pid;

	if (f->host->mode == CGROUP_NONE)
		return 0;
	/* One that is there waits for its grace period, or has and holds on: that does for all. */
	if (f->child.pid)
		return 1;
	/*
	 * A plain fork(), without an exec: we have one thread, and the child makes a handful of
	 * system calls. A thread would do with less, but would move all of us.
	 */
	pid = fork();
	if (pid == 0)
		child(f->host);
	if (pid < 0)
		return -errno;
	reaper_watch(f->reaper, &f->child, pid, ended);
	return 1;
}
