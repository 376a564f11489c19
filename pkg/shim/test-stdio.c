/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real FIFOs, pipes and terminals. The test is the client at one end and the container's process
 * at the other; a logger is this very program, started again.
 */
#include "shim/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "event/signals.h"
#include "tests/clock.h"
#include "tests/cmocka.h"

#define PATIENCE (20 * NSEC_PER_SEC)
#define BIG      ((size_t)2 << 20)

enum { IN, OUT, ERR };

struct rig {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct stdio io;
	char dir[64], path[3][96], self[PATH_MAX];
	int process[3]; /* the container's ends; -1 = /dev/null or closed */
	int client[3];  /* the client's ends */
	unsigned int done, fds;
	int result;
	struct error err;
};

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void sweep(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct rig, signals)->reaper);
}

static int setup(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	static const char *const names[] = { "in", "out", "err" };
	static struct rig r;
	ssize_t n;

	r = (struct rig){ .dir = "/tmp/test-stdio-XXXXXX" };
	assert_non_null(mkdtemp(r.dir));
	n = readlink("/proc/self/exe", r.self, sizeof(r.self) - 1);
	assert_true(n > 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(PATH_PRINTF(r.path[i], "%s/%s", r.dir, names[i]), 0);
		assert_int_equal(mkfifo(r.path[i], 0600), 0);
		r.process[i] = r.client[i] = -1;
	}
	assert_int_equal(loop_new(&r.loop), 0);
	reaper_init(&r.reaper);
	assert_int_equal(signals_open(r.loop, &r.signals, signos, sweep), 0);
	r.fds = open_fds();
	*state = &r;
	return 0;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* Nothing may be left open, whatever a test has done. */
static int teardown(void **state)
{
	struct rig *r = *state;

	stdio_close(&r->io);
	stdio_close(&r->io); /* harmless */
	for (int i = 0; i < 3; i++) {
		shut(&r->process[i]);
		shut(&r->client[i]);
	}
	assert_int_equal(open_fds(), r->fds);
	while (waitpid(-1, NULL, 0) > 0)
		;
	signals_close(&r->signals);
	loop_free(r->loop);
	return path_remove_tree(AT_FDCWD, r->dir);
}

static void done(struct stdio *io, int result, const struct error *err)
{
	struct rig *r = container_of(io, struct rig, io);

	r->done++;
	r->result = result;
	r->err = *err;
}

#define UNTIL(r, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + PATIENCE;                                               \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((r)->loop, time_now() + 10 * NSEC_PER_MSEC),   \
					 0);                                                       \
		}                                                                                  \
	} while (0)

static void rounds(struct rig *r, int n)
{
	while (n--)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
}

static void init(struct rig *r, const char *in, const char *out, const char *err, bool terminal)
{
	assert_int_equal(stdio_init(&r->io, r->loop, &r->reaper, in, out, err, terminal), 0);
}

/* Prepares, and starts the process: it has its own copies of its ends. */
static void prepare(struct rig *r, uid_t uid)
{
	struct spawn s = { 0 };
	int result = stdio_prepare(&r->io, uid, uid, "k8s.io", "web", done, &r->err);

	assert_in_range(result, 0, 1);
	if (result) {
		assert_int_equal(r->done, 0);
		UNTIL(r, r->done);
		assert_int_equal(r->result, 0);
		r->done = 0;
	}
	stdio_child(&r->io, &s);
	for (unsigned int i = 0; i < s.n_fds; i++)
		if (s.fds[i].fd >= 0)
			r->process[s.fds[i].as] = fcntl(s.fds[i].fd, F_DUPFD_CLOEXEC, 3);
}

/* The client opens its ends, as containerd's clients do. */
static void connect_client(struct rig *r)
{
	r->client[OUT] = open(r->path[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	r->client[ERR] = open(r->path[ERR], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(r->client[OUT] >= 0 && r->client[ERR] >= 0);
}

static void attach(struct rig *r)
{
	stdio_attach(&r->io, time_now() + 30 * NSEC_PER_SEC, done);
	assert_int_equal(r->done, 0); /* never from inside */
}

static void attached(struct rig *r)
{
	attach(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
	r->done = 0;
}

static void drain(struct rig *r, nsec_t limit)
{
	stdio_drain(&r->io, time_now() + limit, done);
	assert_int_equal(r->done, 0);
}

/* All three FIFOs, up to running. */
static void start(struct rig *r)
{
	init(r, r->path[IN], r->path[OUT], r->path[ERR], false);
	prepare(r, 0);
	connect_client(r);
	attached(r);
	r->client[IN] = open(r->path[IN], O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(r->client[IN] >= 0);
}

static size_t take(int fd, char *buf, size_t size)
{
	ssize_t n = read(fd, buf, size);

	return n > 0 ? (size_t)n : 0;
}

static void expect(struct rig *r, int fd, const char *want)
{
	char got[256] = "";
	size_t n = 0;

	UNTIL(r, (n += take(fd, got + n, sizeof(got) - 1 - n)) >= strlen(want));
	assert_string_equal(got, want);
}

static void put(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void all_three_are_carried(void **state)
{
	struct rig *r = *state;

	start(r);
	put(r->process[OUT], "to stdout");
	put(r->process[ERR], "to stderr");
	put(r->client[IN], "to stdin");
	expect(r, r->client[OUT], "to stdout");
	expect(r, r->client[ERR], "to stderr");
	expect(r, r->process[IN], "to stdin");
	assert_true(stdio_quiet(&r->io));
}

/* A byte that tells its place. */
static uint8_t mark(size_t at)
{
	return (uint8_t)(at * 7 + at / 251);
}

static bool produce(int fd, size_t *at)
{
	uint8_t block[4096];
	ssize_t n;

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = mark(*at + i);
	n = write(fd, block, sizeof(block));
	if (n > 0)
		*at += (size_t)n;
	return n > 0;
}

/* Writes until nothing moves any more. */
static void fill(struct rig *r, size_t *at)
{
	size_t before;

	do {
		before = *at;
		while (produce(r->process[OUT], at))
			;
		rounds(r, 3);
	} while (*at != before);
}

static void consume(int fd, size_t *at)
{
	uint8_t block[8192];
	ssize_t n = read(fd, block, sizeof(block));

	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(block[i], mark(*at + (size_t)i));
	if (n > 0)
		*at += (size_t)n;
}

/*
 * The client does not read for a while: the process is held back by the kernel's buffers, so that
 * we hold next to nothing. It exits with all of that on the way, and none of it is lost.
 */
static void a_slow_reader_holds_the_process_back_and_loses_nothing(void **state)
{
	struct rig *r = *state;
	size_t sent = 0, got = 0, before;

	start(r);
	assert_int_equal(fcntl(r->process[OUT], F_SETFL, O_NONBLOCK), 0);
	fill(r, &sent);
	assert_in_range(sent, 64 << 10, 512 << 10);
	assert_false(stdio_quiet(&r->io));
	put(r->process[ERR], "is not held up");
	expect(r, r->client[ERR], "is not held up");
	while (sent < BIG) {
		(void)produce(r->process[OUT], &sent);
		rounds(r, 1);
		consume(r->client[OUT], &got);
	}
	fill(r, &sent);
	shut(&r->process[OUT]);
	shut(&r->process[ERR]);
	stdio_exited(&r->io);
	drain(r, 10 * NSEC_PER_SEC);
	rounds(r, 3);
	assert_int_equal(r->done, 0); /* there is still something on its way */
	UNTIL(r, (consume(r->client[OUT], &got), r->done));
	assert_int_equal(r->result, 0);
	stdio_close(&r->io);
	for (before = got + 1; before != got;) {
		before = got;
		consume(r->client[OUT], &got);
	}
	assert_int_equal(got, sent);
}

static void a_client_that_leaves_breaks_nothing(void **state)
{
	struct rig *r = *state;

	start(r);
	put(r->process[OUT], "one ");
	expect(r, r->client[OUT], "one ");
	shut(&r->client[OUT]);
	rounds(r, 3);
	put(r->process[OUT], "two "); /* no SIGPIPE, no EPIPE */
	rounds(r, 3);
	put(r->process[OUT], "three");
	r->client[OUT] = open(r->path[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	expect(r, r->client[OUT], "two three");
	assert_true(pump_is_open(&r->io.pump[OUT]));
}

static void stdin_ends_at_close_io(void **state)
{
	struct rig *r = *state;
	char byte;

	start(r);
	assert_int_equal(fcntl(r->process[IN], F_SETFL, O_NONBLOCK), 0);
	put(r->client[IN], "x");
	expect(r, r->process[IN], "x");
	shut(&r->client[IN]); /* one client leaves: another may come */
	rounds(r, 3);
	assert_int_equal(read(r->process[IN], &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	r->client[IN] = open(r->path[IN], O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	put(r->client[IN], "y");
	stdio_close_stdin(&r->io);
	stdio_close_stdin(&r->io); /* as often as one likes */
	expect(r, r->process[IN], "y");
	assert_int_equal(read(r->process[IN], &byte, 1), -1);
	shut(&r->client[IN]);
	UNTIL(r, read(r->process[IN], &byte, 1) == 0);
	/* Output goes on. */
	put(r->process[OUT], "still here");
	expect(r, r->client[OUT], "still here");
}

static void a_process_that_closes_its_stdin_stops_nobody(void **state)
{
	struct rig *r = *state;

	start(r);
	shut(&r->process[IN]);
	put(r->client[IN], "nobody reads this");
	UNTIL(r, !pump_is_open(&r->io.pump[IN]));
	put(r->process[OUT], "fine");
	expect(r, r->client[OUT], "fine");
	stdio_close_stdin(&r->io);
}

static void without_a_reader_attaching_ends_at_its_deadline(void **state)
{
	struct rig *r = *state;

	init(r, "", r->path[OUT], r->path[ERR], false);
	prepare(r, 0);
	r->client[ERR] = open(r->path[ERR], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	attach(r);
	rounds(r, 5);
	assert_int_equal(r->done, 0);
	clock_advance(30 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ETIMEDOUT);
	assert_non_null(strstr(r->err.text, "containerd-shim: opening w/o fifo"));
	assert_non_null(strstr(r->err.text, r->path[OUT]));
	rounds(r, 3);
	assert_int_equal(r->done, 1);
}

static void what_cannot_be_opened_is_an_error(void **state)
{
	struct rig *r = *state;

	assert_int_equal(unlink(r->path[IN]), 0);
	init(r, r->path[IN], r->path[OUT], r->path[ERR], false);
	prepare(r, 0);
	connect_client(r);
	attach(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ENOENT);
	assert_non_null(strstr(r->err.text, r->path[IN]));
	stdio_close(&r->io);
	for (int i = 0; i < 3; i++)
		shut(&r->process[i]);
	r->done = 0;
	assert_int_equal(unlink(r->path[ERR]), 0);
	init(r, "", r->path[OUT], r->path[ERR], false);
	prepare(r, 0);
	attach(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ENOENT);
	assert_non_null(strstr(r->err.text, r->path[ERR]));
}

static void uris_that_are_none(void **state)
{
	static const struct {
		const char *in, *out, *err, *word;
	} cases[] = {
		{ "", "npipe://x", "", "unknown STDIO scheme npipe" },
		{ "npipe://x", "", "", "unknown STDIO scheme npipe" },
		{ "", "", "what://x", "unknown STDIO scheme what" },
		{ "", "file://", "", "has no valid path" },
		{ "", "binary:///nonexistent/logger", "", "failed to start binary process" },
		{ "", "file:///proc/nonexistent/log", "", "create the folder" },
	};
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		init(r, cases[i].in, cases[i].out, cases[i].err, false);
		assert_true(stdio_prepare(&r->io, 0, 0, "ns", "id", done, &r->err) < 0);
		if (!strstr(r->err.text, cases[i].word))
			fail_msg("'%s' is not in: %s", cases[i].word, r->err.text);
		stdio_close(&r->io);
	}
	assert_int_equal(r->done, 0);
}

static void nothing_at_all(void **state)
{
	struct rig *r = *state;
	struct spawn s = { 0 };

	init(r, "", "", "", false);
	assert_int_equal(stdio_prepare(&r->io, 0, 0, "ns", "id", done, NULL), 0);
	stdio_child(&r->io, &s);
	assert_int_equal(s.n_fds, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(s.fds[i].fd, -1); /* /dev/null, open for both */
	assert_null(stdio_console(&r->io));
	attached(r);
	assert_true(stdio_quiet(&r->io));
	stdio_exited(&r->io);
	stdio_close_stdin(&r->io);
	drain(r, NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
}

static void a_file_takes_both_and_is_made_with_its_folders(void **state)
{
	struct rig *r = *state;
	_cleanup_buf_ struct buf text = BUF_NULL;
	char uri[128], path[128];

	assert_int_equal(PATH_PRINTF(path, "%s/a/b/log", r->dir), 0);
	assert_int_equal(PATH_PRINTF(uri, "file://%s", path), 0);
	init(r, "", uri, "/ignored", false);
	prepare(r, 0);
	attached(r);
	put(r->process[OUT], "one\n");
	UNTIL(r, stdio_quiet(&r->io));
	rounds(r, 3);
	put(r->process[ERR], "two\n");
	shut(&r->process[OUT]);
	shut(&r->process[ERR]);
	drain(r, 10 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(file_read(AT_FDCWD, path, &text), 0);
	assert_string_equal(buf_str(&text), "one\ntwo\n");
}

/* A user namespace's root opens /dev/stdout again. */
static void pipes_belong_to_the_container(void **state)
{
	struct rig *r = *state;
	struct stat st;

	init(r, r->path[IN], r->path[OUT], r->path[ERR], false);
	if (geteuid() != 0)
		skip();
	prepare(r, 4711);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fstat(r->process[i], &st), 0);
		assert_int_equal(st.st_uid, 4711);
		assert_int_equal(st.st_gid, 4711);
	}
}

/* --- the end -------------------------------------------------------------------------------- */

/* A daemon that the process left behind has its stdout: Delete does not wait for that. */
static void an_orphan_with_the_pipe_is_given_up(void **state)
{
	struct rig *r = *state;

	start(r);
	put(r->process[OUT], "last words");
	shut(&r->process[ERR]);
	stdio_exited(&r->io);
	drain(r, 10 * NSEC_PER_SEC);
	expect(r, r->client[OUT], "last words");
	rounds(r, 3);
	assert_int_equal(r->done, 0);
	clock_advance(10 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ETIMEDOUT);
	assert_int_equal(r->err.code, -ETIMEDOUT);
}

static void a_second_drain_after_that_has_nothing_to_do(void **state)
{
	struct rig *r = *state;

	start(r);
	drain(r, 0);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ETIMEDOUT);
	r->done = 0;
	drain(r, 10 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
}

static void closing_is_legal_at_any_time(void **state)
{
	struct rig *r = *state;

	for (int stage = 0; stage < 6; stage++) {
		r->done = 0;
		init(r, r->path[IN], r->path[OUT], r->path[ERR], stage == 5);
		if (stage >= 1)
			prepare(r, 0);
		if (stage >= 2)
			attach(r);
		if (stage >= 3)
			connect_client(r);
		if (stage == 4) {
			UNTIL(r, r->done);
			r->done = 0;
			drain(r, NSEC_PER_SEC);
		}
		stdio_close(&r->io);
		rounds(r, 3);
		assert_int_equal(r->done, 0);
		for (int i = 0; i < 3; i++) {
			shut(&r->process[i]);
			shut(&r->client[i]);
		}
		assert_int_equal(open_fds(), r->fds);
	}
}

/* --- terminals ------------------------------------------------------------------------------ */

/* The OCI runtime: sends a terminal's master to the console socket, keeps the slave. */
static void send_master(struct rig *r)
{
	union {
		struct cmsghdr align;
		char raw[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct iovec iov = { (char *)"pts", 3 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), master;

	assert_int_equal(openpty(&master, &r->process[OUT], NULL, NULL, NULL), 0);
	(void)strcpy(addr.sun_path, stdio_console(&r->io));
	assert_int_equal(connect(sock, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &master, sizeof(master));
	assert_int_equal(sendmsg(sock, &msg, 0), 3);
	(void)close(sock);
	(void)close(master);
}

static void start_terminal(struct rig *r, const char *in)
{
	init(r, in, r->path[OUT], "", true);
	prepare(r, 0);
	assert_int_equal(r->process[OUT], -1); /* the runtime gets no pipes */
	assert_non_null(stdio_console(&r->io));
	r->client[OUT] = open(r->path[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	attach(r);
	rounds(r, 2);
	assert_int_equal(r->done, 0);
	send_master(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
	r->done = 0;
}

static void a_terminal_both_ways(void **state)
{
	struct rig *r = *state;
	char line[16];

	start_terminal(r, r->path[IN]);
	put(r->process[OUT], "prompt> ");
	expect(r, r->client[OUT], "prompt> ");
	r->client[IN] = open(r->path[IN], O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	put(r->client[IN], "ls\n");
	expect(r, r->client[OUT], "ls\r\n"); /* the terminal's echo */
	assert_int_equal(read(r->process[OUT], line, sizeof(line)), 3);
}

static void its_size_is_set(void **state)
{
	struct rig *r = *state;
	struct winsize ws;

	init(r, "", "", "", false);
	assert_int_equal(stdio_resize(&r->io, 1, 2, NULL), 0); /* without a terminal: no effect */
	stdio_close(&r->io);
	start_terminal(r, "");
	assert_int_equal(stdio_resize(&r->io, 132, 43, NULL), 0);
	assert_int_equal(ioctl(r->process[OUT], TIOCGWINSZ, &ws), 0);
	assert_int_equal(ws.ws_col, 132);
	assert_int_equal(ws.ws_row, 43);
	stdio_exited(&r->io);
	UNTIL(r, !pump_is_open(&r->io.pump[OUT]));
	assert_int_equal(stdio_resize(&r->io, 1, 2, NULL), 0); /* it is gone */
}

/* TestContainerExecLargeOutputWithTTY: all of it arrives, the last line too. */
static void a_terminal_is_emptied_at_the_exit(void **state)
{
	enum { LINES = 20000 };
	struct rig *r = *state;
	_cleanup_buf_ struct buf all = BUF_NULL;
	char line[16], block[4096];
	size_t n;

	start_terminal(r, "");
	assert_int_equal(fcntl(r->process[OUT], F_SETFL, O_NONBLOCK), 0);
	for (size_t at = 0; at < 7 * LINES;) {
		ssize_t put_;

		(void)snprintf(line, sizeof(line), "%06zu\n", at / 7);
		put_ = write(r->process[OUT], line + at % 7, 7 - at % 7);
		if (put_ > 0) {
			at += (size_t)put_;
			continue;
		}
		rounds(r, 1);
		n = take(r->client[OUT], block, sizeof(block));
		assert_int_equal(buf_append(&all, block, n), 0);
	}
	shut(&r->process[OUT]);
	stdio_exited(&r->io);
	drain(r, 10 * NSEC_PER_SEC);
	UNTIL(r, (n = take(r->client[OUT], block, sizeof(block)),
		  (void)buf_append(&all, block, n), r->done));
	assert_int_equal(r->result, 0);
	while ((n = take(r->client[OUT], block, sizeof(block))))
		assert_int_equal(buf_append(&all, block, n), 0);
	assert_int_equal(buf_len(&all), 8 * LINES); /* "\n" becomes "\r\n" */
	assert_string_equal(buf_str(&all) + 8 * (LINES - 1), "019999\r\n");
}

static void a_terminal_that_does_not_come(void **state)
{
	struct rig *r = *state;

	init(r, "", r->path[OUT], "", true);
	prepare(r, 0);
	r->client[OUT] = open(r->path[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	attach(r);
	rounds(r, 5);
	assert_int_equal(r->done, 0);
	clock_advance(30 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ETIMEDOUT);
}

static void a_terminal_may_be_told_to_hurry(void **state)
{
	struct rig *r = *state;

	init(r, "", r->path[OUT], "", true);
	stdio_hurry(&r->io, time_now()); /* nothing is under way */
	prepare(r, 0);
	r->client[OUT] = open(r->path[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	attach(r);
	rounds(r, 5);
	stdio_hurry(&r->io, time_now() + 60 * NSEC_PER_SEC); /* no longer than before */
	stdio_hurry(&r->io, time_now() + 2 * NSEC_PER_SEC);
	rounds(r, 5);
	assert_int_equal(r->done, 0);
	clock_advance(2 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ETIMEDOUT);
}

/* Attaching has failed for want of an output; what the runtime sends then is nobody's any more. */
static void a_terminal_that_comes_too_late(void **state)
{
	struct rig *r = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char none[PATH_MAX];

	assert_int_equal(PATH_PRINTF(none, "%s/none", r->dir), 0);
	init(r, "", none, "", true);
	prepare(r, 0);
	(void)strcpy(addr.sun_path, stdio_console(&r->io));
	assert_int_equal(connect(sock, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	rounds(r, 2);
	attach(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, -ENOENT);
	(void)!send(sock, "x", 1, MSG_NOSIGNAL);
	rounds(r, 5);
	assert_int_equal(r->done, 1);
	assert_int_not_equal(access(addr.sun_path, F_OK), 0);
	(void)close(sock);
}

static void something_else_than_a_terminal(void **state)
{
	struct rig *r = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	init(r, "", "", "", true);
	prepare(r, 0);
	attach(r);
	(void)strcpy(addr.sun_path, stdio_console(&r->io));
	assert_int_equal(connect(sock, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	put(sock, "no descriptor");
	UNTIL(r, r->done);
	assert_true(r->result < 0);
	assert_non_null(strstr(r->err.text, "failed to retrieve console master"));
	(void)close(sock);
}

/* --- loggers -------------------------------------------------------------------------------- */

static int logger(const char *to)
{
	int fd = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	char buf[4096];
	ssize_t n;

	(void)close(5); /* ready */
	for (int from = 3; from <= 4; from++)
		while ((n = read(from, buf, sizeof(buf))) > 0)
			if (write(fd, buf, (size_t)n) != n)
				return 1;
	return 0;
}

static void use_logger(struct rig *r, bool terminal)
{
	char uri[PATH_MAX + 256];

	assert_int_equal(PATH_PRINTF(uri, "binary://%s?--logger=%s/log", r->self, r->dir), 0);
	init(r, "", uri, uri, terminal);
	prepare(r, 0);
}

static void log_is(struct rig *r, const char *want)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	char path[128];

	assert_int_equal(PATH_PRINTF(path, "%s/log", r->dir), 0);
	assert_int_equal(file_read(AT_FDCWD, path, &text), 0);
	assert_string_equal(buf_str(&text), want);
}

/* The process writes to it directly; that it has ended is waited for. */
static void a_logger_reads_the_pipes_itself(void **state)
{
	struct rig *r = *state;

	use_logger(r, false);
	attached(r);
	assert_false(pump_is_open(&r->io.pump[OUT]) || pump_is_open(&r->io.pump[ERR]));
	put(r->process[OUT], "out\n");
	put(r->process[ERR], "err\n");
	shut(&r->process[OUT]);
	shut(&r->process[ERR]);
	drain(r, 10 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
	log_is(r, "out\nerr\n");
}

static void a_logger_of_a_terminal(void **state)
{
	struct rig *r = *state;

	use_logger(r, true);
	attach(r);
	send_master(r);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
	r->done = 0;
	put(r->process[OUT], "out\n");
	shut(&r->process[OUT]);
	stdio_exited(&r->io);
	drain(r, 10 * NSEC_PER_SEC);
	UNTIL(r, r->done);
	assert_int_equal(r->result, 0);
	log_is(r, "out\r\n");
}

static void a_logger_that_is_not_waited_for(void **state)
{
	struct rig *r = *state;

	use_logger(r, false);
	attached(r);
	stdio_close(&r->io); /* with the process still there */
	assert_null(r->io.loop);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(all_three_are_carried),
		T(a_slow_reader_holds_the_process_back_and_loses_nothing),
		T(a_client_that_leaves_breaks_nothing),
		T(stdin_ends_at_close_io),
		T(a_process_that_closes_its_stdin_stops_nobody),
		T(without_a_reader_attaching_ends_at_its_deadline),
		T(what_cannot_be_opened_is_an_error),
		T(uris_that_are_none),
		T(nothing_at_all),
		T(a_file_takes_both_and_is_made_with_its_folders),
		T(pipes_belong_to_the_container),
		T(an_orphan_with_the_pipe_is_given_up),
		T(a_second_drain_after_that_has_nothing_to_do),
		T(closing_is_legal_at_any_time),
		T(a_terminal_both_ways),
		T(its_size_is_set),
		T(a_terminal_is_emptied_at_the_exit),
		T(a_terminal_that_does_not_come),
		T(a_terminal_may_be_told_to_hurry),
		T(a_terminal_that_comes_too_late),
		T(something_else_than_a_terminal),
		T(a_logger_reads_the_pipes_itself),
		T(a_logger_of_a_terminal),
		T(a_logger_that_is_not_waited_for),
	};

	if (argc == 3 && strcmp(argv[1], "--logger") == 0)
		return logger(argv[2]);
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
