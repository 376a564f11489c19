/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI spec of a container that is to be restored, from that of the one that was dumped. */
#ifndef KYB_AGENT_RESPEC_H
#define KYB_AGENT_RESPEC_H

#include "base/buf.h"
#include "base/error.h"

/* A device node that the new container has in place of one that the old one had. */
struct respec_move {
	char from[32], to[32]; /* "/dev/nvidia0" */
};

/*
 * Appends to out the spec with the annotation kybernate.io/restore-from set to ref, and with the
 * new container's own cgroup: two containers must not share one, or the end of one is the end of
 * both. moves: GPUs that are others than before. Returns 0, -EBADMSG with REASON_IMAGE_CORRUPT, or
 * -ENOMEM.
 */
int respec(struct bytes spec, const char *old_id, const char *new_id, const char *ref,
	   const struct respec_move *moves, size_t n_moves, struct buf *out, struct error *err);

#endif
