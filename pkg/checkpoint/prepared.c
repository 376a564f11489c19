/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/prepared.h"

#include <stdlib.h>
#include <string.h>

/* containerd starts what it has created at once; ten minutes are for a person with ctr. */
#define KEEP_MAX (600 * NSEC_PER_SEC)

struct prepared {
	struct list node_link;
	struct timer expiry;
	char *ns, *container_id;
	struct store_pin pin;
};

static void prepared_free(struct prepared *p)
{
	list_remove(&p->node_link);
	timer_cancel(&p->expiry);
	store_unpin(&p->pin);
	free(p->ns);
	free(p->container_id);
	free(p);
}

static void expired(struct timer *t)
{
	prepared_free(container_of(t, struct prepared, expiry));
}

void prepared_keep(struct operation *op)
{
	struct prepared *p;

	if (op->pin.fd < 0)
		return;
	(void)prepared_claim(op); /* an earlier one of the same container */
	p = calloc(1, sizeof(*p));
	if (!p)
		return;
	list_init(&p->node_link);
	p->pin = op->pin;
	op->pin = STORE_PIN_NULL;
	p->ns = strdup(op->req.ns);
	p->container_id = strdup(op->req.container_id);
	if (!p->ns || !p->container_id) {
		prepared_free(p);
		return;
	}
	list_append(&op->node->prepared, &p->node_link);
	timer_set(op->node->loop, &p->expiry, time_now() + KEEP_MAX, expired);
}

bool prepared_claim(struct operation *op)
{
	struct prepared *p, *tmp;
	bool found = false;

	list_for_each_safe(p, tmp, &op->node->prepared, node_link) {
		if (strcmp(p->ns, op->req.ns) != 0 ||
		    strcmp(p->container_id, op->req.container_id) != 0)
			continue;
		found = strcmp(p->pin.ref, op->req.ref) == 0;
		prepared_free(p);
	}
	return found;
}

void prepared_free_all(struct node *node)
{
	struct prepared *p;

	while ((p = list_first(&node->prepared, struct prepared, node_link)))
		prepared_free(p);
}
