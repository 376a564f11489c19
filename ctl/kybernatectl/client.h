/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call of the agent: the loop, the connection, and the signals that end it early. SIGINT,
 * SIGTERM and SIGHUP are events while a client is open, and have their usual effect again after
 * client_close(), so that output to a slow reader can be interrupted as everywhere else.
 */
#ifndef KYB_CTL_CLIENT_H
#define KYB_CTL_CLIENT_H

#include <signal.h>

#include "base/arena.h"
#include "event/signals.h"
#include "fault.h"
#include "rpc/grpc_client.h"

/* The largest answer: the files of a checkpoint, or 100,000 checkpoints in a list. */
#define CLIENT_MESSAGE_MAX ((size_t)64 << 20)
/* What it may take in memory once it is unpacked. */
#define CLIENT_MEMORY_MAX ((size_t)512 << 20)

/* How long an answer may take that needs no work on data. */
#define CLIENT_ANSWER_TIME (60 * NSEC_PER_SEC)
/* The agent ends an operation by itself; no setting lets it take longer than a day. */
#define CLIENT_OPERATION_TIME (25 * 3600 * NSEC_PER_SEC)

struct client {
	const char *path; /* of the socket; borrowed */
	struct loop *loop;
	struct grpc_client *grpc;
	struct signals signals;
	sigset_t mask;   /* as it was, and SIGPIPE's disposition */
	struct sigaction sigpipe;
	int fd;          /* connected and not used yet, or -1 */
	int signo;       /* the first signal that came, 0: none */
	/* Told of each signal, if set; else the call under way is given up. */
	void (*interrupted)(struct client *c, void *arg);
	void *arg;
};

/* One method of the service. */
struct client_method {
	const char *path; /* "/kybernate.agent.v1.NodeAgent/Status" */
	const ProtobufCMessageDescriptor *reply;
};

#define CLIENT_METHOD(name) "/kybernate.agent.v1.NodeAgent/" name

/*
 * Connects to the agent; address: the path of its socket, "unix:" in front of it or not, borrowed
 * until client_close(). Returns CTL_OK, or the exit status with f. On failure nothing is left
 * open.
 */
int client_open(struct client *c, const char *address, struct fault *f);
/* Harmless when not open. */
void client_close(struct client *c);

/*
 * One request, one reply. deadline: absolute. Returns the reply, which lives in mem, or NULL with
 * f, whose exit status is then set.
 */
const void *client_call(struct client *c, const struct client_method *method,
			const ProtobufCMessage *request, nsec_t deadline, struct arena *mem,
			struct fault *f);

/* The whole of it: client_open(), client_call(), client_close(). time: how long it may take. */
const void *client_ask(const char *address, const struct client_method *method,
		       const ProtobufCMessage *request, nsec_t time, struct arena *mem,
		       struct fault *f);

/* An answer that is not what it should be. */
int client_bad_answer(struct fault *f);

#define _cleanup_client_ _cleanup_(client_close)

#endif
