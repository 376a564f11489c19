/* SPDX-License-Identifier: Apache-2.0 */
/* Who is in a cgroup: cgroup_pids() of cgroup.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/num.h"
#include "cgroup/cgroup.h"

/* Ten digits and a newline each. */
#define PROCS_FILE_MAX (CGROUP_PIDS_MAX * 11)

struct walk {
	struct cgroup_pids pids;
	unsigned int groups;
};

static int add(struct cgroup_pids *pids, pid_t pid)
{
	if (pids->n == pids->cap) {
		size_t cap = pids->cap ? pids->cap * 2 : 64;
		pid_t *more;

		if (pids->n >= CGROUP_PIDS_MAX)
			return -E2BIG;
		more = realloc(pids->pid, cap * sizeof(*more));
		if (!more)
			return -ENOMEM;
		pids->pid = more;
		pids->cap = cap;
	}
	pids->pid[pids->n++] = pid;
	return 0;
}

static int read_procs(int dir, struct cgroup_pids *pids)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROCS_FILE_MAX);
	struct bytes text, line;
	uint64_t pid;
	int r = file_read(dir, "cgroup.procs", &b);

	if (r == -EOPNOTSUPP)
		return 0; /* threaded: its processes count in the domain above */
	if (r == -EFBIG)
		return -E2BIG;
	if (r < 0)
		return r;
	text = buf_bytes(&b);
	while (bytes_until(&text, '\n', &line) == 0) {
		if (num_parse_n((const char *)line.p, line.n, INT_MAX, &pid) < 0)
			return -EBADMSG;
		r = pid ? add(pids, (pid_t)pid) : -EXDEV; /* 0 stands for one we cannot see */
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_gone(int r)
{
	return r == -ENOENT || r == -ENODEV;
}

static int walk(struct walk *w, int dir, unsigned int depth);

static int walk_into(struct walk *w, int dir, const char *name, unsigned int depth)
{
	_cleanup_close_ int sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int r;

	if (sub < 0)
		return errno == ENOTDIR || is_gone(-errno) ? 0 : -errno;
	if (depth >= CGROUP_DEPTH_MAX || ++w->groups > CGROUP_GROUPS_MAX)
		return -E2BIG;
	r = walk(w, sub, depth);
	return is_gone(r) ? 0 : r; /* removed while we looked */
}

static int walk(struct walk *w, int fd, unsigned int depth)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;
	int r = read_procs(fd, &w->pids), copy;

	if (r < 0)
		return r;
	copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* for fdopendir() to keep */
	if (copy < 0)
		return -errno;
	dir = fdopendir(copy);
	if (!dir) {
		r = -errno;
		(void)close(copy);
		return r;
	}
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
			continue;
		r = walk_into(w, fd, e->d_name, depth + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static int ascending(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static void sort_out(struct cgroup_pids *pids)
{
	size_t n = 0;

	if (pids->n)
		qsort(pids->pid, pids->n, sizeof(*pids->pid), ascending);
	for (size_t i = 0; i < pids->n; i++)
		if (n == 0 || pids->pid[n - 1] != pids->pid[i])
			pids->pid[n++] = pids->pid[i];
	pids->n = n;
}

/*
 * A process is in one cgroup of every tree, and the OCI runtime puts a container's own into all.
 * The freezer comes first: those are the processes that a freeze stops.
 */
static int open_top(const struct cgroup *cg)
{
	static const enum cgroup_controller order[] = {
		CGROUP_FREEZER, CGROUP_DEVICES, CGROUP_PIDS, CGROUP_MEMORY, CGROUP_CPU,
		CGROUP_CPUACCT, CGROUP_BLKIO,	CGROUP_CPUSET, CGROUP_SYSTEMD,
	};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		int r = cgroup_path(cg, order[i], path, sizeof(path)), fd;

		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	return -ENOENT;
}

int cgroup_pids(const struct cgroup *cg, struct cgroup_pids *ret, struct error *err)
{
	_cleanup_close_ int top = open_top(cg);
	struct walk w = { .groups = 0 };
	int r = top < 0 ? top : walk(&w, top, 0);

	if (r == -ENODEV)
		r = -ENOENT;
	if (r < 0) {
		cgroup_pids_free(&w.pids);
		return error_sys(err, r, "list the processes of the cgroup");
	}
	sort_out(&w.pids);
	*ret = w.pids;
	return 0;
}

void cgroup_pids_free(struct cgroup_pids *pids)
{
	free(pids->pid);
	*pids = (struct cgroup_pids){ 0 };
}

bool cgroup_pids_has(const struct cgroup_pids *pids, pid_t pid)
{
	return pids->n && bsearch(&pid, pids->pid, pids->n, sizeof(pid), ascending);
}
