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
 * So this goes first, the runtime's delete afterwards. A delete that fails may leave the cgroup: then
 * this is asked again.
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
	void (*done)(struct remains *m);
};

/*
 * work_path: CRIU's. cgroups_path: of the spec, may be NULL. done() follows, from the loop, whatever
 * could be done; the log says what could not.
 */
void remains_clear(struct remains *m, struct loop *loop, const struct runtime *rt,
		   const char *work_path, const struct cgroup_host *host, const char *cgroups_path,
		   void (*done)(struct remains *m));

#endif
