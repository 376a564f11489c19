/* SPDX-License-Identifier: Apache-2.0 */
/* Server and client against each other: calls of every kind, and every way they can end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/test-grpc.h"
#include "tests/cmocka.h"

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	bench_init(b);
	*state = b;
	return 0;
}

static int setup_started(void **state)
{
	(void)setup(state);
	bench_start(*state);
	return 0;
}

static int teardown(void **state)
{
	bench_done(*state);
	free(*state);
	return 0;
}

static void assert_text(const struct buf *b, const char *want)
{
	assert_string_equal(buf_str(b), want);
}

/* grpc_unary() ------------------------------------------------------------------------------- */

struct answer {
	unsigned int done;
	enum rpc_code code;
	struct buf reply, text;
};

static void answered(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct answer *a = arg;

	a->done++;
	a->code = status->code;
	assert_int_equal(buf_append(&a->reply, reply.p, reply.n), 0);
	assert_int_equal(buf_append_str(&a->text, status->text), 0);
}

static void answer_done(struct answer *a)
{
	buf_done(&a->reply);
	buf_done(&a->text);
	*a = (struct answer){ 0 };
}

static void ask(struct bench *b, struct answer *a, const char *method, struct bytes request)
{
	answer_done(a);
	assert_int_equal(grpc_unary(b->client, method, NULL, 0, request, NSEC_NEVER, answered, a,
				    NULL), 0);
	assert_int_equal(a->done, 0);
	WAIT(b, a->done);
}

static void a_unary_call(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };

	ask(b, &a, "/t.T/Echo", bytes_of("hello", 5));
	assert_int_equal(a.code, RPC_OK);
	assert_text(&a.reply, "hello");
	WAIT(b, b->ended);
	assert_int_equal(b->seen.why, GRPC_END_DONE);
	ask(b, &a, "/t.T/Echo", bytes_of(NULL, 0)); /* an empty message is a message */
	assert_int_equal(a.code, RPC_OK);
	assert_int_equal(buf_len(&a.reply), 0);
	answer_done(&a);
}

static void errors_travel_with_text_and_details(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Fail", NSEC_NEVER);
	got_send(&g, "x");
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_FAILED_PRECONDITION);
	assert_text(&g.text, "GPU gesperrt: 100% \xc3\xbc\nzu sp\xc3\xa4t");
	assert_int_equal(buf_len(&g.details), 5);
	assert_memory_equal(buf_bytes(&g.details).p, "\x08\x09\x12\x00\xff", 5);
	got_done(&g);
}

static void an_unknown_method_is_unimplemented(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };

	ask(b, &a, "/t.T/Nope", bytes_of("x", 1));
	assert_int_equal(a.code, RPC_UNIMPLEMENTED);
	assert_text(&a.text, "/t.T/Nope is not served here");
	assert_int_equal(b->started, 0);
	answer_done(&a);
}

static void a_thousand_calls_on_one_connection(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	struct grpc_server_stats stats;

	for (int i = 0; i < 1000; i++) {
		ask(b, &a, "/t.T/Echo", bytes_of("hello", 5));
		assert_int_equal(a.code, RPC_OK);
	}
	answer_done(&a);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.accepted, 1);
	assert_int_equal(stats.requests, 1000);
	assert_int_equal(stats.calls, 0);
	assert_int_equal(stats.memory, 0);
}

static void more_calls_than_streams_wait_their_turn(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };

	for (int i = 0; i < 500; i++)
		assert_int_equal(grpc_unary(b->client, "/t.T/Echo", NULL, 0, bytes_of("x", 1),
					    NSEC_NEVER, answered, &a, NULL), 0);
	WAIT(b, a.done == 500);
	assert_int_equal(a.code, RPC_OK);
	assert_int_equal(buf_len(&a.reply), 500);
	answer_done(&a);
}

static void a_unary_call_of_a_method_that_streams_is_told_so(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };

	ask(b, &a, "/t.T/Count", bytes_of("2 10", 4));
	assert_int_equal(a.code, RPC_UNIMPLEMENTED);
	assert_text(&a.text, "more than one answer");
	ask(b, &a, "/t.T/Count", bytes_of("0 10", 4));
	assert_int_equal(a.code, RPC_UNIMPLEMENTED);
	assert_text(&a.text, "no answer");
	answer_done(&a);
}

static void a_unary_method_takes_exactly_one_message(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Echo", NSEC_NEVER);
	grpc_stream_half_close(g.stream);
	assert_int_equal(grpc_stream_send(g.stream, bytes_of("x", 1)), -EPIPE);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_UNIMPLEMENTED);
	assert_text(&g.text, "no request message");
	assert_int_equal(b->seen.why, GRPC_END_BROKEN);
	got_done(&g);

	got_open(b, &g, "/t.T/Echo", NSEC_NEVER);
	got_send(&g, "one");
	got_send(&g, "two");
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_UNIMPLEMENTED);
	assert_text(&g.text, "more than one request message");
	assert_int_equal(b->seen.messages, 0); /* nothing was half done */
	got_done(&g);
}

static void canceling_a_unary_call(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	struct grpc_stream *stream;

	assert_int_equal(grpc_unary(b->client, "/t.T/HangOne", NULL, 0, bytes_of("x", 1),
				    NSEC_NEVER, answered, &a, &stream), 0);
	WAIT(b, b->seen.messages);
	grpc_stream_cancel(stream);
	WAIT(b, b->ended);
	assert_int_equal(b->seen.why, GRPC_END_CANCELED);
	assert_int_equal(a.done, 0);
	answer_done(&a);
}

/* Streams ------------------------------------------------------------------------------------- */

static void a_server_stream(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Count", NSEC_NEVER);
	got_send(&g, "1000 100");
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_OK);
	assert_int_equal(g.messages, 1000);
	assert_int_equal(g.bytes, 100000);
	assert_int_equal(b->seen.why, GRPC_END_DONE);
	got_done(&g);
}

static void more_than_a_queue_holds_is_streamed_by_drained(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Count", NSEC_NEVER);
	got_send(&g, "64 1048576"); /* 64 MiB through a queue of 8 */
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_OK);
	assert_int_equal(g.bytes, (size_t)64 << 20);
	assert_true(b->seen.drained > 5);
	got_done(&g);
}

static void a_bidirectional_stream(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Chat", NSEC_NEVER);
	for (unsigned int i = 1; i <= 50; i++) {
		got_send(&g, i % 2 ? "ping" : "");
		WAIT(b, g.messages == i);
		assert_text(&g.last, i % 2 ? "ping" : "");
	}
	assert_int_equal(g.drained, 50);
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended && b->ended);
	assert_int_equal(g.code, RPC_OK);
	assert_int_equal(b->seen.half_closed, 1);
	assert_int_equal(b->seen.why, GRPC_END_DONE);
	got_done(&g);
}

static void an_answer_before_the_half_close_ends_the_stream(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };
	struct answer a = { 0 };

	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	got_send(&g, "x");
	WAIT(b, b->seen.messages);
	assert_int_equal(grpc_call_send(b->seen.call, bytes_of("last words", 10)), 0);
	grpc_call_finish(b->seen.call, RPC_ABORTED, "enough", bytes_of(NULL, 0));
	WAIT(b, g.ended && b->ended);
	assert_text(&g.last, "last words");
	assert_int_equal(g.code, RPC_ABORTED);
	assert_int_equal(b->seen.why, GRPC_END_DONE);
	got_done(&g);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1)); /* the connection is as good as before */
	assert_int_equal(a.code, RPC_OK);
	answer_done(&a);
}

static void metadata_and_peer(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Hang", time_now() + 3600 * NSEC_PER_SEC);
	WAIT(b, b->started);
	assert_string_equal(grpc_call_metadata(b->seen.call, "containerd-namespace"), "k8s.io");
	assert_string_equal(grpc_call_metadata(b->seen.call, "trace-bin"), "AP8B");
	assert_string_equal(grpc_call_metadata(b->seen.call, ":path"), "/t.T/Hang");
	assert_string_equal(grpc_call_metadata(b->seen.call, "user-agent"),
			    "grpc-c-kybernate/" KYB_VERSION);
	assert_null(grpc_call_metadata(b->seen.call, "k8s.io"));
	assert_int_equal(grpc_call_peer(b->seen.call)->pid, getpid());
	assert_string_equal(grpc_call_method(b->seen.call)->path, "/t.T/Hang");
	assert_true(grpc_call_deadline(b->seen.call) > time_now() + 3590 * NSEC_PER_SEC);
	assert_true(grpc_call_deadline(b->seen.call) < time_now() + 3610 * NSEC_PER_SEC);
	got_done(&g);
}

static void fields_that_cannot_travel_are_refused(void **state)
{
	struct bench *b = *state;
	struct grpc_stream *stream;
	const struct grpc_field bad[] = {
		{ "Upper", bytes_of("x", 1) },
		{ "grpc-status", bytes_of("x", 1) },
		{ ":path", bytes_of("x", 1) },
		{ "name", bytes_of("a\r\nb", 4) },
		{ "name", bytes_of("a\0b", 3) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(grpc_stream_open(b->client, "/t.T/Echo", &bad[i], 1, NSEC_NEVER,
						  &got_ops, NULL, &stream), -EINVAL);
	assert_int_equal(grpc_stream_open(b->client, "t.T/Echo", NULL, 0, NSEC_NEVER, &got_ops,
					  NULL, &stream), -EINVAL);
}

/* The ends of a stream ------------------------------------------------------------------------ */

static void canceling(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	got_send(&g, "x");
	WAIT(b, b->seen.messages);
	grpc_stream_cancel(g.stream);
	g.stream = NULL;
	WAIT(b, b->ended);
	assert_int_equal(b->seen.why, GRPC_END_CANCELED);
	assert_int_equal(g.ended, 0);
	got_done(&g);
}

static void canceling_before_anything_was_sent(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	got_send(&g, "x");
	got_done(&g);
	bench_run(b, 10 * NSEC_PER_MSEC);
	assert_int_equal(b->started, 0);
}

static void canceling_inside_message(void **state)
{
	struct bench *b = *state;
	struct got g = { .cancel_in_message = true };

	got_open(b, &g, "/t.T/Count", NSEC_NEVER);
	got_send(&g, "100 70000"); /* more than a window: the call cannot be over */
	grpc_stream_half_close(g.stream);
	WAIT(b, b->ended);
	assert_int_equal(g.messages, 1);
	assert_int_equal(buf_len(&g.last), 70000);
	assert_int_equal(b->seen.why, GRPC_END_CANCELED);
	got_done(&g);
}

static void the_servers_deadline_is_the_clients(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };
	nsec_t begin = time_now();

	got_open(b, &g, "/t.T/Hang", begin + 30 * NSEC_PER_MSEC);
	got_send(&g, "x");
	WAIT(b, g.ended && b->ended);
	assert_int_equal(g.code, RPC_DEADLINE_EXCEEDED);
	assert_true(time_now() - begin >= 30 * NSEC_PER_MSEC);
	assert_true(b->seen.why == GRPC_END_DEADLINE || b->seen.why == GRPC_END_CANCELED);
	got_done(&g);
}

static void a_deadline_in_the_past(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Hang", 1);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_DEADLINE_EXCEEDED);
	got_done(&g);
}

static void a_lost_server_ends_all_streams(void **state)
{
	struct bench *b = *state;
	struct got g[3] = { 0 };
	struct answer a = { 0 };

	for (int i = 0; i < 3; i++)
		got_open(b, &g[i], "/t.T/Hang", NSEC_NEVER);
	WAIT(b, b->started == 3);
	grpc_server_free(b->server);
	b->server = NULL;
	assert_int_equal(b->ended, 3);
	assert_int_equal(b->seen.why, GRPC_END_SHUTDOWN);
	WAIT(b, g[0].ended && g[1].ended && g[2].ended);
	assert_int_equal(g[0].code, RPC_UNAVAILABLE);
	assert_non_null(strstr(buf_str(&g[0].text), b->path));
	for (int i = 0; i < 3; i++)
		got_done(&g[i]);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1)); /* nobody listens any more */
	assert_int_equal(a.code, RPC_UNAVAILABLE);
	assert_non_null(strstr(buf_str(&a.text), "Connection refused"));
	answer_done(&a);
}

static void a_lost_client_ends_its_calls(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	got_send(&g, "x");
	WAIT(b, b->seen.messages);
	grpc_client_free(b->client);
	b->client = NULL;
	g.stream = NULL;
	WAIT(b, b->ended);
	assert_int_equal(b->seen.why, GRPC_END_LOST);
	got_done(&g);
}

static void nobody_listens(void **state)
{
	struct bench *b = *state;
	struct grpc_client *c;
	struct answer a = { 0 };

	assert_int_equal(grpc_client_open(b->loop, "/nonexistent/socket", &b->client_config, &c), 0);
	assert_int_equal(grpc_unary(c, "/t.T/Echo", NULL, 0, bytes_of("x", 1), NSEC_NEVER,
				    answered, &a, NULL), 0);
	WAIT(b, a.done);
	assert_int_equal(a.code, RPC_UNAVAILABLE);
	assert_text(&a.text, "/nonexistent/socket: No such file or directory");
	grpc_client_free(c);
	answer_done(&a);
}

static void a_path_that_is_too_long(void **state)
{
	struct bench *b = *state;
	struct grpc_client *c;
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(grpc_client_open(b->loop, path, &b->client_config, &c), -ENAMETOOLONG);
}

/* Limits -------------------------------------------------------------------------------------- */

static void messages_over_the_maximum(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	_cleanup_free_ char *block = calloc(1, 3000);

	assert_non_null(block);
	b->server_config.max_message = 1000;
	b->server_config.max_send = 3000;
	b->client_config.max_message = 500;
	b->client_config.max_send = 2000;
	bench_start(b);
	ask(b, &a, "/t.T/Echo", bytes_of(block, 500));
	assert_int_equal(a.code, RPC_OK);
	ask(b, &a, "/t.T/Echo", bytes_of(block, 501)); /* the client's */
	assert_int_equal(a.code, RPC_RESOURCE_EXHAUSTED);
	ask(b, &a, "/t.T/Echo", bytes_of(block, 1001)); /* the server's */
	assert_int_equal(a.code, RPC_RESOURCE_EXHAUSTED);
	assert_text(&a.text, "a message is larger than is allowed here");
	WAIT(b, b->ended == 3);
	assert_int_equal(b->seen.why, GRPC_END_BROKEN);
	assert_int_equal(grpc_unary(b->client, "/t.T/Echo", NULL, 0, bytes_of(block, 2001),
				    NSEC_NEVER, answered, &a, NULL), -EMSGSIZE);
	ask(b, &a, "/t.T/Count", bytes_of("1 400", 5));
	assert_int_equal(a.code, RPC_OK);
	answer_done(&a);
}

/* 8 MiB messages, echoed; the reader takes a rest after each piece. */
static void large_messages_both_ways(void **state)
{
	struct bench *b = *state;
	size_t n = (size_t)8 << 20;
	_cleanup_free_ char *block = malloc(n);
	struct got g = { 0 };

	assert_non_null(block);
	for (size_t i = 0; i < n; i++)
		block[i] = (char)(i % 253);
	b->server_config.max_message = b->server_config.max_send = n;
	b->server_config.max_memory_per_connection = 4 * n;
	b->server_config.max_unsent = 2 * n;
	b->client_config.max_message = b->client_config.max_send = n;
	bench_start(b);
	got_open(b, &g, "/t.T/Chat", NSEC_NEVER);
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(grpc_stream_send(g.stream, bytes_of(block, n)), 0);
		WAIT(b, g.messages == i);
		assert_int_equal(buf_len(&g.last), n);
		assert_memory_equal(buf_bytes(&g.last).p, block, n);
	}
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended && b->ended);
	assert_int_equal(g.code, RPC_OK);
	got_done(&g);
}

static void a_paused_call_holds_the_client_back(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };
	char block[1000] = "";
	struct grpc_server_stats stats;

	bench_start(b);
	b->pause_calls = true;
	got_open(b, &g, "/t.T/Chat", NSEC_NEVER);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(grpc_stream_send(g.stream, bytes_of(block, sizeof(block))), 0);
	grpc_stream_half_close(g.stream);
	bench_run(b, 50 * NSEC_PER_MSEC);
	assert_int_equal(b->seen.messages, 1);
	grpc_server_stats(b->server, &stats);
	assert_in_range(stats.memory, 60000, 68000); /* a window, and no more */
	assert_true(grpc_stream_unsent(g.stream) > 900000);
	grpc_call_pause(b->seen.call, false);
	WAIT(b, g.ended && b->ended);
	assert_int_equal(b->seen.messages, 1000);
	assert_int_equal(g.messages, 1000);
	assert_int_equal(g.code, RPC_OK);
	got_done(&g);
}

static void one_paused_call_does_not_stop_the_others(void **state)
{
	struct bench *b = *state;
	struct got slow = { 0 };
	struct answer a = { 0 };
	char block[100000] = "";

	bench_start(b);
	b->pause_calls = true;
	got_open(b, &slow, "/t.T/Chat", NSEC_NEVER);
	for (int i = 0; i < 20; i++)
		assert_int_equal(grpc_stream_send(slow.stream, bytes_of(block, sizeof(block))), 0);
	bench_run(b, 20 * NSEC_PER_MSEC);
	for (int i = 0; i < 30; i++) {
		ask(b, &a, "/t.T/Echo", bytes_of(block, sizeof(block)));
		assert_int_equal(a.code, RPC_OK);
	}
	answer_done(&a);
	got_done(&slow);
	WAIT(b, b->started == b->ended);
}

static void a_paused_stream_holds_the_server_back(void **state)
{
	struct bench *b = *state;
	struct got g = { .pause_in_message = true };

	bench_start(b);
	got_open(b, &g, "/t.T/Count", NSEC_NEVER);
	got_send(&g, "1000 1000");
	grpc_stream_half_close(g.stream);
	bench_run(b, 50 * NSEC_PER_MSEC);
	assert_int_equal(g.messages, 1);
	assert_int_equal(b->ended, 0); /* its answer waits for the window */
	g.pause_in_message = false;
	grpc_stream_pause(g.stream, false);
	WAIT(b, g.ended);
	assert_int_equal(g.messages, 1000);
	assert_int_equal(g.code, RPC_OK);
	got_done(&g);
}

static void a_paused_stream_outlives_its_connection(void **state)
{
	struct bench *b = *state;
	struct got g = { .pause_in_message = true };

	bench_start(b);
	got_open(b, &g, "/t.T/Count", NSEC_NEVER);
	got_send(&g, "10 1000");
	grpc_stream_half_close(g.stream);
	WAIT(b, b->ended);
	bench_run(b, 10 * NSEC_PER_MSEC);
	grpc_server_free(b->server);
	b->server = NULL;
	bench_run(b, 10 * NSEC_PER_MSEC);
	assert_int_equal(g.ended, 0);
	g.pause_in_message = false;
	grpc_stream_pause(g.stream, false);
	WAIT(b, g.ended);
	assert_int_equal(g.messages, 10);
	assert_int_equal(g.code, RPC_OK);
	got_done(&g);
}

static void a_full_queue_says_so(void **state)
{
	struct bench *b = *state;
	struct got g = { .pause_in_message = true };
	char block[10000] = "";
	int r = 0, n;

	b->server_config.max_unsent = 100000;
	bench_start(b);
	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	WAIT(b, b->started);
	for (n = 0; n < 100 && r == 0; n++)
		r = grpc_call_send(b->seen.call, bytes_of(block, sizeof(block)));
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(n, 10);
	assert_int_equal(grpc_call_unsent(b->seen.call), 9 * (sizeof(block) + 5));
	got_done(&g);
	WAIT(b, b->ended);
}

static void a_connections_memory_is_bounded(void **state)
{
	struct bench *b = *state;
	struct grpc_call *calls[2];
	struct got g[2] = { 0 };
	char block[10000] = "";
	struct grpc_server_stats stats;

	b->server_config.max_memory_per_connection = 25000;
	bench_start(b);
	for (int i = 0; i < 2; i++) {
		got_open(b, &g[i], "/t.T/Hang", NSEC_NEVER);
		WAIT(b, b->started == (unsigned int)i + 1);
		calls[i] = b->seen.call;
	}
	assert_int_equal(grpc_call_send(calls[0], bytes_of(block, sizeof(block))), 0);
	assert_int_equal(grpc_call_send(calls[1], bytes_of(block, sizeof(block))), 0);
	assert_int_equal(grpc_call_send(calls[0], bytes_of(block, sizeof(block))), -ENOBUFS);
	assert_int_equal(grpc_call_send(calls[1], bytes_of(block, sizeof(block))), -ENOBUFS);
	WAIT(b, g[0].messages && g[1].messages);
	assert_int_equal(grpc_call_send(calls[1], bytes_of(block, sizeof(block))), 0);
	for (int i = 0; i < 2; i++)
		got_done(&g[i]);
	WAIT(b, b->ended == 2);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.memory, 0);
}

static void too_large_a_header(void **state)
{
	struct bench *b = *state;
	char value[9000];
	struct grpc_field field = { "big", bytes_of(value, sizeof(value)) };
	struct got g = { 0 };

	memset(value, 'x', sizeof(value));
	bench_start(b);
	assert_int_equal(grpc_stream_open(b->client, "/t.T/Hang", &field, 1, NSEC_NEVER, &got_ops,
					  &g, &g.stream), 0);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_RESOURCE_EXHAUSTED);
	assert_text(&g.text, "the request's header is too large");
	assert_int_equal(b->started, 0);
	got_done(&g);
}

static void foreign_peers_are_refused(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	struct grpc_server_stats stats;

	b->refuse_peers = true;
	bench_start(b);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
	assert_int_equal(a.code, RPC_UNAVAILABLE);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.accepted, 0);
	assert_int_equal(stats.refused, 1);
	b->refuse_peers = false;
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1)); /* the client tries anew at the next call */
	assert_int_equal(a.code, RPC_OK);
	answer_done(&a);
}

static void connections_over_the_limit_are_closed_at_once(void **state)
{
	struct bench *b = *state;
	struct grpc_server_stats stats;
	int fds[6];
	char c;

	b->server_config.max_connections = 4;
	bench_start(b);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = bench_connect(b);
	bench_run(b, 10 * NSEC_PER_MSEC);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.connections, 4);
	assert_int_equal(stats.refused, 2);
	assert_int_equal(read(fds[5], &c, 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)close(fds[i]);
	bench_run(b, 10 * NSEC_PER_MSEC);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.connections, 0);
}

static void one_user_cannot_take_all_places(void **state)
{
	struct bench *b = *state;
	struct grpc_server_stats stats;
	int fds[6];

	b->server_config.max_connections_per_uid = 3;
	bench_start(b);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = bench_connect(b);
	bench_run(b, 10 * NSEC_PER_MSEC);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.connections, 3);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)close(fds[i]);
}

static void ten_thousand_connection_attempts(void **state)
{
	struct bench *b = *state;
	struct grpc_server_stats stats;
	struct answer a = { 0 };

	bench_start(b);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
	for (int i = 0; i < 10000; i++) {
		int fd = bench_connect(b);

		if (i % 500 == 499)
			assert_int_equal(loop_round(b->loop, 0), 0);
		(void)close(fd);
		if (i % 500 == 499)
			for (int j = 0; j < 12; j++)
				assert_int_equal(loop_round(b->loop, 0), 0);
	}
	bench_run(b, 10 * NSEC_PER_MSEC);
	grpc_server_stats(b->server, &stats);
	assert_int_equal(stats.accepted + stats.refused, 10001);
	assert_int_equal(stats.connections, 1);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1)); /* those connected before noticed nothing */
	assert_int_equal(a.code, RPC_OK);
	answer_done(&a);
}

static void running_out_of_descriptors_is_waited_out(void **state)
{
	struct bench *b = *state;
	struct rlimit old, low;
	struct answer a = { 0 };
	unsigned int rounds = 0;
	nsec_t until;
	int fd, next;

	bench_start(b);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
	fd = bench_connect(b);
	next = dup(fd); /* the next free number is the first that may not be used */
	assert_true(next >= 0);
	(void)close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	until = time_now() + 50 * NSEC_PER_MSEC;
	for (; time_now() < until; rounds++)
		assert_int_equal(loop_round(b->loop, until), 0);
	assert_in_range(rounds, 1, 10); /* it does not spin */
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
	assert_int_equal(a.code, RPC_OK);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	WAIT(b, ({
		     struct grpc_server_stats stats;
		     grpc_server_stats(b->server, &stats);
		     stats.connections == 2;
	     }));
	(void)close(fd);
	answer_done(&a);
}

/* The ends of a connection -------------------------------------------------------------------- */

static void an_idle_client_closes_its_connection_and_makes_another(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	struct grpc_server_stats stats;

	b->client_config.idle_timeout = 20 * NSEC_PER_MSEC;
	bench_start(b);
	for (unsigned int i = 1; i <= 3; i++) {
		ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
		assert_int_equal(a.code, RPC_OK);
		WAIT(b, (grpc_server_stats(b->server, &stats), stats.connections == 0));
		assert_int_equal(stats.accepted, i);
	}
	answer_done(&a);
}

static void an_idle_connection_is_closed_by_the_server_without_losing_a_call(void **state)
{
	struct bench *b = *state;
	struct answer a = { 0 };
	nsec_t until = time_now() + 400 * NSEC_PER_MSEC;
	unsigned int calls = 0;
	struct grpc_server_stats stats;

	/* Calls come just when the connection has become idle for long enough. */
	b->server_config.idle_timeout = 2 * NSEC_PER_MSEC;
	bench_start(b);
	while (time_now() < until) {
		ask(b, &a, "/t.T/Echo", bytes_of("x", 1));
		assert_int_equal(a.code, RPC_OK);
		calls++;
		bench_run(b, 1900 * NSEC_PER_USEC + calls % 20 * 10 * NSEC_PER_USEC);
	}
	grpc_server_stats(b->server, &stats);
	assert_true(stats.accepted > 2);
	assert_int_equal(stats.requests, calls);
	answer_done(&a);
}

static void a_silent_stream_keeps_its_connection(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	b->server_config.idle_timeout = b->client_config.idle_timeout = 10 * NSEC_PER_MSEC;
	b->server_config.first_timeout = b->server_config.receive_timeout = 10 * NSEC_PER_MSEC;
	b->server_config.stall_timeout = b->client_config.stall_timeout = 10 * NSEC_PER_MSEC;
	bench_start(b);
	got_open(b, &g, "/t.T/Chat", NSEC_NEVER);
	bench_run(b, 100 * NSEC_PER_MSEC);
	got_send(&g, "still there?");
	WAIT(b, g.messages);
	assert_int_equal(g.ended, 0);
	got_done(&g);
	WAIT(b, b->ended);
}

static void request_is_due(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	b->server_config.receive_timeout = 20 * NSEC_PER_MSEC;
	bench_start(b);
	got_open(b, &g, "/t.T/Echo", NSEC_NEVER); /* and never sends its message */
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_DEADLINE_EXCEEDED);
	assert_text(&g.text, "the request was not complete in time");
	assert_int_equal(b->seen.why, GRPC_END_BROKEN);
	got_done(&g);
}

static void was_shut_down(struct grpc_server *s, void *arg)
{
	struct bench *b = arg;

	assert_ptr_equal(s, b->server);
	b->shut_down = true;
}

static void shutdown_lets_calls_end(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };
	struct answer a = { 0 };

	bench_start(b);
	got_open(b, &g, "/t.T/Chat", NSEC_NEVER);
	got_send(&g, "a");
	WAIT(b, g.messages == 1);
	grpc_server_shutdown(b->server, time_now() + 10 * NSEC_PER_SEC, was_shut_down);
	bench_run(b, 20 * NSEC_PER_MSEC);
	assert_false(b->shut_down);
	got_send(&g, "b");
	WAIT(b, g.messages == 2);
	ask(b, &a, "/t.T/Echo", bytes_of("x", 1)); /* a new call finds nobody */
	assert_int_equal(a.code, RPC_UNAVAILABLE);
	grpc_stream_half_close(g.stream);
	WAIT(b, g.ended);
	assert_int_equal(g.code, RPC_OK);
	WAIT(b, b->shut_down);
	got_done(&g);
	answer_done(&a);
}

static void shutdown_does_not_wait_for_ever(void **state)
{
	struct bench *b = *state;
	struct got g = { 0 };

	bench_start(b);
	got_open(b, &g, "/t.T/Hang", NSEC_NEVER);
	WAIT(b, b->started);
	grpc_server_shutdown(b->server, time_now() + 20 * NSEC_PER_MSEC, was_shut_down);
	WAIT(b, b->shut_down && g.ended);
	assert_int_equal(b->seen.why, GRPC_END_SHUTDOWN);
	assert_int_equal(g.code, RPC_UNAVAILABLE);
	got_done(&g);
}

static void shutdown_of_an_unused_server(void **state)
{
	struct bench *b = *state;

	bench_start(b);
	grpc_server_shutdown(b->server, NSEC_NEVER, was_shut_down);
	assert_false(b->shut_down);
	WAIT(b, b->shut_down);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_started, teardown)
		T(a_unary_call),
		T(errors_travel_with_text_and_details),
		T(an_unknown_method_is_unimplemented),
		T(a_thousand_calls_on_one_connection),
		T(more_calls_than_streams_wait_their_turn),
		T(a_unary_call_of_a_method_that_streams_is_told_so),
		T(a_unary_method_takes_exactly_one_message),
		T(canceling_a_unary_call),
		T(a_server_stream),
		T(more_than_a_queue_holds_is_streamed_by_drained),
		T(a_bidirectional_stream),
		T(an_answer_before_the_half_close_ends_the_stream),
		T(metadata_and_peer),
		T(fields_that_cannot_travel_are_refused),
		T(canceling),
		T(canceling_before_anything_was_sent),
		T(canceling_inside_message),
		T(the_servers_deadline_is_the_clients),
		T(a_deadline_in_the_past),
		T(a_lost_server_ends_all_streams),
		T(a_lost_client_ends_its_calls),
		T(nobody_listens),
		T(a_path_that_is_too_long),
#undef T
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(messages_over_the_maximum),
		T(large_messages_both_ways),
		T(a_paused_call_holds_the_client_back),
		T(one_paused_call_does_not_stop_the_others),
		T(a_paused_stream_holds_the_server_back),
		T(a_paused_stream_outlives_its_connection),
		T(a_full_queue_says_so),
		T(a_connections_memory_is_bounded),
		T(too_large_a_header),
		T(foreign_peers_are_refused),
		T(connections_over_the_limit_are_closed_at_once),
		T(one_user_cannot_take_all_places),
		T(ten_thousand_connection_attempts),
		T(running_out_of_descriptors_is_waited_out),
		T(an_idle_client_closes_its_connection_and_makes_another),
		T(an_idle_connection_is_closed_by_the_server_without_losing_a_call),
		T(a_silent_stream_keeps_its_connection),
		T(request_is_due),
		T(shutdown_lets_calls_end),
		T(shutdown_does_not_wait_for_ever),
		T(shutdown_of_an_unused_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
