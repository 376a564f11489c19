/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC server, fed the raw bytes of one connection. The first byte says how: bit 0 puts the
 * client's preface in front, the others how many bytes come at a time. Handlers echo, so what is
 * sent back is exercised too. Every call that began must end, and nothing may be left.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "rpc/grpc_server.h"

#define INPUT_MAX 65536
#define PREFACE   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void started(struct grpc_call *call)
{
	++*(int *)grpc_call_arg(call);
	(void)grpc_call_metadata(call, "user-agent");
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	(void)why;
	--*(int *)grpc_call_arg(call);
}

static void chat(struct grpc_call *call, struct bytes msg)
{
	if (grpc_call_send(call, msg) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "full", msg);
	else if (msg.n == 7)
		grpc_call_pause(call, true);
	else if (msg.n == 8)
		grpc_call_finish(call, RPC_ABORTED, "enough \xff%", msg);
}

static void half_closed(struct grpc_call *call)
{
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
}

static void drained(struct grpc_call *call)
{
	grpc_call_pause(call, false);
}

static const struct grpc_method_ops unary_ops = { started, grpc_call_reply, NULL, NULL, ended };
static const struct grpc_method_ops chat_ops = { started, chat, half_closed, drained, ended };
static const struct grpc_method methods[] = {
	{ "/U", GRPC_UNARY, &unary_ops },
	{ "/S", GRPC_SERVER_STREAM, &unary_ops },
	{ "/C", GRPC_BIDI, &chat_ops },
};

/* A listening socket that nobody connects to. */
static int listener(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr addr = { .sa_family = AF_UNIX }; /* autobind: an abstract name */

	if (fd < 0 || bind(fd, &addr, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0)
		abort();
	return fd;
}

static void rounds(struct loop *loop, int n)
{
	while (n--)
		if (loop_round(loop, 0) < 0)
			abort();
}

/* Sends b in pieces; reads what comes back and forgets it. */
static void play(struct loop *loop, int fd, struct bytes b, size_t step)
{
	uint8_t answer[4096];
	struct bytes piece;

	while (b.n) {
		(void)bytes_take(&b, step < b.n ? step : b.n, &piece);
		if (send(fd, piece.p, piece.n, MSG_NOSIGNAL) < 0)
			break; /* the server has had enough */
		rounds(loop, 1);
		while (recv(fd, answer, sizeof(answer), 0) > 0)
			;
	}
	rounds(loop, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct grpc_server_config config = { .max_message = 4096, .max_streams = 8 };
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX);
	struct grpc_server_stats stats;
	struct grpc_server *server;
	struct loop *loop;
	int fds[2], calls = 0;
	uint8_t how;

	if (bytes_u8(&in, &how) != 0)
		return 0;
	if (loop_new(&loop) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
	    grpc_server_new(loop, listener(), &config, methods, ARRAY_SIZE(methods), &calls,
			    &server) < 0 ||
	    grpc_server_adopt(server, fds[0]) < 0)
		abort();
	if (how & 1)
		play(loop, fds[1], bytes_of(PREFACE, sizeof(PREFACE) - 1), SIZE_MAX);
	play(loop, fds[1], in, how >> 1 ? how >> 1 : SIZE_MAX);
	(void)close(fds[1]);
	rounds(loop, 4);
	grpc_server_stats(server, &stats);
	assert(stats.connections == 0 && stats.calls == 0 && stats.memory == 0);
	assert(calls == 0);
	grpc_server_free(server);
	loop_free(loop);
	return 0;
}
