/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by grpc_server.c (connections) and grpc_call.c (calls); nobody else's business. */
#ifndef KYB_RPC_GRPC_SERVER_IMPL_H
#define KYB_RPC_GRPC_SERVER_IMPL_H

#include "rpc/grpc_pipe.h"
#include "rpc/grpc_server.h"
#include "rpc/h2.h"

struct grpc_server {
	struct loop *loop;
	struct source listener;
	struct timer accept_again;
	struct grpc_server_config config; /* defaults filled in */
	const struct grpc_method *methods;
	size_t n_methods;
	void *arg;
	struct list conns;
	struct grpc_server_stats stats;
	struct grpc_budget budget;

	struct timer shutdown_timer;
	struct job shutdown_job;
	bool stopping;
	void (*shut_down)(struct grpc_server *s, void *arg);
};

struct grpc_conn {
	struct h2 h2;
	struct grpc_server *server;
	struct list node;
	struct ucred peer;
	struct list calls;
	unsigned int n_calls;
	struct grpc_budget budget;
	/* One timer for all: the connection's own limit and those of its calls. */
	struct timer timer;
	nsec_t until; /* the connection's; counts while there is no call, or phase is not OPEN */
	enum {
		CONN_NEW,     /* no request yet */
		CONN_OPEN,
		CONN_NOTICED, /* told to send no further requests; those under way still count */
		CONN_CLOSING, /* closes with its last call */
	} phase;
};

struct grpc_call {
	struct grpc_pipe pipe;
	struct grpc_conn *conn;
	struct list node;
	const struct grpc_method *method; /* NULL: none (yet) that would have to be told */
	void *data;
	nsec_t deadline;
	nsec_t receive_by; /* what has begun to come must be whole; NSEC_NEVER = nothing has */

	/* The request's header. */
	struct buf meta;      /* "name\0value\0"..., custom fields and ":path" */
	size_t headers_size, meta_charged;
	uint32_t seen;        /* bits, see grpc_call.c */
	bool header_done;

	struct buf request;   /* not GRPC_BIDI: kept until it is certain that it is the only one */
	bool has_request;

	bool headers_sent, finished, sent_end, told;
	/* Answered: the peer must go on fetching what is queued. */
	nsec_t fetch_by;
	size_t fetch_left;
	enum rpc_code code;
	struct buf text, details; /* as they travel; text ends with NUL */
};

/* For the connection. */
struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t id);
void grpc_call_header(struct grpc_call *call, struct bytes name, struct bytes value);
void grpc_call_headers_end(struct grpc_call *call, bool last);
void grpc_call_data_in(struct grpc_call *call, struct bytes b);
void grpc_call_data_end(struct grpc_call *call);
void grpc_call_stream_closed(struct grpc_call *call);
/* Tells the handler, once, that the call is over. */
void grpc_call_tell(struct grpc_call *call, enum grpc_end why);
void grpc_call_free(struct grpc_call *call);
/* Acts on what is due; returns when it wants to be looked at next. */
nsec_t grpc_call_check(struct grpc_call *call, nsec_t now);

/* For calls: have the connection's timer go off at this time, or earlier. */
void grpc_conn_wake(struct grpc_conn *conn, nsec_t at);

#endif
