/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A restored container's processes, put into the cgroup that was made for it.
 *
 * With cgroups of version 2, CRIU puts the processes back into the cgroup they were dumped in, which
 * has another container's name, or is none of this node's: the OCI runtimes do not tell it of
 * another one (runc repo, criuApplyCgroups(): only version 1 gets a "cgroup root"; to leave the
 * cgroups alone, "--manage-cgroups-mode ignore", runc knows from 1.2 on). The cgroup that the runtime
 * made for the new container stays empty: its limits count for nobody, and a kill of "all" that is
 * in it ends nobody.
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
 * there already. Returns 0 or -errno; -EBUSY when processes are born faster than they are moved.
 */
int adopt_processes(const struct cgroup_host *host, pid_t init, const char *to, struct error *err);

#endif
