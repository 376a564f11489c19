/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics as the messages that containerd's clients read: io.containerd.cgroups.v1.Metrics or
 * io.containerd.cgroups.v2.Metrics, by the version of the cgroup and nothing else (the wrong one
 * is dropped by CRI without a word).
 */
#ifndef KYB_CGROUP_STATS_PB_H
#define KYB_CGROUP_STATS_PB_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "cgroup/stats.h"

/* Append the message. The arena holds it meanwhile. Return 0, -ENOMEM or -EMSGSIZE. */
int stats_pb_v1(const struct stats_v1 *s, struct arena *a, struct buf *out);
int stats_pb_v2(const struct stats_v2 *s, struct arena *a, struct buf *out);

/*
 * Reads and packs. *ret_type_url (static) and out are the two fields of the Any. Returns 0,
 * -ENOENT (no cgroup), -ENOMEM or -EMSGSIZE.
 */
int stats_pb(const struct cgroup *cg, struct buf *out, const char **ret_type_url,
	     struct error *err);

#endif
