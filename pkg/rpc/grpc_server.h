/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server on a Unix socket, in the event loop: unary, server-streaming and bidirectional
 * methods. Messages are raw bytes; the callers pack and unpack them.
 * Source: gRPC's doc/PROTOCOL-HTTP2.md and doc/statuscodes.md.
 *
 * The life of a call: started(), message()..., half_closed(), and at any time ended(). Its
 * handler answers it exactly once, with grpc_call_finish(), now or hours later. ended() comes
 * exactly once for every call that was started, answered or not: the place to free what the
 * handler keeps for it, and after it the pointer is gone. No callback is called from inside a
 * function of this header.
 *
 * Everything that a peer can make us keep is bounded, see struct grpc_server_config.
 */
#ifndef KYB_RPC_GRPC_SERVER_H
#define KYB_RPC_GRPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/code.h"
#include "base/error.h"
#include "event/loop.h"

struct grpc_server;
struct grpc_call;

enum grpc_end {
	GRPC_END_DONE,     /* answered, and the answer has been sent */
	GRPC_END_CANCELED, /* by the peer */
	GRPC_END_LOST,     /* the connection broke */
	GRPC_END_DEADLINE, /* the peer's deadline has passed */
	GRPC_END_BROKEN,   /* the peer broke a rule or a limit; it was told which */
	GRPC_END_SHUTDOWN, /* the server was shut down or freed */
};

struct grpc_method_ops {
	/* Optional: a call begins; its metadata can be read. */
	void (*started)(struct grpc_call *call);
	/*
	 * A message, valid during the call. Unary and server-streaming: the request, exactly
	 * once, and only once it is certain that no second one follows.
	 */
	void (*message)(struct grpc_call *call, struct bytes msg);
	/* Optional, GRPC_BIDI only: the peer sends no further messages. */
	void (*half_closed)(struct grpc_call *call);
	/* Optional: all messages that were queued have been passed on. */
	void (*drained)(struct grpc_call *call);
	/* Optional: see above. */
	void (*ended)(struct grpc_call *call, enum grpc_end why);
};

enum grpc_kind { GRPC_UNARY, GRPC_SERVER_STREAM, GRPC_BIDI };

struct grpc_method {
	const char *path; /* "/package.Service/Method" */
	enum grpc_kind kind;
	const struct grpc_method_ops *ops;
};

/* Limits. 0 = the default, in brackets. */
struct grpc_server_config {
	unsigned int max_connections;         /* [256] more are closed at once */
	unsigned int max_connections_per_uid; /* [240] one user cannot take all places */
	uint32_t max_streams;                 /* [100] concurrent calls of a connection */
	size_t max_message;                   /* [4 MiB] received */
	size_t max_send;                      /* [4 MiB] sent */
	size_t max_unsent;                    /* [8 MiB] queued by one call */
	uint32_t max_headers;                 /* [8 KiB] of a request, counted as HTTP/2 does */
	uint32_t window;                      /* [64 KiB] a paused call holds at most */
	/* Bytes of messages, received in part or not yet sent. */
	size_t max_memory_per_connection;     /* [16 MiB] */
	size_t max_memory;                    /* [64 MiB] of all connections */

	nsec_t first_timeout;   /* [10 s] from connecting to the first whole request header */
	nsec_t receive_timeout; /* [30 s] a request, or a message, once begun, until whole */
	nsec_t idle_timeout;    /* [300 s] a connection without a call */
	nsec_t stall_timeout;   /* [60 s] the peer takes no output of a connection, or nothing
				   of an answer that is complete */

	/*
	 * Optional: may this peer connect? As the kernel saw it at its connect(); pid is 0 for a
	 * process outside of our pid namespace. NULL = whoever may open the socket.
	 */
	bool (*allow)(void *arg, const struct ucred *peer);
};

/*
 * Serves methods (borrowed) on listen_fd, a listening Unix socket (taken over, also on failure).
 * arg is for grpc_call_arg() and allow(). Returns 0, -ENOMEM or -errno.
 */
int grpc_server_new(struct loop *loop, int listen_fd, const struct grpc_server_config *config,
		    const struct grpc_method *methods, size_t n_methods, void *arg,
		    struct grpc_server **ret);

/*
 * Serves one more connection: fd, a connected, non-blocking Unix socket (taken over). The limits
 * and allow() hold for it as well. Returns 0, -EPERM, -EUSERS (over a limit), -ESHUTDOWN, -ENOMEM
 * or -errno.
 */
int grpc_server_adopt(struct grpc_server *s, int fd);

/*
 * Accepts no more and lets the calls under way end; those that have not by deadline (absolute)
 * get GRPC_END_SHUTDOWN. done() is called once, from the loop, when all connections are closed;
 * only grpc_server_free() remains to be called, there or later.
 */
void grpc_server_shutdown(struct grpc_server *s, nsec_t deadline,
			  void (*done)(struct grpc_server *s, void *arg));

/* Closes everything at once. Not from inside a callback of a call. */
void grpc_server_free(struct grpc_server *s);

struct grpc_server_stats {
	unsigned int connections, calls; /* now */
	size_t memory;                   /* bytes of messages, now */
	uint64_t accepted, refused;      /* connections, since the start */
	uint64_t requests;               /* calls that reached a method, since the start */
};

void grpc_server_stats(const struct grpc_server *s, struct grpc_server_stats *ret);

/* The arg of grpc_server_new(). */
void *grpc_call_arg(const struct grpc_call *call);
/* What the handler keeps for this call. */
void *grpc_call_data(const struct grpc_call *call);
void grpc_call_set_data(struct grpc_call *call, void *data);
const struct grpc_method *grpc_call_method(const struct grpc_call *call);
const struct ucred *grpc_call_peer(const struct grpc_call *call);
/* When the peer stops waiting (absolute), or NSEC_NEVER. */
nsec_t grpc_call_deadline(const struct grpc_call *call);
/*
 * The first value of a header field of the request, or NULL. Fields "-bin" hold base64. Name in
 * lower case. Valid until ended().
 */
const char *grpc_call_metadata(const struct grpc_call *call, const char *name);

/*
 * Queues a message (copied). Returns 0, -EMSGSIZE, -ENOBUFS (too much is unsent: wait for
 * drained(), or give up), -EPIPE (the call has been answered or is over) or -ENOMEM.
 */
int grpc_call_send(struct grpc_call *call, struct bytes msg);
/* Bytes queued and not yet passed on. */
size_t grpc_call_unsent(const struct grpc_call *call);
/* Stops and restarts message(): the peer is held back by the window. */
void grpc_call_pause(struct grpc_call *call, bool pause);

#define GRPC_MESSAGE_MAX 1024 /* bytes; a longer error message is cut */
#define GRPC_DETAILS_MAX 2048 /* bytes; longer details are left out */

/*
 * Answers the call; queued messages are sent first. text: UTF-8 for a person, or NULL. details: a
 * google.rpc.Status, or no bytes; sent as grpc-status-details-bin. Only ended() follows. Ignored
 * when the call has been answered or is over.
 */
void grpc_call_finish(struct grpc_call *call, enum rpc_code code, const char *text,
		      struct bytes details);
/* Sends the one answer of a unary call and finishes it. */
void grpc_call_reply(struct grpc_call *call, struct bytes msg);
/* Answers with err's code and text. */
void grpc_call_fail(struct grpc_call *call, const struct error *err);

#endif
