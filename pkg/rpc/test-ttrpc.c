/* SPDX-License-Identifier: Apache-2.0 */
/* Server and client against each other, and the server against raw bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/task.pb-c.h"
#include "api/containerd/ttrpc.pb-c.h"
#include "base/buf.h"
#include "rpc/pb.h"
#include "rpc/ttrpc_client.h"
#include "rpc/ttrpc_server.h"
#include "tests/cmocka.h"
#include "wire/ttrpc_frame.h"

struct rig {
	struct loop *loop;
	struct ttrpc_server *server;
	char path[64];
	struct ttrpc_call *held; /* of Wait: answered when the test says so */
	enum rpc_code canceled;
};

static void do_connect(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__ConnectRequest *req = request;
	Task__ConnectResponse response = TASK__CONNECT_RESPONSE__INIT;
	const char *ns = ttrpc_call_metadata(call, "containerd-namespace-ttrpc");

	(void)arg;
	response.version = ns ? (char *)ns : req->id;
	ttrpc_call_reply(call, &response.base);
}

static void do_kill(void *arg, struct ttrpc_call *call, const void *request)
{
	struct error err = ERROR_NULL;

	(void)arg;
	(void)request;
	(void)error_rpc(&err, RPC_NOT_FOUND, -ESRCH, "no \"such\" process");
	ttrpc_call_fail(call, &err);
}

static void canceled(struct ttrpc_call *call, enum rpc_code why, void *data)
{
	struct rig *r = data;

	(void)call;
	r->canceled = why;
}

static void do_wait(void *arg, struct ttrpc_call *call, const void *request)
{
	struct rig *r = arg;

	(void)request;
	r->held = call;
	ttrpc_call_on_cancel(call, canceled, r);
}

static const struct ttrpc_method methods[] = {
	{ "Connect", &task__connect_request__descriptor, do_connect },
	{ "Kill", &task__kill_request__descriptor, do_kill },
	{ "Wait", &task__wait_request__descriptor, do_wait },
};

static const struct ttrpc_service services[] = { { "test.Service", methods, 3 } };

static int setup(void **state)
{
	static struct rig r;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	r = (struct rig){ 0 };
	(void)snprintf(r.path, sizeof(r.path), "/tmp/test-ttrpc-%d.sock", getpid());
	(void)strcpy(addr.sun_path, r.path);
	(void)unlink(r.path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(loop_new(&r.loop), 0);
	assert_int_equal(ttrpc_server_new(&r.server, r.loop, fd, services, 1, &r), 0);
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	ttrpc_server_free(r->server);
	loop_free(r->loop);
	(void)unlink(r->path);
	return 0;
}

struct answer {
	struct ttrpc_request req;
	bool done;
	int r;
	struct error err;
	char version[64];
};

static void done(struct ttrpc_request *req, int r, struct bytes payload, const struct error *err)
{
	struct answer *a = container_of(req, struct answer, req);
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(4096);

	a->done = true;
	a->r = r;
	a->err = *err;
	if (r == 0) {
		const Task__ConnectResponse *m =
			pb_unpack(&task__connect_response__descriptor, payload, &arena);

		assert_non_null(m);
		(void)snprintf(a->version, sizeof(a->version), "%s", m->version);
	}
}

static void until_done(struct rig *r, const bool *flag)
{
	nsec_t limit = time_now() + 5 * NSEC_PER_SEC;

	while (!*flag && time_now() < limit)
		assert_int_equal(loop_round(r->loop, time_now() + 5 * NSEC_PER_MSEC), 0);
	assert_true(*flag);
}

static void call(struct ttrpc_client *c, struct answer *a, const char *method, const char *ns,
		 nsec_t timeout)
{
	Task__ConnectRequest req = TASK__CONNECT_REQUEST__INIT;

	*a = (struct answer){ 0 };
	req.id = (char *)"me";
	ttrpc_client_call(c, &a->req, "test.Service", method, &req.base, ns,
			  time_now() + timeout, done);
	assert_false(a->done); /* never from inside */
}

static void calls_are_answered(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct answer a;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	call(c, &a, "Connect", NULL, NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_int_equal(a.r, 0);
	assert_string_equal(a.version, "me");
	call(c, &a, "Connect", "k8s.io", NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_string_equal(a.version, "k8s.io"); /* metadata travels */
	call(c, &a, "Kill", NULL, NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_int_equal(a.err.rpc, RPC_NOT_FOUND);
	assert_string_equal(a.err.text, "no \"such\" process");
	call(c, &a, "Nonsense", NULL, NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_int_equal(a.err.rpc, RPC_UNIMPLEMENTED);
	ttrpc_client_free(c);
}

static void a_call_in_flight_holds_up_no_other(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct answer slow, quick;
	Task__WaitResponse response = TASK__WAIT_RESPONSE__INIT;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	call(c, &slow, "Wait", NULL, 60 * NSEC_PER_SEC);
	call(c, &quick, "Connect", NULL, NSEC_PER_SEC);
	until_done(r, &quick.done);
	assert_false(slow.done);
	ttrpc_call_reply(r->held, &response.base);
	until_done(r, &slow.done);
	assert_int_equal(slow.r, 0);
	ttrpc_client_free(c);
}

static void both_sides_learn_of_a_deadline(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct answer a;
	struct error err = ERROR_NULL;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	call(c, &a, "Wait", NULL, 20 * NSEC_PER_MSEC);
	until_done(r, &a.done);
	assert_int_equal(a.err.rpc, RPC_DEADLINE_EXCEEDED);
	for (int i = 0; i < 50 && r->canceled == RPC_OK; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_int_equal(r->canceled, RPC_DEADLINE_EXCEEDED);
	(void)error_rpc(&err, RPC_CANCELED, -ECANCELED, "too late");
	ttrpc_call_fail(r->held, &err); /* an answer nobody waits for is dropped by the client */
	call(c, &a, "Connect", NULL, NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_int_equal(a.r, 0);
	ttrpc_client_free(c);
}

static void a_call_outlives_its_connection(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct answer a;
	Task__WaitResponse response = TASK__WAIT_RESPONSE__INIT;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	call(c, &a, "Wait", NULL, 60 * NSEC_PER_SEC);
	for (int i = 0; i < 50 && !r->held; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_non_null(r->held);
	ttrpc_client_free(c);
	for (int i = 0; i < 50 && r->canceled == RPC_OK; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_int_equal(r->canceled, RPC_CANCELED);
	ttrpc_call_reply(r->held, &response.base);
}

static void a_dead_server_is_unavailable(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct answer a;

	assert_int_equal(ttrpc_client_new(&c, r->loop, "/tmp/no-such-socket"), 0);
	call(c, &a, "Connect", NULL, NSEC_PER_SEC);
	until_done(r, &a.done);
	assert_int_equal(a.err.rpc, RPC_UNAVAILABLE);
	ttrpc_client_free(c);
}

struct last_call {
	struct ttrpc_request req;
	struct ttrpc_client **client;
	unsigned int done;
};

static void free_client(struct ttrpc_request *req, int r, struct bytes payload,
			const struct error *err)
{
	struct last_call *l = container_of(req, struct last_call, req);

	(void)r;
	(void)payload;
	(void)err;
	l->done++;
	ttrpc_client_free(*l->client);
	*l->client = NULL;
}

static void begin_last(struct ttrpc_client **c, struct last_call *l, const char *method)
{
	Task__ConnectRequest req = TASK__CONNECT_REQUEST__INIT;

	*l = (struct last_call){ .client = c };
	req.id = (char *)"me";
	ttrpc_client_call(*c, &l->req, "test.Service", method, &req.base, NULL, NSEC_NEVER,
			  free_client);
}

/* Two answers in one read: the second is for nobody any more. */
static void the_client_may_be_freed_by_an_answer(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct last_call first, second;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	begin_last(&c, &first, "Connect");
	begin_last(&c, &second, "Connect");
	for (int i = 0; i < 5000 && c; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_null(c);
	assert_int_equal(first.done + second.done, 1);
}

static void the_client_may_be_freed_when_the_connection_is_lost(void **state)
{
	struct rig *r = *state;
	struct ttrpc_client *c;
	struct last_call first, second;
	Task__WaitResponse response = TASK__WAIT_RESPONSE__INIT;

	assert_int_equal(ttrpc_client_new(&c, r->loop, r->path), 0);
	begin_last(&c, &first, "Wait");
	for (int i = 0; i < 5000 && !r->held; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_non_null(r->held);
	begin_last(&c, &second, "Wait");
	ttrpc_server_free(r->server);
	r->server = NULL;
	ttrpc_call_reply(r->held, &response.base);
	for (int i = 0; i < 5000 && c; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_null(c);
	assert_int_equal(first.done + second.done, 1);
}

/* --- raw bytes ------------------------------------------------------------------------------ */

static int raw_connect(struct rig *r)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)strcpy(addr.sun_path, r->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static void send_raw(struct rig *r, int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t put = write(fd, at, n);

		if (put > 0) {
			at += put;
			n -= (size_t)put;
		}
		assert_int_equal(loop_round(r->loop, time_now()), 0);
	}
}

/* The status code of the next answer, and its stream. */
static int next_code(struct rig *r, int fd, uint32_t *ret_stream)
{
	uint8_t raw[4096];
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(65536);
	struct bytes b;
	struct ttrpc_frame f;
	const Ttrpc__Response *m;
	ssize_t n = -1;

	for (int i = 0; i < 200 && n < 0; i++) {
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
		n = read(fd, raw, sizeof(raw));
	}
	assert_true(n > 0);
	b = bytes_of(raw, (size_t)n);
	assert_int_equal(ttrpc_frame_header(&b, &f), 0);
	assert_int_equal(f.length, b.n);
	m = pb_unpack(&ttrpc__response__descriptor, b, &arena);
	assert_non_null(m);
	*ret_stream = f.stream;
	return m->status ? m->status->code : 0;
}

static void frame(struct buf *b, uint32_t stream, const char *method)
{
	_cleanup_buf_ struct buf body = BUF_NULL;
	Ttrpc__Request req = TTRPC__REQUEST__INIT;

	req.service = (char *)"test.Service";
	req.method = (char *)method;
	assert_int_equal(pb_pack(&req.base, &body), 0);
	assert_int_equal(ttrpc_frame_put(b, stream, TTRPC_REQUEST, buf_bytes(&body)), 0);
}

static void stream_ids_are_odd_and_rise(void **state)
{
	struct rig *r = *state;
	static const struct {
		uint32_t stream;
		int code;
	} cases[] = { { 1, 0 }, { 1, 3 }, { 2, 3 }, { 7, 0 }, { 5, 3 }, { 9, 0 } };
	int fd = raw_connect(r);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf b = BUF_NULL;
		uint32_t stream;

		frame(&b, cases[i].stream, "Connect");
		send_raw(r, fd, buf_bytes(&b).p, buf_len(&b));
		assert_int_equal(next_code(r, fd, &stream), cases[i].code);
		assert_int_equal(stream, cases[i].stream);
	}
	(void)close(fd);
}

/* containerd would take a closed connection for a crash of the shim. */
static void an_oversized_frame_is_refused_and_the_connection_lives(void **state)
{
	struct rig *r = *state;
	static const uint8_t head[] = { 0x00, 0x40, 0x00, 0x01, 0, 0, 0, 1, TTRPC_REQUEST, 0 };
	_cleanup_free_ uint8_t *body = calloc(1, 0x400001);
	_cleanup_buf_ struct buf b = BUF_NULL;
	int fd = raw_connect(r);
	uint32_t stream;

	assert_non_null(body);
	send_raw(r, fd, head, sizeof(head));
	send_raw(r, fd, body, 0x400001);
	assert_int_equal(next_code(r, fd, &stream), RPC_RESOURCE_EXHAUSTED);
	assert_int_equal(stream, 1);
	frame(&b, 3, "Connect");
	send_raw(r, fd, buf_bytes(&b).p, buf_len(&b));
	assert_int_equal(next_code(r, fd, &stream), 0);
	(void)close(fd);
}

static void bytes_may_come_one_by_one_and_unknown_types_are_ignored(void **state)
{
	struct rig *r = *state;
	static const uint8_t odd[] = { 0, 0, 0, 2, 0, 0, 0, 1, 99, 0xff, 'h', 'i' };
	_cleanup_buf_ struct buf b = BUF_NULL;
	int fd = raw_connect(r);
	uint32_t stream;

	assert_int_equal(buf_append(&b, odd, sizeof(odd)), 0);
	frame(&b, 1, "Connect");
	for (size_t i = 0; i < buf_len(&b); i++)
		send_raw(r, fd, buf_bytes(&b).p + i, 1);
	assert_int_equal(next_code(r, fd, &stream), 0);
	(void)close(fd);
}

static void garbage_in_a_request_is_an_invalid_argument(void **state)
{
	struct rig *r = *state;
	_cleanup_buf_ struct buf b = BUF_NULL;
	static const uint8_t garbage[] = { 0xff, 0xff, 0xff, 0xff, 0x0f };
	int fd = raw_connect(r);
	uint32_t stream;

	assert_int_equal(ttrpc_frame_put(&b, 1, TTRPC_REQUEST, bytes_of(garbage, 5)), 0);
	send_raw(r, fd, buf_bytes(&b).p, buf_len(&b));
	assert_int_equal(next_code(r, fd, &stream), RPC_INVALID_ARGUMENT);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(calls_are_answered),
		T(a_call_in_flight_holds_up_no_other),
		T(both_sides_learn_of_a_deadline),
		T(a_call_outlives_its_connection),
		T(a_dead_server_is_unavailable),
		T(the_client_may_be_freed_by_an_answer),
		T(the_client_may_be_freed_when_the_connection_is_lost),
		T(stream_ids_are_odd_and_rise),
		T(an_oversized_frame_is_refused_and_the_connection_lives),
		T(bytes_may_come_one_by_one_and_unknown_types_are_ignored),
		T(garbage_in_a_request_is_an_invalid_argument),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
