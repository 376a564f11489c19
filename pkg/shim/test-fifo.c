/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/path.h"
#include "shim/fifo.h"
#include "tests/clock.h"
#include "tests/cmocka.h"

struct rig {
	struct loop *loop;
	struct fifo_open open;
	unsigned int done;
	char dir[64], path[80];
};

static void opened(struct fifo_open *f)
{
	container_of(f, struct rig, open)->done++;
}

static int setup(void **state)
{
	static struct rig r;

	r = (struct rig){ .dir = "/tmp/test-fifo-XXXXXX" };
	assert_non_null(mkdtemp(r.dir));
	assert_int_equal(PATH_PRINTF(r.path, "%s/f", r.dir), 0);
	assert_int_equal(mkfifo(r.path, 0600), 0);
	assert_int_equal(loop_new(&r.loop), 0);
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	fifo_open_cancel(&r->open);
	loop_free(r->loop);
	return path_remove_tree(AT_FDCWD, r->dir);
}

static void run_for(struct rig *r, nsec_t time)
{
	for (nsec_t end = time_now() + time; time_now() < end;)
		assert_int_equal(loop_round(r->loop, end), 0);
}

static void until_done(struct rig *r)
{
	nsec_t end = time_now() + 10 * NSEC_PER_SEC;

	while (!r->done) {
		assert_true(time_now() < end);
		assert_int_equal(loop_round(r->loop, end), 0);
	}
	assert_int_equal(r->done, 1);
	assert_null(r->open.loop);
}

static void it_waits_for_a_reader(void **state)
{
	struct rig *r = *state;
	char buf[8];
	int reader;

	fifo_open_writer(&r->open, r->loop, r->path, time_now() + 10 * NSEC_PER_SEC, opened);
	assert_int_equal(r->done, 0); /* never from inside */
	run_for(r, 30 * NSEC_PER_MSEC);
	assert_int_equal(r->done, 0);
	reader = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(reader >= 0);
	until_done(r);
	assert_true(r->open.result >= 0);
	assert_int_equal(fcntl(r->open.result, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(write(r->open.result, "hello", 5), 5);
	assert_int_equal(read(reader, buf, sizeof(buf)), 5);
	(void)close(reader);
	(void)close(r->open.result);
}

/* containerd restarts, or a client detaches and comes back: SIGPIPE must never reach a container. */
static void a_reader_may_leave_and_come_back(void **state)
{
	struct rig *r = *state;
	int reader = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char buf[8] = "";

	fifo_open_writer(&r->open, r->loop, r->path, NSEC_NEVER, opened);
	until_done(r);
	(void)close(reader);
	assert_int_equal(write(r->open.result, "kept", 4), 4);
	reader = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(read(reader, buf, sizeof(buf)), 4);
	assert_string_equal(buf, "kept");
	(void)close(r->open.result);
	assert_int_equal(read(reader, buf, sizeof(buf)), 0); /* and now it ends */
	(void)close(reader);
}

static void nobody_comes_until_the_deadline(void **state)
{
	struct rig *r = *state;

	fifo_open_writer(&r->open, r->loop, r->path, time_now() + 30 * NSEC_PER_SEC, opened);
	run_for(r, 5 * NSEC_PER_MSEC);
	assert_int_equal(r->done, 0);
	clock_advance(30 * NSEC_PER_SEC);
	until_done(r);
	assert_int_equal(r->open.result, -ETIMEDOUT);
}

static void it_may_be_told_to_hurry(void **state)
{
	struct rig *r = *state;

	fifo_open_hurry(&r->open, time_now()); /* nothing is under way */
	fifo_open_writer(&r->open, r->loop, r->path, time_now() + 30 * NSEC_PER_SEC, opened);
	fifo_open_hurry(&r->open, time_now() + 60 * NSEC_PER_SEC); /* no longer than before */
	fifo_open_hurry(&r->open, time_now() + 2 * NSEC_PER_SEC);
	run_for(r, 5 * NSEC_PER_MSEC);
	assert_int_equal(r->done, 0);
	clock_advance(2 * NSEC_PER_SEC);
	until_done(r);
	assert_int_equal(r->open.result, -ETIMEDOUT);
}

/* It must not spin either: the pauses grow. */
static void waiting_is_cheap(void **state)
{
	struct rig *r = *state;
	unsigned int rounds = 0;

	fifo_open_writer(&r->open, r->loop, r->path, NSEC_NEVER, opened);
	for (nsec_t end = time_now() + 300 * NSEC_PER_MSEC; time_now() < end; rounds++)
		assert_int_equal(loop_round(r->loop, end), 0);
	assert_in_range(rounds, 1, 40);
	fifo_open_cancel(&r->open);
	fifo_open_cancel(&r->open); /* harmless */
	assert_int_equal(r->done, 0);
}

static void one_that_was_canceled_is_silent(void **state)
{
	struct rig *r = *state;
	int reader = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	fifo_open_writer(&r->open, r->loop, r->path, NSEC_NEVER, opened);
	fifo_open_cancel(&r->open);
	run_for(r, 10 * NSEC_PER_MSEC);
	assert_int_equal(r->done, 0);
	(void)close(reader);
}

static void a_file_is_appended_to_and_never_made(void **state)
{
	struct rig *r = *state;
	char path[96], buf[16] = "";
	int fd;

	assert_int_equal(PATH_PRINTF(path, "%s/log", r->dir), 0);
	fifo_open_writer(&r->open, r->loop, path, NSEC_NEVER, opened);
	until_done(r);
	assert_int_equal(r->open.result, -ENOENT);
	assert_int_equal(access(path, F_OK), -1);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "old ", 4), 4);
	r->done = 0;
	fifo_open_writer(&r->open, r->loop, path, NSEC_NEVER, opened);
	until_done(r);
	assert_int_equal(write(r->open.result, "new", 3), 3);
	assert_int_equal(pread(fd, buf, sizeof(buf), 0), 7);
	assert_string_equal(buf, "old new");
	(void)close(fd);
	(void)close(r->open.result);
}

static void a_folder_is_an_error(void **state)
{
	struct rig *r = *state;

	fifo_open_writer(&r->open, r->loop, r->dir, NSEC_NEVER, opened);
	until_done(r);
	assert_int_equal(r->open.result, -EISDIR);
}

/* Two clients of one stdin: the first to close is not the end of it. */
static void stdin_lasts_as_long_as_its_holder(void **state)
{
	struct rig *r = *state;
	int reader, holder, client;
	char buf[8];

	assert_int_equal(fifo_open_stdin(r->path, &reader, &holder), 0);
	assert_true(holder >= 0);
	client = open(r->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(client, "in", 2), 2);
	(void)close(client);
	assert_int_equal(read(reader, buf, sizeof(buf)), 2);
	assert_int_equal(read(reader, buf, sizeof(buf)), -1);
	assert_int_equal(errno, EAGAIN);
	client = open(r->path, O_WRONLY | O_CLOEXEC);
	(void)close(holder); /* CloseIO */
	assert_int_equal(read(reader, buf, sizeof(buf)), -1);
	assert_int_equal(errno, EAGAIN);
	(void)close(client);
	assert_int_equal(read(reader, buf, sizeof(buf)), 0);
	(void)close(reader);
}

static void stdin_may_be_a_file(void **state)
{
	struct rig *r = *state;
	int reader = -2, holder = -2;
	char path[96];

	assert_int_equal(PATH_PRINTF(path, "%s/in", r->dir), 0);
	assert_int_equal(fifo_open_stdin(path, &reader, &holder), -ENOENT);
	assert_int_equal(reader, -2); /* on success only */
	(void)close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(fifo_open_stdin(path, &reader, &holder), 0);
	assert_int_equal(holder, -1);
	(void)close(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(it_waits_for_a_reader),
		T(a_reader_may_leave_and_come_back),
		T(nobody_comes_until_the_deadline), T(it_may_be_told_to_hurry),
		T(waiting_is_cheap),
		T(one_that_was_canceled_is_silent),
		T(a_file_is_appended_to_and_never_made),
		T(a_folder_is_an_error),
		T(stdin_lasts_as_long_as_its_holder),
		T(stdin_may_be_a_file),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
