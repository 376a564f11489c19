/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/search.h"

#include "cgroup/testbed.h"

static void member(const struct bed *b, const char *pid, const char *text)
{
	char name[64];

	assert_int_equal(PATH_PRINTF(name, "proc/%s/cgroup", pid), 0);
	bed_file(b, name, text);
}

static void found_is(const struct bed *b, const char *ns, const char *id, const char *want)
{
	char path[PATH_MAX], whole[PATH_MAX];
	struct cgroup cg;

	assert_int_equal(cgroup_search(&cg, &b->host, ns, id, NULL), 0);
	assert_int_equal(cgroup_path(&cg, 0, path, sizeof(path)), 0);
	assert_int_equal(PATH_PRINTF(whole, "%s%s", b->host.root, want), 0);
	assert_string_equal(path, whole);
	cgroup_close(&cg);
}

static void not_found(const struct bed *b, const char *id, int code)
{
	struct error err = ERROR_NULL;
	struct cgroup cg;

	assert_int_equal(cgroup_search(&cg, &b->host, "k8s.io", id, &err), code);
	assert_non_null(strstr(err.text, id));
	assert_null(cg.host);
}

/* Both drivers' names; what the container has made below is not another one. */
static void names(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	member(&b, "1", "0::/init.scope\n");
	member(&b, "7", "0::/k8s.io/web\n");
	member(&b, "8", "0::/k8s.io/web/workers/web\n");
	member(&b, "9", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-db.scope/init\n");
	member(&b, "10", "0::/other\n");
	member(&b, "11", "0::/test-cache\n");
	found_is(&b, "k8s.io", "cache", "/test-cache");
	found_is(&b, "k8s.io", "web", "/k8s.io/web");
	found_is(&b, "k8s.io", "db", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-db.scope");
	not_found(&b, "we", -ENOENT);
	not_found(&b, "containerd-d", -ENOENT);
	not_found(&b, "est-cache", -ENOENT);
	not_found(&b, "init.scope.", -ENOENT);
	bed_close(&b);
}

static void two_of_a_name(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	member(&b, "7", "0::/default/web\n");
	member(&b, "8", "0::/moby/web\n");
	member(&b, "9", "0::/system.slice/run-db.scope\n");
	member(&b, "10", "0::/db\n");
	not_found(&b, "web", -EEXIST);
	found_is(&b, "default", "web", "/default/web");
	found_is(&b, "moby", "web", "/moby/web");
	not_found(&b, "db", -EEXIST);
	found_is(&b, "run", "db", "/system.slice/run-db.scope");
	bed_close(&b);
}

static void version_1(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, "31 30 0:31 / @/cpu rw - cgroup cgroup rw,cpu\n"
				"35 30 0:35 / @/freezer rw - cgroup cgroup rw,freezer\n");
	member(&b, "7", "3:cpu:/pod/web\n2:freezer:/pod/web/below\n1:pids:/elsewhere\n");
	{
		struct cgroup cg;
		char path[PATH_MAX];

		assert_int_equal(cgroup_search(&cg, &b.host, "k8s.io", "web", NULL), 0);
		assert_int_equal(cgroup_path(&cg, CGROUP_FREEZER, path, sizeof(path)), 0);
		assert_non_null(strstr(path, "/freezer/pod/web"));
		assert_null(strstr(path, "below"));
		cgroup_close(&cg);
	}
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(two_of_a_name),
		cmocka_unit_test(version_1),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
