/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which members of a group does CRIU not dump? It follows the children of the container's init. A
 * process that was added to the container (exec) is a child of the shim: it is locked and saved as
 * all others are, for it uses the same GPU, but it is not in the image, and whoever restores that
 * must not look for it.
 */
#include "checkpoint/group-private.h"

#include "base/log.h"
#include "proc/procfs.h"

#define DEPTH_MAX 4096 /* of a tree of processes; no pid namespace holds a deeper one */

/* Who cannot be looked at, because it has just died say, is not. */
static bool is_apart(pid_t pid, pid_t init)
{
	for (int i = 0; i < DEPTH_MAX && pid != init; i++) {
		if (pid <= 1)
			return true;
		if (procfs_parent(pid, &pid) < 0)
			return false;
	}
	return false;
}

void gpu_group_find_apart(struct gpu_group *g, pid_t init)
{
	struct member *m;

	list_for_each(m, &g->members, node) {
		m->pub.apart = !m->pub.gone && is_apart(m->pub.pid, init);
		if (m->pub.apart)
			log_warning("a CUDA process is not part of the image: it was added to the "
				    "container", F_INT("pid", m->pub.pid), F_STR("name", m->pub.name));
	}
}
