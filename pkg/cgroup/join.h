/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a new shim daemon belongs: in the cgroup that the operator named (option shim_cgroup),
 * and in front of containerd when memory runs out. For the short-lived "start", so both may block
 * for a moment. Source: containerd repo, manager_linux.go (Start), pkg/shim/util_unix.go
 * (AdjustOOMScore), pkg/sys/oom_linux.go.
 */
#ifndef KYB_CGROUP_JOIN_H
#define KYB_CGROUP_JOIN_H

#include <sys/types.h>

#include "base/error.h"
#include "cgroup/cgroup.h"

/*
 * Moves a process into the cgroup at path (below the mount points), which must exist: with
 * version 1 in at least one tree, and it joins every tree that has it. Returns 0, -EINVAL (a path
 * that leads upwards), -ENOENT or another -errno.
 */
int join_cgroup(const struct cgroup_host *host, const char *path, pid_t pid, struct error *err);

/*
 * oom_score_adj of pid = that of parent + 1, at most 1000: of the two the kernel takes the shim
 * first. Refused permission is a failure only when we are privileged. Returns 0 or -errno.
 */
int join_oom_score(const char *proc, pid_t pid, pid_t parent, struct error *err);

#endif
