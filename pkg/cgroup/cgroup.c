/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/membership.h"
#include "base/mountinfo.h"
#include "base/path.h"

#define MEMBERSHIP_MAX ((size_t)64 << 10)

static const char *const names[] = {
	[CGROUP_BLKIO] = "blkio",
	[CGROUP_CPU] = "cpu",
	[CGROUP_CPUACCT] = "cpuacct",
	[CGROUP_CPUSET] = "cpuset",
	[CGROUP_DEVICES] = "devices",
	[CGROUP_FREEZER] = "freezer",
	[CGROUP_HUGETLB] = "hugetlb",
	[CGROUP_MEMORY] = "memory",
	[CGROUP_NET_CLS] = "net_cls",
	[CGROUP_NET_PRIO] = "net_prio",
	[CGROUP_PERF_EVENT] = "perf_event",
	[CGROUP_PIDS] = "pids",
	[CGROUP_RDMA] = "rdma",
	[CGROUP_SYSTEMD] = "name=systemd",
};

const char *cgroup_controller_name(enum cgroup_controller controller)
{
	return names[controller];
}

enum cgroup_mode cgroup_mode_at(const char *root)
{
	struct statfs st;

	if (statfs(root, &st) < 0)
		return CGROUP_NONE;
	return st.f_type == CGROUP2_SUPER_MAGIC ? CGROUP_V2 : CGROUP_V1;
}

/* Is option one of the comma list? */
static bool has_option(struct bytes list, const char *option)
{
	struct membership m = { .controllers = list };

	return membership_controls(&m, option);
}

static char *unescaped(struct bytes field)
{
	char buf[PATH_MAX];

	return mountinfo_unescape(field, buf, sizeof(buf)) == 0 ? strdup(buf) : NULL;
}

static int add_mount(void *arg, const struct mountinfo *m)
{
	struct cgroup_host *host = arg;
	size_t n = strlen(host->root);

	if (m->type.n != strlen("cgroup") || memcmp(m->type.p, "cgroup", m->type.n) != 0)
		return 0;
	/* Containers have mounts of the same trees in their root file systems. */
	if (m->point.n <= n || memcmp(m->point.p, host->root, n) != 0 || m->point.p[n] != '/')
		return 0;
	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		struct cgroup_mount *mount = &host->mounts[c];

		if (mount->point || !has_option(m->super, names[c]))
			continue;
		mount->point = unescaped(m->point);
		mount->root = unescaped(m->root);
		if (!mount->point || !mount->root)
			return -ENOMEM;
	}
	return 0;
}

int cgroup_host_open(struct cgroup_host *host, enum cgroup_mode mode, const char *root,
		     const char *proc, struct error *err)
{
	char path[PATH_MAX];
	int r;

	*host = (struct cgroup_host){ .mode = mode,
				      .root = root,
				      .proc = proc,
				      .hugepages = "/sys/kernel/mm/hugepages" };
	if (mode != CGROUP_V1)
		return 0;
	r = PATH_PRINTF(path, "%s/self/mountinfo", proc);
	if (r == 0)
		r = mountinfo_each(path, add_mount, host);
	if (r < 0) {
		cgroup_host_close(host);
		return error_sys(err, r, "find the cgroup mounts below %s", root);
	}
	return 0;
}

void cgroup_host_close(struct cgroup_host *host)
{
	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		free(host->mounts[c].point);
		free(host->mounts[c].root);
		host->mounts[c] = (struct cgroup_mount){ 0 };
	}
}

static bool has_parent_element(const char *path)
{
	for (const char *at = strstr(path, "/.."); at; at = strstr(at + 1, "/.."))
		if (at[3] == '/' || at[3] == 0)
			return true;
	return false;
}

/*
 * The path below the mount point. Inside of a container, where only a part of the tree is
 * mounted, processes still have their whole path. NULL: not below it, or the very root.
 */
static const char *below_mount(const char *path, const char *mount_root)
{
	size_t n = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);

	if (has_parent_element(path) || strncmp(path, mount_root, n) != 0)
		return NULL;
	path += n;
	return path[0] == '/' && path[1] != 0 ? path : NULL;
}

static int set_path(struct cgroup *cg, unsigned int controller, const char *path)
{
	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		if (cg->path[c] && strcmp(cg->path[c], path) == 0) {
			cg->path[controller] = cg->path[c];
			return 1;
		}
	}
	cg->path[controller] = strdup(path);
	return cg->path[controller] ? 1 : -ENOMEM;
}

/* Takes over what one line of /proc/PID/cgroup says. Returns how much that was, or -errno. */
static int take_line(struct cgroup *cg, const struct membership *m)
{
	char path[PATH_MAX];
	const char *below;
	int found = 0, r;

	r = membership_path(m, path, sizeof(path));
	if (r == -ENOENT)
		return 0; /* removed: the process is a zombie, or was moved elsewhere */
	if (r < 0)
		return r;
	if (cg->host->mode == CGROUP_V2) {
		below = membership_controls(m, "") ? below_mount(path, "/") : NULL;
		return below && !cg->path[0] ? set_path(cg, 0, below) : 0;
	}
	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		const struct cgroup_mount *mount = &cg->host->mounts[c];

		if (!mount->point || cg->path[c] || !membership_controls(m, names[c]))
			continue;
		below = below_mount(path, mount->root);
		r = below ? set_path(cg, c, below) : 0;
		if (r < 0)
			return r;
		found += r;
	}
	return found;
}

int cgroup_open(struct cgroup *cg, const struct cgroup_host *host, struct bytes membership,
		struct error *err)
{
	struct membership m;
	int found = 0, r;

	*cg = (struct cgroup){ .host = host };
	while ((r = membership_next(&membership, &m)) > 0) {
		r = host->mode == CGROUP_NONE ? 0 : take_line(cg, &m);
		if (r < 0)
			break;
		found += r;
	}
	if (r == 0 && !found)
		r = -ENOENT;
	if (r < 0) {
		cgroup_close(cg);
		return error_sys(err, r, "find the cgroup");
	}
	return 0;
}

int cgroup_open_pid(struct cgroup *cg, const struct cgroup_host *host, pid_t pid,
		    struct error *err)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(MEMBERSHIP_MAX);
	char path[PATH_MAX];
	int r;

	*cg = (struct cgroup){ 0 };
	r = PATH_PRINTF(path, "%s/%d/cgroup", host->proc, pid);
	if (r == 0)
		r = file_read(AT_FDCWD, path, &b);
	if (r == -ENOENT)
		r = -ESRCH;
	if (r < 0)
		return error_sys(err, r, "read %s", path);
	r = cgroup_open(cg, host, buf_bytes(&b), err);
	return r < 0 ? error_wrap(err, r, "process %d", pid) : 0;
}

/* path is top, or below it. */
static bool is_in(const char *path, const char *top)
{
	size_t n = strlen(top);

	return strncmp(path, top, n) == 0 && (path[n] == '/' || !path[n]);
}

int cgroup_open_apart(struct cgroup *cg, const struct cgroup_host *host, pid_t pid, pid_t beside,
		      struct error *err)
{
	struct cgroup all, other;
	int r = cgroup_open_pid(&all, host, pid, err), found = 0;

	*cg = (struct cgroup){ .host = host };
	if (r < 0 || cgroup_open_pid(&other, host, beside, NULL) < 0) {
		*cg = all; /* whoever is in none of its own is in none of these */
		return r;
	}
	for (unsigned int c = 0; r >= 0 && c < CGROUP_CONTROLLERS; c++) {
		if (!all.path[c] || (other.path[c] && is_in(other.path[c], all.path[c])))
			continue;
		r = set_path(cg, c, all.path[c]);
		found += r;
	}
	cgroup_close(&other);
	cgroup_close(&all);
	if (r >= 0 && found)
		return 0;
	cgroup_close(cg);
	return error_sys(err, r < 0 ? r : -ENOENT, "find a cgroup of process %d's own", pid);
}

int cgroup_open_path(struct cgroup *cg, const struct cgroup_host *host, const char *path,
		     struct error *err)
{
	unsigned int n = host->mode == CGROUP_V2 ? 1 : CGROUP_CONTROLLERS;
	int r = host->mode == CGROUP_NONE ? -ENOENT : 0;

	*cg = (struct cgroup){ .host = host };
	if (path[0] != '/' || path[1] == 0 || path[1] == '/' || has_parent_element(path))
		r = -EINVAL;
	for (unsigned int c = 0; r >= 0 && c < n; c++)
		if (host->mode == CGROUP_V2 || host->mounts[c].point)
			r = set_path(cg, c, path);
	if (r < 0) {
		cgroup_close(cg);
		return error_sys(err, r, "the cgroup's path");
	}
	return 0;
}

/* Keeps the first error that means anything. */
static void remove_dir(const char *path, int *first)
{
	if (rmdir(path) < 0 && errno != ENOENT && *first == 0)
		*first = -errno;
}

int cgroup_remove(const struct cgroup *cg)
{
	bool v2 = cg->host->mode == CGROUP_V2;
	char path[PATH_MAX];
	int first = 0;

	for (unsigned int c = 0; c < (v2 ? 1 : CGROUP_CONTROLLERS); c++) {
		if (cgroup_path(cg, (enum cgroup_controller)c, path, sizeof(path)) == 0)
			remove_dir(path, &first);
		/* Beside version 1, where runc makes one as well ("hybrid"). */
		if (!v2 && cg->path[c] &&
		    PATH_PRINTF(path, "%s/unified%s", cg->host->root, cg->path[c]) == 0)
			remove_dir(path, &first);
	}
	return first;
}

void cgroup_close(struct cgroup *cg)
{
	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		char *path = cg->path[c];

		for (unsigned int other = c; path && other < CGROUP_CONTROLLERS; other++)
			if (cg->path[other] == path)
				cg->path[other] = NULL;
		free(path);
	}
	cg->host = NULL;
}

int cgroup_path(const struct cgroup *cg, enum cgroup_controller controller, char *buf, size_t size)
{
	bool v2 = cg->host->mode == CGROUP_V2;
	const char *path = cg->path[v2 ? 0 : controller];

	if (!path)
		return -ENOENT;
	return path_printf(buf, size, "%s%s", v2 ? cg->host->root :
						   cg->host->mounts[controller].point, path);
}

int cgroup_dir(const struct cgroup *cg, enum cgroup_controller controller)
{
	char path[PATH_MAX];
	int r = cgroup_path(cg, controller, path, sizeof(path));

	if (r < 0)
		return r;
	r = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

bool cgroup_exists(const struct cgroup *cg)
{
	unsigned int n = cg->host->mode == CGROUP_V2 ? 1 : CGROUP_CONTROLLERS;

	for (unsigned int c = 0; c < n; c++) {
		_cleanup_close_ int fd = cgroup_dir(cg, (enum cgroup_controller)c);

		if (fd >= 0)
			return true;
	}
	return false;
}
