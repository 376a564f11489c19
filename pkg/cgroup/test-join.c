/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "cgroup/controllers.h"
#include "cgroup/join.h"
#include "cgroup/testbed.h"

static const char v1_mounts[] = "1 1 0:1 / @/cpu rw - cgroup cgroup rw,cpu\n"
				"2 1 0:2 / @/memory rw - cgroup cgroup rw,memory\n"
				"3 1 0:3 / @/systemd rw - cgroup cgroup rw,name=systemd\n";

/* Every tree that has it, and no folder is made. */
static void v1_trees(void **state)
{
	struct error err = ERROR_NULL;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, v1_mounts);
	assert_int_equal(join_cgroup(&b.host, "/shims", 4711, &err), -ENOENT);
	bed_file(&b, "cgroup/memory/shims/cgroup.procs", "");
	bed_file(&b, "cgroup/systemd/shims/cgroup.procs", "");
	assert_int_equal(join_cgroup(&b.host, "/shims", 4711, NULL), 0);
	bed_file_is(&b, "cgroup/memory/shims/cgroup.procs", "4711");
	bed_file_is(&b, "cgroup/systemd/shims/cgroup.procs", "4711");
	assert_int_equal(join_cgroup(&b.host, "shims/", 4712, NULL), 0);
	bed_file_is(&b, "cgroup/memory/shims/cgroup.procs", "4712");
	bed_file(&b, "cgroup/cpu/shims/other", ""); /* a folder without the file: a failure */
	assert_int_equal(join_cgroup(&b.host, "/shims", 4711, &err), -ENOENT);
	assert_non_null(strstr(err.text, "cpu/shims"));
	bed_close(&b);
}

static void v2_tree(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "cgroup/a/shims/cgroup.procs", "");
	assert_int_equal(join_cgroup(&b.host, "/a/shims", 4711, NULL), 0);
	bed_file_is(&b, "cgroup/a/shims/cgroup.procs", "4711");
	assert_int_equal(join_cgroup(&b.host, "/a/none", 4711, NULL), -ENOENT);
	bed_close(&b);
}

static void paths_refused(void **state)
{
	static const char *const bad[] = { "..", "/..", "/a/../b", "../a", "/a/.." };
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "cgroup/a..b/cgroup.procs", "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(join_cgroup(&b.host, bad[i], 1, NULL), -EINVAL);
	assert_int_equal(join_cgroup(&b.host, "a..b", 1, NULL), 0);
	bed_close(&b);
}

static void real(enum cgroup_mode mode)
{
	struct cgroup_pids pids;
	struct error err = ERROR_NULL;
	struct bed b;
	pid_t pid;

	BED_NEEDS(mode, NULL);
	bed_real(&b, mode);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			(void)pause();
	}
	b.child[b.n_children++] = pid;
	if (join_cgroup(&b.host, b.name, pid, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(cgroup_open_pid(&b.cg, &b.host, pid, NULL), 0);
	for (unsigned int c = 0; mode == CGROUP_V1 && c < CGROUP_CONTROLLERS; c++)
		if (b.host.mounts[c].point)
			assert_string_equal(b.cg.path[c], b.name);
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_true(cgroup_pids_has(&pids, pid));
	cgroup_pids_free(&pids);
	bed_end_children(&b);
	assert_int_equal(join_cgroup(&b.host, b.name, pid, &err), -ESRCH);
	bed_close(&b);
}

static void v1_real(void **state)
{
	(void)state;
	real(CGROUP_V1);
}

static void v2_real(void **state)
{
	(void)state;
	real(CGROUP_V2);
}

static void oom_scores(void **state)
{
	static const struct {
		const char *parent, *want;
	} cases[] = { { "0\n", "1" },	  { "-999\n", "-998" }, { "999\n", "1000" },
		      { "1000\n", "1000" }, { "-1000\n", "-999" } };
	static const char *const bad[] = { "", "x\n", "1001\n", "-1001\n", "1 2\n",
					   "99999999999999999999\n" };
	char proc[128];
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	assert_int_equal(PATH_PRINTF(proc, "%s/proc", b.top), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bed_file(&b, "proc/7/oom_score_adj", cases[i].parent);
		bed_file(&b, "proc/8/oom_score_adj", "");
		assert_int_equal(join_oom_score(proc, 8, 7, NULL), 0);
		bed_file_is(&b, "proc/8/oom_score_adj", cases[i].want);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		bed_file(&b, "proc/7/oom_score_adj", bad[i]);
		assert_int_equal(join_oom_score(proc, 8, 7, NULL), -EBADMSG);
	}
	bed_file(&b, "proc/7/oom_score_adj", "0\n");
	assert_int_equal(join_oom_score(proc, 9, 7, NULL), -ENOENT);
	assert_int_equal(join_oom_score(proc, 8, 6, NULL), -ENOENT);
	bed_close(&b);
}

/* Root that is refused hears of it: something is amiss. Immutable stands for refused. */
static void refused_to_root(void **state)
{
	char proc[128], path[256];
	int fd, flags = FS_IMMUTABLE_FL;
	struct error err = ERROR_NULL;
	struct bed b;

	(void)state;
	if (geteuid() != 0)
		skip();
	bed_fake(&b, CGROUP_V2, NULL);
	assert_int_equal(PATH_PRINTF(proc, "%s/proc", b.top), 0);
	bed_file(&b, "proc/7/oom_score_adj", "0\n");
	bed_file(&b, "proc/8/oom_score_adj", "");
	assert_int_equal(PATH_PRINTF(path, "%s/8/oom_score_adj", proc), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0) {
		assert_int_equal(join_oom_score(proc, 8, 7, &err), -EPERM);
		/* In a user namespace it is to be expected. */
		bed_file(&b, "proc/self/uid_map", "         0       1000          1\n");
		assert_int_equal(join_oom_score(proc, 8, 7, NULL), 0);
		bed_file(&b, "proc/self/uid_map", "         0          0 4294967295\n");
		assert_int_equal(join_oom_score(proc, 8, 7, NULL), -EPERM);
		flags = 0;
		assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &flags), 0);
	} else {
		print_message("no immutable files here\n");
	}
	(void)close(fd);
	bed_close(&b);
}

/* What the kernel makes of it; and without the privilege nothing is to be had, quietly. */
static void real_oom_score(void **state)
{
	char line[16], path[64];
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = ERROR_NULL;
		long mine;

		/* Another user's process: EACCES at the open. */
		if (join_oom_score("/proc", getpid(), getppid(), &err) < 0)
			_exit(1);
		if (file_read_line(AT_FDCWD, "/proc/self/oom_score_adj", line, sizeof(line)) < 0)
			_exit(2);
		mine = atol(line);
		(void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", getppid());
		if (file_read_line(AT_FDCWD, path, line, sizeof(line)) < 0 ||
		    mine != (atol(line) < 1000 ? atol(line) + 1 : 1000))
			_exit(3);
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(4);
		if (join_oom_score("/proc", getppid(), getppid(), &err) < 0)
			_exit(5);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* All controllers of the root, in every level but the container's own. */
static void controllers_of_files(void **state)
{
	struct error err = ERROR_NULL;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
	bed_file(&b, "cgroup/cgroup.subtree_control", "cpuset cpu io memory pids\n");
	bed_file(&b, "cgroup/a/cgroup.subtree_control", "cpu\n");
	bed_file(&b, "cgroup/a/b/cgroup.subtree_control", "");
	bed_file(&b, "cgroup/a/b/c/cgroup.subtree_control", "own\n");
	bed_member(&b, "0::/a/b/c\n");
	assert_int_equal(controllers_enable(&b.cg, &err), 0);
	bed_file_is(&b, "cgroup/cgroup.subtree_control", "cpuset cpu io memory pids\n");
	bed_file_is(&b, "cgroup/a/cgroup.subtree_control", "+cpuset +io +memory +pids");
	bed_file_is(&b, "cgroup/a/b/cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
	bed_file_is(&b, "cgroup/a/b/c/cgroup.subtree_control", "own\n");
	cgroup_close(&b.cg);
	/* Directly below the root; and one whose parent cannot be written. */
	bed_member(&b, "0::/a\n");
	bed_file(&b, "cgroup/cgroup.subtree_control", "");
	assert_int_equal(controllers_enable(&b.cg, &err), 0);
	bed_file_is(&b, "cgroup/cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
	cgroup_close(&b.cg);
	bed_member(&b, "0::/a/none/c\n");
	assert_int_equal(controllers_enable(&b.cg, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/a/none"));
	bed_close(&b);
	bed_fake(&b, CGROUP_V1, v1_mounts);
	bed_member(&b, "2:memory:/c\n");
	assert_int_equal(controllers_enable(&b.cg, &err), 0);
	bed_close(&b);
}

static void make_levels(const char *dir)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/sub/sub", dir), 0);
	bed_mkdir(path);
}

/* Not in the tree beside version 1: its root is the machine's, and stays as it is. */
static void real_controllers(void **state)
{
	struct error err = ERROR_NULL;
	char path[PATH_MAX];
	struct bed b;
	pid_t pid;

	(void)state;
	if (cgroup_mode_at(CGROUP_ROOT) != CGROUP_V2)
		skip();
	bed_real(&b, CGROUP_V2);
	bed_each_dir(&b, make_levels);
	pid = bed_child(&b, "/sub/sub", NULL);
	assert_int_equal(cgroup_open_pid(&b.cg, &b.host, pid, NULL), 0);
	assert_int_equal(cgroup_path(&b.cg, CGROUP_MEMORY, path, sizeof(path)), 0);
	(void)strcat(path, "/memory.current");
	assert_int_equal(access(path, F_OK), -1);
	if (controllers_enable(&b.cg, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(controllers_enable(&b.cg, &err), 0);
	bed_end_children(&b);
	*strrchr(path, '/') = 0;
	bed_rmdir(path);
	*strrchr(path, '/') = 0;
	bed_rmdir(path);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_trees),	  cmocka_unit_test(v2_tree),
		cmocka_unit_test(paths_refused),  cmocka_unit_test(v1_real),
		cmocka_unit_test(v2_real),	  cmocka_unit_test(oom_scores),
		cmocka_unit_test(refused_to_root),
		cmocka_unit_test(real_oom_score), cmocka_unit_test(controllers_of_files),
		cmocka_unit_test(real_controllers),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
