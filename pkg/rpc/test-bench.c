/* SPDX-License-Identifier: Apache-2.0 */
/* The service of test-grpc.h: Echo, Count, Chat, Hang, Fail, Pipe and One. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "base/path.h"
#include "rpc/test-grpc.h"
#include "tests/cmocka.h"

static struct bench *bench_of(struct grpc_call *call)
{
	return grpc_call_arg(call);
}

static void started(struct grpc_call *call)
{
	struct bench *b = bench_of(call);

	buf_done(&b->seen.first);
	b->seen = (struct seen){ .started = 1, .call = call };
	b->started++;
	grpc_call_set_data(call, b);
}

static void note_message(struct grpc_call *call, struct bytes msg)
{
	struct seen *s = &bench_of(call)->seen;

	if (s->messages++ == 0)
		assert_int_equal(buf_append(&s->first, msg.p, msg.n), 0);
	s->bytes += msg.n;
}

static void half_closed(struct grpc_call *call)
{
	bench_of(call)->seen.half_closed++;
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct bench *b = bench_of(call);

	assert_ptr_equal(grpc_call_data(call), b);
	b->ended++;
	if (b->seen.call != call)
		return;
	b->seen.ended++;
	b->seen.why = why;
	b->seen.call = NULL;
}

static void echo(struct grpc_call *call, struct bytes msg)
{
	note_message(call, msg);
	grpc_call_reply(call, msg);
}

/* The request says "COUNT SIZE". */
static void count_more(struct grpc_call *call)
{
	struct bench *b = bench_of(call);
	_cleanup_free_ char *block = calloc(1, b->stream_size + 1);
	int r;

	b->seen.drained++;
	assert_non_null(block);
	while (b->stream_left) {
		r = grpc_call_send(call, bytes_of(block, b->stream_size));
		if (r == -ENOBUFS && grpc_call_unsent(call))
			return;
		assert_int_equal(r, 0);
		b->stream_left--;
	}
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
}

static void count(struct grpc_call *call, struct bytes msg)
{
	struct bench *b = bench_of(call);
	char text[64] = "", *space;
	uint64_t n, size;

	note_message(call, msg);
	memcpy(text, msg.p, msg.n < sizeof(text) - 1 ? msg.n : sizeof(text) - 1);
	space = strchr(text, ' ');
	assert_non_null(space);
	*space = 0;
	assert_int_equal(num_parse(text, SIZE_MAX, &n), 0);
	assert_int_equal(num_parse(space + 1, SIZE_MAX, &size), 0);
	b->stream_left = n;
	b->stream_size = size;
	count_more(call);
}

static void chat(struct grpc_call *call, struct bytes msg)
{
	struct bench *b = bench_of(call);

	note_message(call, msg);
	if (b->pause_calls) {
		b->pause_calls = false;
		grpc_call_pause(call, true);
	}
	assert_int_equal(grpc_call_send(call, msg), 0);
}

static void hang(struct grpc_call *call, struct bytes msg)
{
	note_message(call, msg);
}

static void hang_half_closed(struct grpc_call *call)
{
	bench_of(call)->seen.half_closed++;
}

/* As Echo and Chat, by handlers that are prepared for everything. */
static void one_message(struct grpc_call *call, struct bytes msg)
{
	if (msg.n == 1)
		grpc_call_finish(call, RPC_ABORTED, "100%", bytes_of("detail", 6));
	else
		grpc_call_reply(call, msg);
}

static void pipe_message(struct grpc_call *call, struct bytes msg)
{
	if (grpc_call_send(call, msg) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "no memory", bytes_of(NULL, 0));
}

static void pipe_started(struct grpc_call *call)
{
	bench_of(call)->started++;
}

static void pipe_half_closed(struct grpc_call *call)
{
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
}

static void pipe_ended(struct grpc_call *call, enum grpc_end why)
{
	(void)why;
	bench_of(call)->ended++;
}

static void refuse(struct grpc_call *call, struct bytes msg)
{
	note_message(call, msg);
	grpc_call_finish(call, RPC_FAILED_PRECONDITION,
			 "caf\xc3\xa9: 100% \xe2\x82\xac\nsecond line",
			 bytes_of("\x08\x09\x12\x00\xff", 5));
	/* Answered: all of this is ignored. */
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
	assert_int_equal(grpc_call_send(call, msg), -EPIPE);
	grpc_call_reply(call, msg);
}

static const struct grpc_method_ops echo_ops = { started, echo, NULL, NULL, ended };
static const struct grpc_method_ops count_ops = { started, count, NULL, count_more, ended };
static const struct grpc_method_ops chat_ops = { started, chat, half_closed, NULL, ended };
static const struct grpc_method_ops hang_ops = { started, hang, hang_half_closed, NULL, ended };
static const struct grpc_method_ops fail_ops = { started, refuse, NULL, NULL, ended };

static const struct grpc_method_ops pipe_ops = { pipe_started, pipe_message, pipe_half_closed, NULL,
						 pipe_ended };

static const struct grpc_method_ops one_ops = { pipe_started, one_message, NULL, NULL, pipe_ended };

static const struct grpc_method methods[] = {
	{ "/t.T/Echo", GRPC_UNARY, &echo_ops },   { "/t.T/Count", GRPC_SERVER_STREAM, &count_ops },
	{ "/t.T/Chat", GRPC_BIDI, &chat_ops },    { "/t.T/Hang", GRPC_BIDI, &hang_ops },
	{ "/t.T/HangOne", GRPC_UNARY, &hang_ops }, { "/t.T/Fail", GRPC_UNARY, &fail_ops },
	{ "/t.T/Pipe", GRPC_BIDI, &pipe_ops },
	{ "/t.T/One", GRPC_UNARY, &one_ops },
};

static bool allow(void *arg, const struct ucred *peer)
{
	const struct bench *b = arg;

	assert_int_equal(peer->uid, getuid());
	return !b->refuse_peers;
}

void bench_init(struct bench *b)
{
	*b = (struct bench){ 0 };
	b->server_config.allow = allow;
	(void)strcpy(b->dir, "/tmp/kyb-grpc-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	assert_int_equal(PATH_PRINTF(b->path, "%s/s", b->dir), 0);
	assert_int_equal(loop_new(&b->loop), 0);
}

static struct sockaddr_un address(const struct bench *b)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)strcpy(addr.sun_path, b->path);
	return addr;
}

void bench_start(struct bench *b)
{
	struct sockaddr_un addr = address(b);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1024), 0);
	assert_int_equal(grpc_server_new(b->loop, fd, &b->server_config, methods,
					 ARRAY_SIZE(methods), b, &b->server), 0);
	assert_int_equal(grpc_client_open(b->loop, b->path, &b->client_config, &b->client), 0);
}

void bench_done(struct bench *b)
{
	grpc_client_free(b->client);
	grpc_server_free(b->server);
	assert_int_equal(b->started, b->ended); /* for every call exactly once */
	loop_free(b->loop);
	buf_done(&b->seen.first);
	(void)unlink(b->path);
	(void)rmdir(b->dir);
}

int bench_connect(const struct bench *b)
{
	struct sockaddr_un addr = address(b);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void bench_run(struct bench *b, nsec_t time)
{
	nsec_t until = time_now() + time;

	while (time_now() < until)
		assert_int_equal(loop_round(b->loop, until), 0);
}

static void got_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	struct got *g = arg;

	assert_ptr_equal(stream, g->stream);
	g->messages++;
	g->bytes += msg.n;
	if (g->pause_in_message)
		grpc_stream_pause(stream, true);
	if (g->cancel_in_message) {
		grpc_stream_cancel(stream);
		g->stream = NULL;
	}
	/* Valid during the whole call, canceled or not. */
	buf_clear(&g->last);
	assert_int_equal(buf_append(&g->last, msg.p, msg.n), 0);
}

static void got_drained(struct grpc_stream *stream, void *arg)
{
	struct got *g = arg;

	assert_ptr_equal(stream, g->stream);
	assert_int_equal(grpc_stream_unsent(stream), 0);
	g->drained++;
}

static void got_ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct got *g = arg;

	assert_ptr_equal(stream, g->stream);
	g->stream = NULL;
	g->ended++;
	g->code = status->code;
	buf_clear(&g->text);
	buf_clear(&g->details);
	assert_int_equal(buf_append_str(&g->text, status->text), 0);
	assert_int_equal(buf_append(&g->details, status->details.p, status->details.n), 0);
}

const struct grpc_stream_ops got_ops = { got_message, got_drained, got_ended };

void got_open(struct bench *b, struct got *g, const char *method, nsec_t deadline)
{
	static const struct grpc_field fields[] = {
		{ "containerd-namespace", { (const uint8_t *)"k8s.io", 6 } },
		{ "trace-bin", { (const uint8_t *)"\x00\xff\x01", 3 } },
	};

	g->loop = b->loop;
	assert_int_equal(grpc_stream_open(b->client, method, fields, 2, deadline, &got_ops, g,
					  &g->stream), 0);
	assert_int_equal(g->ended, 0);
}

void got_send(struct got *g, const char *text)
{
	assert_int_equal(grpc_stream_send(g->stream, bytes_of(text, strlen(text))), 0);
}

void got_done(struct got *g)
{
	if (g->stream)
		grpc_stream_cancel(g->stream);
	buf_done(&g->last);
	buf_done(&g->text);
	buf_done(&g->details);
	*g = (struct got){ 0 };
}

void answered(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct answer *a = arg;

	a->done++;
	a->code = status->code;
	assert_int_equal(buf_append(&a->reply, reply.p, reply.n), 0);
	assert_int_equal(buf_append_str(&a->text, status->text), 0);
}

void answer_done(struct answer *a)
{
	buf_done(&a->reply);
	buf_done(&a->text);
	*a = (struct answer){ 0 };
}

void ask(struct bench *b, struct answer *a, const char *method, struct bytes request)
{
	answer_done(a);
	assert_int_equal(grpc_unary(b->client, method, NULL, 0, request, NSEC_NEVER, answered, a,
				    NULL), 0);
	assert_int_equal(a->done, 0);
	WAIT(b, a->done);
}

void assert_text(const struct buf *b, const char *want)
{
	assert_string_equal(buf_str(b), want);
}
