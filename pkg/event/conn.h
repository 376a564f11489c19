/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buffered, non-blocking stream socket: bytes in through a callback, bytes out through a
 * bounded queue. Knows nothing of what travels.
 */
#ifndef KYB_EVENT_CONN_H
#define KYB_EVENT_CONN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "event/loop.h"

struct conn;

struct conn_ops {
	/*
	 * Bytes have come. Consume from in with buf_consume(); what is left is offered again
	 * when more comes. Returns 0, or negative to end the connection.
	 */
	int (*input)(struct conn *c, struct buf *in);
	/*
	 * The connection is over (end of stream, error, input() failed, output over its limit);
	 * r is 0 for an end of stream, else negative. Called once, never from inside
	 * conn_write() or conn_close(); the owner calls conn_close() and may free the memory.
	 */
	void (*closed)(struct conn *c, int r);
	/* Optional: all output has been handed to the kernel. */
	void (*drained)(struct conn *c);
};

struct conn {
	const struct conn_ops *ops;
	struct source src;
	struct buf in, out;
	struct job end; /* delivers closed() outside of the owner's own calls */
	int end_code;
	bool ended;
};

/*
 * Takes over fd, a non-blocking stream socket (closed also on failure). in_max bounds the bytes
 * that input() may leave unconsumed, out_max those that wait for the kernel.
 * Returns 0 or -errno.
 */
int conn_open(struct conn *c, struct loop *loop, int fd, size_t in_max, size_t out_max,
	      const struct conn_ops *ops);

/*
 * Queues bytes and sends what the kernel takes. When the queue is over its maximum - the peer
 * does not read - the connection ends with -EMSGSIZE. Returns 0, or negative once it has ended.
 */
int conn_write(struct conn *c, const void *p, size_t n);

/* Bytes queued but not yet taken by the kernel. */
size_t conn_pending(const struct conn *c);

/* Stops or restarts reading: back-pressure for a peer that sends more than we can use. */
void conn_pause_input(struct conn *c, bool pause);

/* Closes at once, what is queued is dropped. Harmless when not open; closed() is not called. */
void conn_close(struct conn *c);

static inline bool conn_is_open(const struct conn *c)
{
	return c->src.loop != NULL;
}

#endif
