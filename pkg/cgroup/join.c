/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/join.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/time.h"
#include "base/userns.h"

#define OOM_SCORE_ADJ_MIN (-1000)
#define OOM_SCORE_ADJ_MAX 1000

/*
 * A process that was just born cannot be moved yet; the kernel says EINVAL (TASK_NEW,
 * kernel/sched/core.c; runc pull request 1950).
 */
static int put_pid(const char *dir, pid_t pid)
{
	const struct timespec pause = { .tv_nsec = (long)(30 * NSEC_PER_MSEC) };
	char path[PATH_MAX], text[16];
	int r = -EINVAL;

	if (PATH_PRINTF(path, "%s/cgroup.procs", dir) < 0)
		return -ENAMETOOLONG;
	(void)snprintf(text, sizeof(text), "%d", pid);
	for (int i = 0; i < 5 && r == -EINVAL; i++) {
		if (i > 0)
			(void)nanosleep(&pause, NULL);
		r = file_put(AT_FDCWD, path, text);
	}
	return r;
}

static bool leads_upwards(const char *path)
{
	while (*path) {
		size_t n;

		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (n == 2 && path[0] == '.' && path[1] == '.')
			return true;
		path += n;
	}
	return false;
}

/* 1 = joined, 0 = this tree does not have it, or -errno. */
static int join_tree(const char *mount, const char *path, pid_t pid, struct error *err)
{
	char dir[PATH_MAX];
	int r = PATH_JOIN(dir, mount, path);

	if (r == 0 && access(dir, F_OK) < 0)
		return errno == ENOENT ? 0 : error_sys(err, errno, "find cgroup %s", dir);
	if (r == 0)
		r = put_pid(dir, pid);
	return r < 0 ? error_sys(err, r, "put process %d into cgroup %s", pid, dir) : 1;
}

int join_cgroup(const struct cgroup_host *host, const char *path, pid_t pid, struct error *err)
{
	bool joined = false;
	int r;

	if (leads_upwards(path))
		return error_set(err, -EINVAL, "cgroup %s: the path leads upwards", path);
	if (host->mode == CGROUP_V2) {
		r = join_tree(host->root, path, pid, err);
		joined = r > 0;
	} else {
		r = 0;
		for (unsigned int c = 0; c < CGROUP_CONTROLLERS && r >= 0; c++) {
			if (!host->mounts[c].point)
				continue;
			r = join_tree(host->mounts[c].point, path, pid, err);
			joined = joined || r > 0;
		}
	}
	if (r < 0)
		return r;
	return joined ? 0 : error_set(err, -ENOENT, "cgroup %s does not exist", path);
}

static int read_score(const char *proc, pid_t pid, long *ret)
{
	char path[PATH_MAX], line[32], *end;
	int r = PATH_PRINTF(path, "%s/%d/oom_score_adj", proc, pid);

	if (r == 0)
		r = file_read_line(AT_FDCWD, path, line, sizeof(line));
	if (r < 0)
		return r;
	errno = 0;
	*ret = strtol(line, &end, 10);
	return errno || end == line || *end || *ret < OOM_SCORE_ADJ_MIN ||
			       *ret > OOM_SCORE_ADJ_MAX ? -EBADMSG : 0;
}

int join_oom_score(const char *proc, pid_t pid, pid_t parent, struct error *err)
{
	char path[PATH_MAX], text[32];
	long score;
	int r = read_score(proc, parent, &score);

	if (r < 0)
		return error_sys(err, r, "read oom_score_adj of process %d", parent);
	if (score < OOM_SCORE_ADJ_MAX)
		score++;
	(void)snprintf(text, sizeof(text), "%ld", score);
	r = PATH_PRINTF(path, "%s/%d/oom_score_adj", proc, pid);
	if (r == 0)
		r = file_put(AT_FDCWD, path, text);
	if ((r == -EPERM || r == -EACCES) && (geteuid() != 0 || userns_inside(proc)))
		return 0;
	return r < 0 ? error_sys(err, r, "set oom_score_adj of process %d to %ld", pid, score) : 0;
}
