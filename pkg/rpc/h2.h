/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/2 connection (RFC 9113) over a Unix socket: nghttp2 coupled to the event loop. What
 * the gRPC server and client have in common; knows nothing of gRPC.
 *
 * It does not use event/conn: nghttp2 is pulled. It makes the next frame only when asked, so as
 * long as the kernel takes nothing, nothing is made, and all output waits in the queues of the
 * streams, where it is bounded. A second queue behind it would hold copies and defeat that.
 * Input is handed to nghttp2 from the stack; an idle connection holds no buffer of ours.
 *
 * The peer is not trusted to be reasonable: see struct h2_config and "the meter" in h2.c.
 */
#ifndef KYB_RPC_H2_H
#define KYB_RPC_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "event/loop.h"

struct h2;

/*
 * stream is what h2_set_stream() or nghttp2_submit_request() put there, never NULL: events of
 * streams without an owner are dropped. Handlers may submit frames with nghttp2's functions and
 * must call h2_kick() after it. They must not call h2_close(), but for ended().
 */
struct h2_ops {
	/* Server only: a request begins. Returns the stream's owner; NULL = reset the stream. */
	void *(*request)(struct h2 *h, int32_t id);
	void (*header)(struct h2 *h, void *stream, struct bytes name, struct bytes value);
	/* A block of header fields is whole; last = the peer sends nothing after it. */
	void (*headers_end)(struct h2 *h, void *stream, bool last);
	/* The receiver must give the window back: nghttp2_session_consume_*(). */
	void (*data)(struct h2 *h, void *stream, struct bytes b);
	/* The peer has ended its side with a DATA frame. */
	void (*data_end)(struct h2 *h, void *stream);
	/* Our side of the stream has been sent to its end. */
	void (*sent_end)(struct h2 *h, void *stream);
	/* The stream is gone; error is a code of RFC 9113, 7. */
	void (*stream_closed)(struct h2 *h, void *stream, uint32_t error);
	/* Optional: the peer's preface is complete, so it does speak HTTP/2. */
	void (*established)(struct h2 *h);
	/* Optional: the peer takes no further streams on this connection. */
	void (*goaway)(struct h2 *h);
	/*
	 * The connection is over; why is one line for a person. Called once, from the loop, never
	 * from inside another handler; the owner calls h2_close(). No stream_closed() comes for
	 * the streams that were still open.
	 */
	void (*ended)(struct h2 *h, const char *why);
};

struct h2_config {
	bool server;
	uint32_t max_streams;   /* server: concurrent streams that the peer may open */
	uint32_t window;        /* bytes of a stream that the peer may send ahead */
	uint32_t max_headers;   /* told to the peer; checking it is the owner's part */
	nsec_t stall_timeout;   /* how long the kernel may take no output */
};

#define H2_WHY_MAX 128

struct h2 {
	const struct h2_ops *ops;
	struct loop *loop;
	nghttp2_session *session; /* NULL = not open */
	struct source src;
	struct buf rest;          /* made by nghttp2, refused by the kernel */
	struct job flush, end;
	struct timer stall;
	nsec_t stall_timeout;
	nsec_t flushed;           /* the round (loop_now()) of the last flush */
	/* The meter. */
	uint32_t tokens;
	nsec_t refilled;
	size_t ignored;           /* bytes of which nghttp2 told us nothing */
	bool told;                /* it did tell us something */
	bool busy;                /* somebody on the call stack will flush */
	bool established;
	bool more;                /* there may be output left */
	bool deaf;                /* the peer reads no more; what it has sent is still read */
	bool over;                /* ended() is due or done */
	char why[H2_WHY_MAX];
};

/*
 * Takes over fd, a connected non-blocking socket (closed also on failure). Returns 0, -ENOMEM or
 * -errno.
 */
int h2_open(struct h2 *h, struct loop *loop, int fd, const struct h2_config *config,
	    const struct h2_ops *ops);

/* Closes at once; what is unsent is dropped. Harmless when not open. No handler is called. */
void h2_close(struct h2 *h);

static inline bool h2_is_open(const struct h2 *h)
{
	return h->session != NULL;
}

/* Something was submitted: have it sent, at the end of this round or in the next. */
void h2_kick(struct h2 *h);

/*
 * The connection cannot go on: tells the peer, with an error code of RFC 9113, if it listens,
 * then ended(why). Never calls ended() itself.
 */
void h2_fail(struct h2 *h, uint32_t error, const char *why);

/* The peer did something useful, such as a whole call: it earns some patience. */
void h2_credit(struct h2 *h);

/* Who receives the events of a stream from now on; NULL = nobody. */
void h2_set_stream(struct h2 *h, int32_t id, void *stream);

/* A header field, its strings borrowed until the submitting call returns (nghttp2 copies). */
nghttp2_nv h2_field(const char *name, const char *value);

#endif
