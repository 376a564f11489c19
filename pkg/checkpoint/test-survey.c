/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "checkpoint/survey.h"
#include "tests/cmocka.h"

static void targets(void **state)
{
	static const struct {
		const char *target;
		bool cuda;
		enum reason want;
	} cases[] = {
		{ "/dev/nvidia0", true, REASON_NONE },
		{ "/dev/nvidia0", false, REASON_LEFTOVER_DEVICE_FD },
		{ "/dev/nvidiactl", false, REASON_LEFTOVER_DEVICE_FD },
		{ "/dev/nvidia-uvm", true, REASON_NONE },
		{ "/dev/nvidia-fs3", true, REASON_LEFTOVER_DEVICE_FD },
		{ "/dev/infiniband/uverbs0", true, REASON_LEFTOVER_DEVICE_FD },
		{ "/dev/gdrdrv", true, REASON_LEFTOVER_DEVICE_FD },
		{ "anon_inode:[io_uring]", true, REASON_IO_URING },
		{ "anon_inode:[eventfd]", false, REASON_NONE },
		{ "/home/a/dev/nvidia0", false, REASON_NONE },
		{ "socket:[4711]", false, REASON_NONE },
		{ "", false, REASON_NONE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (survey_target(cases[i].target, cases[i].cuda) != cases[i].want)
			fail_msg("%s, cuda %d", cases[i].target, cases[i].cuda);
}

static void names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < SURVEY_COUNT; i++)
		assert_true(strlen(survey_name((enum survey_check)i)) > 0);
}

/* This very process, in whatever cgroup it is; the root cgroup is nobody's own. */
static void of_ourselves(void **state)
{
	struct cgroup_host host = { 0 };
	struct cgroup cg = { 0 };
	struct survey s = { .cgroup = &cg, .image_path = "/tmp" };
	struct error err = ERROR_NULL;
	char found[512], dir[] = "/tmp/test-survey-XXXXXX";
	const struct bulk_env env = { 0 };
	struct store *store;

	(void)state;
	if (cgroup_host_open(&host, cgroup_mode_at("/sys/fs/cgroup"), "/sys/fs/cgroup", "/proc",
			     NULL) < 0 ||
	    cgroup_open_pid(&cg, &host, getpid(), NULL) < 0) {
		cgroup_host_close(&host);
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(store_open(dir, STORE_OWNER, &env, &store, &err), 0);
	assert_int_equal(survey_one(&s, SURVEY_LIMIT, found, sizeof(found), &err), 0);
	assert_non_null(strstr(found, "0 MiB of GPU memory"));
	assert_int_equal(survey_one(&s, SURVEY_HOST, found, sizeof(found), &err), 0);
	assert_non_null(strstr(found, "available on the node"));
	assert_int_equal(survey_one(&s, SURVEY_STORE, found, sizeof(found), &err), 0);
	s.image_path = "/nonexistent/folder";
	assert_true(survey_one(&s, SURVEY_STORE, found, sizeof(found), &err) < 0);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
	/* in a store: its limit counts, and what others are about to write there */
	s.image_path = NULL;
	s.store = store;
	assert_int_equal(survey_one(&s, SURVEY_STORE, found, sizeof(found), &err), 0);
	s.promised = UINT64_MAX;
	assert_int_equal(survey_one(&s, SURVEY_STORE, found, sizeof(found), &err), -ENOSPC);
	assert_int_equal(err.reason, REASON_STORE_FULL);
	assert_non_null(strstr(err.text, " has 0 MiB free"));
	s.promised = 0;
	assert_int_equal(store_set_limit(store, 1, &err), 0);
	assert_int_equal(survey_one(&s, SURVEY_STORE, found, sizeof(found), &err), -ENOSPC);
	assert_int_equal(err.reason, REASON_STORE_FULL);
	assert_non_null(strstr(err.text, "(limits.store_size) has 0 MiB free"));
	store_close(store);
	assert_int_equal(path_remove_tree(AT_FDCWD, dir), 0);
	cgroup_close(&cg);
	cgroup_host_close(&host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(targets),
		cmocka_unit_test(names),
		cmocka_unit_test(of_ourselves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
