/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/slots.h"

static void grant(struct job *job)
{
	struct slots *s = container_of(job, struct slots, grant);
	struct slot *slot;

	while (s->n_held < s->max && (slot = list_first(&s->waiting, struct slot, node))) {
		list_remove(&slot->node);
		slot->held = true;
		s->n_held++;
		slot->granted(slot);
	}
}

void slots_init(struct slots *s, struct loop *loop, unsigned int max)
{
	*s = (struct slots){ .loop = loop, .max = max ? max : 1 };
	list_init(&s->waiting);
}

void slot_request(struct slots *s, struct slot *slot, void (*granted)(struct slot *slot))
{
	*slot = (struct slot){ .slots = s, .granted = granted };
	list_append(&s->waiting, &slot->node);
	job_put_off(s->loop, &s->grant, grant);
}

void slot_release(struct slot *slot)
{
	struct slots *s = slot->slots;

	if (!s)
		return;
	if (slot->held) {
		s->n_held--;
		job_put_off(s->loop, &s->grant, grant);
	} else {
		list_remove(&slot->node);
	}
	*slot = (struct slot){ 0 };
}
