/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node-wide limit: so many at a time, the others wait in the order in which they came. For CRIU,
 * because fifty dumps at once would starve each other of the disk.
 */
#ifndef KYB_CHECKPOINT_SLOTS_H
#define KYB_CHECKPOINT_SLOTS_H

#include "event/loop.h"

struct slot {
	struct slots *slots; /* NULL = neither waiting nor held */
	bool held;
	void (*granted)(struct slot *slot);
	struct list node;
};

struct slots {
	struct loop *loop;
	unsigned int max, n_held;
	struct list waiting;
	struct job grant;
};

void slots_init(struct slots *s, struct loop *loop, unsigned int max);

/* granted() is called from the loop, never from inside here. End with slot_release(). */
void slot_request(struct slots *s, struct slot *slot, void (*granted)(struct slot *slot));
/* Gives it back, or stops waiting. Harmless when neither. */
void slot_release(struct slot *slot);

#endif
