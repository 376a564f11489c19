/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/userns.h"
#include "tests/cmocka.h"

static void maps(void **state)
{
	static const struct {
		const char *map;
		bool inside;
	} cases[] = {
		{ "         0          0 4294967295\n", false },
		{ "         0       1000          1\n", true },
		{ "         0          0      65536\n", true },
		{ "         0     100000 4294967295\n", true },
		/* As rootless containers have it: more than one line. */
		{ "         0       1000          1\n         1     100000      65536\n", true },
		{ "         0          0 4294967294\n4294967294 4294967294          1\n", true },
		{ "", true }, /* not mapped yet */
	};
	char dir[] = "/tmp/test-userns.XXXXXX", path[128];

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_false(userns_inside(dir)); /* no such file: no such namespaces */
	assert_int_equal(PATH_PRINTF(path, "%s/self", dir), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/self/uid_map", dir), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(file_write(AT_FDCWD, path, cases[i].map, strlen(cases[i].map), 0600,
					    FILE_PLAIN), 0);
		if (userns_inside(dir) != cases[i].inside)
			fail_msg("case %zu", i);
	}
	assert_int_equal(path_remove_tree(AT_FDCWD, dir), 0);
}

static void a_real_one(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(77);
		_exit(!userns_inside("/proc"));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps),
		cmocka_unit_test(a_real_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
