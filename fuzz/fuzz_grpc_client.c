/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC client, fed the raw bytes that a server sends. The first byte says how: bit 0 puts the
 * server's SETTINGS in front, the others how many bytes come at a time. A unary call and two
 * streams are open; each must end exactly once, unless it was canceled.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "rpc/grpc_client.h"

#define INPUT_MAX 65536
#define SETTINGS  "\0\0\0\4\0\0\0\0\0"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct world {
	struct loop *loop;
	int fd; /* given to the client at its first connect() */
	int open;
};

static int connect_once(void *arg)
{
	struct world *w = arg;
	int fd = w->fd;

	w->fd = -ECONNREFUSED;
	return fd;
}

static void message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	struct world *w = arg;

	if (msg.n == 7) {
		grpc_stream_pause(stream, true);
		grpc_stream_pause(stream, false);
	} else if (msg.n == 8) {
		grpc_stream_cancel(stream);
		w->open--;
	} else {
		(void)grpc_stream_send(stream, msg);
	}
}

static void drained(struct grpc_stream *stream, void *arg)
{
	(void)arg;
	grpc_stream_half_close(stream);
}

static void ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct world *w = arg;

	(void)stream;
	assert(status->text && status->code <= RPC_UNAUTHENTICATED);
	w->open--;
}

static void done(void *arg, const struct grpc_status *status, struct bytes reply)
{
	assert(status->code == RPC_OK || reply.n == 0);
	ended(NULL, arg, status);
}

static const struct grpc_stream_ops ops = { message, drained, ended };

static void rounds(struct loop *loop, int n)
{
	while (n--)
		if (loop_round(loop, 0) < 0)
			abort();
}

static void play(struct loop *loop, int fd, struct bytes b, size_t step)
{
	uint8_t said[4096];
	struct bytes piece;

	while (b.n) {
		(void)bytes_take(&b, step < b.n ? step : b.n, &piece);
		if (send(fd, piece.p, piece.n, MSG_NOSIGNAL) < 0)
			break;
		rounds(loop, 1);
		while (recv(fd, said, sizeof(said), 0) > 0)
			;
	}
	rounds(loop, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct world w = { 0 };
	struct grpc_client_config config = { .max_message = 4096,
					     .connect = connect_once,
					     .connect_arg = &w };
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX);
	struct grpc_client *client;
	struct grpc_stream *s;
	int fds[2];
	uint8_t how;

	if (bytes_u8(&in, &how) != 0)
		return 0;
	if (loop_new(&w.loop) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
	    grpc_client_open(w.loop, "x", &config, &client) < 0)
		abort();
	w.fd = fds[0];
	w.open = 3;
	if (grpc_unary(client, "/U", NULL, 0, in, NSEC_NEVER, done, &w, NULL) < 0 ||
	    grpc_stream_open(client, "/C", NULL, 0, NSEC_NEVER, &ops, &w, &s) < 0 ||
	    grpc_stream_send(s, bytes_of("hello", 5)) < 0 ||
	    grpc_stream_open(client, "/C", NULL, 0, NSEC_NEVER, &ops, &w, &s) < 0)
		abort();
	rounds(w.loop, 2);
	if (how & 1)
		play(w.loop, fds[1], bytes_of(SETTINGS, sizeof(SETTINGS) - 1), SIZE_MAX);
	play(w.loop, fds[1], in, how >> 1 ? how >> 1 : SIZE_MAX);
	(void)close(fds[1]);
	rounds(w.loop, 5);
	assert(w.open == 0);
	grpc_client_free(client);
	if (w.fd >= 0)
		(void)close(w.fd);
	loop_free(w.loop);
	return 0;
}
