/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of containerd against a server in the same loop that answers as the test orders: well,
 * badly, slowly, or not at all.
 */
#include "containerd/containerd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/services.pb-c.h"
#include "base/fd.h"
#include "rpc/grpc_server.h"
#include "rpc/pb.h"
#include "tests/cmocka.h"

#define PATIENCE (30 * NSEC_PER_SEC)
#define BIG      ((size_t)9 << 20)

/* What the server does with a call. */
enum how { WELL, NOTHING, REFUSE, GARBAGE, NO_ANSWER, GAP, HANG_UP, NO_COMMIT, THERE_ALREADY };

struct fixture {
	struct loop *loop;
	struct grpc_server *server;
	struct containerd *c;
	char path[64];
	enum how how;
	const char *words; /* of a refusal, NULL: the usual ones */
	bool stall; /* takes no more of an upload */
	struct grpc_call *held;
	char ns[32], lease[32], method[80];
	unsigned int calls, ended;
	struct buf got;   /* uploaded */
	size_t size;      /* to be downloaded */
	bool committed;
	/* the client's side */
	struct containerd_call call;
	struct containerd_copy copy;
	unsigned int done;
	int r;
	struct error err;
	char id[32]; /* of the container that was answered */
};

#define UNTIL(f, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + PATIENCE;                                               \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((f)->loop, time_now() + 5 * NSEC_PER_MSEC), 0); \
		}                                                                                  \
	} while (0)

/* --- the server ----------------------------------------------------------------------------- */

static struct fixture *fixture_of(const struct grpc_call *call)
{
	return grpc_call_arg(call);
}

static void say(struct grpc_call *call, const ProtobufCMessage *m)
{
	_cleanup_buf_ struct buf packed = BUF_NULL;

	assert_int_equal(pb_pack(m, &packed), 0);
	assert_int_equal(grpc_call_send(call, buf_bytes(&packed)), 0);
}

static void finish(struct grpc_call *call, enum rpc_code code, const char *text)
{
	grpc_call_finish(call, code, text, bytes_of(NULL, 0));
}

static void started(struct grpc_call *call)
{
	struct fixture *f = fixture_of(call);
	const char *ns = grpc_call_metadata(call, "containerd-namespace");
	const char *lease = grpc_call_metadata(call, "containerd-lease");

	f->calls++;
	(void)snprintf(f->ns, sizeof(f->ns), "%s", ns ? ns : "(none)");
	(void)snprintf(f->lease, sizeof(f->lease), "%s", lease ? lease : "(none)");
	(void)snprintf(f->method, sizeof(f->method), "%s", grpc_call_method(call)->path);
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct fixture *f = fixture_of(call);

	(void)why;
	f->ended++;
	f->held = NULL;
}

static void do_get(struct grpc_call *call, struct bytes msg)
{
	static const uint8_t garbage[] = { 0x0a, 0xff, 0xff };
	struct fixture *f = fixture_of(call);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
	const Svc__ContainerRequest *req = pb_unpack(&svc__container_request__descriptor, msg, &mem);
	Svc__ContainerMessage answer = SVC__CONTAINER_MESSAGE__INIT;
	Svc__Container record = SVC__CONTAINER__INIT;

	assert_non_null(req);
	record.id = req->id;
	answer.container = &record;
	switch (f->how) {
	case WELL:
		say(call, &answer.base);
		finish(call, RPC_OK, NULL);
		break;
	case REFUSE:
		finish(call, RPC_NOT_FOUND, f->words ? f->words : "no such container");
		break;
	case GARBAGE:
		assert_int_equal(grpc_call_send(call, bytes_of(garbage, sizeof(garbage))), 0);
		finish(call, RPC_OK, NULL);
		break;
	case NO_ANSWER:
		finish(call, RPC_OK, NULL);
		break;
	default:
		f->held = call;
	}
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 12));
}

static void send_content(struct fixture *f, struct grpc_call *call)
{
	static uint8_t chunk[1 << 20];
	Svc__ContentReadResponse m = SVC__CONTENT_READ_RESPONSE__INIT;

	for (size_t at = 0; at < f->size; at += m.data.len) {
		size_t n = f->size - at < sizeof(chunk) ? f->size - at : sizeof(chunk);

		for (size_t i = 0; i < n; i++)
			chunk[i] = byte_at(at + i);
		m.offset = (int64_t)at;
		m.data.data = chunk;
		m.data.len = n;
		say(call, &m.base);
	}
}

static void do_read(struct grpc_call *call, struct bytes msg)
{
	struct fixture *f = fixture_of(call);
	Svc__ContentReadResponse m = SVC__CONTENT_READ_RESPONSE__INIT;

	(void)msg;
	if (f->how == REFUSE) {
		finish(call, RPC_NOT_FOUND, "no such content");
		return;
	}
	if (f->how == NOTHING) {
		f->held = call;
		return;
	}
	send_content(f, call);
	if (f->how == GAP) {
		m.offset = (int64_t)f->size + 1;
		say(call, &m.base);
	}
	if (f->how == GARBAGE)
		assert_int_equal(grpc_call_send(call, bytes_of("\xff", 1)), 0);
	finish(call, f->how == HANG_UP ? RPC_UNAVAILABLE : RPC_OK, "the disk is on fire");
}

static void answer_write(struct fixture *f, struct grpc_call *call, int action)
{
	Svc__ContentWriteResponse m = SVC__CONTENT_WRITE_RESPONSE__INIT;

	m.action = action;
	m.offset = (int64_t)buf_len(&f->got);
	m.digest = (char *)"sha256:cafe";
	say(call, &m.base);
}

static void do_write(struct grpc_call *call, struct bytes msg)
{
	struct fixture *f = fixture_of(call);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)8 << 20);
	const Svc__ContentWriteRequest *m =
		pb_unpack(&svc__content_write_request__descriptor, msg, &mem);

	assert_non_null(m);
	if (f->how == REFUSE) {
		finish(call, RPC_RESOURCE_EXHAUSTED, "no room");
		return;
	}
	if (m->action == 0 && f->stall) {
		f->held = call;
		grpc_call_pause(call, true);
	}
	if (m->action == 1) {
		assert_int_equal(m->offset, buf_len(&f->got));
		assert_int_equal(buf_append(&f->got, m->data.data, m->data.len), 0);
		if (f->how == HANG_UP) {
			finish(call, RPC_UNAVAILABLE, "the disk is on fire");
			return;
		}
	}
	if (m->action != 2) {
		answer_write(f, call, m->action);
		return;
	}
	assert_int_equal(m->total, buf_len(&f->got));
	f->committed = true;
	if (f->how == WELL)
		answer_write(f, call, 2);
	if (f->how == GARBAGE)
		assert_int_equal(grpc_call_send(call, bytes_of("\xff", 1)), 0);
	finish(call, f->how == THERE_ALREADY ? RPC_ALREADY_EXISTS : RPC_OK, "it exists");
}

static const struct grpc_method_ops get_ops = { .started = started, .message = do_get,
						.ended = ended };
static const struct grpc_method_ops read_ops = { .started = started, .message = do_read,
						 .ended = ended };
static const struct grpc_method_ops write_ops = { .started = started, .message = do_write,
						  .ended = ended };
static const struct grpc_method methods[] = {
	{ CTD_CONTAINERS "Get", GRPC_SERVER_STREAM, &get_ops },
	{ CTD_TASKS "Create", GRPC_SERVER_STREAM, &get_ops },
	{ CTD_CONTENT "Read", GRPC_BIDI, &read_ops },
	{ CTD_CONTENT "Write", GRPC_BIDI, &write_ops },
};

static int setup(void **state)
{
	static const struct grpc_server_config config = { .max_unsent = BIG * 2,
							  .max_memory = BIG * 4,
							  .max_memory_per_connection = BIG * 4 };
	static struct fixture f;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)signal(SIGPIPE, SIG_IGN); /* as every program of ours */
	f = (struct fixture){ .got = BUF_LIMIT(BIG * 2) };
	(void)snprintf(f.path, sizeof(f.path), "/tmp/test-containerd-%d.sock", getpid());
	(void)strcpy(addr.sun_path, f.path);
	(void)unlink(f.path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(grpc_server_new(f.loop, fd, &config, methods,
					 ARRAY_SIZE(methods), &f, &f.server), 0);
	assert_int_equal(containerd_new(&f.c, f.loop, f.path), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	containerd_call_done(&f->call);
	containerd_copy_cancel(&f->copy);
	containerd_free(f->c);
	grpc_server_free(f->server);
	loop_free(f->loop);
	buf_done(&f->got);
	(void)unlink(f->path);
	return 0;
}

/* --- unary ---------------------------------------------------------------------------------- */

static void answered(struct containerd_call *call, int r, const void *reply, const struct error *err)
{
	struct fixture *f = container_of(call, struct fixture, call);
	const Svc__ContainerMessage *m = reply;

	f->done++;
	f->r = r;
	f->err = *err;
	if (r == 0 && m->container)
		(void)snprintf(f->id, sizeof(f->id), "%s", m->container->id);
}

static void begin(struct fixture *f, const char *method, const char *lease, nsec_t deadline)
{
	Svc__ContainerRequest req = SVC__CONTAINER_REQUEST__INIT;

	f->done = 0;
	req.id = (char *)"web";
	assert_int_equal(containerd_call(f->c, &f->call, "k8s.io", lease, method, &req.base,
					 &svc__container_message__descriptor, deadline, answered,
					 NULL), 0);
	assert_int_equal(f->done, 0);
}

static void begin_get(struct fixture *f, const char *lease, nsec_t deadline)
{
	begin(f, CTD_CONTAINERS "Get", lease, deadline);
}

static void a_call_is_answered(void **state)
{
	struct fixture *f = *state;

	begin_get(f, NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->r, 0);
	assert_string_equal(f->id, "web");
	assert_string_equal(f->ns, "k8s.io");
	assert_string_equal(f->lease, "(none)");
	begin_get(f, "my-lease", NSEC_NEVER); /* the same call is used again */
	UNTIL(f, f->done);
	assert_int_equal(f->r, 0);
	assert_string_equal(f->lease, "my-lease");
}

static void a_refusal_keeps_containerds_code_and_words(void **state)
{
	struct fixture *f = *state;

	f->how = REFUSE;
	begin_get(f, NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
	assert_int_equal(f->err.rpc, RPC_NOT_FOUND);
	assert_string_equal(f->err.text, "containerd: Get: no such container");
}

/* The shim's reason comes through; nobody but a shim gives one. */
static void a_shims_reason_is_taken_from_its_words(void **state)
{
	struct fixture *f = *state;

	f->how = REFUSE;
	f->words = "failed to create shim task: SEAT_MISMATCH: no such seat: not found";
	begin(f, CTD_TASKS "Create", NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->r, -EREMOTEIO);
	assert_int_equal(f->err.reason, REASON_SEAT_MISMATCH);
	assert_int_equal(f->err.rpc, RPC_NOT_FOUND);
	assert_string_equal(f->err.text, "no such seat: not found");
	begin_get(f, NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
	f->words = "NO_SUCH_REASON: whatever";
	begin(f, CTD_TASKS "Create", NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
	assert_string_equal(f->err.text, "containerd: Create: NO_SUCH_REASON: whatever");
}

static void an_answer_that_is_none_is_a_failure(void **state)
{
	static const enum how hows[] = { GARBAGE, NO_ANSWER };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		f->how = hows[i];
		begin_get(f, NULL, NSEC_NEVER);
		UNTIL(f, f->done);
		assert_true(f->r < 0);
		assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
	}
}

static void a_call_has_a_deadline(void **state)
{
	struct fixture *f = *state;

	f->how = NOTHING;
	begin_get(f, NULL, time_now() + 20 * NSEC_PER_MSEC);
	UNTIL(f, f->done);
	assert_int_equal(f->err.rpc, RPC_DEADLINE_EXCEEDED);
}

static void a_call_may_be_forgotten(void **state)
{
	struct fixture *f = *state;

	f->how = NOTHING;
	begin_get(f, NULL, NSEC_NEVER);
	UNTIL(f, f->held);
	containerd_call_done(&f->call);
	UNTIL(f, f->ended == 1); /* and containerd is told */
	assert_int_equal(f->done, 0);
	containerd_call_done(&f->call); /* harmless */
}

static void containerd_may_be_away(void **state)
{
	struct fixture *f = *state;

	grpc_server_free(f->server);
	f->server = NULL;
	(void)unlink(f->path);
	begin_get(f, NULL, NSEC_NEVER);
	UNTIL(f, f->done);
	assert_int_equal(f->err.rpc, RPC_UNAVAILABLE);
	assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
}

/* --- content -------------------------------------------------------------------------------- */

static void copied(struct containerd_copy *copy, int r, const struct error *err)
{
	struct fixture *f = container_of(copy, struct fixture, copy);

	f->done++;
	f->r = r;
	f->err = *err;
}

/* Begins a download; returns the pipe's end to read from. */
static int begin_read(struct fixture *f)
{
	int p[2];

	f->done = 0;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_nonblock(p[0], true), 0);
	assert_int_equal(containerd_read(f->c, &f->copy, f->loop, "k8s.io", "sha256:cafe", p[1],
					 time_now() + PATIENCE, copied, NULL), 0);
	return p[0];
}

/* Takes what is in the pipe; true at its end. */
static bool take(int fd, size_t *at)
{
	uint8_t buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++, ++*at)
			if (buf[i] != byte_at(*at))
				fail_msg("byte %zu is wrong", *at);
	assert_true(n == 0 || errno == EAGAIN);
	return n == 0;
}

static void content_is_read(void **state)
{
	static const size_t sizes[] = { 0, 1, 100000, BIG };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t at = 0;
		int fd;

		f->size = sizes[i];
		fd = begin_read(f);
		UNTIL(f, take(fd, &at));
		assert_int_equal(at, sizes[i]);
		UNTIL(f, f->done);
		assert_int_equal(f->r, 0);
		(void)close(fd);
	}
}

static void a_read_that_goes_wrong_is_told(void **state)
{
	static const enum how hows[] = { REFUSE, GAP, GARBAGE, HANG_UP };
	struct fixture *f = *state;

	f->size = 300000;
	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		size_t at = 0;
		int fd;

		f->how = hows[i];
		fd = begin_read(f);
		UNTIL(f, take(fd, &at));
		UNTIL(f, f->done);
		assert_true(f->r < 0);
		assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
		(void)close(fd);
	}
	assert_non_null(strstr(f->err.text, "the disk is on fire"));
}

static void the_reader_may_leave(void **state)
{
	struct fixture *f = *state;
	int fd;

	f->size = BIG;
	fd = begin_read(f);
	UNTIL(f, f->copy.offset);
	(void)close(fd);
	UNTIL(f, f->done);
	assert_int_equal(f->r, -EPIPE);
	UNTIL(f, f->ended == 1);
}

static void a_copy_may_be_canceled(void **state)
{
	struct fixture *f = *state;
	size_t at = 0;
	int fd;

	f->how = NOTHING;
	fd = begin_read(f);
	UNTIL(f, f->held);
	containerd_copy_cancel(&f->copy);
	UNTIL(f, take(fd, &at)); /* its end is closed */
	UNTIL(f, f->ended == 1);
	assert_int_equal(f->done, 0);
	(void)close(fd);
}

/* Begins an upload; returns the pipe's end to write to. */
static int begin_write(struct fixture *f)
{
	int p[2];

	f->done = 0;
	f->committed = false;
	buf_clear(&f->got);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_nonblock(p[1], true), 0);
	assert_int_equal(containerd_write(f->c, &f->copy, f->loop, "k8s.io", "my-lease", "ref", p[0],
					  time_now() + PATIENCE, copied, NULL), 0);
	return p[1];
}

/* Puts in what the pipe takes; true when all has been taken. */
static bool put(int fd, size_t *at, size_t size)
{
	uint8_t buf[65536];

	while (*at < size) {
		size_t n = size - *at < sizeof(buf) ? size - *at : sizeof(buf);
		ssize_t w;

		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(*at + i);
		w = write(fd, buf, n);
		if (w < 0) {
			assert_int_equal(errno, EAGAIN);
			return false;
		}
		*at += (size_t)w;
	}
	return true;
}

static void content_is_written(void **state)
{
	static const size_t sizes[] = { 0, 1, 100000, BIG };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t at = 0;
		int fd = begin_write(f);

		UNTIL(f, put(fd, &at, sizes[i]));
		(void)close(fd);
		UNTIL(f, f->done);
		assert_int_equal(f->r, 0);
		assert_true(f->committed);
		assert_string_equal(f->copy.digest, "sha256:cafe");
		assert_string_equal(f->lease, "my-lease");
		assert_int_equal(buf_len(&f->got), sizes[i]);
		for (size_t k = 0; k < sizes[i]; k++)
			if (buf_bytes(&f->got).p[k] != byte_at(k))
				fail_msg("byte %zu is wrong", k);
	}
}

/*
 * containerd takes nothing for a while, and the content ends meanwhile, whatever of it is still on
 * our side.
 */
static void containerd_may_be_slow(void **state)
{
	struct fixture *f = *state;

	f->stall = true;
	for (size_t size = (size_t)1 << 20; size <= (size_t)5 << 20; size += (size_t)256 << 10) {
		size_t at = 0;
		int fd = begin_write(f);

		UNTIL(f, f->held);
		for (int i = 0; i < 400 && !put(fd, &at, size); i++)
			assert_int_equal(loop_round(f->loop, time_now()), 0);
		if (at == size)
			(void)close(TAKE_FD(fd));
		for (int i = 0; i < 50; i++)
			assert_int_equal(loop_round(f->loop, time_now()), 0);
		assert_int_equal(f->done, 0);
		assert_true(grpc_stream_unsent(f->copy.stream) <= (size_t)4 << 20);
		grpc_call_pause(f->held, false);
		if (fd >= 0) {
			UNTIL(f, put(fd, &at, size));
			(void)close(fd);
		}
		UNTIL(f, f->done);
		assert_int_equal(f->r, 0);
		assert_int_equal(buf_len(&f->got), size);
		UNTIL(f, !f->held);
	}
}

static void what_is_there_already_is_as_good_as_written(void **state)
{
	struct fixture *f = *state;
	size_t at = 0;
	int fd;

	f->how = THERE_ALREADY;
	fd = begin_write(f);
	assert_true(put(fd, &at, 1000));
	(void)close(fd);
	UNTIL(f, f->done);
	assert_int_equal(f->r, 0);
	assert_string_equal(f->copy.digest, "sha256:cafe");
}

static void a_write_that_goes_wrong_is_told(void **state)
{
	static const enum how hows[] = { REFUSE, HANG_UP, NO_COMMIT, GARBAGE };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		size_t at = 0;
		int fd;

		f->how = hows[i];
		fd = begin_write(f);
		if (put(fd, &at, 1000))
			(void)close(TAKE_FD(fd));
		UNTIL(f, f->done);
		assert_true(f->r < 0);
		assert_int_equal(f->err.reason, REASON_CONTAINERD_FAILED);
		assert_int_equal(f->done, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_call_is_answered),
		T(a_refusal_keeps_containerds_code_and_words),
		T(a_shims_reason_is_taken_from_its_words),
		T(an_answer_that_is_none_is_a_failure),
		T(a_call_has_a_deadline),
		T(a_call_may_be_forgotten),
		T(containerd_may_be_away),
		T(content_is_read),
		T(a_read_that_goes_wrong_is_told),
		T(the_reader_may_leave),
		T(a_copy_may_be_canceled),
		T(content_is_written),
		T(containerd_may_be_slow),
		T(what_is_there_already_is_as_good_as_written),
		T(a_write_that_goes_wrong_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
