/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ttrpc client on one connection: unary calls, several in flight. Connects at the first call,
 * and again at the next call after the connection was lost.
 */
#ifndef KYB_RPC_TTRPC_CLIENT_H
#define KYB_RPC_TTRPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "base/bytes.h"
#include "base/error.h"
#include "event/loop.h"

struct ttrpc_client;

/* One call. Embedded by the caller; must stay until done() or ttrpc_request_cancel(). */
struct ttrpc_request {
	struct ttrpc_client *client; /* NULL = not in flight */
	uint32_t stream;
	struct timer timer;
	struct job job;
	struct error err;
	struct list node;
	/*
	 * The answer: r = 0 and the payload (borrowed for the call), or negative with err:
	 * RPC_UNAVAILABLE when the connection failed or was lost - the call may or may not have
	 * been carried out -, RPC_DEADLINE_EXCEEDED, or what the server said. Called once, never
	 * from inside ttrpc_client_call().
	 */
	void (*done)(struct ttrpc_request *req, int r, struct bytes payload,
		     const struct error *err);
};

/* path: a Unix socket. Returns 0, -ENOMEM or -ENAMETOOLONG. */
int ttrpc_client_new(struct ttrpc_client **ret, struct loop *loop, const char *path);
/* Calls in flight are forgotten: their done() is not called. May be called from inside a done(). */
void ttrpc_client_free(struct ttrpc_client *c);

/*
 * Sends a call. ns goes into the metadata containerd-namespace-ttrpc when not NULL. Every failure
 * arrives through done(). deadline is absolute.
 */
void ttrpc_client_call(struct ttrpc_client *c, struct ttrpc_request *req, const char *service,
		       const char *method, const ProtobufCMessage *msg, const char *ns,
		       nsec_t deadline,
		       void (*done)(struct ttrpc_request *req, int r, struct bytes payload,
				    const struct error *err));

/* Forgets the call; harmless when not in flight. */
void ttrpc_request_cancel(struct ttrpc_request *req);

#endif
