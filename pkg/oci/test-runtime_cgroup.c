/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "oci/runtime.h"
#include "tests/cmocka.h"

static char top[] = "/tmp/kyb-state.XXXXXX";

static int ask(const char *text, bool crun, char *buf, size_t size)
{
	char id[] = "c1", file[PATH_MAX];
	const struct runtime rt = { .root = top, .id = id, .crun = crun };
	struct error err = ERROR_NULL;
	int r;

	assert_int_equal(PATH_PRINTF(file, "%s/c1/%s", top, crun ? "status" : "state.json"), 0);
	assert_int_equal(file_write(AT_FDCWD, file, text, strlen(text), 0600, FILE_PLAIN), 0);
	r = runtime_cgroup(&rt, buf, size, &err);
	assert_int_equal(unlink(file), 0);
	assert_true((r < 0) == (err.code < 0));
	return r;
}

static void of_runc(void **state)
{
	char buf[32];

	(void)state;
	assert_int_equal(ask("{\"cgroup_paths\":{\"\":\"/sys/fs/cgroup/ns/c1\"}}", false, buf,
			     sizeof(buf)), 0);
	assert_string_equal(buf, "/ns/c1");
	/* Version 1: a path for each controller. */
	assert_int_equal(ask("{\"cgroup_paths\":{\"cpu\":\"/sys/fs/cgroup/cpu/ns/c1\"}}", false, buf,
			     sizeof(buf)), -ENOENT);
	assert_int_equal(ask("{\"cgroup_paths\":{\"\":7}}", false, buf, sizeof(buf)), -EBADMSG);
	assert_int_equal(ask("{\"cgroup_paths\":{\"\":\"/sys/fs/cgroup/\"}}", false, buf,
			     sizeof(buf)), -ENOENT);
	assert_int_equal(ask("{\"cgroup_paths\":{\"\":\"/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p\"}}", false,
			     buf, sizeof(buf)), -ENAMETOOLONG);
	assert_int_equal(ask("{", false, buf, sizeof(buf)), -EBADMSG);
}

static void of_crun(void **state)
{
	char buf[32];

	(void)state;
	assert_int_equal(ask("{\"cgroup-path\":\"/ns/c1\"}", true, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/ns/c1");
	assert_int_equal(ask("{\"cgroup-path\":\"\"}", true, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(ask("{}", true, buf, sizeof(buf)), -ENOENT);
}

static void no_state(void **state)
{
	char id[] = "c2", buf[32];
	const struct runtime rt = { .root = top, .id = id };
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(runtime_cgroup(&rt, buf, sizeof(buf), &err), -ENOENT);
}

static int setup(void **state)
{
	char path[PATH_MAX];

	(void)state;
	if (!mkdtemp(top) || PATH_PRINTF(path, "%s/c1", top) < 0)
		return -1;
	return mkdir(path, 0700);
}

static int teardown(void **state)
{
	char path[PATH_MAX];

	(void)state;
	if (PATH_PRINTF(path, "%s/c1", top) < 0 || rmdir(path) < 0)
		return -1;
	return rmdir(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_runc),
		cmocka_unit_test(of_crun),
		cmocka_unit_test(no_state),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
