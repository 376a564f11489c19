/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore leaves whose runtime was killed, and `runtime delete` knows nothing of, because
 * runc writes its state.json last:
 *
 *	- processes in the container's cgroup that CRIU had begun to make
 *	- the cgroup
 *	- the container's root file system, mounted a second time at ROOT/ID/criu-root. runc's delete
 *	  removes all files below ROOT/ID when there is no state.json (runc 1.1 to 1.3, delete.go,
 *	  os.RemoveAll): through that mount it would empty the root file system.
 *	- CRIU's view of the cgroups, mounted in its work folder (.criu.cgyard.XXXXXX)
 *
 * So this goes first, the runtime's delete afterwards. That may leave the cgroup, too: see
 * remains_await_cgroup().
 */
#ifndef KYB_SHIM_REMAINS_H
#define KYB_SHIM_REMAINS_H

#include "cgroup/cgroup.h"
#include "event/loop.h"
#include "oci/runtime.h"

struct remains {
	struct loop *loop;
	const struct runtime *rt;
	struct cgroup cgroup;
	struct timer again;
	nsec_t until;
	bool kill; /* who is still in the cgroup */
	void (*done)(struct remains *m);
};

/*
 * work_path: CRIU's. cgroups_path: of the spec, may be NULL. done() follows, from the loop, whatever
 * could be done; the log says what could not.
 */
void remains_clear(struct remains *m, struct loop *loop, const struct runtime *rt,
		   const char *work_path, const struct cgroup_host *host, const char *cgroups_path,
		   void (*done)(struct remains *m));

/*
 * Removes the cgroup as soon as those whom the runtime has killed have left it. runc 1.1 tries that
 * but once with cgroup v2, says so only in its log if it was too early, and forgets the container
 * (delete.go, destroy()): nobody else would come for it. Kills nobody, for a cgroup that still has
 * living members may be that of other containers as well. m: of a call that is done.
 */
void remains_await_cgroup(struct remains *m, const struct cgroup_host *host,
			  const char *cgroups_path, void (*done)(struct remains *m));

#endif
