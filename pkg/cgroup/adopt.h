/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A restored container's processes, put into the cgroup that was made for it: where CRIU could not
 * be told of it.
 *
 * With cgroups of version 2, CRIU puts the processes back into the cgroup they were dumped in, which
 * has another container's name, or is none of this node's, unless it is told of another one. The OCI
 * runtimes tell it only from runc 1.2 and crun 1.21 on, so the shim does, by runtime_restore()'s
 * cgroup_root. That cannot work where the spec does not say which cgroup it is (with the cgroupfs
 * driver no cgroupsPath, or one relative to the runtime's own cgroup: cgroup_path_of()), nor
 * with a path that CRIU's configuration does not take (blanks, quotes, "#"). Then the processes are
 * moved afterwards, which is this. They have run outside of their limits for that moment, and what
 * they allocated stays charged to the old cgroup: the first way is the better one. A scope of
 * systemd's that has been empty is gone, and cannot be joined.
 */
#ifndef KYB_CGROUP_ADOPT_H
#define KYB_CGROUP_ADOPT_H

#include <sys/types.h>

#include "base/error.h"
#include "cgroup/cgroup.h"

/*
 * Moves init, and what is in its cgroup (or below) and in its pid namespace, into the cgroup `to`,
 * a path below the mount point; then removes what is empty of the old one. Others in there, such
 * as the container that was left running, stay. Nothing to do, and 0, with version 1 or when init is
 * there already, or below. A tree of cgroups in the old one is not made anew: all go into `to`. Returns 0 or -errno; -EBUSY when processes are born faster than they are moved.
 */
int adopt_processes(const struct cgroup_host *host, pid_t init, const char *to, struct error *err);

#endif
