/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event/signals.h"
#include "proc/command.h"
#include "tests/cmocka.h"

#define BOTH (COMMAND_CAPTURE_STDOUT | COMMAND_CAPTURE_STDERR)

struct bed {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct command c;
	struct timer guard;
	int done;
};

static void caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct bed, signals)->reaper);
}

static int setup(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	struct bed *b = calloc(1, sizeof(*b));

	if (!b || loop_new(&b->loop) < 0)
		return -1;
	reaper_init(&b->reaper);
	*state = b;
	return signals_open(b->loop, &b->signals, signos, caught);
}

static int teardown(void **state)
{
	struct bed *b = *state;

	command_release(&b->c);
	signals_close(&b->signals);
	loop_free(b->loop);
	free(b);
	return 0;
}

static void done(struct command *c)
{
	struct bed *b = container_of(c, struct bed, c);

	b->done++;
	loop_stop(b->loop);
}

static void too_long(struct timer *t)
{
	(void)t;
	fail_msg("the test takes too long");
}

static void run(struct bed *b, const char *script, int flags, const char *input, nsec_t limit)
{
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct spawn s = { .argv = argv };
	struct bytes in = bytes_of(input, input ? strlen(input) : 0);
	struct error err = ERROR_NULL;

	if (command_start(&b->c, b->loop, &b->reaper, &s, (enum command_flags)flags,
			  input ? &in : NULL, time_add(time_now(), limit), done, &err) < 0)
		fail_msg("%s", error_text(&err));
	timer_set(b->loop, &b->guard, time_now() + 20 * NSEC_PER_SEC, too_long);
	assert_int_equal(loop_run(b->loop), 0);
	timer_cancel(&b->guard);
	assert_int_equal(b->done, 1);
	assert_false(command_running(&b->c));
}

static void output(void **state)
{
	struct bed *b = *state;

	run(b, "echo out; echo err >&2", BOTH, NULL, NSEC_NEVER);
	assert_string_equal(buf_str(&b->c.out), "out\nerr\n");
	assert_int_equal(command_result(&b->c, "sh", NULL), 0);
}

static void one_stream(void **state)
{
	struct bed *b = *state;

	run(b, "echo out; echo err >&2", COMMAND_CAPTURE_STDERR, NULL, NSEC_NEVER);
	assert_string_equal(buf_str(&b->c.out), "err\n");
}

static void input(void **state)
{
	struct bed *b = *state;
	static char text[200001];

	memset(text, 'x', sizeof(text) - 1); /* more than a pipe holds, both ways */
	run(b, "cat", BOTH, text, NSEC_NEVER);
	assert_int_equal(buf_len(&b->c.out), sizeof(text) - 1);
	assert_int_equal(command_result(&b->c, "sh", NULL), 0);
}

static void empty_input(void **state)
{
	struct bed *b = *state;

	run(b, "cat; echo end", BOTH, "", NSEC_NEVER);
	assert_string_equal(buf_str(&b->c.out), "end\n");
}

/* A program that does not read its input is no error of ours, and no SIGPIPE either. */
static void unwanted_input(void **state)
{
	struct bed *b = *state;
	static char text[200001];

	memset(text, 'x', sizeof(text) - 1);
	run(b, "exec <&-; echo done", BOTH, text, NSEC_NEVER);
	assert_string_equal(buf_str(&b->c.out), "done\n");
	assert_int_equal(command_result(&b->c, "sh", NULL), 0);
}

static void exit_status(void **state)
{
	struct bed *b = *state;
	struct error err = ERROR_NULL;

	run(b, "exit 3", BOTH, NULL, NSEC_NEVER);
	assert_int_equal(command_result(&b->c, "sh", &err), -EIO);
	assert_string_equal(err.text, "sh: exit status 3");
}

static void killed(void **state)
{
	struct bed *b = *state;
	struct error err = ERROR_NULL;

	run(b, "kill -TERM $$", BOTH, NULL, NSEC_NEVER);
	assert_int_equal(command_result(&b->c, "sh", &err), -EIO);
	assert_string_equal(err.text, "sh was killed by signal 15");
}

static void deadline(void **state)
{
	struct bed *b = *state;
	struct error err = ERROR_NULL;

	run(b, "echo begun; exec sleep 600", BOTH, NULL, 1500 * NSEC_PER_MSEC);
	assert_int_equal(command_result(&b->c, "sh", &err), -ETIMEDOUT);
	assert_int_equal(err.reason, REASON_TIMEOUT);
	assert_string_equal(buf_str(&b->c.out), "begun\n");
}

/* Output without end: the loop goes on, the deadline holds, the memory is bounded. */
static void flood(void **state)
{
	struct bed *b = *state;
	nsec_t start = time_now();

	run(b, "yes & yes & yes & exec yes", BOTH, NULL, 1500 * NSEC_PER_MSEC);
	assert_true(b->c.timed_out);
	assert_true(time_now() - start < 10 * NSEC_PER_SEC);
	assert_true(buf_len(&b->c.out) <= COMMAND_OUTPUT_MAX);
	assert_true(buf_len(&b->c.out) > 0);
}

/* One round takes a share of what waits, then the loop's other sources get their turn. */
static void a_share_a_round(void **state)
{
	static const char *const argv[] = { "/bin/sh", "-c",
					    "head -c 65536 /dev/zero; exec sleep 600", NULL };
	struct bed *b = *state;
	struct spawn s = { .argv = argv };
	int waiting = 0;

	assert_int_equal(command_start(&b->c, b->loop, &b->reaper, &s, BOTH, NULL, NSEC_NEVER,
				       done, NULL), 0);
	for (int i = 0; waiting < 65536 && i < 1000; i++) {
		assert_int_equal(ioctl(b->c.out_src.fd, FIONREAD, &waiting), 0);
		(void)usleep(5000);
	}
	assert_int_equal(waiting, 65536);
	assert_int_equal(loop_round(b->loop, time_now()), 0);
	assert_in_range(buf_len(&b->c.out), 1, 40000);
}

/*
 * The program ends, what it left behind writes on - a daemon with its stdout: the end is the
 * program's.
 */
static void flood_from_behind(void **state)
{
	struct bed *b = *state;
	nsec_t start = time_now();
	long pid;

	run(b, "yes & echo $! >&2; sleep 0.2", COMMAND_CAPTURE_STDOUT | COMMAND_CAPTURE_STDERR,
	    NULL, NSEC_NEVER);
	assert_true(time_now() - start < 10 * NSEC_PER_SEC);
	assert_int_equal(command_result(&b->c, "sh", NULL), 0);
	pid = strtol(buf_str(&b->c.out) + strspn(buf_str(&b->c.out), "y\n"), NULL, 10);
	if (pid > 1)
		(void)kill((pid_t)pid, SIGKILL); /* else the closed pipe has ended it */
}

/* All that was written before the exit arrives, though the exit may be seen first. */
static void last_words(void **state)
{
	struct bed *b = *state;

	run(b, "head -c 60000 /dev/zero | tr '\\0' x", BOTH, NULL, NSEC_NEVER);
	assert_int_equal(buf_len(&b->c.out), 60000);
}

static void not_there(void **state)
{
	struct bed *b = *state;
	static const char *const argv[] = { "no-such-program", NULL };
	struct spawn s = { .argv = argv };
	struct bytes in = bytes_of("x", 1);
	struct error err = ERROR_NULL;

	assert_int_equal(command_start(&b->c, b->loop, &b->reaper, &s, BOTH, &in, NSEC_NEVER, done,
				       &err), -ENOENT);
	assert_false(command_running(&b->c));
	assert_int_equal(loop_round(b->loop, time_now() + 20 * NSEC_PER_MSEC), 0);
	assert_int_equal(b->done, 0);
}

/* Released while it runs: killed, no done(), and its exit disturbs nobody. */
static void released(void **state)
{
	struct bed *b = *state;
	static const char *const argv[] = { "/bin/sleep", "600", NULL };
	struct spawn s = { .argv = argv };
	pid_t pid;

	assert_int_equal(command_start(&b->c, b->loop, &b->reaper, &s, BOTH, NULL,
				       time_now() + 100 * NSEC_PER_MSEC, done, NULL), 0);
	pid = b->c.child.pid;
	assert_true(command_running(&b->c));
	command_release(&b->c);
	command_release(&b->c);
	for (nsec_t end = time_now() + 5 * NSEC_PER_SEC; kill(pid, 0) == 0 && time_now() < end;)
		assert_int_equal(loop_round(b->loop, time_now() + 10 * NSEC_PER_MSEC), 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(b->done, 0);
}

/* What a program has started ends with it, at the deadline and when it fails, not when it is well. */
static void groups(void **state)
{
	static const struct {
		const char *end; /* of the script */
		nsec_t limit;
		bool survives;
	} cases[] = {
		{ "wait", 300 * NSEC_PER_MSEC, false },
		{ "exit 1", 10 * NSEC_PER_SEC, false },
		{ "kill -9 $$", 10 * NSEC_PER_SEC, false },
		{ "exit 0", 10 * NSEC_PER_SEC, true },
	};
	struct bed *b = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char script[128];
		const char *argv[] = { "/bin/sh", "-c", script, NULL };
		struct spawn s = { .argv = argv, .new_group = true };
		struct error err = ERROR_NULL;
		pid_t child;

		(void)snprintf(script, sizeof(script), "sleep 600 >/dev/null 2>&1 & echo $!; %s",
			       cases[i].end);
		assert_int_equal(command_start(&b->c, b->loop, &b->reaper, &s,
					       COMMAND_CAPTURE_STDOUT, NULL,
					       time_now() + cases[i].limit, done, &err), 0);
		assert_int_equal(loop_run(b->loop), 0);
		child = atoi(buf_str(&b->c.out));
		assert_true(child > 1);
		command_release(&b->c);
		for (int n = 0; n < 200 && !cases[i].survives && kill(child, 0) == 0; n++)
			(void)usleep(10000);
		/* Our own pid namespace's init reaps it; where that is slow it is a zombie by now. */
		if (cases[i].survives)
			assert_int_equal(kill(child, SIGKILL), 0);
		else
			assert_int_equal(kill(child, 0), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(output),	  T(one_stream), T(input),    T(empty_input), T(unwanted_input),
		T(exit_status),	  T(killed),	 T(deadline), T(flood),	      T(a_share_a_round), T(flood_from_behind),
		T(last_words),	  T(not_there),	 T(released), T(groups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
