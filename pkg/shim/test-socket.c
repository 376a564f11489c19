/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "shim/socket.h"
#include "tests/cmocka.h"

struct folder {
	char top[64], path[SOCKET_PATH_MAX + 1];
};

static int setup(void **state)
{
	static struct folder f;

	f = (struct folder){ .top = "/tmp/test-socket-XXXXXX" };
	assert_non_null(mkdtemp(f.top));
	assert_int_equal(PATH_PRINTF(f.path, "%s/s/name", f.top), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct folder *f = *state;

	return path_remove_tree(AT_FDCWD, f->top);
}

/* sha256sum of "/run/containerd/containerd.sock/default/web". */
static void the_name_is_the_one_that_containerd_computes(void **state)
{
	static const char want[] = "/run/containerd/s/"
				   "2cde4450fa38c74f53603e01d2afd903b315a27a596f12a151414cd59897d883";
	char a[SOCKET_PATH_MAX + 1], b[SOCKET_PATH_MAX + 1];

	(void)state;
	assert_int_equal(socket_path(SOCKET_DIR, "/run/containerd/containerd.sock", "default", "web",
				     a), 0);
	assert_string_equal(a, want);
	/* Go's Join cleans: what is the same place has the same name. */
	assert_int_equal(socket_path(SOCKET_DIR, "/run//containerd/./x/../containerd.sock/",
				     "default", "web", b), 0);
	assert_string_equal(a, b);
	assert_int_equal(socket_path(SOCKET_DIR, "/run/containerd/containerd.sock", "default", "db",
				     b), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(socket_path("/a/folder/of/42/characters/0123456789abcde", "/x", "ns", "id",
				     a), 0);
	assert_int_equal(strlen(a), SOCKET_PATH_MAX);
	assert_int_equal(socket_path("/a/folder/of/43/characters/0123456789abcdef", "/x", "ns", "id",
				     a), -ENAMETOOLONG);
}

static int dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)strcpy(addr.sun_path, path);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static void it_listens_for_its_owner_only(void **state)
{
	struct folder *f = *state;
	_cleanup_close_ int fd = socket_listen(f->path, NULL), peer = -1;
	char dir[PATH_MAX];
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(PATH_PRINTF(dir, "%s/s", f->top), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	peer = dial(f->path);
	assert_true(peer >= 0);
}

static void a_living_one_is_left_alone(void **state)
{
	struct folder *f = *state;
	_cleanup_close_ int fd = socket_listen(f->path, NULL);
	struct error err = ERROR_NULL;
	struct socket_id before, after;

	assert_true(fd >= 0);
	assert_int_equal(socket_identify(f->path, &before), 0);
	assert_int_equal(socket_listen(f->path, &err), -EADDRINUSE);
	assert_int_equal(socket_identify(f->path, &after), 0);
	assert_true(before.ino == after.ino && before.dev == after.dev);
}

/* Nobody accepts, and no more connections fit: still somebody. */
static void one_with_a_full_backlog_is_living(void **state)
{
	struct folder *f = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), first = -1;
	char dir[PATH_MAX];

	assert_int_equal(PATH_PRINTF(dir, "%s/s", f->top), 0);
	assert_int_equal(mkdir(dir, 0700), 0);
	(void)strcpy(addr.sun_path, f->path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 0), 0);
	first = dial(f->path);
	assert_true(first >= 0);
	assert_int_equal(socket_listen(f->path, NULL), -EADDRINUSE);
}

static void a_dead_one_is_replaced(void **state)
{
	struct folder *f = *state;
	int fd = socket_listen(f->path, NULL);

	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(access(f->path, F_OK), 0);
	fd = socket_listen(f->path, NULL);
	assert_true(fd >= 0);
	(void)close(fd);
}

static void what_cannot_be_replaced_is_an_error(void **state)
{
	struct folder *f = *state;
	struct error err = ERROR_NULL;
	char deep[SOCKET_PATH_MAX + 8];

	assert_int_equal(path_mkdirs(f->path, 0700), 0); /* a folder of that name */
	assert_true(socket_listen(f->path, &err) < 0);
	assert_non_null(strstr(err.text, "remove the dead socket"));
	assert_int_equal(PATH_PRINTF(deep, "%s/file", f->top), 0);
	(void)close(open(deep, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(PATH_PRINTF(deep, "%s/file/name", f->top), 0);
	assert_int_equal(socket_listen(deep, &err), -ENOTDIR);
	assert_int_equal(socket_listen("relative", &err), -ENAMETOOLONG);
	memset(deep, 'a', sizeof(deep) - 1);
	deep[0] = '/';
	deep[SOCKET_PATH_MAX + 1] = 0;
	assert_int_equal(socket_listen(deep, &err), -ENAMETOOLONG);
}

/* Whoever holds it may have been stopped: containerd's start must not hang with it. */
static void the_lock_is_not_waited_for_for_ever(void **state)
{
	struct folder *f = *state;
	struct error err = ERROR_NULL;
	char dir[PATH_MAX];
	int fd;

	assert_int_equal(PATH_PRINTF(dir, "%s/s", f->top), 0);
	assert_int_equal(mkdir(dir, 0700), 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	(void)alarm(20);
	assert_int_equal(socket_listen(f->path, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, dir));
	(void)alarm(0);
	(void)close(fd);
	fd = socket_listen(f->path, NULL);
	assert_true(fd >= 0);
	(void)close(fd);
}

/* Between the other's bind() and listen() its socket looks dead. */
static void the_lock_on_the_folder_is_waited_for(void **state)
{
	struct folder *f = *state;
	char dir[PATH_MAX];
	pid_t child;
	int fd, status, p[2];
	char byte;

	assert_int_equal(PATH_PRINTF(dir, "%s/s", f->top), 0);
	assert_int_equal(mkdir(dir, 0700), 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		(void)close(fd);
		if (write(p[1], "x", 1) != 1)
			_exit(2);
		_exit(socket_listen(f->path, NULL) >= 0 ? 0 : 1);
	}
	assert_int_equal(read(p[0], &byte, 1), 1);
	(void)usleep(50000);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_int_equal(access(f->path, F_OK), -1);
	(void)close(fd); /* and with it the lock */
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void of_many_at_once_one_listens(void **state)
{
	enum { N = 12 };
	struct folder *f = *state;
	int p[2], listening = 0, refused = 0;
	pid_t child[N];
	char byte;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	for (int i = 0; i < N; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			int fd;

			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			fd = socket_listen(f->path, NULL);
			if (write(p[1], fd >= 0 ? "l" : fd == -EADDRINUSE ? "r" : "?", 1) == 1)
				(void)pause(); /* the socket lives as long as we do */
			_exit(1);
		}
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(read(p[0], &byte, 1), 1);
		listening += byte == 'l';
		refused += byte == 'r';
	}
	for (int i = 0; i < N; i++) {
		(void)kill(child[i], SIGKILL);
		(void)waitpid(child[i], NULL, 0);
	}
	assert_int_equal(listening, 1);
	assert_int_equal(refused, N - 1);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void only_ones_own_is_removed(void **state)
{
	struct folder *f = *state;
	struct socket_id first, second;
	int a = socket_listen(f->path, NULL), b;

	assert_true(a >= 0);
	assert_int_equal(socket_identify(f->path, &first), 0);
	assert_int_equal(unlink(f->path), 0);
	b = socket_listen(f->path, NULL); /* a successor's */
	assert_true(b >= 0);
	assert_int_equal(socket_identify(f->path, &second), 0);
	if (first.ino != second.ino) {
		socket_unlink(f->path, &first);
		assert_int_equal(access(f->path, F_OK), 0);
	}
	socket_unlink(f->path, &second);
	assert_int_equal(access(f->path, F_OK), -1);
	socket_unlink(f->path, &second); /* gone already */
	assert_int_equal(socket_identify(f->path, &second), -ENOENT);
	(void)close(a);
	(void)close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(the_name_is_the_one_that_containerd_computes),
		T(it_listens_for_its_owner_only),
		T(a_living_one_is_left_alone),
		T(one_with_a_full_backlog_is_living),
		T(a_dead_one_is_replaced),
		T(what_cannot_be_replaced_is_an_error),
		T(the_lock_on_the_folder_is_waited_for),
		T(the_lock_is_not_waited_for_for_ever),
		T(of_many_at_once_one_listens),
		T(only_ones_own_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
