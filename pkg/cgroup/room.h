/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much more memory the processes of a cgroup may use before the kernel kills one: their own
 * limit and those of the cgroups above (the pod's, the class's) count, and pages of files that can
 * be dropped at once do not. Source: kernel, Documentation/admin-guide/cgroup-v2.rst and
 * cgroup-v1/memory.rst.
 */
#ifndef KYB_CGROUP_ROOM_H
#define KYB_CGROUP_ROOM_H

#include "cgroup/cgroup.h"

#define CGROUP_NO_LIMIT UINT64_MAX

struct cgroup_room {
	uint64_t room;     /* bytes; CGROUP_NO_LIMIT = nothing limits it */
	uint64_t limit;    /* of the cgroup that leaves the least; CGROUP_NO_LIMIT likewise */
	char path[256];    /* which one that is, below the mount point; cut at its start */
	uint64_t resident; /* of the cgroup itself: what its processes hold and files do not back */
};

/*
 * Reads it. A kernel without the memory controller knows no limit. Returns 0, or -ENOENT: the
 * cgroup is gone.
 */
int cgroup_room(const struct cgroup *cg, struct cgroup_room *ret);

#endif
