/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The logger is this very program, started again by the URI "binary://SELF?--logger=HOW&out=FILE".
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "event/signals.h"
#include "shim/logger.h"
#include "tests/clock.h"
#include "tests/cmocka.h"

#define PATIENCE (20 * NSEC_PER_SEC)

/*
 * The logger
 */

static void copy(int from, int to)
{
	char buf[4096];
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0)
		if (write(to, buf, (size_t)n) != n)
			_exit(9);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Its descriptors, arguments and environment, for the test to compare. */
static void describe(int to, int argc, char **argv)
{
	size_t n = 0;

	for (int fd = 0; fd < 64; fd++)
		if (fd != to && fcntl(fd, F_GETFD) >= 0)
			(void)dprintf(to, "%d ", fd);
	for (int i = 5; i < argc; i++)
		(void)dprintf(to, "[%s]", argv[i]);
	while (environ[n])
		n++;
	qsort(environ, n, sizeof(*environ), by_name);
	for (size_t i = 0; i < n; i++)
		(void)dprintf(to, " %s", environ[i]);
	(void)dprintf(to, "\n");
}

static void ready(void)
{
	if (write(5, "r", 1) != 1)
		_exit(8);
	(void)close(5);
}

/* Holds what it has inherited; not for ever, should a test forget it. */
static void linger(void)
{
	(void)alarm(30);
	for (;;)
		(void)pause();
}

static int logger(int argc, char **argv)
{
	const char *how = argv[2];
	int to = open(argv[4], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	if (to < 0 || dup3(to, 40, O_CLOEXEC) < 0)
		return 7;
	(void)close(to);
	to = 40;
	if (strcmp(how, "deaf") == 0)
		(void)signal(SIGTERM, SIG_IGN);
	if (strcmp(how, "dies") == 0)
		return 1;
	if (strcmp(how, "mute") == 0 || (strcmp(how, "forks") == 0 && fork() == 0))
		linger();
	if (strcmp(how, "forks") == 0)
		return 0;
	if (strcmp(how, "closes") == 0)
		(void)close(5);
	else if (strcmp(how, "describes") == 0)
		describe(to, argc, argv);
	if (strcmp(how, "closes") != 0)
		ready();
	if (strcmp(how, "stubborn") == 0 || strcmp(how, "deaf") == 0)
		linger();
	copy(3, to);
	copy(4, to);
	return 0;
}

/*
 * The test
 */

struct rig {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct logger logger;
	char dir[64], file[80], self[PATH_MAX];
	unsigned int ready, stopped;
	int result, out, err;
	pid_t pid;
};

static void sweep(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct rig, signals)->reaper);
}

static int setup(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	static struct rig r;
	ssize_t n;

	r = (struct rig){ .dir = "/tmp/test-logger-XXXXXX", .out = -1, .err = -1 };
	assert_non_null(mkdtemp(r.dir));
	assert_int_equal(PATH_PRINTF(r.file, "%s/log", r.dir), 0);
	n = readlink("/proc/self/exe", r.self, sizeof(r.self) - 1);
	assert_true(n > 0);
	assert_int_equal(loop_new(&r.loop), 0);
	reaper_init(&r.reaper);
	assert_int_equal(signals_open(r.loop, &r.signals, signos, sweep), 0);
	*state = &r;
	return 0;
}

static void close_ends(struct rig *r)
{
	if (r->out >= 0)
		(void)close(TAKE_FD(r->out));
	if (r->err >= 0)
		(void)close(TAKE_FD(r->err));
}

static int teardown(void **state)
{
	struct rig *r = *state;

	logger_close(&r->logger);
	close_ends(r);
	if (r->pid > 0)
		(void)waitpid(r->pid, NULL, 0);
	signals_close(&r->signals);
	loop_free(r->loop);
	return path_remove_tree(AT_FDCWD, r->dir);
}

static void done(struct logger *l, int result)
{
	struct rig *r = container_of(l, struct rig, logger);

	r->ready++;
	r->result = result;
}

static void stopped(struct logger *l)
{
	container_of(l, struct rig, logger)->stopped++;
}

static int start_with(struct rig *r, enum uri_scheme scheme, const char *program, const char *how,
		      struct error *err)
{
	struct uri uri = { .scheme = scheme, .path = (char *)program, .n_pairs = 4 };
	int code;

	uri.pairs[0].key = (char *)"--logger";
	uri.pairs[0].value = (char *)how;
	uri.pairs[1].key = (char *)"out";
	uri.pairs[1].value = r->file;
	uri.pairs[2].key = (char *)"b";
	uri.pairs[2].value = (char *)"2 3";
	uri.pairs[3].key = (char *)"a";
	uri.pairs[3].value = (char *)"";
	code = logger_start(&r->logger, r->loop, &r->reaper, &uri, "k8s.io", "web", &r->out,
			    &r->err, done, err);
	assert_int_equal(r->ready, 0); /* never from inside */
	r->pid = r->logger.child.pid;
	return code;
}

static void start(struct rig *r, enum uri_scheme scheme, const char *how)
{
	assert_int_equal(start_with(r, scheme, r->self, how, NULL), 0);
}

#define UNTIL(r, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + PATIENCE;                                               \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((r)->loop, time_now() + NSEC_PER_SEC), 0);     \
		}                                                                                  \
	} while (0)

static void file_is(struct rig *r, const char *want)
{
	_cleanup_buf_ struct buf text = BUF_NULL;

	assert_int_equal(file_read(AT_FDCWD, r->file, &text), 0);
	assert_string_equal(buf_str(&text), want);
}

/* All that is written is read, up to the end of file, and it leaves by itself. */
static void a_good_one_gets_everything(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "good");
	UNTIL(r, r->ready);
	assert_int_equal(r->result, 0);
	assert_int_equal(write(r->out, "to stdout\n", 10), 10);
	assert_int_equal(write(r->err, "to stderr\n", 10), 10);
	close_ends(r);
	logger_stop(&r->logger, stopped);
	assert_int_equal(r->stopped, 0);
	UNTIL(r, r->stopped);
	assert_false(r->logger.killed);
	file_is(r, "to stdout\nto stderr\n");
	r->pid = 0;
}

/* Descriptors 3, 4 and 5, two variables, the arguments in their order, and nothing else. */
static void what_it_is_given(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "describes");
	UNTIL(r, r->ready);
	close_ends(r);
	logger_stop(&r->logger, stopped);
	UNTIL(r, r->stopped);
	file_is(r, "0 1 2 3 4 5 [b][2 3][a][] CONTAINER_ID=web CONTAINER_NAMESPACE=k8s.io\n");
	r->pid = 0;
}

static void closing_the_ready_pipe_is_ready_unless_v2(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "closes");
	UNTIL(r, r->ready);
	assert_int_equal(r->result, 0);
	logger_close(&r->logger);
	close_ends(r);
	(void)waitpid(r->pid, NULL, 0);
	r->ready = 0;
	start(r, URI_BINARY_V2, "closes");
	UNTIL(r, r->ready);
	assert_int_equal(r->result, -EPIPE);
}

static void one_that_dies(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY_V2, "dies");
	UNTIL(r, r->ready);
	assert_int_equal(r->result, -EPIPE);
	UNTIL(r, !r->logger.child.pid);
	r->pid = 0;
	logger_stop(&r->logger, stopped); /* nobody there: told all the same, from the loop */
	assert_int_equal(r->stopped, 0);
	UNTIL(r, r->stopped);
	assert_int_equal(r->stopped, 1);
}

static void one_that_never_gets_ready(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "mute");
	assert_int_equal(loop_round(r->loop, time_now() + 10 * NSEC_PER_MSEC), 0);
	assert_int_equal(r->ready, 0);
	clock_advance(30 * NSEC_PER_SEC);
	UNTIL(r, r->ready);
	assert_int_equal(r->result, -ETIMEDOUT);
}

/* Who was started has gone, a child of its own keeps the pipe open and says nothing: that wait
 * must end as well. */
static void one_that_leaves_its_pipe_to_a_child(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "forks");
	UNTIL(r, !r->logger.child.pid);
	r->pid = 0;
	assert_int_equal(r->ready, 0);
	clock_advance(30 * NSEC_PER_SEC);
	UNTIL(r, r->ready);
	assert_int_equal(r->result, -ETIMEDOUT);
}

/* End of file, then SIGTERM, then SIGKILL; each has its time. */
static void a_stubborn_one_is_terminated(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "stubborn");
	UNTIL(r, r->ready);
	close_ends(r);
	logger_stop(&r->logger, stopped);
	assert_int_equal(loop_round(r->loop, time_now() + 20 * NSEC_PER_MSEC), 0);
	assert_false(r->logger.killed);
	assert_int_equal(r->stopped, 0);
	clock_advance(NSEC_PER_SEC);
	UNTIL(r, r->stopped);
	assert_true(r->logger.killed);
	r->pid = 0;
}

static void a_deaf_one_is_killed(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "deaf");
	UNTIL(r, r->ready);
	close_ends(r);
	logger_stop(&r->logger, stopped);
	clock_advance(NSEC_PER_SEC);
	UNTIL(r, r->logger.killed);
	assert_int_equal(loop_round(r->loop, time_now() + 50 * NSEC_PER_MSEC), 0);
	assert_int_equal(r->stopped, 0);
	clock_advance(12 * NSEC_PER_SEC);
	UNTIL(r, r->stopped);
	assert_int_equal(r->stopped, 1);
	r->pid = 0;
}

/* Held in the kernel by a dead file server, for instance: to us, one that is never reaped. */
static void one_that_does_not_die_is_forgotten(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "deaf");
	UNTIL(r, r->ready);
	close_ends(r);
	signals_close(&r->signals);
	logger_stop(&r->logger, stopped);
	clock_advance(NSEC_PER_SEC);
	UNTIL(r, r->logger.killed);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(r->stopped, 0);
		clock_advance(i == 0 ? 12 * NSEC_PER_SEC : 5 * NSEC_PER_SEC);
		assert_int_equal(loop_round(r->loop, time_now()), 0);
	}
	assert_int_equal(r->stopped, 1);
	assert_int_equal(r->logger.child.pid, 0);
}

static void closing_kills_and_is_silent(void **state)
{
	struct rig *r = *state;

	start(r, URI_BINARY, "mute");
	logger_close(&r->logger);
	logger_close(&r->logger); /* harmless */
	assert_int_equal(waitpid(r->pid, NULL, 0), r->pid);
	r->pid = 0;
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
	assert_int_equal(r->ready, 0);
}

static void a_program_that_is_missing(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_NULL;

	assert_int_equal(start_with(r, URI_BINARY, "/nonexistent/logger", "", &err), -ENOENT);
	assert_non_null(strstr(err.text, "failed to start binary process"));
	assert_non_null(strstr(err.text, "/nonexistent/logger"));
	assert_int_equal(r->out, -1);
	logger_close(&r->logger);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_good_one_gets_everything),
		T(what_it_is_given),
		T(closing_the_ready_pipe_is_ready_unless_v2),
		T(one_that_dies),
		T(one_that_never_gets_ready),
		T(one_that_leaves_its_pipe_to_a_child),
		T(a_stubborn_one_is_terminated),
		T(a_deaf_one_is_killed),
		T(one_that_does_not_die_is_forgotten),
		T(closing_kills_and_is_silent),
		T(a_program_that_is_missing),
	};

	if (argc > 4 && strcmp(argv[1], "--logger") == 0)
		return logger(argc, argv);
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
