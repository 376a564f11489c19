/* SPDX-License-Identifier: Apache-2.0 */
/* The server against peers that are broken, slow or hostile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/test-grpc.h"
#include "rpc/test-raw.h"
#include "tests/cmocka.h"

struct fixture {
	struct bench bench;
	struct raw raw;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	bench_init(&f->bench);
	*state = f;
	return 0;
}

static int setup_connected(void **state)
{
	struct fixture *f;

	(void)setup(state);
	f = *state;
	bench_start(&f->bench);
	raw_init(&f->raw, bench_connect(&f->bench));
	return 0;
}

static int setup_impatient(void **state)
{
	struct fixture *f;

	(void)setup(state);
	f = *state;
	f->bench.server_config.first_timeout = 50 * NSEC_PER_MSEC;
	f->bench.server_config.receive_timeout = 50 * NSEC_PER_MSEC;
	bench_start(&f->bench);
	raw_init(&f->raw, bench_connect(&f->bench));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	raw_done(&f->raw);
	bench_done(&f->bench);
	free(f);
	return 0;
}

#define RAW_WAIT(f, cond)                                                                          \
	WAIT(&(f)->bench, ({                                                                       \
		     raw_receive(&(f)->raw);                                                       \
		     (cond);                                                                       \
	     }))

static struct grpc_server_stats stats_of(const struct fixture *f)
{
	struct grpc_server_stats stats;

	grpc_server_stats(f->bench.server, &stats);
	return stats;
}

/* The server serves others as if nothing had happened, and holds nothing. */
static void assert_server_well(struct fixture *f)
{
	struct got g = { 0 };

	WAIT(&f->bench, stats_of(f).connections == 0);
	assert_int_equal(stats_of(f).memory, 0);
	assert_int_equal(stats_of(f).calls, 0);
	got_open(&f->bench, &g, "/t.T/Echo", NSEC_NEVER);
	got_send(&g, "x");
	grpc_stream_half_close(g.stream);
	WAIT(&f->bench, g.ended);
	assert_int_equal(g.code, RPC_OK);
	got_done(&g);
}

/* Requests ------------------------------------------------------------------------------------ */

/* Byte for byte, each in a round of its own. */
static void a_request_in_single_bytes(void **state)
{
	struct fixture *f = *state;
	_cleanup_buf_ struct buf block = BUF_NULL, all = BUF_NULL;
	struct bytes b;

	raw_block(&block, RAW_REQUEST("/t.T/Echo"));
	assert_int_equal(buf_append(&all, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN), 0);
	assert_int_equal(buf_append(&all, "\0\0\0\4\0\0\0\0\0", 9), 0);
	assert_int_equal(buf_append(&all, "\0\0", 2), 0);
	assert_int_equal(buf_append_u8(&all, (uint8_t)buf_len(&block)), 0);
	assert_int_equal(buf_append(&all, "\1\4\0\0\0\1", 6), 0);
	assert_int_equal(buf_append(&all, buf_bytes(&block).p, buf_len(&block)), 0);
	assert_int_equal(buf_append(&all, "\0\0\7\0\1\0\0\0\1\0\0\0\0\2hi", 16), 0);
	b = buf_bytes(&all);
	for (size_t i = 0; i < b.n; i++) {
		assert_true(raw_send(&f->raw, b.p + i, 1));
		assert_int_equal(loop_round(f->bench.loop, 0), 0);
	}
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status"));
	assert_true(raw_got(&f->raw, ":status: 200\ncontent-type: application/grpc\n"));
	assert_true(raw_got(&f->raw, "grpc-status: 0\n"));
	assert_int_equal(buf_len(&f->raw.data), 7);
	assert_memory_equal(buf_bytes(&f->raw.data).p, "\0\0\0\0\2hi", 7);
}

static void requests_that_are_no_grpc_are_refused(void **state)
{
#define FIELDS(method, path, more)                                                                 \
	":method: " method "\n:scheme: http\n:path: " path "\n:authority: x\n" more
#define TE "te: trailers\n"
#define CT "content-type: application/grpc\n"
	static const struct {
		const char *fields, *want, *want_too;
	} cases[] = {
		{ FIELDS("GET", "/t.T/Echo", TE CT), ":status: 405\n", "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/Echo", TE), ":status: 415\n", "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/Echo", TE "content-type: text/html\n"), ":status: 415\n",
		  "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/Echo", TE "content-type: application/grpc-web\n"),
		  ":status: 415\n", "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/Echo", CT), ":status: 400\n", "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/Echo", TE CT "grpc-encoding: gzip\n"), ":status: 200\n",
		  "grpc-accept-encoding: identity\ngrpc-status: 12\n" },
		{ FIELDS("POST", "/t.T/Echo", TE CT "grpc-timeout: 1x\n"), ":status: 200\n",
		  "grpc-status: 13\n" },
		{ FIELDS("POST", "/t.T/echo", TE CT), ":status: 200\n", "grpc-status: 12\n" },
		{ FIELDS("POST", "/", TE CT), ":status: 200\n", "grpc-status: 12\n" },
		{ FIELDS("POST", "/t.T/Echo", TE CT "big: %s\n"), ":status: 200\n",
		  "grpc-status: 8\n" },
	};
	struct fixture *f = *state;
	char big[9000], fields[10000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	raw_preface(&f->raw);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *percent = strstr(cases[i].fields, "%s");

		(void)snprintf(fields, sizeof(fields), "%.*s%s%s",
			       percent ? (int)(percent - cases[i].fields) : 0, cases[i].fields,
			       percent ? big : "", percent ? percent + 2 : cases[i].fields);
		buf_clear(&f->raw.fields);
		assert_true(raw_headers(&f->raw, 2 * i + 1, fields, false));
		RAW_WAIT(f, raw_got(&f->raw, "grpc-status"));
		assert_true(raw_got(&f->raw, cases[i].want));
		assert_true(raw_got(&f->raw, cases[i].want_too));
		/* The request has not ended: its stream is closed by RST_STREAM(NO_ERROR). */
		RAW_WAIT(f, f->raw.rst.id == 2 * i + 1);
		assert_int_equal(f->raw.rst.error, NGHTTP2_NO_ERROR);
	}
	assert_int_equal(f->bench.started, 0);
	assert_false(f->raw.closed);
#undef FIELDS
#undef TE
#undef CT
}

static void identity_encoding_and_codings_we_do_not_have_are_accepted(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_headers(&f->raw, 1,
				RAW_REQUEST("/t.T/Echo") "grpc-encoding: identity\n"
							 "grpc-accept-encoding: gzip,zstd\n",
				false));
	assert_true(raw_message(&f->raw, 1, 0, "x", true));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 0\n"));
}

static void a_compressed_message_is_unimplemented(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Echo", false));
	assert_true(raw_message(&f->raw, 1, 1, "x", true));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 12\n"));
	assert_int_equal(f->bench.seen.messages, 0);
	assert_int_equal(f->bench.seen.why, GRPC_END_BROKEN);
}

static void a_message_cut_short_is_an_error(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "\0\0\0\0\5he",
			      7));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 13\n"));
	assert_int_equal(f->bench.seen.why, GRPC_END_BROKEN);
}

static void a_huge_message_is_refused_at_its_head(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "\0\xff\xff\xff\xff", 5));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 8\n"));
	RAW_WAIT(f, f->raw.rst.id == 1);
	assert_int_equal(stats_of(f).memory, 0);
}

static void the_clients_trailers_end_its_side(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false));
	assert_true(raw_headers(&f->raw, 1, "some-trailer: x\n", true));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 0\n"));
	assert_int_equal(f->bench.seen.half_closed, 1);
}

static void what_http2_forbids_resets_the_stream(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_headers(&f->raw, 1, ":method: POST\n:scheme: http\nte: trailers\n", true));
	RAW_WAIT(f, f->raw.rst.id == 1);
	assert_int_equal(f->raw.rst.error, NGHTTP2_PROTOCOL_ERROR);
	assert_true(raw_headers(&f->raw, 3, RAW_REQUEST("/t.T/Echo") "connection: close\n", true));
	RAW_WAIT(f, f->raw.rst.id == 3);
	assert_true(raw_headers(&f->raw, 5, RAW_REQUEST("/t.T/Echo") "Upper-Case: x\n", true));
	RAW_WAIT(f, f->raw.rst.id == 5 || raw_got(&f->raw, "grpc-status: 12\n"));
	assert_int_equal(f->bench.seen.messages, 0);
}

static void the_clients_deadline_ends_the_call(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_headers(&f->raw, 1, RAW_REQUEST("/t.T/Hang") "grpc-timeout: 20m\n", false));
	RAW_WAIT(f, f->raw.rst.id == 1);
	assert_int_equal(f->raw.rst.error, NGHTTP2_CANCEL);
	assert_int_equal(f->bench.seen.why, GRPC_END_DEADLINE);
	assert_true(raw_headers(&f->raw, 3, RAW_REQUEST("/t.T/Hang") "grpc-timeout: 0S\n", false));
	RAW_WAIT(f, f->raw.rst.id == 3);
	assert_int_equal(f->bench.seen.why, GRPC_END_DEADLINE);
}

/* Slow peers ---------------------------------------------------------------------------------- */

static void who_says_nothing_is_disconnected(void **state)
{
	struct fixture *f = *state;

	RAW_WAIT(f, f->raw.closed);
	assert_server_well(f);
}

static void who_says_half_a_preface_is_disconnected(void **state)
{
	struct fixture *f = *state;

	assert_true(raw_send(&f->raw, NGHTTP2_CLIENT_MAGIC, 20));
	RAW_WAIT(f, f->raw.closed);
	assert_server_well(f);
}

static void who_asks_nothing_is_disconnected(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	RAW_WAIT(f, f->raw.closed);
	assert_int_equal(f->raw.goaway.error, NGHTTP2_NO_ERROR);
	assert_server_well(f);
}

static void who_sends_half_a_header_is_disconnected(void **state)
{
	struct fixture *f = *state;
	_cleanup_buf_ struct buf block = BUF_NULL;

	raw_preface(&f->raw);
	raw_block(&block, RAW_REQUEST("/t.T/Echo"));
	assert_true(raw_frame(&f->raw, NGHTTP2_HEADERS, 0, 1, buf_bytes(&block).p,
			      buf_len(&block)));
	RAW_WAIT(f, f->raw.closed);
	assert_server_well(f);
}

static void a_message_once_begun_is_due(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false));
	bench_run(&f->bench, 80 * NSEC_PER_MSEC); /* between messages there is all the time */
	assert_true(raw_message(&f->raw, 1, 0, "one", false));
	bench_run(&f->bench, 80 * NSEC_PER_MSEC);
	assert_int_equal(f->bench.seen.messages, 1);
	assert_int_equal(f->bench.seen.ended, 0);
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "\0\0", 2));
	RAW_WAIT(f, raw_got(&f->raw, "grpc-status: 4\n"));
	assert_int_equal(f->bench.seen.why, GRPC_END_BROKEN);
}

static void who_does_not_read_is_bounded_and_then_disconnected(void **state)
{
	struct fixture *f = *state;
	static const char block[100000];
	uint32_t id = 1;
	int r = 0;

	/* Long enough for all of the sends below, on a loaded machine too: it ends the calls. */
	f->bench.server_config.stall_timeout = 1500 * NSEC_PER_MSEC;
	f->bench.server_config.max_memory_per_connection = 3 << 20;
	bench_start(&f->bench);
	raw_init(&f->raw, bench_connect(&f->bench));
	raw_preface(&f->raw);
	/* "Send me all you have." */
	assert_true(raw_frame(&f->raw, NGHTTP2_SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6));
	assert_true(raw_frame(&f->raw, NGHTTP2_WINDOW_UPDATE, 0, 0, "\x7f\0\0\0", 4));
	for (; id <= 7; id += 2) {
		assert_true(raw_request(&f->raw, id, "/t.T/Hang", false));
		WAIT(&f->bench, f->bench.started == (id + 1) / 2);
		for (int i = 0; i < 7; i++)
			assert_int_equal(grpc_call_send(f->bench.seen.call,
							bytes_of(block, sizeof(block))), 0);
	}
	for (int i = 0; i < 30 && r == 0; i++)
		r = grpc_call_send(f->bench.seen.call, bytes_of(block, sizeof(block)));
	assert_int_equal(r, -ENOBUFS);
	assert_true(stats_of(f).memory <= 3 << 20);
	WAIT(&f->bench, stats_of(f).connections == 0);
	assert_int_equal(f->bench.seen.why, GRPC_END_LOST);
	assert_server_well(f);
}

static void who_does_not_fetch_an_answer_loses_it(void **state)
{
	struct fixture *f = *state;

	f->bench.server_config.stall_timeout = 300 * NSEC_PER_MSEC;
	bench_start(&f->bench);
	raw_init(&f->raw, bench_connect(&f->bench));
	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Count", false));
	assert_true(raw_message(&f->raw, 1, 0, "10 20000", true));
	/* A window's worth comes, and then some more for as long as we fetch some. */
	for (uint32_t i = 1; i <= 4; i++) {
		RAW_WAIT(f, buf_len(&f->raw.data) == 65535 + (i - 1) * 1000);
		bench_run(&f->bench, 100 * NSEC_PER_MSEC);
		assert_true(raw_frame(&f->raw, NGHTTP2_WINDOW_UPDATE, 0, 1, "\0\0\3\xe8", 4));
		assert_true(raw_frame(&f->raw, NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\3\xe8", 4));
	}
	assert_int_equal(f->bench.ended, 0);
	RAW_WAIT(f, f->raw.rst.id == 1);
	assert_int_equal(f->raw.rst.error, NGHTTP2_CANCEL);
	assert_int_equal(f->bench.seen.why, GRPC_END_BROKEN);
	assert_int_equal(stats_of(f).memory, 0);
	assert_false(f->raw.closed); /* the connection is not to blame */
}

/* Hostile peers ------------------------------------------------------------------------------- */

static void another_protocol(void **state)
{
	struct fixture *f = *state;

	assert_true(raw_send(&f->raw, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35));
	RAW_WAIT(f, f->raw.closed);
	assert_server_well(f);
}

static void garbage_after_the_preface(void **state)
{
	struct fixture *f = *state;
	uint8_t garbage[1000];

	memset(garbage, 0x5a, sizeof(garbage));
	assert_true(raw_send(&f->raw, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN));
	assert_true(raw_send(&f->raw, garbage, sizeof(garbage)));
	RAW_WAIT(f, f->raw.closed);
	assert_int_equal(f->raw.frames[NGHTTP2_GOAWAY], 1);
	assert_server_well(f);
}

static void more_streams_than_are_allowed(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	RAW_WAIT(f, f->raw.frames[NGHTTP2_SETTINGS] >= 1);
	for (uint32_t i = 0; i < 150; i++)
		(void)raw_request(&f->raw, 2 * i + 1, "/t.T/Hang", false);
	RAW_WAIT(f, f->raw.rst.error == NGHTTP2_REFUSED_STREAM || f->raw.closed);
	assert_true(f->bench.started <= 100);
}

/* Sends one_more() until the server has had enough; it must not take for ever. */
static void flood(struct fixture *f, bool reading,
		  void (*one_more)(struct fixture *f, uint32_t round))
{
	size_t peak = 0;

	raw_preface(&f->raw);
	(void)loop_round(f->bench.loop, 0);
	for (uint32_t i = 0; i < 20000 && stats_of(f).connections; i++) {
		one_more(f, i);
		if (i % 50 == 49)
			(void)loop_round(f->bench.loop, 0);
		if (reading && i % 50 == 49)
			raw_receive(&f->raw);
		if (stats_of(f).memory > peak)
			peak = stats_of(f).memory;
	}
	RAW_WAIT(f, f->raw.closed);
	if (reading)
		assert_int_equal(f->raw.goaway.error, NGHTTP2_ENHANCE_YOUR_CALM);
	assert_true(peak < 1 << 20);
	assert_server_well(f);
}

static void one_ping(struct fixture *f, uint32_t round)
{
	(void)round;
	(void)raw_frame(&f->raw, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static void a_flood_of_ping(void **state)
{
	flood(*state, true, one_ping);
}

static void a_flood_of_ping_from_who_does_not_read(void **state)
{
	flood(*state, false, one_ping);
}

static void one_settings(struct fixture *f, uint32_t round)
{
	(void)round;
	(void)raw_frame(&f->raw, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

static void a_flood_of_settings(void **state)
{
	flood(*state, true, one_settings);
}

static void one_reset(struct fixture *f, uint32_t round)
{
	(void)raw_request(&f->raw, 2 * round + 1, "/t.T/Hang", false);
	(void)raw_frame(&f->raw, NGHTTP2_RST_STREAM, 0, 2 * round + 1, "\0\0\0\x8", 4);
}

static void a_flood_of_streams_that_are_reset(void **state)
{
	struct fixture *f = *state;

	flood(f, true, one_reset);
	assert_true(f->bench.started < 1000);
}

static void one_bad_request(struct fixture *f, uint32_t round)
{
	(void)raw_headers(&f->raw, 2 * round + 1, ":method: POST\n", true);
}

static void a_flood_of_malformed_requests(void **state)
{
	flood(*state, true, one_bad_request);
}

static void one_empty_data(struct fixture *f, uint32_t round)
{
	if (round == 0)
		(void)raw_request(&f->raw, 1, "/t.T/Chat", false);
	(void)raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, NULL, 0);
}

static void a_flood_of_empty_data(void **state)
{
	flood(*state, true, one_empty_data);
}

static void one_padded_data(struct fixture *f, uint32_t round)
{
	if (round == 0)
		(void)raw_request(&f->raw, 1, "/t.T/Chat", false);
	(void)raw_frame(&f->raw, NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, "\3\0\0\0", 4);
}

static void a_flood_of_data_that_is_all_padding(void **state)
{
	flood(*state, true, one_padded_data);
}

static void one_window_update(struct fixture *f, uint32_t round)
{
	(void)round;
	(void)raw_frame(&f->raw, NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4);
}

static void a_flood_of_window_update(void **state)
{
	flood(*state, true, one_window_update);
}

static void one_priority(struct fixture *f, uint32_t round)
{
	(void)raw_frame(&f->raw, NGHTTP2_PRIORITY, 0, 2 * round + 1, "\0\0\0\0\1", 5);
}

static void a_flood_of_priority(void **state)
{
	flood(*state, true, one_priority);
}

static void one_unknown(struct fixture *f, uint32_t round)
{
	static const char block[16384];

	(void)round;
	(void)raw_frame(&f->raw, 0xbe, 0, 0, block, sizeof(block));
	(void)loop_round(f->bench.loop, 0);
}

static void a_flood_of_unknown_frames(void **state)
{
	flood(*state, true, one_unknown);
}

static void one_continuation(struct fixture *f, uint32_t round)
{
	_cleanup_buf_ struct buf block = BUF_NULL;

	raw_block(&block, round ? "a: b\n" : RAW_REQUEST("/t.T/Echo"));
	(void)raw_frame(&f->raw, round ? NGHTTP2_CONTINUATION : NGHTTP2_HEADERS, 0, 1,
			buf_bytes(&block).p, buf_len(&block));
}

static void a_flood_of_continuation(void **state)
{
	flood(*state, true, one_continuation);
	assert_int_equal(((struct fixture *)*state)->bench.started, 1); /* the one at the end */
}

static void patience_comes_back_with_time(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false)); /* no first_timeout */
	for (int i = 0; i < 3; i++) {
		for (int j = 0; j < 40; j++)
			one_ping(f, 0);
		bench_run(&f->bench, 20 * NSEC_PER_MSEC);
		raw_receive(&f->raw);
	}
	for (int i = 0; i < 30; i++) { /* 50 a second, for long */
		for (int j = 0; j < 2; j++)
			one_ping(f, 0);
		bench_run(&f->bench, 20 * NSEC_PER_MSEC);
	}
	RAW_WAIT(f, f->raw.frames[NGHTTP2_PING] == 180);
	assert_false(f->raw.closed);
}

/* Peers that die ------------------------------------------------------------------------------ */

static void a_peer_that_dies_in_a_message(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Chat", false));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "\0\0\0\1\0half", 9));
	WAIT(&f->bench, f->bench.started);
	(void)close(f->raw.fd);
	f->raw.fd = -1;
	WAIT(&f->bench, f->bench.ended);
	assert_int_equal(f->bench.seen.why, GRPC_END_LOST);
	assert_server_well(f);
}

static void a_peer_that_dies_while_it_is_being_answered(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Count", false));
	assert_true(raw_message(&f->raw, 1, 0, "100 65536", true));
	RAW_WAIT(f, buf_len(&f->raw.data) > 60000); /* as far as the window reaches */
	(void)close(f->raw.fd);
	f->raw.fd = -1;
	WAIT(&f->bench, f->bench.ended);
	assert_int_equal(f->bench.seen.why, GRPC_END_LOST);
	assert_server_well(f);
}

static void a_peer_that_only_stops_reading(void **state)
{
	struct fixture *f = *state;

	raw_preface(&f->raw);
	assert_true(raw_request(&f->raw, 1, "/t.T/Hang", false));
	WAIT(&f->bench, f->bench.started);
	(void)shutdown(f->raw.fd, SHUT_RD);
	assert_int_equal(grpc_call_send(f->bench.seen.call, bytes_of("x", 1)), 0);
	WAIT(&f->bench, f->bench.ended);
	assert_int_equal(f->bench.seen.why, GRPC_END_LOST);
	assert_server_well(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_connected, teardown)
		T(a_request_in_single_bytes),
		T(requests_that_are_no_grpc_are_refused),
		T(identity_encoding_and_codings_we_do_not_have_are_accepted),
		T(a_compressed_message_is_unimplemented),
		T(a_message_cut_short_is_an_error),
		T(a_huge_message_is_refused_at_its_head),
		T(the_clients_trailers_end_its_side),
		T(what_http2_forbids_resets_the_stream),
		T(the_clients_deadline_ends_the_call),
		T(another_protocol),
		T(garbage_after_the_preface),
		T(more_streams_than_are_allowed),
		T(a_flood_of_ping),
		T(a_flood_of_ping_from_who_does_not_read),
		T(a_flood_of_settings),
		T(a_flood_of_streams_that_are_reset),
		T(a_flood_of_malformed_requests),
		T(a_flood_of_empty_data),
		T(a_flood_of_data_that_is_all_padding),
		T(a_flood_of_window_update),
		T(a_flood_of_priority),
		T(a_flood_of_unknown_frames),
		T(a_flood_of_continuation),
		T(patience_comes_back_with_time),
		T(a_peer_that_dies_in_a_message),
		T(a_peer_that_dies_while_it_is_being_answered),
		T(a_peer_that_only_stops_reading),
#undef T
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_impatient, teardown)
		T(who_says_nothing_is_disconnected),
		T(who_says_half_a_preface_is_disconnected),
		T(who_asks_nothing_is_disconnected),
		T(who_sends_half_a_header_is_disconnected),
		T(a_message_once_begun_is_due),
#undef T
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(who_does_not_read_is_bounded_and_then_disconnected),
		T(who_does_not_fetch_an_answer_loses_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
