/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of a shim, as thin as it can be: one blocking thread, frames written and read
 * by hand, so that what is measured is the shim. It also plays the part of containerd that takes
 * events, and answers them while it waits for anything else.
 *
 * A benchmark has nothing to tidy up: whatever fails ends the program with a message.
 */
#ifndef KYB_BENCH_CLIENT_H
#define KYB_BENCH_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "base/time.h"

#define CLIENT_SINKS_MAX 8
#define CLIENT_TIME_MAX  (60 * NSEC_PER_SEC) /* nothing here takes this long */

/* A connection with what has been read from it. */
struct peer {
	int fd; /* -1 = none */
	struct buf in;
};

struct client {
	struct peer shim;
	uint32_t next_stream;
	int listener; /* for events; -1 = none */
	struct peer sinks[CLIENT_SINKS_MAX];
	unsigned int events;
};

/* Prints, and ends the program with status 1. */
_Noreturn void client_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ttrpc_path: where events are to be taken, or NULL. */
void client_init(struct client *c, const char *ttrpc_path);
void client_done(struct client *c);

/* Connects to a shim; path may begin with unix://. */
void client_connect(struct client *c, const char *path);
/* Waits until the shim has closed the connection: it has left. */
void client_wait_closed(struct client *c);

/* Sends a call of the Task service; returns the number to wait for. */
uint32_t client_send(struct client *c, const char *method, const ProtobufCMessage *request);
/* Waits for the answer to that call, whatever else arrives; an error ends the program. */
void client_wait(struct client *c, uint32_t stream);
/* Waits for any answer; returns its number. */
uint32_t client_wait_any(struct client *c);
/* Both. */
void client_call(struct client *c, const char *method, const ProtobufCMessage *request);

/*
 * Reads fd to its end while events are taken. Appends what it reads to out. Closes fd.
 */
void client_read_all(struct client *c, int fd, struct buf *out);

#endif
