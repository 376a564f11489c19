/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shim/console.h"
#include "tests/cmocka.h"

struct rig {
	struct loop *loop;
	struct console console;
	unsigned int done;
};

static void done(struct console *c)
{
	container_of(c, struct rig, console)->done++;
}

static int setup(void **state)
{
	static struct rig r;

	r = (struct rig){ 0 };
	assert_int_equal(loop_new(&r.loop), 0);
	assert_int_equal(console_listen(&r.console, r.loop, NULL), 0);
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	console_close(&r->console);
	loop_free(r->loop);
	return 0;
}

static void rounds(struct rig *r, int n)
{
	while (n--)
		assert_int_equal(loop_round(r->loop, time_now() + NSEC_PER_MSEC), 0);
}

static int dial(const struct rig *r)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)strcpy(addr.sun_path, r->console.path);
	assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* As runc does: the terminal's name, and descriptors with it. */
static void send_fds(int sock, const int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char raw[CMSG_SPACE(8 * sizeof(int))];
	} control = { 0 };
	char name[] = "/dev/ptmx";
	struct iovec iov = { name, sizeof(name) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cm;

	if (n) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &msg, 0), (ssize_t)sizeof(name));
}

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 64; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void assert_gone(const char *dir)
{
	assert_int_equal(access(dir, F_OK), -1);
}

static void a_terminal_comes(void **state)
{
	struct rig *r = *state;
	int master, slave, sock, got;
	char dir[sizeof(r->console.dir)];
	struct stat st;

	(void)strcpy(dir, r->console.dir);
	assert_int_equal(stat(r->console.dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700); /* nobody else hands us a terminal */
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	console_wait(&r->console, done);
	sock = dial(r);
	rounds(r, 3);
	assert_int_equal(r->done, 0);
	send_fds(sock, &master, 1);
	rounds(r, 3);
	assert_int_equal(r->done, 1);
	assert_int_equal(r->console.failed, 0);
	got = TAKE_FD(r->console.master);
	assert_true(got >= 0 && got != master);
	assert_true(isatty(got));
	assert_int_equal(fcntl(got, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	console_close(&r->console);
	assert_gone(dir);
	assert_true(isatty(got)); /* it was taken */
	(void)close(got);
	(void)close(sock);
	(void)close(master);
	(void)close(slave);
}

/* runc sends it and ends before we wait for it: the socket's buffer holds it. */
static void one_that_came_before_is_told_from_the_loop(void **state)
{
	struct rig *r = *state;
	int master, slave, sock = dial(r);

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	send_fds(sock, &master, 1);
	(void)close(sock);
	(void)close(master);
	rounds(r, 3);
	assert_true(r->console.master >= 0);
	console_wait(&r->console, done);
	assert_int_equal(r->done, 0);
	rounds(r, 2);
	assert_int_equal(r->done, 1);
	assert_int_equal(r->console.failed, 0);
	(void)close(slave);
	/* Nobody took it: console_close() in teardown closes it. */
}

static void fails(struct rig *r, int code)
{
	rounds(r, 3);
	assert_int_equal(r->done, 1);
	assert_int_equal(r->console.master, -1);
	assert_int_equal(r->console.failed, code);
}

static void what_is_no_terminal_is_refused_and_closed(void **state)
{
	struct rig *r = *state;
	int p[2], sock;
	unsigned int before;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	console_wait(&r->console, done);
	sock = dial(r);
	before = open_fds();
	send_fds(sock, p, 2);
	fails(r, -ENOTTY);
	/* Listener and connection are closed, what came is not kept. */
	assert_int_equal(open_fds(), before - 1);
	(void)close(p[0]);
	(void)close(p[1]);
	(void)close(sock);
}

static void only_the_first_of_several_is_kept(void **state)
{
	struct rig *r = *state;
	int m[4], s[4], sock, fds[6];
	unsigned int before;

	console_wait(&r->console, done);
	sock = dial(r);
	rounds(r, 2);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(openpty(&m[i], &s[i], NULL, NULL, NULL), 0);
		fds[i] = fds[3 + i] = m[i];
	}
	before = open_fds();
	send_fds(sock, fds, 6); /* more than there is room for */
	rounds(r, 3);
	assert_int_equal(r->done, 1);
	assert_true(r->console.master >= 0);
	assert_int_equal(open_fds(), before - 2 + 1);
	for (int i = 0; i < 3; i++) {
		(void)close(m[i]);
		(void)close(s[i]);
	}
	(void)close(sock);
}

static void a_message_without_a_descriptor_is_refused(void **state)
{
	struct rig *r = *state;
	int sock;

	console_wait(&r->console, done);
	sock = dial(r);
	send_fds(sock, NULL, 0);
	fails(r, -EBADMSG);
	(void)close(sock);
}

static void a_peer_that_leaves_is_an_answer_too(void **state)
{
	struct rig *r = *state;

	console_wait(&r->console, done);
	(void)close(dial(r));
	fails(r, -EBADMSG);
}

static void one_connection_only(void **state)
{
	struct rig *r = *state;
	int a = dial(r), b, master, slave;
	char byte;

	rounds(r, 2);
	b = dial(r);
	rounds(r, 2);
	assert_int_equal(read(b, &byte, 1), 0); /* closed */
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	send_fds(a, &master, 1);
	rounds(r, 3);
	assert_true(r->console.master >= 0);
	(void)close(a);
	(void)close(b);
	(void)close(master);
	(void)close(slave);
}

static void closing_leaves_nothing(void **state)
{
	struct rig *r = *state;
	char dir[sizeof(r->console.dir)];
	int sock = dial(r);

	rounds(r, 2);
	(void)strcpy(dir, r->console.dir);
	console_close(&r->console);
	console_close(&r->console); /* harmless */
	assert_gone(dir);
	assert_int_equal(r->done, 0);
	(void)close(sock);
}

static void its_folder_lies_where_the_system_says(void **state)
{
	struct rig *r = *state;
	char top[] = "/tmp/kcX", deep[] = "/tmp/a-folder-of-more-than-twenty";

	console_close(&r->console);
	assert_int_equal(mkdir(top, 0700), 0);
	assert_int_equal(setenv("XDG_RUNTIME_DIR", top, 1), 0);
	assert_int_equal(console_listen(&r->console, r->loop, NULL), 0);
	assert_int_equal(strncmp(r->console.path, "/tmp/kcX/pty-", 13), 0);
	console_close(&r->console);
	assert_int_equal(rmdir(top), 0);
	/* Too long for a socket's path: /tmp it is. */
	assert_int_equal(setenv("XDG_RUNTIME_DIR", deep, 1), 0);
	assert_int_equal(console_listen(&r->console, r->loop, NULL), 0);
	assert_int_equal(strncmp(r->console.path, "/tmp/pty-", 9), 0);
	console_close(&r->console);
	assert_int_equal(setenv("XDG_RUNTIME_DIR", "relative", 1), 0);
	assert_int_equal(console_listen(&r->console, r->loop, NULL), 0);
	assert_int_equal(strncmp(r->console.path, "/tmp/pty-", 9), 0);
	assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
}

static void without_a_place_for_it_it_is_an_error(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_NULL;

	console_close(&r->console);
	assert_int_equal(setenv("XDG_RUNTIME_DIR", "/nonexistent", 1), 0);
	assert_int_equal(console_listen(&r->console, r->loop, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent"));
	assert_null(r->console.loop);
	assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_terminal_comes),
		T(one_that_came_before_is_told_from_the_loop),
		T(what_is_no_terminal_is_refused_and_closed),
		T(only_the_first_of_several_is_kept),
		T(a_message_without_a_descriptor_is_refused),
		T(a_peer_that_leaves_is_an_answer_too),
		T(one_connection_only),
		T(closing_leaves_nothing),
		T(its_folder_lies_where_the_system_says),
		T(without_a_place_for_it_it_is_an_error),
	};

	(void)unsetenv("XDG_RUNTIME_DIR");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
