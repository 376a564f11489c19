/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/adopt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "cgroup/join.h"

/* A child is born in its parent's cgroup: only one born between two looks needs the next pass. */
#define PASSES_MAX 64

static int pid_namespace(const struct cgroup_host *host, pid_t pid, struct stat *ret)
{
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s/%d/ns/pid", host->proc, pid) < 0)
		return -ENAMETOOLONG;
	return stat(path, ret) < 0 ? -errno : 0;
}

/* Moves those of the namespace. Returns how many, or -errno. */
static int move(const struct cgroup *from, const struct stat *ns, const char *to,
		struct error *err)
{
	struct cgroup_pids pids = { 0 };
	int r = cgroup_pids(from, &pids, err), n = 0;

	if (r == -ENOENT)
		return 0;
	for (size_t i = 0; r >= 0 && i < pids.n; i++) {
		struct stat st;

		if (pid_namespace(from->host, pids.pid[i], &st) < 0 ||
		    st.st_ino != ns->st_ino || st.st_dev != ns->st_dev)
			continue; /* another's, or gone */
		r = join_cgroup(from->host, to, pids.pid[i], err);
		if (r == -ESRCH)
			r = 0;
		else
			n += r == 0;
	}
	cgroup_pids_free(&pids);
	return r < 0 ? r : n;
}

/* What is empty; others may still use the rest, and then it is theirs. */
static void remove_empty(int parent, const char *name, unsigned int depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (!dir && fd >= 0)
		(void)close(fd);
	while (dir && depth < CGROUP_DEPTH_MAX && (e = readdir(dir)))
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") != 0 &&
		    strcmp(e->d_name, "..") != 0)
			remove_empty(dirfd(dir), e->d_name, depth + 1);
	(void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* path is top, or below it: a container may have cgroups of its own in the one it was given. */
static bool is_in(const char *path, const char *top)
{
	size_t n;

	path += strspn(path, "/");
	top += strspn(top, "/");
	n = strlen(top);
	while (n > 0 && top[n - 1] == '/')
		n--;
	return strncmp(path, top, n) == 0 && (path[n] == '/' || !path[n] || n == 0);
}

int adopt_processes(const struct cgroup_host *host, pid_t init, const char *to, struct error *err)
{
	struct cgroup from = { 0 };
	char path[PATH_MAX];
	struct stat ns;
	int r;

	if (host->mode != CGROUP_V2)
		return 0;
	r = cgroup_open_pid(&from, host, init, err);
	/* In the root cgroup: init alone is ours for sure. */
	if (r == -ENOENT)
		return join_cgroup(host, to, init, err);
	if (r < 0)
		return r;
	if (is_in(from.path[0], to)) {
		cgroup_close(&from);
		return 0;
	}
	r = pid_namespace(host, init, &ns);
	if (r < 0)
		r = error_sys(err, r, "find the pid namespace of process %d", init);
	else
		r = 1;
	for (unsigned int i = 0; i < PASSES_MAX && r > 0; i++)
		r = move(&from, &ns, to, err);
	if (r > 0)
		r = error_set(err, -EBUSY, "move processes to cgroup %s: they come too fast", to);
	if (r == 0 && cgroup_path(&from, CGROUP_SYSTEMD, path, sizeof(path)) == 0)
		remove_empty(AT_FDCWD, path, 0);
	cgroup_close(&from);
	return r;
}
