/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says of a process. Everything read is bounded; a process that is gone is -ESRCH. */
#ifndef KYB_PROC_PROCFS_H
#define KYB_PROC_PROCFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"

/* When the process started, in clock ticks since boot: with the pid, an identity that a reused
 * pid does not share. */
int procfs_start_time(pid_t pid, uint64_t *ret);

/*
 * Parses the content of /proc/PID/stat; separate, so that it can be fuzzed. comm may hold
 * anything, parentheses and newlines included. Returns 0 or -EBADMSG.
 */
int procfs_parse_stat(struct bytes text, uint64_t *ret_start_time);

/* Has it ended, and only waits to be reaped? No such process is false. */
bool procfs_zombie(pid_t pid);

/* Its name (comm), cut to size; UTF-8 whatever the process has made of it, but any characters. */
int procfs_name(pid_t pid, char *buf, size_t size);

/*
 * Is a program of that name (without folder) among its arguments? So one is found that is run by
 * an interpreter or by a dynamic loader, too. 1, 0 or -errno.
 */
int procfs_runs(pid_t pid, const char *program);

/* Its number in its own pid namespace: the same again after a restore. */
int procfs_ns_pid(pid_t pid, pid_t *ret);
/* The same from the content of /proc/PID/status. Returns 0, -ENOENT (no such line) or -EBADMSG. */
int procfs_parse_ns_pid(struct bytes text, pid_t *ret);

/* Its parent; 0 = it has none that is seen from here. */
int procfs_parent(pid_t pid, pid_t *ret);

/* Who traces it (ptrace); 0 = nobody. */
int procfs_tracer(pid_t pid, pid_t *ret);
/* The same from the content of /proc/PID/status. Returns 0, -ENOENT (no such line) or -EBADMSG. */
int procfs_parse_tracer(struct bytes text, pid_t *ret);

/*
 * The path of pid's cgroup below a hierarchy: controller is "freezer", "memory", ... for cgroup
 * v1, or "" for the unified hierarchy. Returns 0, -ENOENT (no such hierarchy) or -errno.
 */
int procfs_cgroup(pid_t pid, const char *controller, char *buf, size_t size);

/* The same from the content of /proc/PID/cgroup. Returns 0, -ENOENT, -ENAMETOOLONG, -EBADMSG. */
int procfs_parse_cgroup(struct bytes text, const char *controller, char *buf, size_t size);

/* Calls each() for every descriptor's link target ("/dev/nvidia0", "anon_inode:[io_uring]", ...)
 * until it returns non-zero, which is returned then. */
int procfs_each_fd(pid_t pid, int (*each)(void *arg, int fd, const char *target), void *arg);

/* Does the process map a file whose path starts with prefix? 1, 0 or -errno. */
int procfs_maps_file(pid_t pid, const char *prefix);

/*
 * The folder of a process in /proc, of this one and no later one of the same number: what is opened
 * beneath it when it is gone is -ESRCH or -ENOENT. Returns a descriptor, -ESRCH (it is gone, or
 * another one by now) or another -errno.
 */
int procfs_open(pid_t pid, uint64_t start_time);

/*
 * The value of a variable in the environment that the process was started with; process is of
 * procfs_open(). Nothing else of the environment outlives the call. Returns 0, -ENOENT (not set),
 * -ENAMETOOLONG, -EFBIG or another -errno.
 */
int procfs_variable(int process, const char *name, char *buf, size_t size);

#endif
