/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC server as a program, for clients of other implementations and for measurements.
 *
 *	grpc-echo-server SOCKET [MAX-MESSAGE]
 *
 * Methods of kybernate.test.Echo, whose messages are plain text: Unary and Chat (bidirectional)
 * echo; Stream sends as many messages of that size as "COUNT SIZE" says; Fail answers "CODE TEXT"
 * with that error; Hang and HangChat never answer; Meta answers with the value of the header
 * field named; Peer with the caller's pid. Prints "ready", then a line for every call that ended
 * in another way than by its answer. SIGTERM shuts down and prints what the server still held.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "event/loop.h"
#include "event/signals.h"
#include "rpc/grpc_server.h"
#include "tests/rpc/echo.h"

#define GRACE       (5 * NSEC_PER_SEC)
#define REQUEST_MAX 4096

struct server {
	struct loop *loop;
	struct grpc_server *grpc;
	struct signals signals;
};

/* A server stream under way. */
struct stream {
	size_t left, size;
	char *block;
};

static const struct bytes no_bytes;

static void started(struct grpc_call *call)
{
	(void)call;
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	static const char *const names[] = { "DONE",     "CANCELED", "LOST",
					     "DEADLINE", "BROKEN",   "SHUTDOWN" };
	struct stream *s = grpc_call_data(call);

	if (why != GRPC_END_DONE)
		(void)printf("%s %s\n", grpc_call_method(call)->path, names[why]);
	if (s)
		free(s->block);
	free(s);
}

static void chat(struct grpc_call *call, struct bytes msg)
{
	if (grpc_call_send(call, msg) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "you do not read", no_bytes);
	/* One message at a time is on its way back. */
	else if (msg.n > 65536)
		grpc_call_pause(call, true);
}

static void chat_drained(struct grpc_call *call)
{
	grpc_call_pause(call, false);
}

static void chat_half_closed(struct grpc_call *call)
{
	grpc_call_finish(call, RPC_OK, NULL, no_bytes);
}

static void stream_more(struct grpc_call *call)
{
	struct stream *s = grpc_call_data(call);
	int r = 0;

	for (; r == 0 && s->left; s->left -= r == 0)
		r = grpc_call_send(call, bytes_of(s->block, s->size));
	if (s->left == 0)
		grpc_call_finish(call, RPC_OK, NULL, no_bytes);
	else if (!grpc_call_unsent(call))
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, strerror(-r), no_bytes);
}

/* The request as text. */
static const char *text_of(struct bytes msg, char text[REQUEST_MAX])
{
	size_t n = msg.n < REQUEST_MAX ? msg.n : REQUEST_MAX - 1;

	if (n)
		memcpy(text, msg.p, n);
	text[n] = 0;
	return text;
}

static void stream(struct grpc_call *call, struct bytes msg)
{
	char text[REQUEST_MAX];
	struct stream *s = calloc(1, sizeof(*s));

	if (!s || sscanf(text_of(msg, text), "%zu %zu", &s->left, &s->size) != 2) {
		free(s);
		grpc_call_finish(call, RPC_INVALID_ARGUMENT, "not COUNT SIZE", no_bytes);
		return;
	}
	s->block = echo_block(s->size);
	grpc_call_set_data(call, s);
	stream_more(call);
}

static void refuse(struct grpc_call *call, struct bytes msg)
{
	char text[REQUEST_MAX], *end;
	long code = strtol(text_of(msg, text), &end, 10);

	grpc_call_finish(call, (enum rpc_code)code, *end ? end + 1 : NULL,
			 bytes_of("\x08\x09\x00\xff", 4));
}

static void hang(struct grpc_call *call, struct bytes msg)
{
	(void)call;
	(void)msg;
}

static void meta(struct grpc_call *call, struct bytes msg)
{
	char text[REQUEST_MAX];
	const char *value = grpc_call_metadata(call, text_of(msg, text));

	if (value)
		grpc_call_reply(call, bytes_of(value, strlen(value)));
	else
		grpc_call_finish(call, RPC_NOT_FOUND, text, no_bytes);
}

static void peer(struct grpc_call *call, struct bytes msg)
{
	char text[32];

	(void)msg;
	(void)snprintf(text, sizeof(text), "%d", (int)grpc_call_peer(call)->pid);
	grpc_call_reply(call, bytes_of(text, strlen(text)));
}

static const struct grpc_method_ops unary_ops = { NULL, grpc_call_reply, NULL, NULL, ended };
static const struct grpc_method_ops chat_ops = { started, chat, chat_half_closed, chat_drained,
						 ended };
static const struct grpc_method_ops stream_ops = { NULL, stream, NULL, stream_more, ended };
static const struct grpc_method_ops fail_ops = { NULL, refuse, NULL, NULL, ended };
static const struct grpc_method_ops hang_ops = { NULL, hang, NULL, NULL, ended };
static const struct grpc_method_ops meta_ops = { NULL, meta, NULL, NULL, ended };
static const struct grpc_method_ops peer_ops = { NULL, peer, NULL, NULL, ended };

#define SERVICE "/kybernate.test.Echo/"

static const struct grpc_method methods[] = {
	{ SERVICE "Unary", GRPC_UNARY, &unary_ops },
	{ SERVICE "Chat", GRPC_BIDI, &chat_ops },
	{ SERVICE "Stream", GRPC_SERVER_STREAM, &stream_ops },
	{ SERVICE "Fail", GRPC_UNARY, &fail_ops },
	{ SERVICE "Hang", GRPC_UNARY, &hang_ops },
	{ SERVICE "HangChat", GRPC_BIDI, &hang_ops },
	{ SERVICE "Meta", GRPC_UNARY, &meta_ops },
	{ SERVICE "Peer", GRPC_UNARY, &peer_ops },
};

static void shut_down(struct grpc_server *s, void *arg)
{
	struct server *server = arg;

	(void)s;
	loop_stop(server->loop);
}

static void caught(struct signals *signals, int signo)
{
	struct server *server = container_of(signals, struct server, signals);

	(void)signo;
	grpc_server_shutdown(server->grpc, time_now() + GRACE, shut_down);
}

int main(int argc, char **argv)
{
	static const int signos[] = { SIGTERM, SIGINT, 0 };
	struct grpc_server_config config = { 0 };
	struct grpc_server_stats stats;
	struct server server = { 0 };
	int fd, r;

	if (argc < 2)
		echo_die("usage: grpc-echo-server SOCKET [MAX-MESSAGE]", -EINVAL);
	if (argc > 2) {
		config.max_message = config.max_send = echo_number(argv[2]);
		config.max_unsent = 2 * config.max_send;
		config.max_memory_per_connection = 4 * config.max_send;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	fd = echo_listen(argv[1]);
	if (fd < 0)
		echo_die(argv[1], fd);
	r = loop_new(&server.loop);
	if (r == 0)
		r = signals_open(server.loop, &server.signals, signos, caught);
	if (r == 0)
		r = grpc_server_new(server.loop, fd, &config, methods, ARRAY_SIZE(methods), &server,
				    &server.grpc);
	if (r < 0)
		echo_die("start", r);
	(void)printf("ready\n");
	r = loop_run(server.loop);
	if (r < 0)
		echo_die("loop", r);
	grpc_server_stats(server.grpc, &stats);
	(void)printf("connections=%u calls=%u memory=%zu requests=%" PRIu64 "\n", stats.connections,
		     stats.calls, stats.memory, stats.requests);
	grpc_server_free(server.grpc);
	signals_close(&server.signals);
	loop_free(server.loop);
	return 0;
}
