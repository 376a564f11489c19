/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that are broken, slow or hostile. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/test-grpc.h"
#include "rpc/test-raw.h"
#include "tests/cmocka.h"

struct fixture {
	struct bench bench; /* its server is not used */
	struct raw raw;     /* the server */
	struct got got;
	int connect_error;
	unsigned int connects;
};

static int connect_raw(void *arg)
{
	struct fixture *f = arg;
	int fds[2];

	f->connects++;
	if (f->connect_error)
		return f->connect_error;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	if (f->raw.inflater)
		raw_done(&f->raw);
	raw_init(&f->raw, fds[1]);
	f->raw.skip = NGHTTP2_CLIENT_MAGIC_LEN;
	return fds[0];
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	bench_init(&f->bench);
	f->bench.client_config.connect = connect_raw;
	f->bench.client_config.connect_arg = f;
	f->bench.client_config.connect_timeout = 50 * NSEC_PER_MSEC;
	bench_start(&f->bench);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	got_done(&f->got);
	if (f->raw.inflater)
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

/* A stream is open and its request has come; the server has said SETTINGS. */
static void begin(struct fixture *f)
{
	got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
	got_send(&f->got, "hi");
	WAIT(&f->bench, f->connects);
	assert_true(raw_frame(&f->raw, NGHTTP2_SETTINGS, 0, 0, NULL, 0));
	RAW_WAIT(f, buf_len(&f->raw.data) == 7);
}

static void assert_ended(struct fixture *f, enum rpc_code code, const char *text)
{
	WAIT(&f->bench, f->got.ended);
	assert_int_equal(f->got.code, code);
	assert_string_equal(buf_str(&f->got.text), text);
}

#define HEADERS "content-type: application/grpc\n"

static void the_request_is_what_grpc_wants(void **state)
{
	struct fixture *f = *state;

	got_open(&f->bench, &f->got, "/s/M", time_now() + 90 * NSEC_PER_SEC);
	got_send(&f->got, "hi");
	grpc_stream_half_close(f->got.stream);
	WAIT(&f->bench, f->connects);
	RAW_WAIT(f, buf_len(&f->raw.data) == 7);
	assert_non_null(strstr(buf_str(&f->raw.fields),
			       ":method: POST\n:scheme: http\n:authority: localhost\n"
			       ":path: /s/M\ngrpc-timeout: 8"));
	assert_true(raw_got(&f->raw, "u\nte: trailers\ncontent-type: application/grpc\nuser-agent: "
				     "grpc-c-kybernate/" KYB_VERSION
				     "\ncontainerd-namespace: k8s.io\ntrace-bin: AP8B\n"));
	assert_memory_equal(buf_bytes(&f->raw.data).p, "\0\0\0\0\2hi", 7);
}

static void an_answer_piece_by_piece(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_true(raw_headers(&f->raw, 1, ":status: 103\nlink: x\n", false));
	assert_true(raw_headers(&f->raw, 1, ":status: 200\n" HEADERS, false));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "\0\0\0\0\5he", 7));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "llo\0\0\0\0\1x", 9));
	assert_true(raw_headers(&f->raw, 1, "grpc-status: 5\ngrpc-message: gone%21\n", true));
	assert_ended(f, RPC_NOT_FOUND, "gone!");
	assert_int_equal(f->got.messages, 2);
	assert_int_equal(f->got.bytes, 6);
	/* Our side had not ended: the server is told that nothing more comes. */
	RAW_WAIT(f, f->raw.rst.id == 1);
	assert_int_equal(f->raw.rst.error, NGHTTP2_NO_ERROR);
}

static void an_answer_of_trailers_only(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_true(raw_headers(&f->raw, 1,
				":status: 200\n" HEADERS "grpc-status: 16\n"
				"grpc-status-details-bin: CAk=\n", true));
	assert_ended(f, RPC_UNAUTHENTICATED, "");
	assert_int_equal(buf_len(&f->got.details), 2);
}

static void answers_that_are_no_grpc(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *fields;
		enum rpc_code code;
		const char *text;
	} cases[] = {
		{ ":status: 404\ncontent-type: text/html\n", RPC_UNIMPLEMENTED,
		  "the answer is not gRPC (HTTP status 404)" },
		{ ":status: 503\n", RPC_UNAVAILABLE, "the answer is not gRPC (HTTP status 503)" },
		{ ":status: 200\ncontent-type: text/html\n", RPC_UNKNOWN,
		  "the answer is not gRPC (HTTP status 200)" },
		{ ":status: 500\n" HEADERS "grpc-status: 7\n", RPC_PERMISSION_DENIED, "" },
		{ ":status: 200\n" HEADERS "grpc-status: x\n", RPC_UNKNOWN, "" },
		{ ":status: 200\n" HEADERS "grpc-status: 1\ngrpc-message: %zz%\n", RPC_CANCELED,
		  "%zz%" },
		{ ":status: 200\n" HEADERS, RPC_UNKNOWN,
		  "the answer is not gRPC (HTTP status 200)" },
	};

	begin(f);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(raw_headers(&f->raw, 2 * i + 1, cases[i].fields, true));
		assert_ended(f, cases[i].code, cases[i].text);
		got_done(&f->got);
		got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
		RAW_WAIT(f, f->raw.frames[NGHTTP2_HEADERS] == i + 2);
	}
	assert_int_equal(f->connects, 1);
}

static void an_answer_without_trailers(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_true(raw_headers(&f->raw, 1, ":status: 200\n" HEADERS, false));
	assert_true(raw_message(&f->raw, 1, 0, "x", true));
	assert_ended(f, RPC_UNKNOWN, "the answer is not gRPC (HTTP status 200)");
	assert_int_equal(f->got.messages, 1);
}

static void messages_that_are_not_accepted(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *bytes;
		size_t n;
		enum rpc_code code;
		const char *text;
	} cases[] = {
		{ "\1\0\0\0\1x", 6, RPC_UNIMPLEMENTED, "compressed messages are not supported" },
		{ "\7\0\0\0\1x", 6, RPC_INTERNAL, "the stream of messages is malformed" },
		{ "\0\xff\0\0\0", 5, RPC_RESOURCE_EXHAUSTED,
		  "a message is larger than is allowed here" },
	};

	begin(f);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t id = 2 * i + 1;

		assert_true(raw_headers(&f->raw, id, ":status: 200\n" HEADERS, false));
		assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, id, cases[i].bytes, cases[i].n));
		assert_ended(f, cases[i].code, cases[i].text);
		RAW_WAIT(f, f->raw.rst.id == id);
		assert_int_equal(f->raw.rst.error, NGHTTP2_CANCEL);
		got_done(&f->got);
		got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
		RAW_WAIT(f, f->raw.frames[NGHTTP2_HEADERS] == i + 2);
	}
}

static void a_message_cut_short_by_the_trailers(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_true(raw_headers(&f->raw, 1, ":status: 200\n" HEADERS, false));
	assert_true(raw_frame(&f->raw, NGHTTP2_DATA, 0, 1, "\0\0\0\0\5he", 7));
	assert_true(raw_headers(&f->raw, 1, "grpc-status: 0\n", true));
	assert_ended(f, RPC_INTERNAL, "the last message is cut short");
}

static void a_header_without_end(void **state)
{
	struct fixture *f = *state;
	_cleanup_buf_ struct buf fields = BUF_NULL;

	begin(f);
	assert_int_equal(buf_append_str(&fields, ":status: 200\n" HEADERS), 0);
	for (int i = 0; i < 300; i++)
		assert_int_equal(buf_append_str(&fields, "some: thing\n"), 0);
	assert_true(raw_headers(&f->raw, 1, buf_str(&fields), false));
	assert_ended(f, RPC_RESOURCE_EXHAUSTED, "the answer's header is too large");
}

static void resets(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *error;
		enum rpc_code code;
		const char *text;
	} cases[] = {
		{ "\0\0\0\7", RPC_UNAVAILABLE, "the server reset the stream: REFUSED_STREAM" },
		{ "\0\0\0\x8", RPC_CANCELED, "the server reset the stream: CANCEL" },
		{ "\0\0\0\0", RPC_INTERNAL, "the server reset the stream: NO_ERROR" },
		{ "\0\0\0\xb", RPC_RESOURCE_EXHAUSTED,
		  "the server reset the stream: ENHANCE_YOUR_CALM" },
	};

	begin(f);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(raw_frame(&f->raw, NGHTTP2_RST_STREAM, 0, 2 * i + 1, cases[i].error,
				      4));
		assert_ended(f, cases[i].code, cases[i].text);
		got_done(&f->got);
		got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
		RAW_WAIT(f, f->raw.frames[NGHTTP2_HEADERS] == i + 2);
	}
}

static void after_goaway_a_new_connection_is_made(void **state)
{
	struct fixture *f = *state;
	struct raw old;
	struct got second = { 0 };

	begin(f);
	/* Stream 1 is still served, nothing after it. */
	assert_true(raw_frame(&f->raw, NGHTTP2_GOAWAY, 0, 0, "\0\0\0\1\0\0\0\0", 8));
	bench_run(&f->bench, 5 * NSEC_PER_MSEC);
	assert_int_equal(f->got.ended, 0);
	old = f->raw;
	f->raw = (struct raw){ 0 };
	got_open(&f->bench, &second, "/s/M", NSEC_NEVER);
	WAIT(&f->bench, f->connects == 2);
	assert_true(raw_headers(&old, 1, ":status: 200\n" HEADERS "grpc-status: 0\n", true));
	assert_ended(f, RPC_OK, "");
	/* The old connection ends with its last stream. */
	WAIT(&f->bench, (raw_receive(&old), old.closed));
	assert_int_equal(second.ended, 0);
	got_done(&second);
	raw_done(&old);
}

static void a_stream_that_goaway_leaves_out_was_not_carried_out(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_true(raw_frame(&f->raw, NGHTTP2_GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8));
	assert_ended(f, RPC_UNAVAILABLE, "the server reset the stream: REFUSED_STREAM");
}

static void last_words_are_heard(void **state)
{
	struct fixture *f = *state;

	begin(f);
	/* The server answers and is gone at once, while we are still sending. */
	for (int i = 0; i < 10; i++)
		got_send(&f->got, "more");
	assert_true(raw_headers(&f->raw, 1, ":status: 200\n" HEADERS, false));
	for (int i = 0; i < 3; i++)
		assert_true(raw_message(&f->raw, 1, 0, "last words", false));
	assert_true(raw_headers(&f->raw, 1, "grpc-status: 0\n", true));
	(void)close(f->raw.fd);
	f->raw.fd = -1;
	assert_ended(f, RPC_OK, "");
	assert_int_equal(f->got.messages, 3);
}

static void who_does_not_answer_the_preface(void **state)
{
	struct fixture *f = *state;

	got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
	WAIT(&f->bench, f->got.ended);
	assert_int_equal(f->got.code, RPC_UNAVAILABLE);
	assert_non_null(strstr(buf_str(&f->got.text), ": no answer in time"));
}

static void who_speaks_another_protocol(void **state)
{
	struct fixture *f = *state;

	got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
	WAIT(&f->bench, f->connects);
	assert_true(raw_send(&f->raw, "HTTP/1.1 400 Bad Request\r\n\r\n", 28));
	WAIT(&f->bench, f->got.ended);
	assert_int_equal(f->got.code, RPC_UNAVAILABLE);
	assert_non_null(strstr(buf_str(&f->got.text), "the peer broke HTTP/2"));
}

static void a_flood_from_the_server(void **state)
{
	struct fixture *f = *state;

	begin(f);
	for (int i = 0; i < 5000 && !f->got.ended; i++) {
		(void)raw_frame(&f->raw, NGHTTP2_PING, 0, 0, "12345678", 8);
		/* So often that nghttp2's own limit, on answers that are queued, is not met first. */
		if (i % 10 == 9)
			bench_run(&f->bench, NSEC_PER_MSEC);
	}
	WAIT(&f->bench, f->got.ended);
	assert_int_equal(f->got.code, RPC_UNAVAILABLE);
	assert_non_null(strstr(buf_str(&f->got.text), "too many frames that carry nothing"));
}

static void a_full_backlog_is_tried_again(void **state)
{
	struct fixture *f = *state;

	f->connect_error = -EAGAIN;
	got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
	WAIT(&f->bench, f->connects == 3);
	assert_int_equal(f->got.ended, 0);
	f->connect_error = 0;
	WAIT(&f->bench, f->raw.inflater);
	RAW_WAIT(f, f->raw.frames[NGHTTP2_HEADERS]);
	got_done(&f->got);
}

static void but_not_for_ever(void **state)
{
	struct fixture *f = *state;
	nsec_t begin_at = time_now();

	f->connect_error = -EAGAIN;
	got_open(&f->bench, &f->got, "/s/M", NSEC_NEVER);
	WAIT(&f->bench, f->got.ended);
	assert_int_equal(f->got.code, RPC_UNAVAILABLE);
	assert_true(time_now() - begin_at >= 50 * NSEC_PER_MSEC);
	assert_in_range(f->connects, 3, 10);
}

struct again {
	struct fixture *f;
	unsigned int ended;
};

static void open_again(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct again *a = arg;

	assert_int_equal(status->code, RPC_UNAVAILABLE);
	assert_int_equal(reply.n, 0);
	if (++a->ended < 1000)
		assert_int_equal(grpc_unary(a->f->bench.client, "/s/M", NULL, 0, bytes_of("x", 1),
					    NSEC_NEVER, open_again, a, NULL), 0);
}

/* Whoever calls again at once, again and again, must not stop the rest of the process. */
static void calling_again_inside_ended_waits_for_the_next_round(void **state)
{
	struct fixture *f = *state;
	struct again a = { .f = f };

	f->connect_error = -ECONNREFUSED;
	open_again(&a, &(struct grpc_status){ .code = RPC_UNAVAILABLE }, bytes_of(NULL, 0));
	assert_int_equal(loop_round(f->bench.loop, 0), 0);
	assert_in_range(a.ended, 1, 3);
	WAIT(&f->bench, a.ended == 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(the_request_is_what_grpc_wants),
		T(an_answer_piece_by_piece),
		T(an_answer_of_trailers_only),
		T(answers_that_are_no_grpc),
		T(an_answer_without_trailers),
		T(messages_that_are_not_accepted),
		T(a_message_cut_short_by_the_trailers),
		T(a_header_without_end),
		T(resets),
		T(after_goaway_a_new_connection_is_made),
		T(a_stream_that_goaway_leaves_out_was_not_carried_out),
		T(last_words_are_heard),
		T(who_does_not_answer_the_preface),
		T(who_speaks_another_protocol),
		T(a_flood_from_the_server),
		T(a_full_backlog_is_tried_again),
		T(but_not_for_ever),
		T(calling_again_inside_ended_waits_for_the_next_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
