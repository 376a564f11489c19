/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by grpc_client.c (connections) and grpc_stream.c (streams); nobody else's business. */
#ifndef KYB_RPC_GRPC_CLIENT_IMPL_H
#define KYB_RPC_GRPC_CLIENT_IMPL_H

#include <sys/un.h>

#include "rpc/grpc_client.h"
#include "rpc/grpc_pipe.h"
#include "rpc/h2.h"

#define GRPC_TEXT_MAX 256

struct grpc_link;

struct grpc_client {
	struct loop *loop;
	struct sockaddr_un addr;
	struct grpc_client_config config; /* defaults filled in; but for the strings: */
	char *authority, *user_agent;
	struct grpc_budget budget;
	struct list links;
	struct grpc_link *current; /* the one that takes new streams, or NULL */
	struct list waiting;       /* streams that have no connection yet */
	struct list others;        /* streams whose connection is behind them */
	struct timer start;
	nsec_t connect_by;         /* until when a full backlog is tried again; 0 = not yet */
};

/* A connection. */
struct grpc_link {
	struct h2 h2;
	struct grpc_client *client;
	struct list node;
	struct list streams;
	struct timer timer; /* until the preface is answered; then while it is idle */
};

struct grpc_stream {
	struct grpc_pipe pipe;
	struct grpc_client *client;
	struct grpc_link *link; /* NULL: not yet, or no longer */
	struct list node;       /* in one of the client's lists, or the link's */
	const struct grpc_stream_ops *ops;
	void *arg;
	struct buf fields;      /* "name\0value\0"..., the first: ":path" */
	size_t n_fields;
	nsec_t deadline;
	struct timer timer;
	struct job free_job;

	/* The answer. */
	unsigned int http_status;
	bool is_grpc, header_done, too_large, has_status;
	bool sent_end, over;
	size_t headers_size;
	enum rpc_code code;
	struct buf text, details;

	/* grpc_unary() */
	void (*done)(void *arg, const struct grpc_status *status, struct bytes reply);
	struct buf reply;
	unsigned int n_replies;
};

/* Streams wait: connect, if need be. */
void grpc_client_start(struct grpc_client *c);
/* The link's last stream has ended. */
void grpc_link_idle(struct grpc_link *link);

/* For the connection. */
void grpc_stream_submit(struct grpc_stream *stream, struct grpc_link *link);
void grpc_stream_header(struct grpc_stream *stream, struct bytes name, struct bytes value);
void grpc_stream_headers_end(struct grpc_stream *stream, bool last);
void grpc_stream_data_in(struct grpc_stream *stream, struct bytes b);
void grpc_stream_closed(struct grpc_stream *stream, uint32_t error);
/* There is no connection, or none any more. Takes the stream out of its list. */
void grpc_stream_lost(struct grpc_stream *stream, const char *why);
void grpc_stream_free(struct grpc_stream *stream);

#endif
