/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gate that many pass at a time, and that one can close: it then waits until those inside have
 * left, and newcomers wait until it opens again. What a reader-writer lock is to threads. Execs
 * are started side by side, but none while the container is dumped.
 */
#ifndef KYB_EVENT_GATE_H
#define KYB_EVENT_GATE_H

#include <stdbool.h>

#include "event/loop.h"

struct gate_pass {
	struct gate *gate; /* NULL = neither waiting nor inside */
	bool inside;
	void (*enter)(struct gate_pass *pass);
	struct list node;
};

struct gate {
	struct loop *loop;
	struct list waiting;
	unsigned int n_inside;
	bool closed;
	void (*empty)(struct gate *g); /* NULL once it was told */
	struct job told, let_in;
};

void gate_init(struct gate *g, struct loop *loop);

/* enter() is called as soon as the gate is open: from the loop, never from inside here. */
void gate_enter(struct gate *g, struct gate_pass *pass, void (*enter)(struct gate_pass *pass));
/* Left, or no longer wants in. Harmless when neither. */
void gate_leave(struct gate_pass *pass);

/* empty() is called, from the loop, once nobody is inside. Not while it is closed already. */
void gate_close(struct gate *g, void (*empty)(struct gate *g));
/* Harmless when open. */
void gate_open(struct gate *g);

#endif
