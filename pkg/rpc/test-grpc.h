/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of server and client: both in one loop, connected by a real Unix socket, and a
 * service whose calls write down what happens to them.
 */
#ifndef KYB_RPC_TEST_GRPC_H
#define KYB_RPC_TEST_GRPC_H

#include "base/buf.h"
#include "rpc/grpc_client.h"
#include "rpc/grpc_server.h"

#define BENCH_SECONDS 20 /* the longest that anything here may take */

/* One call as its handler saw it; the newest is kept in struct bench. */
struct seen {
	unsigned int started, messages, half_closed, drained, ended;
	enum grpc_end why;
	size_t bytes;     /* of all messages */
	struct buf first; /* the first message */
	struct grpc_call *call; /* NULL after ended() */
};

/* One stream as its opener saw it. */
struct got {
	struct loop *loop;
	struct grpc_stream *stream; /* NULL after ended() */
	unsigned int messages, drained, ended;
	size_t bytes;
	struct buf last, text, details;
	enum rpc_code code;
	bool cancel_in_message, pause_in_message;
};

struct bench {
	struct loop *loop;
	struct grpc_server *server;
	struct grpc_client *client;
	struct grpc_server_config server_config;
	struct grpc_client_config client_config;
	char dir[64], path[80];
	struct seen seen;
	unsigned int started, ended; /* of all calls */
	bool refuse_peers, shut_down;
	bool pause_calls; /* Chat: pauses at its first message */
	size_t stream_left, stream_size; /* Count: messages still to be sent, and their size */
};

/* bench_start() with other limits: set them between these two. */
void bench_init(struct bench *b);
void bench_start(struct bench *b);
void bench_done(struct bench *b);

/* A connected, non-blocking socket to the server. */
int bench_connect(const struct bench *b);

/* Runs the loop until cond; fails the test after BENCH_SECONDS. */
#define WAIT(b, cond)                                                                              \
	do {                                                                                       \
		nsec_t wait_until_ = time_now() + BENCH_SECONDS * NSEC_PER_SEC;                    \
		while (!(cond)) {                                                                  \
			assert_true(time_now() < wait_until_);                                     \
			assert_int_equal(loop_round((b)->loop, time_now() + NSEC_PER_MSEC), 0);    \
		}                                                                                  \
	} while (0)

/* Runs the loop for a while. */
void bench_run(struct bench *b, nsec_t time);

extern const struct grpc_stream_ops got_ops;
void got_open(struct bench *b, struct got *g, const char *method, nsec_t deadline);
void got_send(struct got *g, const char *text);
void got_done(struct got *g);

/* A unary call's answers; several add up. */
struct answer {
	unsigned int done;
	enum rpc_code code;
	struct buf reply, text;
};

void answered(void *arg, const struct grpc_status *status, struct bytes reply);
void answer_done(struct answer *a);
/* Makes a unary call and waits for its answer. */
void ask(struct bench *b, struct answer *a, const char *method, struct bytes request);

void assert_text(const struct buf *b, const char *want);

#endif
