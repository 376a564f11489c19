/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping and resuming all processes of a cgroup. Neither takes effect at once: a process stops
 * when it next leaves the kernel. The wait is done in the event loop.
 *
 * Version 2 says when it is done (cgroup.events). Version 1 does not, and can hang half way while
 * processes are being born: it is asked again and again, thawed for a moment now and then, as the
 * OCI runtimes do (runc, libcontainer/cgroups/fs/freezer.go).
 *
 * A cgroup below a frozen one is frozen too, whatever it says itself: both are told apart here.
 */
#ifndef KYB_CGROUP_FREEZER_H
#define KYB_CGROUP_FREEZER_H

#include <stdbool.h>

#include "base/error.h"
#include "cgroup/cgroup.h"
#include "event/loop.h"

struct freezer_state {
	bool frozen; /* all processes have stopped */
	bool self;   /* because of this cgroup: frozen or on the way */
	bool parent; /* because of one above it */
};

/*
 * Returns 0, -ENOENT (the cgroup is gone), -EOPNOTSUPP (a kernel without a freezer: version 2
 * has it from Linux 5.2 on), or another -errno.
 */
int freezer_state(const struct cgroup *cg, struct freezer_state *ret, struct error *err);

/* One change under way. Zero-initialised means "idle". */
struct freezer {
	struct loop *loop; /* NULL = idle */
	const struct cgroup *cg;
	bool freeze;      /* what is wanted */
	bool was_self;    /* what it was before */
	int dir, events;  /* the folder; version 2: cgroup.events */
	unsigned int tries;
	struct source src;
	struct timer retry, deadline;
	struct job first;
	/* Called once, never from inside freezer_freeze() and freezer_thaw(); f may be freed. */
	void (*done)(struct freezer *f, int r, const struct error *err);
};

/*
 * Begins. done() says 0; -ETIMEDOUT at the deadline (absolute): what is half frozen by us is
 * thawed again; -ENOENT when the cgroup is removed meanwhile; for a thaw -EBUSY when a parent is
 * frozen, the cgroup itself being thawed then. cg is borrowed until done() or freezer_cancel().
 * Returns 0, or -errno with err, and done() will not be called.
 */
int freezer_freeze(struct freezer *f, struct loop *loop, const struct cgroup *cg, nsec_t deadline,
		   void (*done)(struct freezer *f, int r, const struct error *err),
		   struct error *err);
int freezer_thaw(struct freezer *f, struct loop *loop, const struct cgroup *cg, nsec_t deadline,
		 void (*done)(struct freezer *f, int r, const struct error *err),
		 struct error *err);

/* Stops waiting, without done(); what has been written stays. Harmless when idle. */
void freezer_cancel(struct freezer *f);

#endif
