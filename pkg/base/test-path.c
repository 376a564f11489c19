/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/cmocka.h"

static char dir[] = "/tmp/test-path.XXXXXX";

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return path_remove_tree(AT_FDCWD, dir);
}

#define N40 "0123456789012345678901234567890123456789"

static void ids(void **state)
{
	static const char *const good[] = { "a", "A9", "web-1", "k8s.io", "a_b-c.d",
					    N40 "012345678901234567890123456789012345" };
	static const char *const bad[] = { "", ".", "..", "-a", "a-", "a..b", "a.-b", "a/b", "/a",
					   "a b", "a\n", "\xc3\xa4", "_", "a__b",
					   N40 "0123456789012345678901234567890123456" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (!id_valid(good[i]))
			fail_msg("'%s' is refused", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (id_valid(bad[i]))
			fail_msg("'%s' is taken", bad[i]);
}

static void refs(void **state)
{
	char longest[REF_MAX + 2];

	(void)state;
	assert_true(ref_valid("a"));
	assert_true(ref_valid("web-2026.11.23_4"));
	assert_true(ref_valid("a.."));
	assert_false(ref_valid(""));
	assert_false(ref_valid(".hidden"));
	assert_false(ref_valid("-rf"));
	assert_false(ref_valid("a/b"));
	assert_false(ref_valid("a b"));
	memset(longest, 'x', sizeof(longest));
	longest[REF_MAX] = 0;
	assert_true(ref_valid(longest));
	longest[REF_MAX] = 'x';
	longest[REF_MAX + 1] = 0;
	assert_false(ref_valid(longest));
}

/* Each expectation is what Go's filepath.Join() of the same parts gives. */
static void join(void **state)
{
	static const struct {
		const char *parts[5];
		const char *want;
	} cases[] = {
		{ { "" }, "" },
		{ { "", "" }, "" },
		{ { "a" }, "a" },
		{ { "/" }, "/" },
		{ { "//" }, "/" },
		{ { ".", "." }, "." },
		{ { "a", "b", "c" }, "a/b/c" },
		{ { "a", "", "c" }, "a/c" },
		{ { "", "a" }, "a" },
		{ { "", "/a" }, "/a" },
		{ { "/a", "/b" }, "/a/b" },
		{ { "a/", "/b/" }, "a/b" },
		{ { "/a//b", "./c/." }, "/a/b/c" },
		{ { "a", ".." }, "." },
		{ { "a", "..", ".." }, ".." },
		{ { "a", "../.." }, ".." },
		{ { "..", "..", "a" }, "../../a" },
		{ { "../..", "..", "b" }, "../../../b" },
		{ { "/", "..", "a" }, "/a" },
		{ { "/a/b", "../../.." }, "/" },
		{ { "/a/b", "../c" }, "/a/c" },
		{ { "a/b/../../..", "x" }, "../x" },
		{ { "...", "..a", "a.." }, ".../..a/a.." },
		{ { "/run/containerd/containerd.sock", "k8s.io", "0123" },
		  "/run/containerd/containerd.sock/k8s.io/0123" },
	};
	char buf[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(path_join(buf, sizeof(buf), cases[i].parts), 0);
		if (strcmp(buf, cases[i].want) != 0)
			fail_msg("case %zu: '%s' instead of '%s'", i, buf, cases[i].want);
	}
}

/* No byte beyond the buffer is written, whatever its size. */
static void join_too_long(void **state)
{
	static const char *const parts[][4] = {
		{ "/" }, { "." }, { "/abc", "def" }, { "abc", "..", "defghi" }, { "a", "b", "c" },
	};
	char room[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		char whole[64];

		assert_int_equal(path_join(whole, sizeof(whole), parts[i]), 0);
		for (size_t size = 1; size < 16; size++) {
			int r;

			memset(room, '#', sizeof(room));
			r = path_join(room, size, parts[i]);
			assert_int_equal(room[size], '#');
			if (r == 0)
				assert_string_equal(room, whole);
			else
				assert_int_equal(r, -ENAMETOOLONG);
			if (size > strlen(whole) + 8)
				assert_int_equal(r, 0);
			if (size <= strlen(whole))
				assert_int_equal(r, -ENAMETOOLONG);
		}
	}
}

static void print(void **state)
{
	char buf[8];

	(void)state;
	assert_int_equal(PATH_PRINTF(buf, "%s", "1234567"), 0);
	assert_int_equal(PATH_PRINTF(buf, "%s", "12345678"), -ENAMETOOLONG);
}

static void mkdirs(void **state)
{
	char path[256];
	struct stat st;

	(void)state;
	assert_int_equal(PATH_JOIN(path, dir, "x/y/z"), 0);
	assert_int_equal(path_mkdirs(path, 0711), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0711);
	assert_int_equal(path_mkdirs(path, 0700), 0); /* there already */
	(void)strcat(path, "//w/");
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(path_mkdirs("/", 0700), 0);
	assert_int_not_equal(path_mkdirs("", 0700), 0);
}

/* Success must mean that there is a folder. */
static void mkdirs_over_a_file(void **state)
{
	char path[256];

	(void)state;
	assert_int_equal(PATH_JOIN(path, dir, "file"), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "x", 1, 0600, FILE_PLAIN), 0);
	assert_int_equal(path_mkdirs(path, 0700), -ENOTDIR);
	(void)strcat(path, "/below");
	assert_int_equal(path_mkdirs(path, 0700), -ENOTDIR);
}

static void remove_tree(void **state)
{
	char path[256], outside[256], link[256];

	(void)state;
	assert_int_equal(PATH_JOIN(path, dir, "tree/a/b"), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_JOIN(outside, dir, "outside/kept"), 0);
	assert_int_equal(path_mkdirs(outside, 0700), 0);
	assert_int_equal(PATH_JOIN(link, path, "link"), 0);
	assert_int_equal(PATH_JOIN(outside, dir, "outside"), 0);
	assert_int_equal(symlink(outside, link), 0);
	assert_int_equal(PATH_JOIN(path, dir, "tree/a/file"), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "x", 1, 0600, FILE_PLAIN), 0);
	assert_int_equal(PATH_JOIN(path, dir, "tree"), 0);
	assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(PATH_JOIN(outside, dir, "outside/kept"), 0);
	assert_int_equal(access(outside, F_OK), 0);
	assert_int_equal(path_remove_tree(AT_FDCWD, path), 0); /* missing is fine */
}

static void remove_deep_tree(void **state)
{
	char path[256] = "";

	(void)state;
	assert_int_equal(PATH_JOIN(path, dir, "deep"), 0);
	for (int i = 0; i < 80; i++)
		(void)strcat(path, "/d");
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_JOIN(path, dir, "deep"), 0);
	assert_int_equal(path_remove_tree(AT_FDCWD, path), -ELOOP); /* bounded, and says so */
	(void)strcat(path, "/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d");
	assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
}

static void beneath(void **state)
{
	_cleanup_close_ int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[256];
	int fd;

	(void)state;
	assert_true(at >= 0);
	assert_int_equal(PATH_JOIN(path, dir, "in/sub"), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(symlinkat("sub", at, "in/link"), 0);
	assert_int_equal(symlinkat("/etc", at, "in/out"), 0);
	fd = path_open_beneath(at, "in/sub", O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	(void)close(fd);
	assert_int_equal(path_open_beneath(at, "..", O_RDONLY), -EXDEV);
	assert_int_equal(path_open_beneath(at, "in/../..", O_RDONLY), -EXDEV);
	assert_int_equal(path_open_beneath(at, "/etc", O_RDONLY), -EXDEV);
	assert_int_equal(path_open_beneath(at, "in/link", O_RDONLY), -ELOOP);
	assert_int_equal(path_open_beneath(at, "in/out/passwd", O_RDONLY), -ELOOP);
	assert_int_equal(path_open_beneath(at, "in/link", O_RDONLY | O_DIRECTORY), -ELOOP);
	assert_int_equal(path_open_beneath(at, "in/link/x", O_RDONLY), -ELOOP);
	assert_int_equal(path_open_beneath(at, "in/link", O_PATH), -ELOOP);
	fd = path_open_beneath(at, "in/link", O_PATH | O_NOFOLLOW); /* the link itself */
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(path_open_beneath(at, "none", O_RDONLY), -ENOENT);
	assert_int_equal(path_open_beneath(at, "none/x", O_RDONLY), -ENOENT);
	assert_int_equal(path_open_beneath(at, "", O_RDONLY), -ENOENT);
	fd = path_open_beneath(at, ".", O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	(void)close(fd);
	fd = path_open_beneath(at, "in//sub/", O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(path_remove_tree(at, "in"), 0);
}

/* From here on in this process. */
static int take_away_openat2(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { ARRAY_SIZE(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
			       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0
		       ? -errno
		       : 0;
}

/* As systemd does; the last test, for it cannot be undone. */
static void beneath_without_openat2(void **state)
{
	if (take_away_openat2() < 0)
		skip();
	assert_int_equal(syscall(SYS_openat2, AT_FDCWD, ".", NULL, 0), -1);
	assert_int_equal(errno, ENOSYS);
	beneath(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids),		   cmocka_unit_test(refs),
		cmocka_unit_test(join),		   cmocka_unit_test(join_too_long),
		cmocka_unit_test(print),	   cmocka_unit_test(mkdirs),
		cmocka_unit_test(mkdirs_over_a_file), cmocka_unit_test(remove_tree),
		cmocka_unit_test(remove_deep_tree), cmocka_unit_test(beneath),
		cmocka_unit_test(beneath_without_openat2),
	};

	(void)umask(0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
