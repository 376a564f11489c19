/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI spec of a container that is to be restored, from that of the one that was dumped. */
#ifndef KYB_AGENT_RESPEC_H
#define KYB_AGENT_RESPEC_H

#include "base/buf.h"
#include "base/error.h"

/*
 * Appends to out the spec with the annotation kybernate.io/restore-from set to ref, and with the
 * new container's own cgroup: two containers must not share one, or the end of one is the end of
 * both. Returns 0, -EBADMSG with REASON_IMAGE_CORRUPT, or -ENOMEM.
 */
int respec(struct bytes spec, const char *old_id, const char *new_id, const char *ref,
	   struct buf *out, struct error *err);

#endif
