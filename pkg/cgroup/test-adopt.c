/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/adopt.h"

#include <sched.h>

#include "cgroup/join.h"
#include "cgroup/testbed.h"

static void in_other_namespace(void)
{
	pid_t child;

	if (unshare(CLONE_NEWPID) < 0)
		_exit(1);
	child = fork();
	for (;;)
		(void)pause();
	(void)child;
}

static bool is_in(const struct bed *b, pid_t pid)
{
	struct cgroup_pids pids = { 0 };
	bool has = cgroup_pids(&b->cg, &pids, NULL) == 0 && cgroup_pids_has(&pids, pid);

	cgroup_pids_free(&pids);
	return has;
}

/* What a container makes in its own cgroup is left as it is. */
static void stays_below(const struct bed *b, pid_t init)
{
	char path[PATH_MAX], below[PATH_MAX];
	struct error err = ERROR_NULL;
	struct cgroup cg = { 0 };

	assert_int_equal(PATH_PRINTF(path, "%s%s/init.scope", b->host.root, b->name), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(PATH_PRINTF(below, "%s/init.scope", b->name), 0);
	assert_int_equal(join_cgroup(&b->host, below, init, &err), 0);
	assert_int_equal(adopt_processes(&b->host, init, b->name, &err), 0);
	assert_int_equal(cgroup_open_pid(&cg, &b->host, init, &err), 0);
	assert_string_equal(cg.path[0], below);
	cgroup_close(&cg);
	/* A name that begins the same is another cgroup's. */
	*strrchr(below, '.') = 0;
	assert_int_equal(adopt_processes(&b->host, init, below, &err), -ENOENT);
	assert_int_equal(join_cgroup(&b->host, b->name, init, &err), 0);
	assert_int_equal(rmdir(path), 0);
}

/* Processes of its namespace move, from cgroups below as well; the empty folder goes. */
static void all_move(void **state)
{
	struct error err = ERROR_NULL;
	struct bed from, to;
	char path[PATH_MAX];
	pid_t init, other;

	(void)state;
	BED_NEEDS(CGROUP_V2, NULL);
	bed_real(&from, CGROUP_V2);
	bed_real(&to, CGROUP_V2);
	assert_true(PATH_PRINTF(path, "%s%s/sub", from.host.root, from.name) == 0);
	assert_int_equal(mkdir(path, 0755), 0);
	init = bed_child(&from, "", NULL);
	other = bed_child(&from, "/sub", NULL);
	(void)bed_child(&to, "", NULL);
	assert_int_equal(cgroup_open_pid(&to.cg, &to.host, to.child[0], &err), 0);
	if (adopt_processes(&from.host, init, to.name, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_true(is_in(&to, init));
	assert_true(is_in(&to, other));
	assert_int_equal(access(path, F_OK), -1);
	*strrchr(path, '/') = 0;
	assert_int_equal(access(path, F_OK), -1);
	/* It is there: nothing to do. */
	assert_int_equal(adopt_processes(&from.host, init, to.name, &err), 0);
	stays_below(&to, init);
	bed_end_children(&from);
	bed_close(&to);
	bed_close(&from);
}

/* Who is of another pid namespace is another container's process: it stays where it is. */
static void others_stay(void **state)
{
	struct error err = ERROR_NULL;
	struct bed from, to;
	pid_t init, foreign;
	struct cgroup_pids pids = { 0 };

	(void)state;
	BED_NEEDS(CGROUP_V2, NULL);
	bed_real(&from, CGROUP_V2);
	bed_real(&to, CGROUP_V2);
	init = bed_child(&from, "", NULL);
	foreign = bed_child(&from, "", in_other_namespace);
	assert_int_equal(cgroup_open_pid(&from.cg, &from.host, foreign, &err), 0);
	for (int i = 0; i < 500 && pids.n < 3; i++) {
		cgroup_pids_free(&pids);
		(void)usleep(10000);
		assert_int_equal(cgroup_pids(&from.cg, &pids, &err), 0);
	}
	assert_int_equal(pids.n, 3); /* init, foreign, and foreign's child in its namespace */
	cgroup_pids_free(&pids);
	if (adopt_processes(&from.host, init, to.name, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(cgroup_pids(&from.cg, &pids, &err), 0);
	assert_int_equal(pids.n, 1); /* foreign itself is of our namespace; its child is not */
	assert_false(cgroup_pids_has(&pids, foreign));
	assert_int_equal(kill(pids.pid[0], SIGKILL), 0);
	cgroup_pids_free(&pids);
	bed_end_children(&from);
	bed_close(&to);
	bed_close(&from);
}

static void no_such_cgroup(void **state)
{
	struct error err = ERROR_NULL;
	struct bed from;
	pid_t init;

	(void)state;
	BED_NEEDS(CGROUP_V2, NULL);
	bed_real(&from, CGROUP_V2);
	init = bed_child(&from, "", NULL);
	assert_int_equal(adopt_processes(&from.host, init, "/kyb-test-missing", &err), -ENOENT);
	assert_int_equal(adopt_processes(&from.host, init, "/../x", &err), -EINVAL);
	from.host.mode = CGROUP_V1; /* there, CRIU was told where */
	assert_int_equal(adopt_processes(&from.host, init, "/kyb-test-missing", &err), 0);
	from.host.mode = CGROUP_V2;
	bed_end_children(&from);
	bed_close(&from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_move),
		cmocka_unit_test(others_stay),
		cmocka_unit_test(no_such_cgroup),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
