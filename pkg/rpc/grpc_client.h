/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client of a server on a Unix socket, in the event loop. Messages are raw bytes; the
 * callers pack and unpack them.
 * Source: gRPC's doc/PROTOCOL-HTTP2.md and doc/statuscodes.md.
 *
 * Connects when a stream is opened, and again after the connection was lost or the server asked
 * for it; streams share the connection. An idle connection is closed after a while.
 *
 * Every stream that was opened ends in exactly one ended(), whatever happens, unless it is
 * canceled; after ended() or grpc_stream_cancel() the pointer is gone. Nothing is retried here:
 * only the caller knows whether a call may be carried out twice. No callback is called from
 * inside a function of this header.
 */
#ifndef KYB_RPC_GRPC_CLIENT_H
#define KYB_RPC_GRPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/code.h"
#include "event/loop.h"

struct grpc_client;
struct grpc_stream;

/* Limits. 0 or NULL = the default, in brackets. */
struct grpc_client_config {
	const char *authority;  /* ["localhost"] */
	const char *user_agent; /* ["grpc-c-kybernate/VERSION"] */
	size_t max_message;     /* [4 MiB] received */
	size_t max_send;        /* [4 MiB] sent */
	size_t max_unsent;      /* [8 MiB] queued by one stream */
	size_t max_memory;      /* [64 MiB] messages of all streams, received in part or unsent */
	uint32_t max_headers;   /* [8 KiB] of an answer, and as much of its trailers */
	uint32_t window;        /* [64 KiB] a paused stream holds at most */
	nsec_t connect_timeout; /* [5 s] until the server has answered the connection's preface */
	nsec_t idle_timeout;    /* [30 s] a connection without a stream */
	nsec_t stall_timeout;   /* [60 s] the server's socket takes no output */
	/*
	 * Optional: makes the connection, instead of connect() to the path. Returns a connected,
	 * non-blocking stream socket (given away) or -errno; -EAGAIN is tried again.
	 */
	int (*connect)(void *arg);
	void *connect_arg;
};

/* A header field to send along. Name in lower case; "-bin": value is raw bytes, else text. */
struct grpc_field {
	const char *name;
	struct bytes value;
};

struct grpc_status {
	enum rpc_code code;
	const char *text;     /* UTF-8, for a person; "" when there is none */
	struct bytes details; /* grpc-status-details-bin, decoded: a google.rpc.Status */
};

struct grpc_stream_ops {
	/* A message, valid during the call. */
	void (*message)(struct grpc_stream *stream, void *arg, struct bytes msg);
	/* Optional: all messages that were queued have been passed on. */
	void (*drained)(struct grpc_stream *stream, void *arg);
	/*
	 * The server's answer, after all messages; or ours: RPC_UNAVAILABLE when the server could
	 * not be reached or the connection broke (whether the call was carried out is then not
	 * known), RPC_DEADLINE_EXCEEDED, RPC_INTERNAL when the answer was not gRPC. status is
	 * valid during the call.
	 */
	void (*ended)(struct grpc_stream *stream, void *arg, const struct grpc_status *status);
};

/*
 * path: the server's Unix socket; text is copied. Nothing is connected yet. Returns 0, -ENOMEM or
 * -ENAMETOOLONG.
 */
int grpc_client_open(struct loop *loop, const char *path, const struct grpc_client_config *config,
		     struct grpc_client **ret);

/* Closes at once. Streams end without ended(). Not from inside a callback of a stream. */
void grpc_client_free(struct grpc_client *c);

/*
 * Opens a stream to method, "/package.Service/Method". fields: n_fields header fields to send
 * (copied). deadline: absolute, or NSEC_NEVER; the server is told. Returns 0, -EINVAL (a field
 * that cannot be sent) or -ENOMEM; every other failure comes through ended().
 */
int grpc_stream_open(struct grpc_client *c, const char *method, const struct grpc_field *fields,
		     size_t n_fields, nsec_t deadline, const struct grpc_stream_ops *ops, void *arg,
		     struct grpc_stream **ret);

/*
 * Queues a message (copied). Returns 0, -EMSGSIZE, -ENOBUFS (too much is unsent: wait for
 * drained(), or cancel), -EPIPE (half-closed, or ended() is about to come) or -ENOMEM.
 */
int grpc_stream_send(struct grpc_stream *stream, struct bytes msg);
/* Bytes queued and not yet passed on. */
size_t grpc_stream_unsent(const struct grpc_stream *stream);
/* No more messages from us; what is queued is sent first. */
void grpc_stream_half_close(struct grpc_stream *stream);
/* Stops and restarts message(): the server is held back by the window. ended() waits, too. */
void grpc_stream_pause(struct grpc_stream *stream, bool pause);
/* Gives the stream up; no callback comes any more, and the pointer is gone. */
void grpc_stream_cancel(struct grpc_stream *stream);

/*
 * A unary call: one request, one answer. done(): reply is valid during the call, and empty unless
 * status->code is RPC_OK. Returns as grpc_stream_open(), or -EMSGSIZE. *ret may be canceled until
 * done(); ret may be NULL.
 */
int grpc_unary(struct grpc_client *c, const char *method, const struct grpc_field *fields,
	       size_t n_fields, struct bytes request, nsec_t deadline,
	       void (*done)(void *arg, const struct grpc_status *status, struct bytes reply),
	       void *arg, struct grpc_stream **ret);

#endif
