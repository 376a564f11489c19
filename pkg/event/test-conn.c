/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "event/conn.h"
#include "tests/cmocka.h"

#define IN_MAX  ((size_t)64 << 10)
#define OUT_MAX ((size_t)512 << 10)

/* A connection, its peer's end, and what happened to it. */
struct probe {
	struct loop *loop;
	struct conn conn;
	int peer;
	struct buf got; /* what input() consumed */
	unsigned int inputs, drains, ends;
	int end_code;
	size_t leave;        /* bytes that input() leaves */
	bool pause_in_input; /* after the first bytes */
	int input_result;
	bool close_in_input;
	unsigned int writes_in_drained;
	bool in_write;
};

static int input(struct conn *c, struct buf *in)
{
	struct probe *p = container_of(c, struct probe, conn);
	size_t n = buf_len(in) > p->leave ? buf_len(in) - p->leave : 0;

	p->inputs++;
	assert_false(c->paused);
	assert_int_equal(buf_append(&p->got, buf_bytes(in).p, n), 0);
	buf_consume(in, n);
	if (p->pause_in_input)
		conn_pause_input(c, true);
	if (p->close_in_input)
		conn_close(c);
	return p->input_result;
}

static void closed(struct conn *c, int r)
{
	struct probe *p = container_of(c, struct probe, conn);

	assert_false(p->in_write);
	p->ends++;
	p->end_code = r;
	conn_close(c);
}

static void drained(struct conn *c)
{
	struct probe *p = container_of(c, struct probe, conn);

	assert_false(p->in_write);
	assert_int_equal(conn_pending(c), 0);
	p->drains++;
	if (p->writes_in_drained) {
		p->writes_in_drained--;
		p->in_write = true;
		assert_int_equal(conn_write(c, "more", 4), 0);
		p->in_write = false;
	}
}

static const struct conn_ops ops = { .input = input, .closed = closed, .drained = drained };

static int setup(void **state)
{
	struct probe *p = calloc(1, sizeof(*p));
	int fds[2];

	assert_non_null(p);
	assert_int_equal(loop_new(&p->loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	p->peer = fds[1];
	assert_int_equal(conn_open(&p->conn, p->loop, fds[0], IN_MAX, OUT_MAX, &ops), 0);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct probe *p = *state;

	conn_close(&p->conn);
	conn_close(&p->conn); /* harmless */
	if (p->peer >= 0)
		(void)close(p->peer);
	loop_free(p->loop);
	buf_done(&p->got);
	free(p);
	return 0;
}

static void rounds(struct probe *p, int n)
{
	while (n--)
		assert_int_equal(loop_round(p->loop, 0), 0);
}

/* As much as the kernel takes, at most n bytes. */
static size_t peer_sends(struct probe *p, size_t n)
{
	static const char block[4096] = "block";
	size_t sum = 0;

	while (sum < n) {
		size_t want = n - sum < sizeof(block) ? n - sum : sizeof(block);
		ssize_t sent = send(p->peer, block, want, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			break;
		assert_true(sent > 0);
		sum += (size_t)sent;
	}
	return sum;
}

static void peer_closes(struct probe *p)
{
	(void)close(p->peer);
	p->peer = -1;
}

static void write_now(struct probe *p, const void *data, size_t n, int want)
{
	p->in_write = true;
	assert_int_equal(conn_write(&p->conn, data, n), want);
	p->in_write = false;
}

static void what_is_left_is_offered_again_with_what_follows(void **state)
{
	struct probe *p = *state;

	p->leave = 2;
	assert_int_equal(send(p->peer, "hello", 5, 0), 5);
	rounds(p, 2);
	assert_string_equal(buf_str(&p->got), "hel");
	assert_int_equal(p->inputs, 1);
	p->leave = 0;
	assert_int_equal(send(p->peer, "!", 1, 0), 1);
	rounds(p, 2);
	assert_string_equal(buf_str(&p->got), "hello!");
	assert_null(p->conn.in.mem); /* an idle connection holds no memory */
}

static void a_message_over_the_maximum_ends_it(void **state)
{
	struct probe *p = *state;

	p->leave = SIZE_MAX;
	assert_true(peer_sends(p, 2 * IN_MAX) >= IN_MAX + 16384);
	rounds(p, 10);
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->end_code, -EMSGSIZE);
}

static void the_end_of_the_stream_comes_after_its_bytes(void **state)
{
	struct probe *p = *state;
	size_t n = peer_sends(p, IN_MAX);

	peer_closes(p);
	rounds(p, 10);
	assert_int_equal(buf_len(&p->got), n);
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->end_code, 0);
	assert_false(conn_is_open(&p->conn));
}

static void a_failing_input_ends_it(void **state)
{
	struct probe *p = *state;

	p->input_result = -EBADMSG;
	assert_int_equal(send(p->peer, "x", 1, 0), 1);
	rounds(p, 2);
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->end_code, -EBADMSG);
}

static void it_may_be_closed_inside_input(void **state)
{
	struct probe *p = *state;

	p->close_in_input = true;
	assert_int_equal(send(p->peer, "x", 1, 0), 1);
	rounds(p, 2);
	assert_int_equal(p->ends, 0);
	write_now(p, "x", 1, -EPIPE);
}

static void nothing_is_read_during_a_pause(void **state)
{
	struct probe *p = *state;

	conn_pause_input(&p->conn, true);
	assert_int_equal(send(p->peer, "hello", 5, 0), 5);
	rounds(p, 3);
	assert_int_equal(p->inputs, 0);
	conn_pause_input(&p->conn, false);
	rounds(p, 1);
	assert_string_equal(buf_str(&p->got), "hello");
}

static void what_was_left_at_the_pause_is_offered_after_it(void **state)
{
	struct probe *p = *state;

	p->leave = 3;
	p->pause_in_input = true;
	assert_int_equal(send(p->peer, "hello", 5, 0), 5);
	rounds(p, 3);
	assert_string_equal(buf_str(&p->got), "he");
	p->leave = 0;
	p->pause_in_input = false;
	conn_pause_input(&p->conn, false);
	assert_string_equal(buf_str(&p->got), "he"); /* not from inside our own call */
	rounds(p, 1);
	assert_string_equal(buf_str(&p->got), "hello");
}

static void a_peer_that_leaves_during_a_pause_loses_no_byte(void **state)
{
	struct probe *p = *state;
	size_t n = peer_sends(p, 2 * IN_MAX);

	assert_true(n > IN_MAX + 16384); /* more than could be kept */
	conn_pause_input(&p->conn, true);
	peer_closes(p);
	rounds(p, 10);
	assert_int_equal(p->inputs, 0);
	assert_int_equal(p->ends, 0);
	conn_pause_input(&p->conn, false);
	rounds(p, 20);
	assert_int_equal(buf_len(&p->got), n);
	assert_int_equal(p->ends, 1);
}

/* epoll reports a hang-up whether it is wanted or not. */
static void the_loop_sleeps_while_a_paused_peer_is_gone(void **state)
{
	struct probe *p = *state;
	nsec_t begin = time_now();

	conn_pause_input(&p->conn, true);
	peer_closes(p);
	rounds(p, 3);
	assert_int_equal(loop_round(p->loop, begin + 30 * NSEC_PER_MSEC), 0);
	assert_true(time_now() - begin >= 30 * NSEC_PER_MSEC);
}

static void drained_comes_once_and_never_inside_a_write(void **state)
{
	struct probe *p = *state;

	write_now(p, "a", 1, 0);
	write_now(p, "b", 1, 0);
	assert_int_equal(p->drains, 0);
	rounds(p, 3);
	assert_int_equal(p->drains, 1);
	p->writes_in_drained = 3;
	write_now(p, "c", 1, 0);
	rounds(p, 10);
	assert_int_equal(p->drains, 5);
}

static void what_the_kernel_refuses_waits_in_order(void **state)
{
	struct probe *p = *state;
	_cleanup_free_ char *block = malloc(OUT_MAX);
	char back[4096];
	size_t sum = 0;
	ssize_t n;

	assert_non_null(block);
	for (size_t i = 0; i < OUT_MAX; i++)
		block[i] = (char)(i % 251);
	write_now(p, block, OUT_MAX, 0);
	assert_true(conn_pending(&p->conn) > 0);
	for (int i = 0; i < 1000 && sum < OUT_MAX; i++) {
		while ((n = recv(p->peer, back, sizeof(back), 0)) > 0)
			for (ssize_t j = 0; j < n; j++)
				assert_int_equal(back[j], (char)(sum++ % 251));
		rounds(p, 1);
	}
	assert_int_equal(sum, OUT_MAX);
	assert_int_equal(p->drains, 1);
	assert_null(p->conn.out.mem);
}

static void a_peer_that_does_not_read_is_dropped(void **state)
{
	struct probe *p = *state;
	static const char block[65536];
	int r = 0;

	for (int i = 0; i < 100 && r == 0; i++)
		r = conn_write(&p->conn, block, sizeof(block));
	assert_int_equal(r, -EMSGSIZE);
	assert_int_equal(p->ends, 0); /* never inside conn_write() */
	rounds(p, 1);
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->end_code, -EMSGSIZE);
}

static void the_last_words_of_a_peer_that_left_are_read(void **state)
{
	struct probe *p = *state;

	assert_int_equal(send(p->peer, "bye", 3, 0), 3);
	peer_closes(p);
	write_now(p, "x", 1, -EPIPE);
	rounds(p, 3);
	assert_string_equal(buf_str(&p->got), "bye");
	assert_int_equal(p->ends, 1);
}

static void a_peer_that_only_stops_reading_is_dropped_too(void **state)
{
	struct probe *p = *state;

	assert_int_equal(shutdown(p->peer, SHUT_RD), 0);
	write_now(p, "x", 1, -EPIPE);
	rounds(p, 3);
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->end_code, -EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(what_is_left_is_offered_again_with_what_follows),
		T(a_message_over_the_maximum_ends_it),
		T(the_end_of_the_stream_comes_after_its_bytes),
		T(a_failing_input_ends_it),
		T(it_may_be_closed_inside_input),
		T(nothing_is_read_during_a_pause),
		T(what_was_left_at_the_pause_is_offered_after_it),
		T(a_peer_that_leaves_during_a_pause_loses_no_byte),
		T(the_loop_sleeps_while_a_paused_peer_is_gone),
		T(drained_comes_once_and_never_inside_a_write),
		T(what_the_kernel_refuses_waits_in_order),
		T(a_peer_that_does_not_read_is_dropped),
		T(the_last_words_of_a_peer_that_left_are_read),
		T(a_peer_that_only_stops_reading_is_dropped_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
