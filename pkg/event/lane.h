/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that must not overlap, in the order in which they came: what a mutex is to threads.
 * Used per container: pause, resume, update, checkpoint, delete.
 */
#ifndef KYB_EVENT_LANE_H
#define KYB_EVENT_LANE_H

#include <stdbool.h>

#include "event/loop.h"

struct lane_op {
	struct lane *lane; /* NULL = neither waiting nor running */
	void (*begin)(struct lane_op *op);
	struct list node;
};

struct lane {
	struct loop *loop;
	struct list ops; /* the first one runs */
	struct job next;
};

void lane_init(struct lane *lane, struct loop *loop);

/*
 * Calls op->begin once it is op's turn: at the end of this round of the loop at the earliest,
 * never from inside lane_enter(). It must be followed by lane_leave().
 */
void lane_enter(struct lane *lane, struct lane_op *op, void (*begin)(struct lane_op *op));
/* Done, or no longer wanted. Harmless when neither waiting nor running. */
void lane_leave(struct lane_op *op);

static inline bool lane_busy(const struct lane *lane)
{
	return !list_empty(&lane->ops);
}

#endif
