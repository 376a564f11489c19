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
	 * when more comes, or when the input is no longer paused. Returns 0, or negative to end
	 * the connection.
	 */
	int (*input)(struct conn *c, struct buf *in);
	/*
	 * The connection is over (end of stream, error, input() failed, output over its limit);
	 * r is 0 for an end of stream, else negative. Called once, never from inside
	 * conn_write() or conn_close(); the owner calls conn_close() and may free the memory.
	 */
	void (*closed)(struct conn *c, int r);
	/*
	 * Optional: all that was written has been handed to the kernel. Called once for one or
	 * several conn_write(), never from inside one.
	 */
	void (*drained)(struct conn *c);
};

struct conn {
	const struct conn_ops *ops;
	struct source src;
	struct buf in, out;
	struct job end;   /* delivers closed() outside of the owner's own calls */
	struct job offer; /* offers again what input() left */
	int end_code;
	bool ended;
	bool paused;
	bool blocked;     /* the kernel takes no more for now */
	bool deaf;        /* the peer reads no more; what it has sent is still read */
	bool hung_up;     /* seen while paused */
	bool tell;        /* drained() is owed */
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
 * does not read - the connection ends with -EMSGSIZE. When the peer is gone, what it has sent
 * before is still delivered first. Returns 0, or negative once the connection has ended or is
 * about to.
 */
int conn_write(struct conn *c, const void *p, size_t n);

/* Bytes queued but not yet taken by the kernel. */
size_t conn_pending(const struct conn *c);

/*
 * Stops or restarts reading: back-pressure for a peer that sends more than we can use. Nothing
 * that it has sent is lost when it closes meanwhile; the end is reported after the pause.
 */
void conn_pause_input(struct conn *c, bool pause);

/* Closes at once, what is queued is dropped. Harmless when not open; closed() is not called. */
void conn_close(struct conn *c);

static inline bool conn_is_open(const struct conn *c)
{
	return c->src.loop != NULL;
}

#endif
