/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/cmocka.h"

static char dir[] = "/tmp/test-fd.XXXXXX";
static int at = -1;

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return at < 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)close(at);
	return path_remove_tree(AT_FDCWD, dir);
}

static void put_file(const char *name, const char *text)
{
	assert_int_equal(file_write(at, name, text, strlen(text), 0600, FILE_PLAIN), 0);
}

static void nonblock(void **state)
{
	int p[2];
	char c;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_nonblock(p[0], true), 0);
	assert_int_equal(read(p[0], &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(fd_nonblock(p[0], false), 0);
	assert_int_equal(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
	(void)close(p[0]);
	(void)close(p[1]);
	assert_int_equal(fd_nonblock(p[0], true), -EBADF);
}

static void cloexec_from(void **state)
{
	int low, high;

	(void)state;
	low = fcntl(at, F_DUPFD, 100);
	high = fcntl(at, F_DUPFD, 200);
	assert_true(low >= 100 && high >= 200);
	assert_int_equal(fd_cloexec_from(150), 0);
	assert_int_equal(fcntl(low, F_GETFD), 0);
	assert_int_equal(fcntl(high, F_GETFD), FD_CLOEXEC);
	(void)close(low);
	(void)close(high);
}

static void reading(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	put_file("text", "hello\n");
	assert_int_equal(buf_append_str(&b, "before "), 0);
	assert_int_equal(file_read(at, "text", &b), 0);
	assert_string_equal(buf_str(&b), "before hello\n");
	assert_int_equal(file_read(at, "none", &b), -ENOENT);
	assert_int_equal(file_read(at, ".", &b), -EISDIR);
	buf_clear(&b);
	assert_int_equal(file_read(AT_FDCWD, "/proc/self/stat", &b), 0); /* size 0 in stat(2) */
	assert_true(buf_len(&b) > 10);
}

/* Exactly at the limit is read, one more is refused, at every step width of the reader. */
static void reading_to_the_limit(void **state)
{
	static const size_t sizes[] = { 1, 2, 63, 64, 65, 127, 128, 1000, 4095, 4096, 4097, 8192 };
	static char text[8193];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_buf_ struct buf fits = BUF_LIMIT(sizes[i]);
		_cleanup_buf_ struct buf tight = BUF_LIMIT(sizes[i]);

		assert_int_equal(file_write(at, "sized", text, sizes[i], 0600, FILE_PLAIN), 0);
		assert_int_equal(file_read(at, "sized", &fits), 0);
		assert_int_equal(buf_len(&fits), sizes[i]);
		assert_int_equal(file_write(at, "sized", text, sizes[i] + 1, 0600, FILE_PLAIN), 0);
		assert_int_equal(file_read(at, "sized", &tight), -EFBIG);
	}
}

static void one_line(void **state)
{
	char line[8];

	(void)state;
	put_file("line", "1234567");
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), 0);
	assert_string_equal(line, "1234567");
	put_file("line", "123456\n");
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), 0);
	assert_string_equal(line, "123456");
	put_file("line", "1234567\n"); /* the newline needs no room */
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), 0);
	assert_string_equal(line, "1234567");
	put_file("line", "");
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), 0);
	assert_string_equal(line, "");
	put_file("line", "12345678");
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), -EFBIG);
	put_file("line", "12345678\n");
	assert_int_equal(file_read_line(at, "line", line, sizeof(line)), -EFBIG);
}

static void whole_files(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct stat st;

	(void)state;
	assert_int_equal(file_write(at, "whole", "old", 3, 0640, FILE_SYNC), 0);
	assert_int_equal(file_write(at, "whole", "newer", 5, 0640, FILE_SYNC), 0);
	assert_int_equal(file_read(at, "whole", &b), 0);
	assert_string_equal(buf_str(&b), "newer");
	assert_int_equal(fstatat(at, "whole", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(faccessat(at, "whole.new", F_OK, 0), -1); /* no rest */
	assert_int_equal(file_write(at, "none/whole", "x", 1, 0600, FILE_SYNC), -ENOENT);
}

/* What a crash left behind under the temporary name gives neither its content nor its mode. */
static void remains_of_a_crash(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct stat st;
	int fd;

	(void)state;
	fd = openat(at, "state.new", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0666), 0);
	assert_int_equal(fd_write_all(fd, "torn and long", 13), 0);
	(void)close(fd);
	assert_int_equal(file_write(at, "state", "ok", 2, 0600, FILE_PLAIN), 0);
	assert_int_equal(file_read(at, "state", &b), 0);
	assert_string_equal(buf_str(&b), "ok");
	assert_int_equal(fstatat(at, "state", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void relative_sync(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	assert_int_equal(mkdirat(at, "sub", 0700), 0);
	assert_int_equal(file_write(at, "sub/f", "1", 1, 0600, FILE_SYNC), 0);
	assert_int_equal(file_read(at, "sub/f", &b), 0);
	assert_string_equal(buf_str(&b), "1");
}

static void put(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	assert_int_equal(file_put(at, "never", "1"), -ENOENT); /* no O_CREAT */
	put_file("control", "old");
	assert_int_equal(file_put(at, "control", "new"), 0);
	assert_int_equal(file_read(at, "control", &b), 0);
	assert_string_equal(buf_str(&b), "new");
}

/* More than a pipe holds: a writer that loops, with a reader that is slow. */
static void write_all(void **state)
{
	static char text[300000];
	int p[2], status;
	size_t sum = 0;
	pid_t pid;
	char part[1000];
	ssize_t n;

	(void)state;
	memset(text, 'y', sizeof(text));
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fd_write_all(p[1], text, sizeof(text)) != 0);
	(void)close(p[1]);
	while ((n = read(p[0], part, sizeof(part))) > 0)
		sum += (size_t)n;
	(void)close(p[0]);
	assert_int_equal(sum, sizeof(text));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nonblock),
		cmocka_unit_test(cloexec_from),
		cmocka_unit_test(reading),
		cmocka_unit_test(reading_to_the_limit),
		cmocka_unit_test(one_line),
		cmocka_unit_test(whole_files),
		cmocka_unit_test(remains_of_a_crash),
		cmocka_unit_test(relative_sync),
		cmocka_unit_test(put),
		cmocka_unit_test(write_all),
	};

	(void)umask(022);
	return cmocka_run_group_tests(tests, setup, teardown);
}
