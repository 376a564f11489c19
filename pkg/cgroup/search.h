/* SPDX-License-Identifier: Apache-2.0 */
/* The cgroup of a container of which nothing is known but its id. */
#ifndef KYB_CGROUP_SEARCH_H
#define KYB_CGROUP_SEARCH_H

#include "cgroup/cgroup.h"

/*
 * Looks at every process of the machine. A container's cgroup is named ID by containerd and kubelet,
 * PREFIX-ID.scope with the systemd driver, PREFIX-ID by others. What lies below is the container's
 * own affair. One whose path has the namespace in it, too (containerd's own choice is NAMESPACE/ID),
 * comes before any other. Returns 0, -ENOENT (no process is in such a cgroup), -EEXIST (more than one has such a
 * name, so that nobody knows which it is) or another -errno. Free with cgroup_close().
 */
int cgroup_search(struct cgroup *cg, const struct cgroup_host *host, const char *ns, const char *id,
		  struct error *err);

#endif
