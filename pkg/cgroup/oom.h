/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learning that the kernel has killed a process of a container because memory ran out. One
 * descriptor a container.
 *
 * What counts is the kernel's own count of such kills (oom_kill), in the cgroup and below. Version
 * 2: memory.events, which is polled - containerd uses inotify, of which a user may have but 128
 * instances, so that the 129th container of a node goes without. Version 1: an eventfd registered
 * through cgroup.event_control tells of something: of a kill about to happen, of one in another
 * container of the same pod when it is the pod that ran out, or of the cgroup's removal; the
 * count then says which. Kernels without the count (before 4.13): every event is a kill.
 *
 * systemd removes the cgroup of a scope as soon as nobody is in it, which may be before anybody has
 * read its count: then the count of its parent tells. That is polled as well, and at each rise our
 * own is looked at: so it is known how many of the parent's kills are others', siblings that have
 * been removed included, up to the moment before the end. A second descriptor, for scopes only.
 * Sources: containerd repo, internal/oom, pkg/oom/v1; Linux, mm/memcontrol-v1.c
 * (mem_cgroup_oom_notify), include/linux/memcontrol.h (memcg_memory_event).
 */
#ifndef KYB_CGROUP_OOM_H
#define KYB_CGROUP_OOM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cgroup/cgroup.h"
#include "event/loop.h"

/* Zero-initialised means "not watching". */
struct oom_watch {
	struct loop *loop; /* NULL = not watching */
	const struct cgroup *cg;
	struct source src; /* version 2: memory.events; version 1: the eventfd */
	struct timer again;
	unsigned int tries;
	bool counts;    /* does the kernel count? */
	uint64_t kills; /* as of the last look */
	bool has_above;      /* version 2, in a scope: memory.events of the scope's parent */
	struct source above; /* that */
	uint64_t others;     /* its kills, but ours */
	bool unseen;         /* the cgroup went with kills that only its parent has told of */
	/* Called once for every rise of the count, from the loop or oom_watch_check(). */
	void (*killed)(struct oom_watch *w);
};

/*
 * Begins: kills from now on count, so begin before the container's own program runs. cg is
 * borrowed. Returns 0, -ENOENT (no memory controller, or no cgroup) or another -errno.
 */
int oom_watch_start(struct oom_watch *w, struct loop *loop, const struct cgroup *cg,
		    void (*killed)(struct oom_watch *w), struct error *err);

/*
 * Looks now. For the exit of a process: the kernel counts before it kills, so afterwards a kill
 * that no event has told of yet is known. Harmless when not watching.
 */
void oom_watch_check(struct oom_watch *w);

/*
 * Calls killed() when the cgroup was gone before its count could be read, and its parent has counted
 * a kill that nobody else explains. A sibling may have died in that very moment: so ask only about
 * a container that died of a SIGKILL that nobody is known to have sent. To be called after a check.
 */
void oom_watch_infer(struct oom_watch *w);

/* Harmless when not watching; allowed inside killed(). */
void oom_watch_stop(struct oom_watch *w);

#endif
