/* SPDX-License-Identifier: Apache-2.0 */
/* Server and client against each other: calls of every kind, and every way they can end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/test-grpc.h"
#include "tests/cmocka.h"

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	bench_init(b);
	bench_start(b);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	bench_done(*state);
	free(*state);
	return 0;
}

/* Unary calls --------------------------------------------------------------------------------- */

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
	assert_text(&g.text, "caf\xc3\xa9: 100% \xe2\x82\xac\nsecond line");
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

	assert_int_equal(grpc_client_open(b->loop, "/nonexistent/socket", &b->client_config, &c),
			 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
