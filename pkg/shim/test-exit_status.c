/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "shim/exit_status.h"
#include "tests/cmocka.h"

struct folder {
	char path[64];
	int fd;
};

static int setup(void **state)
{
	static struct folder f;

	f = (struct folder){ .path = "/tmp/test-exit-XXXXXX" };
	assert_non_null(mkdtemp(f.path));
	f.fd = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f.fd >= 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct folder *f = *state;

	(void)close(f->fd);
	return path_remove_tree(AT_FDCWD, f->path);
}

static void put(struct folder *f, const char *name, const char *text)
{
	assert_int_equal(file_write(f->fd, name, text, strlen(text), 0600, FILE_PLAIN), 0);
}

static void what_was_written_is_read(void **state)
{
	static const struct exit_status cases[] = {
		{ 4711, 0, 1234567890123456789ULL },
		{ 1, 255, 1 },
		{ INT_MAX, UINT_MAX, UINT64_MAX },
		{ 0, 137, 0 },
	};
	struct folder *f = *state;
	struct exit_status got;
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		exit_status_write(f->path, &cases[i]);
		exit_status_read(f->fd, &got);
		assert_int_equal(got.pid, cases[i].pid);
		assert_int_equal(got.status, cases[i].status);
		assert_true(got.exited_at == cases[i].exited_at);
	}
	assert_int_equal(fstatat(f->fd, EXIT_STATUS_FILE, &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void assert_killed(struct folder *f, pid_t pid)
{
	nsec_t before = time_wall();
	struct exit_status got;

	memset(&got, 0xff, sizeof(got));
	exit_status_read(f->fd, &got);
	assert_int_equal(got.pid, pid);
	assert_int_equal(got.status, 137);
	assert_true(got.exited_at >= before && got.exited_at <= time_wall());
}

static void nothing_written_means_killed(void **state)
{
	struct folder *f = *state;

	assert_killed(f, 0);
	put(f, "init.pid", "4711");
	assert_killed(f, 4711);
	put(f, "init.pid", "4711\n");
	assert_killed(f, 4711);
	put(f, "init.pid", "-1");
	assert_killed(f, 0);
	put(f, "init.pid", "2147483648");
	assert_killed(f, 0);
}

/* A file of another version, or one that a full disk has cut. */
static void what_cannot_be_read_means_killed(void **state)
{
	static const char *const bad[] = {
		"",	    "\n",	"1",	      "1 2",	   "1 2 ",
		"1 2 3 4",  "1  2 3",	"-1 2 3",     "1 2 3x",	   " 1 2 3",
		"1 -2 3",   "one 2 3",	"1 2 3\n4 5", "2147483648 0 0",
		"1 4294967296 3", "1 2 18446744073709551616",
		"1111111111111111111111111111111111111111111111111111111111111111111111111111111111",
	};
	struct folder *f = *state;

	put(f, "init.pid", "99");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(f, EXIT_STATUS_FILE, bad[i]);
		if (strcmp(bad[i], "1 2 3\n4 5") == 0) {
			struct exit_status got;

			exit_status_read(f->fd, &got); /* one line counts */
			assert_int_equal(got.status, 2);
			continue;
		}
		assert_killed(f, 99);
	}
}

static void a_bundle_that_is_gone_is_no_matter(void **state)
{
	struct folder *f = *state;
	struct exit_status st = { 1, 2, 3 };
	char path[PATH_MAX + 16];

	exit_status_write("/nonexistent/bundle", &st);
	memset(path, 'a', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	exit_status_write(path, &st);
	assert_killed(f, 0);
}

/* Only what was written and then settled says that nothing is left to do. */
static void settled_after_delete_only(void **state)
{
	static const struct exit_status written = { 4711, 3, 1234567890123456789ULL };
	struct folder *f = *state;
	struct exit_status got;

	exit_status_settle(f->path); /* nothing to settle */
	assert_false(exit_status_settled(f->fd, &got));
	exit_status_write(f->path, &written);
	assert_false(exit_status_settled(f->fd, &got));
	exit_status_settle(f->path);
	assert_true(exit_status_settled(f->fd, &got));
	assert_int_equal(got.pid, 4711);
	assert_int_equal(got.status, 3);
	assert_true(got.exited_at == written.exited_at);
	put(f, EXIT_STATUS_SETTLED, "4711 3");
	assert_false(exit_status_settled(f->fd, &got));
}

static void a_new_container_knows_of_no_exit(void **state)
{
	static const struct exit_status written = { 4711, 3, 1 };
	struct folder *f = *state;
	struct exit_status got;

	exit_status_forget(f->fd); /* nothing to forget */
	exit_status_write(f->path, &written);
	exit_status_settle(f->path);
	exit_status_write(f->path, &written);
	exit_status_forget(f->fd);
	assert_false(exit_status_settled(f->fd, &got));
	assert_killed(f, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(what_was_written_is_read),
		T(nothing_written_means_killed),
		T(what_cannot_be_read_means_killed),
		T(a_bundle_that_is_gone_is_no_matter),
		T(settled_after_delete_only),
		T(a_new_container_knows_of_no_exit),
	};

	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
