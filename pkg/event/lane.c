/* SPDX-License-Identifier: Apache-2.0 */
#include "event/lane.h"

static void begin_first(struct job *job)
{
	struct lane *lane = container_of(job, struct lane, next);
	struct lane_op *op = list_first(&lane->ops, struct lane_op, node);

	if (op)
		op->begin(op);
}

void lane_init(struct lane *lane, struct loop *loop)
{
	*lane = (struct lane){ .loop = loop };
	list_init(&lane->ops);
}

void lane_enter(struct lane *lane, struct lane_op *op, void (*begin)(struct lane_op *op))
{
	bool first = list_empty(&lane->ops);

	op->lane = lane;
	op->begin = begin;
	list_append(&lane->ops, &op->node);
	if (first)
		job_put_off(lane->loop, &lane->next, begin_first);
}

void lane_leave(struct lane_op *op)
{
	struct lane *lane = op->lane;
	bool first;

	if (!lane)
		return;
	first = lane->ops.next == &op->node;
	list_remove(&op->node);
	op->lane = NULL;
	if (first && !list_empty(&lane->ops))
		job_put_off(lane->loop, &lane->next, begin_first);
}
