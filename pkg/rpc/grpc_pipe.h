/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of one gRPC stream, in both directions: what calls of the server and streams of
 * the client have in common.
 *
 * Out: messages wait in a bounded queue until nghttp2 asks for bytes. In: messages are put
 * together and handed out; the peer gets its window back only for what was handed out or belongs
 * to a message not yet whole, so a paused receiver holds one window's worth and no more. The
 * connection's window is given back at once: one paused stream does not stop the others.
 */
#ifndef KYB_RPC_GRPC_PIPE_H
#define KYB_RPC_GRPC_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/code.h"
#include "base/list.h"
#include "event/loop.h"
#include "rpc/h2.h"
#include "wire/grpc_frame.h"

/* How much memory messages may take: of a connection, and above it of the whole server. */
struct grpc_budget {
	size_t used, max;
	struct grpc_budget *up; /* or NULL */
};

/* False: that much is not left. */
bool grpc_budget_take(struct grpc_budget *b, size_t n);
void grpc_budget_give(struct grpc_budget *b, size_t n);

struct grpc_pipe;

struct grpc_pipe_ops {
	/* msg is valid during the call. */
	void (*message)(struct grpc_pipe *p, struct bytes msg);
	/* All messages have been handed out, and the peer sends no more. */
	void (*input_end)(struct grpc_pipe *p);
	/* The peer broke a rule or a limit. Nothing more is handed out. */
	void (*broken)(struct grpc_pipe *p, enum rpc_code code, const char *text);
	/*
	 * All messages have been sent and no more come. Server: submits the trailers, returns 0
	 * or -ENOMEM. NULL: the stream ends with the last message.
	 */
	int (*output_end)(struct grpc_pipe *p);
	/* The queue has become empty. Never called from inside grpc_pipe_send(). */
	void (*drained)(struct grpc_pipe *p);
};

struct grpc_pipe {
	const struct grpc_pipe_ops *ops;
	struct loop *loop;
	struct h2 *h2;  /* NULL = no stream yet, or no longer */
	int32_t id;
	struct grpc_budget *budget;

	struct list out; /* struct chunk */
	size_t unsent, max_unsent, max_send;
	bool out_end;    /* no more messages will be queued */
	bool deferred;   /* nghttp2 waits until we say that there is more */
	bool tell_drained;

	struct grpc_reader in;
	struct buf held;    /* came during a pause; its window is not given back */
	size_t charged;     /* to the budget, for in and held */
	bool paused;
	bool in_end;        /* the peer sends no more */
	bool in_closed;     /* nothing more is handed out */
	bool handing_out;   /* message() is on the call stack */
	struct job work;
};

void grpc_pipe_init(struct grpc_pipe *p, struct loop *loop, struct grpc_budget *budget,
		    const struct grpc_pipe_ops *ops);
void grpc_pipe_attach(struct grpc_pipe *p, struct h2 *h2, int32_t id);
/* The stream is gone. What is held can still be handed out. */
void grpc_pipe_detach(struct grpc_pipe *p);
/* Frees all; no handler is called any more. */
void grpc_pipe_done(struct grpc_pipe *p);

/*
 * Queues a message (copied). Returns 0, -EMSGSIZE (over max_send), -ENOBUFS (the queue is full:
 * wait for drained(), or give the stream up), -EPIPE (ended) or -ENOMEM. An empty queue takes any
 * message that max_send allows, as far as the budget does.
 */
int grpc_pipe_send(struct grpc_pipe *p, struct bytes msg);
/* No more messages: output_end() follows once the queue is empty. */
void grpc_pipe_end_output(struct grpc_pipe *p);
/* What nghttp2 asks for bytes; use it for every stream whose owner begins with a grpc_pipe. */
nghttp2_data_provider grpc_pipe_provider(void);

/* What has come. */
void grpc_pipe_input(struct grpc_pipe *p, struct bytes b);
void grpc_pipe_input_end(struct grpc_pipe *p);
/* Hands out nothing more and frees what is held. */
void grpc_pipe_close_input(struct grpc_pipe *p);

/* What has come meanwhile is handed out from the loop, not from inside this call. */
void grpc_pipe_pause(struct grpc_pipe *p, bool pause);

/* Has only a part of a message come so far? */
static inline bool grpc_pipe_partial(const struct grpc_pipe *p)
{
	return grpc_reader_partial(&p->in) != 0;
}

#endif
