/* SPDX-License-Identifier: Apache-2.0 */
/* Server and client against each other: limits, and how connections end. */
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

static int teardown(void **state)
{
	bench_done(*state);
	free(*state);
	return 0;
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
