/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells the kernel that a process is about to be moved between cgroups, so that the mover - the OCI
 * runtime, some milliseconds later - need not wait.
 *
 * A move takes cgroup_threadgroup_rwsem for writing. Its readers, every fork and exit, pay for
 * nothing because the first writer after a while waits for an RCU grace period, 8 to 40 ms by
 * machine and load; who comes while it waits shares the wait, and who comes within about another
 * grace period does not wait at all. That is most of what `runc exec` waits for. So a short-lived
 * child makes moves that change nothing, into the cgroup that it is in, while the runtime starts.
 * Source: Linux, kernel/cgroup/cgroup.c (cgroup_attach_lock()), kernel/rcu/sync.c; commit
 * 6a010a49b63a says why it is so, and adds the mount option favordynmods, with which nobody waits.
 */
#ifndef KYB_CGROUP_FOREWARN_H
#define KYB_CGROUP_FOREWARN_H

#include "cgroup/cgroup.h"
#include "event/reaper.h"

/* Embedded. host and reaper are borrowed. */
struct forewarn {
	const struct cgroup_host *host;
	struct reaper *reaper;
	struct child child;
};

void forewarn_init(struct forewarn *f, const struct cgroup_host *host, struct reaper *reaper);
/* Of a child that is still there it takes no more notice. */
void forewarn_done(struct forewarn *f);

/*
 * Returns at once: 1 when a child is under way, 0 when there is no cgroup to move in, or -errno of
 * fork(). Nobody has to care: without it the mover waits, as ever.
 */
int forewarn_moves(struct forewarn *f);

#endif
