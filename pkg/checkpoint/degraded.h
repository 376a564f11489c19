/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers whose GPU memory could not be brought back yet: another process holds the memory, the
 * driver hangs. They stay suspended, never killed, with their memory safe in host RAM, and are
 * tried again in the background with growing pauses until it works or their processes have gone.
 */
#ifndef KYB_CHECKPOINT_DEGRADED_H
#define KYB_CHECKPOINT_DEGRADED_H

#include "base/backoff.h"
#include "checkpoint/operation.h"

struct degraded {
	struct node *node;
	struct list node_link;
	char *ns, *container_id, *pod_uid;
	struct gpu_group *group;
	struct timer again;
	nsec_t since;
	struct backoff backoff;
	unsigned int attempts;
	struct error err; /* the last failure */
};

/*
 * Takes over the group of an operation that ends. Returns 0 or -ENOMEM; then the caller keeps it.
 */
int degraded_add(struct operation *op, const struct error *err);

/* Is this one degraded? NULL when not. */
struct degraded *degraded_find(const struct node *node, const char *ns, const char *container_id);

/* Tries now instead of after the pause. */
void degraded_retry(struct degraded *d);

void degraded_free_all(struct node *node);

#endif
