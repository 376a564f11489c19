/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/testbed.h"

static void path_is(const struct cgroup *cg, enum cgroup_controller c, const char *want)
{
	char path[PATH_MAX], whole[PATH_MAX];
	int r = cgroup_path(cg, c, path, sizeof(path));

	if (!want) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(PATH_PRINTF(whole, "%s%s", cg->host->root, want), 0);
	assert_string_equal(path, whole);
}

/* cpu and cpuacct in one tree, hybrid, a container's own mount of a tree, one at another place. */
static const char v1_mounts[] =
	"20 1 0:1 / /sys rw - sysfs sysfs rw\n"
	"30 20 0:30 / @ rw - tmpfs tmpfs rw\n"
	"31 30 0:31 / @/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	"32 30 0:32 / @/memory rw shared:3 - cgroup cgroup rw,memory\n"
	"33 30 0:33 / @/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
	"34 30 0:34 / @/unified rw - cgroup2 cgroup2 rw\n"
	"35 30 0:35 / @/free\\040zer rw - cgroup cgroup rw,freezer\n"
	"36 30 0:32 /other /run/containerd/c/rootfs/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	"37 30 0:37 / /elsewhere/pids rw - cgroup cgroup rw,pids\n";

static void v1_paths(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, v1_mounts);
	bed_member(&b, "9:name=systemd:/pod/c\n8:pids:/pod/c\n7:freezer:/pod/c\n6:memory:/pod/c2\n"
		       "2:cpu,cpuacct:/pod/c\n1:blkio:/pod/c\n0::/pod/unified\n");
	path_is(&b.cg, CGROUP_CPU, "/cpu,cpuacct/pod/c");
	path_is(&b.cg, CGROUP_CPUACCT, "/cpu,cpuacct/pod/c");
	path_is(&b.cg, CGROUP_MEMORY, "/memory/pod/c2");
	path_is(&b.cg, CGROUP_FREEZER, "/free zer/pod/c");
	path_is(&b.cg, CGROUP_SYSTEMD, "/systemd/pod/c");
	path_is(&b.cg, CGROUP_PIDS, NULL); /* not mounted below the root */
	path_is(&b.cg, CGROUP_BLKIO, NULL);
	assert_ptr_equal(b.cg.path[CGROUP_CPU], b.cg.path[CGROUP_SYSTEMD]); /* held once */
	assert_false(cgroup_exists(&b.cg));
	bed_file(&b, "cgroup/memory/pod/c2/cgroup.procs", "");
	assert_true(cgroup_exists(&b.cg));
	cgroup_close(&b.cg);
	cgroup_close(&b.cg);
	bed_close(&b);
}

/* In a container without a cgroup namespace: the mounts show a part, the processes the whole. */
static void v1_nested(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, "1 1 0:1 /docker/abc @/memory rw - cgroup cgroup rw,memory\n"
				"2 1 0:2 /docker/abc @/freezer rw - cgroup cgroup rw,freezer\n"
				"3 1 0:3 /docker/ab @/pids rw - cgroup cgroup rw,pids\n"
				"4 1 0:4 /.. @/cpu rw - cgroup cgroup rw,cpu\n");
	bed_member(&b, "1:memory:/docker/abc/kubepods/c\n2:freezer:/docker/abc\n"
		       "3:pids:/docker/abc/kubepods/c\n4:cpu:/kubepods/c\n");
	path_is(&b.cg, CGROUP_MEMORY, "/memory/kubepods/c");
	path_is(&b.cg, CGROUP_FREEZER, NULL); /* the root of what we see */
	path_is(&b.cg, CGROUP_PIDS, NULL);    /* "/docker/abc" is not below "/docker/ab" */
	path_is(&b.cg, CGROUP_CPU, NULL);
	bed_close(&b);
}

static void v2_path(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/kubepods.slice/cri-containerd-x.scope\n");
	path_is(&b.cg, CGROUP_MEMORY, "/kubepods.slice/cri-containerd-x.scope");
	path_is(&b.cg, CGROUP_CPU, "/kubepods.slice/cri-containerd-x.scope");
	assert_false(cgroup_exists(&b.cg));
	assert_int_equal(cgroup_dir(&b.cg, CGROUP_MEMORY), -ENOENT);
	bed_close(&b);
}

static void refused(void **state)
{
	static const struct {
		enum cgroup_mode mode;
		const char *text;
		int r;
	} cases[] = {
		{ CGROUP_V2, "0::/\n", -ENOENT }, /* everybody's */
		{ CGROUP_V2, "0::/a (deleted)\n", -ENOENT },
		{ CGROUP_V2, "0::/../a\n", -ENOENT },
		{ CGROUP_V2, "0::/a/..\n", -ENOENT },
		{ CGROUP_V2, "1:memory:/a\n", -ENOENT },
		{ CGROUP_V2, "", -ENOENT },
		{ CGROUP_V2, "nonsense\n", -EBADMSG },
		{ CGROUP_V1, "1:memory:/\n7:freezer:/\n", -ENOENT },
		{ CGROUP_V1, "0::/a\n", -ENOENT },
		{ CGROUP_V1, "1:memory:/a/../../b\n", -ENOENT },
		{ CGROUP_NONE, "0::/a\n1:memory:/a\n", -ENOENT },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes text = bytes_of(cases[i].text, strlen(cases[i].text));
		struct error err = ERROR_NULL;
		struct bed b;

		bed_fake(&b, cases[i].mode, v1_mounts);
		assert_int_equal(cgroup_open(&b.cg, &b.host, text, &err), cases[i].r);
		assert_int_equal(err.code, cases[i].r);
		bed_close(&b);
	}
}

static void member_of_two(struct bed *b, const char *mountinfo, const char *one, const char *two)
{
	bed_fake(b, mountinfo ? CGROUP_V1 : CGROUP_V2, mountinfo);
	bed_file(b, "proc/1/cgroup", one);
	bed_file(b, "proc/2/cgroup", two);
}

/* What it shares with another process, or with what is above that, does not count as its own. */
static void apart_from_another(void **state)
{
	static const struct {
		const char *one, *two;
		int r;
	} cases[] = {
		{ "0::/a/c\n", "0::/a/shim\n", 0 },  { "0::/a/c\n", "0::/a\n", 0 },
		{ "0::/a/c\n", "0::/a/cc\n", 0 },    { "0::/a/c\n", "0::/\n", 0 },
		{ "0::/a/c\n", "0::/a/c\n", -ENOENT }, { "0::/a/c\n", "0::/a/c/d\n", -ENOENT },
		{ "0::/\n", "0::/a\n", -ENOENT },
	};
	struct error err;
	struct bed b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		err = ERROR_NULL;
		member_of_two(&b, NULL, cases[i].one, cases[i].two);
		assert_int_equal(cgroup_open_apart(&b.cg, &b.host, 1, 2, &err), cases[i].r);
		assert_int_equal(err.code, cases[i].r);
		if (cases[i].r == 0)
			path_is(&b.cg, CGROUP_MEMORY, "/a/c");
		else
			assert_null(b.cg.host);
		bed_close(&b);
	}
	member_of_two(&b, v1_mounts, "1:memory:/c\n2:freezer:/s\n3:name=systemd:/c\n",
		      "1:memory:/s\n2:freezer:/s\n3:name=systemd:/s\n");
	assert_int_equal(cgroup_open_apart(&b.cg, &b.host, 1, 2, &err), 0);
	path_is(&b.cg, CGROUP_MEMORY, "/memory/c");
	path_is(&b.cg, CGROUP_SYSTEMD, "/systemd/c");
	path_is(&b.cg, CGROUP_FREEZER, NULL);
	cgroup_close(&b.cg);
	/* Whoever cannot be asked shares nothing that we know of. */
	assert_int_equal(cgroup_open_apart(&b.cg, &b.host, 1, 3, &err), 0);
	path_is(&b.cg, CGROUP_FREEZER, "/free zer/s");
	cgroup_close(&b.cg);
	assert_int_equal(cgroup_open_apart(&b.cg, &b.host, 3, 2, &err), -ESRCH);
	bed_close(&b);
}

/* Dots in names are names. */
static void odd_names(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/..a/b../.c:d\n");
	path_is(&b.cg, CGROUP_MEMORY, "/..a/b../.c:d");
	bed_close(&b);
}

static void host_without_mountinfo(void **state)
{
	struct cgroup_host host;
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(cgroup_host_open(&host, CGROUP_V1, CGROUP_ROOT, "/none", &err), -ENOENT);
	assert_int_equal(cgroup_mode_at("/none"), CGROUP_NONE);
	assert_int_equal(cgroup_mode_at("/"), CGROUP_V1); /* whatever it is, it is not version 2 */
}

static void pids_of_files(void **state)
{
	struct cgroup_pids pids;
	struct error err = ERROR_NULL;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/c\n");
	assert_int_equal(cgroup_pids(&b.cg, &pids, &err), -ENOENT);
	bed_file(&b, "cgroup/c/cgroup.procs", "7\n3\n");
	bed_file(&b, "cgroup/c/sub/cgroup.procs", "5\n3\n");
	bed_file(&b, "cgroup/c/sub/deep/cgroup.procs", "2147483647\n");
	bed_file(&b, "cgroup/c/empty/cgroup.procs", "");
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_int_equal(pids.n, 4);
	assert_int_equal(pids.pid[0], 3);
	assert_int_equal(pids.pid[1], 5);
	assert_int_equal(pids.pid[2], 7);
	assert_int_equal(pids.pid[3], INT_MAX);
	assert_true(cgroup_pids_has(&pids, 5));
	assert_false(cgroup_pids_has(&pids, 6));
	cgroup_pids_free(&pids);
	assert_false(cgroup_pids_has(&pids, 5));
	bed_file(&b, "cgroup/c/sub/cgroup.procs", "5\n0\n"); /* outside of our pid namespace */
	assert_int_equal(cgroup_pids(&b.cg, &pids, &err), -EXDEV);
	bed_file(&b, "cgroup/c/sub/cgroup.procs", "5\nx\n");
	assert_int_equal(cgroup_pids(&b.cg, &pids, &err), -EBADMSG);
	bed_file(&b, "cgroup/c/sub/cgroup.procs", "2147483648\n");
	assert_int_equal(cgroup_pids(&b.cg, &pids, &err), -EBADMSG);
	bed_close(&b);
}

/* Never a part of the truth: what exceeds a bound is an error. */
static void pids_are_bounded(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	char name[1024] = "cgroup/c", number[16];
	struct cgroup_pids pids;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/c\n");
	for (int i = 1; i <= 65536; i++)
		assert_int_equal(buf_printf(&text, "%d\n", i), 0);
	bed_file(&b, "cgroup/c/cgroup.procs", buf_str(&text));
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_int_equal(pids.n, 65536);
	cgroup_pids_free(&pids);
	assert_int_equal(buf_append_str(&text, "65537\n"), 0);
	bed_file(&b, "cgroup/c/cgroup.procs", buf_str(&text));
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), -E2BIG);
	bed_file(&b, "cgroup/c/cgroup.procs", "1\n");
	for (int i = 1; i <= CGROUP_DEPTH_MAX; i++) {
		char file[PATH_MAX];

		assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
		assert_int_equal(pids.n, i);
		cgroup_pids_free(&pids);
		(void)strcat(name, "/d");
		assert_int_equal(PATH_PRINTF(file, "%s/cgroup.procs", name), 0);
		assert_int_equal(PATH_PRINTF(number, "%d\n", i + 1), 0);
		bed_file(&b, file, number);
	}
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), -E2BIG);
	bed_close(&b);
}

static void real_pids(enum cgroup_mode mode)
{
	struct cgroup_pids pids;
	struct error err = ERROR_NULL;
	pid_t one, two, three;
	char dir[PATH_MAX];
	struct bed b;

	BED_NEEDS(mode, NULL);
	bed_real(&b, mode);
	one = bed_child(&b, "", NULL);
	if (cgroup_open_pid(&b.cg, &b.host, one, &err) < 0)
		fail_msg("%s", error_text(&err));
	two = bed_child(&b, "", NULL);
	assert_true(cgroup_exists(&b.cg));
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_int_equal(pids.n, 2);
	assert_true(cgroup_pids_has(&pids, one) && cgroup_pids_has(&pids, two));
	cgroup_pids_free(&pids);
	/* One moves into a cgroup below, by itself, as a container with its own systemd does. */
	assert_int_equal(cgroup_path(&b.cg, CGROUP_FREEZER, dir, sizeof(dir)), 0);
	(void)strcat(dir, "/sub");
	assert_int_equal(mkdir(dir, 0755), 0);
	(void)strcat(dir, "/cgroup.procs");
	{
		char text[16];

		three = bed_child(&b, "", NULL);
		(void)snprintf(text, sizeof(text), "%d", three);
		assert_int_equal(file_put(AT_FDCWD, dir, text), 0);
	}
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_int_equal(pids.n, 3);
	assert_true(cgroup_pids_has(&pids, three));
	cgroup_pids_free(&pids);
	bed_end_children(&b);
	*strrchr(dir, '/') = 0;
	bed_rmdir(dir);
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_int_equal(pids.n, 0);
	cgroup_pids_free(&pids);
	bed_each_dir(&b, bed_rmdir);
	assert_false(cgroup_exists(&b.cg));
	assert_int_equal(cgroup_pids(&b.cg, &pids, &err), -ENOENT);
	cgroup_close(&b.cg);
	assert_int_equal(cgroup_open_pid(&b.cg, &b.host, one, &err), -ESRCH);
	bed_close(&b);
}

static void real_v1(void **state)
{
	(void)state;
	real_pids(CGROUP_V1);
}

static void real_v2(void **state)
{
	(void)state;
	real_pids(CGROUP_V2);
}

/* By a spec's path, without a process to ask; removed once it is empty. */
static void by_path(enum cgroup_mode mode)
{
	static const char *const refused_paths[] = { "", "/", "//x", "a/b", "/a/../b", "/..",
						     "system.slice:x:y" };
	struct cgroup_pids pids;
	struct error err = ERROR_NULL;
	struct bed b;
	pid_t one;

	BED_NEEDS(mode, NULL);
	bed_real(&b, mode);
	for (size_t i = 0; i < ARRAY_SIZE(refused_paths); i++)
		assert_int_equal(cgroup_open_path(&b.cg, &b.host, refused_paths[i], &err), -EINVAL);
	one = bed_child(&b, "", NULL);
	assert_int_equal(cgroup_open_path(&b.cg, &b.host, b.name, &err), 0);
	assert_int_equal(cgroup_pids(&b.cg, &pids, NULL), 0);
	assert_true(cgroup_pids_has(&pids, one));
	cgroup_pids_free(&pids);
	assert_int_equal(cgroup_remove(&b.cg), -EBUSY);
	bed_end_children(&b);
	assert_int_equal(cgroup_remove(&b.cg), 0);
	assert_false(cgroup_exists(&b.cg));
	assert_int_equal(cgroup_remove(&b.cg), 0);
	bed_close(&b);
}

static void by_path_v1(void **state)
{
	(void)state;
	by_path(CGROUP_V1);
}

static void by_path_v2(void **state)
{
	(void)state;
	by_path(CGROUP_V2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_paths),
		cmocka_unit_test(v1_nested),
		cmocka_unit_test(v2_path),
		cmocka_unit_test(refused),
		cmocka_unit_test(apart_from_another), cmocka_unit_test(odd_names),
		cmocka_unit_test(host_without_mountinfo),
		cmocka_unit_test(pids_of_files),
		cmocka_unit_test(pids_are_bounded),
		cmocka_unit_test(real_v1),
		cmocka_unit_test(real_v2),
		cmocka_unit_test(by_path_v1),
		cmocka_unit_test(by_path_v2),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
