/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "event/pump.h"
#include "tests/cmocka.h"

struct rig {
	struct loop *loop;
	struct pump pump;
	int source, sink; /* our ends: write here, read there */
	int ended;
};

static void done(struct pump *p)
{
	struct rig *r = container_of(p, struct rig, pump);

	r->ended++;
	pump_close(p);
}

static int setup(void **state)
{
	static struct rig r;
	int in[2], out[2];

	r = (struct rig){ 0 };
	assert_int_equal(loop_new(&r.loop), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	r.source = in[1];
	r.sink = out[0];
	assert_int_equal(fcntl(r.sink, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(fcntl(r.source, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(pump_open(&r.pump, r.loop, in[0], out[1], PUMP_PLAIN, done), 0);
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	pump_close(&r->pump);
	if (r->source >= 0)
		(void)close(r->source);
	if (r->sink >= 0)
		(void)close(r->sink);
	loop_free(r->loop);
	return 0;
}

static void rounds(struct rig *r, int n)
{
	while (n--)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
}

static void bytes_arrive_in_order_and_the_end_too(void **state)
{
	struct rig *r = *state;
	char buf[16] = { 0 };

	assert_int_equal(write(r->source, "hello", 5), 5);
	rounds(r, 2);
	assert_int_equal(read(r->sink, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	assert_true(pump_idle(&r->pump));
	(void)close(r->source);
	r->source = -1;
	rounds(r, 2);
	assert_int_equal(r->ended, 1);
	assert_int_equal(read(r->sink, buf, sizeof(buf)), 0);
}

/* The writer has gone, the reader is absent: nothing may be lost, and no round may spin. */
static void a_full_sink_waits_without_spinning_even_after_a_hang_up(void **state)
{
	struct rig *r = *state;
	char block[4096];
	size_t sent = 0, got = 0;
	nsec_t until;
	ssize_t n;
	int loops = 0;

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 100; i++) {
		while ((n = write(r->source, block, sizeof(block))) > 0)
			sent += (size_t)n;
		rounds(r, 1);
	}
	(void)close(r->source);
	r->source = -1;
	assert_false(pump_idle(&r->pump));
	until = time_now() + 100 * NSEC_PER_MSEC;
	while (time_now() < until) {
		assert_int_equal(loop_round(r->loop, until), 0);
		loops++;
	}
	assert_true(loops < 20);
	assert_int_equal(r->ended, 0);
	for (int i = 0; i < 1000 && !r->ended; i++) {
		while ((n = read(r->sink, block, sizeof(block))) > 0)
			got += (size_t)n;
		rounds(r, 1);
	}
	while ((n = read(r->sink, block, sizeof(block))) > 0)
		got += (size_t)n;
	assert_int_equal(r->ended, 1);
	assert_int_equal(got, sent);
}

static void a_broken_sink_ends_it(void **state)
{
	struct rig *r = *state;

	(void)close(r->sink);
	r->sink = -1;
	assert_int_equal(write(r->source, "x", 1), 1);
	rounds(r, 3);
	assert_int_equal(r->ended, 1);
}

static void a_regular_file_is_appended_to(void **state)
{
	struct rig *r = *state;
	char name[] = "/tmp/test-pump-XXXXXX", buf[32] = { 0 };
	int file = mkostemp(name, O_CLOEXEC | O_APPEND), in[2];

	pump_close(&r->pump);
	assert_true(file >= 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(write(file, "old ", 4), 4);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pump_open(&r->pump, r->loop, in[0], dup(file), PUMP_PLAIN, done), 0);
	assert_int_equal(write(in[1], "new", 3), 3);
	(void)close(in[1]);
	rounds(r, 3);
	assert_int_equal(r->ended, 1);
	assert_int_equal(pread(file, buf, sizeof(buf), 0), 7);
	assert_string_equal(buf, "old new");
	(void)close(file);
}

/* Nobody has the terminal open for a while; then somebody opens it again, then it is finished. */
static void a_terminal_survives_being_closed_and_ends_when_told(void **state)
{
	struct rig *r = *state;
	char path[64], buf[64] = { 0 };
	int master, slave, out[2], loops = 0;
	nsec_t until;

	pump_close(&r->pump);
	assert_int_equal(openpty(&master, &slave, path, NULL, NULL), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pump_open(&r->pump, r->loop, master, out[1], PUMP_TERMINAL, done), 0);
	assert_int_equal(write(slave, "one", 3), 3);
	rounds(r, 3);
	(void)close(slave);
	until = time_now() + 50 * NSEC_PER_MSEC;
	while (time_now() < until) {
		assert_int_equal(loop_round(r->loop, until), 0);
		loops++;
	}
	assert_true(loops < 20);
	assert_int_equal(r->ended, 0);
	slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	assert_int_equal(write(slave, "two", 3), 3);
	rounds(r, 3);
	assert_int_equal(write(slave, "three", 5), 5);
	(void)close(slave);
	pump_finish(&r->pump);
	rounds(r, 5);
	assert_int_equal(r->ended, 1);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 11);
	assert_string_equal(buf, "onetwothree");
	(void)close(out[0]);
}

static void never(struct source *src, uint32_t events)
{
	(void)src;
	(void)events;
}

/* A terminal is read by one pump and written by another: its owner waits for it in the same loop. */
static void a_borrowed_sink_is_waited_for_beside_its_owner_and_left_open(void **state)
{
	struct rig *r = *state;
	struct source owner = { 0 };
	char buf[4096] = { 0 };
	int in[2], out[2];
	size_t sent = 0, got = 0;

	pump_close(&r->pump);
	(void)close(r->source);
	(void)close(r->sink);
	assert_int_equal(pipe2(in, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
	r->source = in[1];
	r->sink = out[0];
	assert_int_equal(source_add(r->loop, &owner, out[1], 0, never), 0);
	assert_int_equal(pump_open(&r->pump, r->loop, in[0], out[1], PUMP_BORROWS_TO, done), 0);
	for (int quiet = 0; quiet < 3; quiet++) { /* until both pipes are full */
		for (ssize_t n; (n = write(r->source, buf, sizeof(buf))) > 0; quiet = 0)
			sent += (size_t)n;
		rounds(r, 2);
	}
	assert_true(r->pump.twin >= 0);
	while (got < sent) {
		ssize_t n = read(r->sink, buf, sizeof(buf));

		if (n > 0)
			got += (size_t)n;
		else
			rounds(r, 1);
	}
	assert_int_equal(got, sent);
	rounds(r, 2);
	assert_int_equal(r->pump.twin, -1); /* only as long as it waits */
	pump_close(&r->pump);
	assert_int_equal(write(out[1], "x", 1), 1);
	source_remove(&owner);
	(void)close(out[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(bytes_arrive_in_order_and_the_end_too),
		T(a_full_sink_waits_without_spinning_even_after_a_hang_up),
		T(a_broken_sink_ends_it),
		T(a_regular_file_is_appended_to),
		T(a_terminal_survives_being_closed_and_ends_when_told),
		T(a_borrowed_sink_is_waited_for_beside_its_owner_and_left_open),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
