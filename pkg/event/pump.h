/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries bytes from one descriptor to another until the first ends: the container's pipe to the
 * client's FIFO, a terminal to a log file, and so on. Never loses a byte, never blocks; a reader
 * that is slow or absent stops the writer through the kernel's own buffers, and nobody else.
 */
#ifndef KYB_EVENT_PUMP_H
#define KYB_EVENT_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "event/loop.h"

struct pump {
	struct loop *loop; /* NULL = not open */
	int from, to;      /* owned, but for a borrowed to; to = -1: read and drop */
	int twin;          /* of a borrowed to, while it is waited for; else -1 */
	struct source in, out;
	bool terminal, borrows_to;
	bool splice;    /* both ends are pipes: bytes need not pass through our memory */
	bool finishing; /* pump_finish() was called */
	bool ended;
	uint8_t *held;  /* bytes read but not yet written; NULL most of the time */
	size_t held_n, held_at;
	struct timer again;
	struct job end;
	/*
	 * Everything has been carried over and from has ended, or one of the two failed. Called
	 * once, from the loop; the owner calls pump_close().
	 */
	void (*done)(struct pump *p);
};

enum pump_flags {
	PUMP_PLAIN = 0,
	/*
	 * from is a terminal's master: EIO only says that nobody has the other side open right
	 * now, a shell may open it again. It ends at pump_finish().
	 */
	PUMP_TERMINAL = 1,
	/* to is not taken over: its owner closes it, after this pump, and may watch it himself. */
	PUMP_BORROWS_TO = 2,
};

/* Takes over the descriptors, closed also on failure, and makes them non-blocking.
 * Returns 0 or -errno. */
int pump_open(struct pump *p, struct loop *loop, int from, int to, enum pump_flags flags,
	      void (*done)(struct pump *p));

/* Nothing on the way: from is empty and everything read has been written. */
bool pump_idle(const struct pump *p);

/* Carries over what is there now, then ends even if from never reports its end. */
void pump_finish(struct pump *p);

/* Closes what is owned at once. Harmless when not open. done() is not called any more. */
void pump_close(struct pump *p);

static inline bool pump_is_open(const struct pump *p)
{
	return p->loop != NULL;
}

#endif
