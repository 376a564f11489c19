/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC when memory runs out: a scenario is played again and again, and each time another
 * allocation of ours fails (linked with --wrap). Whatever fails, every call and stream must end
 * exactly once, and after it everything works as before. Leaks are the sanitizer's part.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/test-grpc.h"
#include "tests/cmocka.h"

#define ALLOCATIONS_MAX 3000 /* more than the scenario makes */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

/* The wrapped functions have no other way to know. */
static unsigned int countdown; /* 0 = nothing fails; 1 = the next one does */
static bool failed;

static bool fails(void)
{
	if (countdown == 0 || --countdown)
		return false;
	failed = true;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

struct side {
	struct grpc_stream *stream;
	unsigned int opened, ended;
};

static void message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	(void)arg;
	(void)msg;
	grpc_stream_half_close(stream);
}

static void ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct side *s = arg;

	(void)stream;
	assert_non_null(status->text);
	s->ended++;
}

static void done(void *arg, const struct grpc_status *status, struct bytes reply)
{
	assert_true(status->code == RPC_OK || reply.n == 0);
	ended(NULL, arg, status);
}

static const struct grpc_stream_ops ops = { .message = message, .ended = ended };

/* A call of every kind. */
static void play(struct bench *b, struct side *s)
{
	static const char big[100000];
	const struct grpc_field field = { "containerd-namespace", bytes_of("k8s.io", 6) };
	struct grpc_stream *stream;

	s->opened += grpc_unary(b->client, "/t.T/One", &field, 1, bytes_of(big, sizeof(big)),
				NSEC_NEVER, done, s, NULL) == 0;
	s->opened += grpc_unary(b->client, "/t.T/One", NULL, 0, bytes_of("x", 1), NSEC_NEVER, done,
				s, NULL) == 0;
	s->opened += grpc_unary(b->client, "/t.T/Nope", NULL, 0, bytes_of("x", 1), NSEC_NEVER, done,
				s, NULL) == 0;
	if (grpc_stream_open(b->client, "/t.T/Pipe", NULL, 0, time_now() + NSEC_PER_SEC, &ops, s,
			     &stream) == 0) {
		s->opened++;
		if (grpc_stream_send(stream, bytes_of(big, 20000)) < 0) {
			grpc_stream_cancel(stream);
			s->opened--;
		}
	}
	WAIT(b, s->ended == s->opened);
}

static void any_allocation_may_fail(void **state)
{
	unsigned int n;

	(void)state;
	for (n = 1; n < ALLOCATIONS_MAX; n++) {
		struct bench b;
		struct grpc_server_stats stats;
		struct side s = { 0 };
		bool hit;

		bench_init(&b);
		bench_start(&b);
		failed = false;
		countdown = n;
		play(&b, &s);
		countdown = 0;
		hit = failed;
		/* And now as if nothing had happened. */
		s = (struct side){ 0 };
		play(&b, &s);
		assert_int_equal(s.opened, 4);
		grpc_client_free(b.client);
		b.client = NULL;
		WAIT(&b, b.started == b.ended);
		grpc_server_stats(b.server, &stats);
		assert_int_equal(stats.calls, 0);
		assert_int_equal(stats.memory, 0);
		bench_done(&b);
		if (!hit)
			break; /* the scenario makes no more allocations */
	}
	assert_in_range(n, 30, ALLOCATIONS_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
