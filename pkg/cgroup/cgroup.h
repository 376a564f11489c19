/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's cgroup: where it is, and who is in it. One handle is good for the container's
 * whole life: it holds paths, so it needs no process to ask, and works after the exit until the
 * OCI runtime removes the cgroup.
 *
 * Three worlds: version 2 (one tree), version 1 (a tree for each controller), and both side by
 * side ("hybrid"), which counts as version 1. Which one it is says the file system at
 * /sys/fs/cgroup. Source: containerd's cgroups library, utils.go (Mode), cgroup1/paths.go,
 * cgroup2/paths.go; cgroups(7).
 */
#ifndef KYB_CGROUP_CGROUP_H
#define KYB_CGROUP_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/error.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

enum cgroup_mode { CGROUP_NONE, CGROUP_V1, CGROUP_V2 };

/* The trees of version 1 that a process can be in. */
enum cgroup_controller {
	CGROUP_BLKIO,
	CGROUP_CPU,
	CGROUP_CPUACCT,
	CGROUP_CPUSET,
	CGROUP_DEVICES,
	CGROUP_FREEZER,
	CGROUP_HUGETLB,
	CGROUP_MEMORY,
	CGROUP_NET_CLS,
	CGROUP_NET_PRIO,
	CGROUP_PERF_EVENT,
	CGROUP_PIDS,
	CGROUP_RDMA,
	CGROUP_SYSTEMD, /* no controller, but a tree */
	CGROUP_CONTROLLERS
};

/* What this machine has. Read once a process; cgroups borrow it. */
struct cgroup_host {
	enum cgroup_mode mode;
	const char *root; /* "/sys/fs/cgroup" */
	const char *proc; /* "/proc" */
	const char *hugepages; /* "/sys/kernel/mm/hugepages" */
	struct cgroup_mount {
		char *point; /* NULL = not mounted */
		char *root;  /* the cgroup that is mounted there; "/" but inside of containers */
	} mounts[CGROUP_CONTROLLERS]; /* version 1 */
};

/* By the file system at root. */
enum cgroup_mode cgroup_mode_at(const char *root);

/*
 * For version 1 reads where the trees are mounted below root (proc/self/mountinfo). The strings
 * are borrowed; tests name folders of their own. Returns 0 or -errno. Free with
 * cgroup_host_close().
 */
int cgroup_host_open(struct cgroup_host *host, enum cgroup_mode mode, const char *root,
		     const char *proc, struct error *err);
void cgroup_host_close(struct cgroup_host *host);

struct cgroup {
	const struct cgroup_host *host; /* borrowed; NULL = not open */
	/*
	 * The path below the mount point, with a slash in front; several entries can share one
	 * string. Version 2 has [0] only. NULL where the container has no cgroup of its own: the
	 * root cgroup is everybody's, and freezing or listing it would mean the whole machine.
	 */
	char *path[CGROUP_CONTROLLERS];
};

/*
 * From the content of /proc/PID/cgroup of a process in it. Returns 0, -ENOENT (it is in no
 * cgroup of its own), -EBADMSG, -ENAMETOOLONG or -ENOMEM. Free with cgroup_close().
 */
int cgroup_open(struct cgroup *cg, const struct cgroup_host *host, struct bytes membership,
		struct error *err);
/* Reads that file first; -ESRCH when there is no such process. */
int cgroup_open_pid(struct cgroup *cg, const struct cgroup_host *host, pid_t pid,
		    struct error *err);
/*
 * The same without those cgroups that process beside is in too, or below: that is where a runtime
 * leaves a container for which it may not make any, and what is done to them is done to others.
 * -ENOENT: there is none else.
 */
int cgroup_open_apart(struct cgroup *cg, const struct cgroup_host *host, pid_t pid, pid_t beside,
		      struct error *err);
/*
 * The one at path (absolute, below each mount point), whether it exists or not, as the OCI runtimes
 * make it of a spec's cgroupsPath. -EINVAL for another form, such as that of the systemd driver.
 */
int cgroup_open_path(struct cgroup *cg, const struct cgroup_host *host, const char *path,
		     struct error *err);
/* Harmless on a zeroed or closed one. */
void cgroup_close(struct cgroup *cg);

/*
 * The folder of a controller (of version 2: always the same one) as a path. Returns 0, -ENOENT
 * (no such tree) or -ENAMETOOLONG; does not look whether it exists.
 */
int cgroup_path(const struct cgroup *cg, enum cgroup_controller controller, char *buf,
		size_t size);

/* The same opened, for openat(). Returns a descriptor or -errno; -ENOENT when it is gone. */
int cgroup_dir(const struct cgroup *cg, enum cgroup_controller controller);

/* Is any of it still there? */
bool cgroup_exists(const struct cgroup *cg);

/*
 * Removes it from all trees; sub-cgroups are somebody else's. Returns 0, also when there is none, or
 * the first -errno: -EBUSY while there is a process or a sub-cgroup in it.
 */
int cgroup_remove(const struct cgroup *cg);

#define CGROUP_PIDS_MAX   ((size_t)65536)
#define CGROUP_GROUPS_MAX 8192 /* sub-cgroups that are looked into */
#define CGROUP_DEPTH_MAX  32

struct cgroup_pids {
	pid_t *pid; /* ascending, each once */
	size_t n, cap;
};

/*
 * All processes in it and in the cgroups below it, as one look finds them: who must have every
 * one looks again until nothing changes. Never a part: over the limits above it is -E2BIG, and a
 * process that our pid namespace does not show is -EXDEV. Returns 0 or -errno (-ENOENT: gone).
 * Free with cgroup_pids_free().
 */
int cgroup_pids(const struct cgroup *cg, struct cgroup_pids *ret, struct error *err);
void cgroup_pids_free(struct cgroup_pids *pids);
bool cgroup_pids_has(const struct cgroup_pids *pids, pid_t pid);

/* "memory", "name=systemd" and so on, as /proc/PID/cgroup has them. */
const char *cgroup_controller_name(enum cgroup_controller controller);

#endif
