/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ttrpc server: unary calls, many connections, many calls in flight on each.
 *
 * A call is answered exactly once, now or hours later, by ttrpc_call_reply() or
 * ttrpc_call_fail(); either consumes it. It outlives its connection: an answer that nobody waits
 * for any more is dropped. Facts about the protocol: ttrpc repo, PROTOCOL.md, server.go.
 */
#ifndef KYB_RPC_TTRPC_SERVER_H
#define KYB_RPC_TTRPC_SERVER_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/error.h"
#include "event/loop.h"

struct ttrpc_server;
struct ttrpc_call;

struct ttrpc_method {
	const char *name; /* "Create" */
	/* What the payload is; it has been unpacked when handle() is called. */
	const ProtobufCMessageDescriptor *request;
	void (*handle)(void *arg, struct ttrpc_call *call, const void *request);
};

struct ttrpc_service {
	const char *name; /* "containerd.task.v2.Task" */
	const struct ttrpc_method *methods;
	size_t n_methods;
};

/*
 * Serves services (borrowed) on listen_fd, a listening Unix socket (taken over). arg is handed
 * to the handlers. Peers of another uid or gid than ours are dropped without a word, as
 * containerd's shims do. Returns 0 or -errno.
 */
int ttrpc_server_new(struct ttrpc_server **ret, struct loop *loop, int listen_fd,
		     const struct ttrpc_service *services, size_t n_services, void *arg);

/* Stops accepting and closes the listening socket; connections stay. */
void ttrpc_server_stop(struct ttrpc_server *s);

/* Have all answers been handed to the kernel? */
bool ttrpc_server_flushed(const struct ttrpc_server *s);

/* Closes everything. Calls not yet answered must be answered or dropped before. */
void ttrpc_server_free(struct ttrpc_server *s);

/* Memory that lives as long as the call. */
struct arena *ttrpc_call_arena(struct ttrpc_call *call);

/* The time by which the caller wants its answer (absolute), or NSEC_NEVER. */
nsec_t ttrpc_call_deadline(const struct ttrpc_call *call);

/* The value of a metadata entry (keys are lower case), or NULL. */
const char *ttrpc_call_metadata(const struct ttrpc_call *call, const char *key);

/*
 * canceled() is called, once, when nobody waits for the answer any more: the connection is gone
 * (RPC_CANCELED) or the deadline has passed (RPC_DEADLINE_EXCEEDED). The call still has to be
 * answered. NULL = do not tell.
 */
void ttrpc_call_on_cancel(struct ttrpc_call *call,
			  void (*canceled)(struct ttrpc_call *call, enum rpc_code why, void *data),
			  void *data);

/* Answers with a message and consumes the call. */
void ttrpc_call_reply(struct ttrpc_call *call, const ProtobufCMessage *msg);
/* Answers with google.protobuf.Empty. */
void ttrpc_call_reply_empty(struct ttrpc_call *call);
/* Answers with err's code and text. */
void ttrpc_call_fail(struct ttrpc_call *call, const struct error *err);

#endif
