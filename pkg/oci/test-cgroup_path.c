/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>

#include "oci/cgroup_path.h"
#include "tests/cmocka.h"

static int path_of(const char *spec, bool systemd, char *buf, size_t size)
{
	char id[] = "web";
	struct runtime rt = { .systemd_cgroup = systemd, .id = id };
	struct bundle b = { .cgroups_path = spec };

	return cgroup_path_of(&rt, &b, buf, size);
}

static void assert_path(const char *spec, bool systemd, const char *expected)
{
	char path[PATH_MAX];

	assert_int_equal(path_of(spec, systemd, path, sizeof(path)), 0);
	assert_string_equal(path, expected);
}

static void cgroupfs(void **state)
{
	(void)state;
	assert_path("/default/web", false, "/default/web");
	assert_path("/a:b", false, "/a:b");
}

static void systemd(void **state)
{
	(void)state;
	assert_path("system.slice:runc:web", true, "/system.slice/runc-web.scope");
	assert_path(":runc:web", true, "/system.slice/runc-web.scope");
	assert_path("user.slice::web", true, "/user.slice/web.scope");
	assert_path("-.slice:cri:web", true, "/cri-web.scope");
	assert_path("kubepods-burstable-pod1.slice:cri-containerd:0ab", true,
		    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/"
		    "cri-containerd-0ab.scope");
	assert_path("a.slice:x:b.slice", true, "/a.slice/b.slice");
	assert_path(NULL, true, "/system.slice/runc-web.scope");
	assert_path("", true, "/system.slice/runc-web.scope");
}

static void crun(void **state)
{
	static const struct {
		const char *spec, *subgroup;
		bool systemd;
		const char *expected;
	} cases[] = {
		{ "a.slice:x:web", NULL, true, "/a.slice/x-web.scope/container" },
		{ "a.slice:x:web", "mine", true, "/a.slice/x-web.scope/mine" },
		{ "a.slice:x:web", "", true, "/a.slice/x-web.scope" },
		{ NULL, NULL, true, "/system.slice/crun-web.scope/container" },
		{ "/a/web", NULL, false, "/a/web" },
	};
	char id[] = "web", path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct runtime rt = { .systemd_cgroup = cases[i].systemd, .id = id, .crun = true };
		struct bundle b = { .cgroups_path = cases[i].spec,
				    .systemd_subgroup = cases[i].subgroup };

		assert_int_equal(cgroup_path_of(&rt, &b, path, sizeof(path)), 0);
		assert_string_equal(path, cases[i].expected);
	}
}

static void unknown_place(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(path_of(NULL, false, path, sizeof(path)), -ENOENT);
	assert_int_equal(path_of("", false, path, sizeof(path)), -ENOENT);
	assert_int_equal(path_of("relative", false, path, sizeof(path)), -ENOENT);
}

static void nonsense(void **state)
{
	static const char *const specs[] = { "/a/b",          "a.slice:b",     "a:b:c",
					     ".slice:b:c",    "-a.slice:b:c",  "a-.slice:b:c",
					     "a--b.slice:c:d", "a.slice:b:",    "a.slice:b:c:d",
					     "a.slice:b:../c", "x/a.slice:b:c" };
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(specs) / sizeof(*specs); i++)
		assert_int_equal(path_of(specs[i], true, path, sizeof(path)), -EINVAL);
}

static void too_long(void **state)
{
	char path[24];

	(void)state;
	assert_int_equal(path_of("/0123456789/0123456789/0", false, path, sizeof(path)),
			 -ENAMETOOLONG);
	assert_int_equal(path_of("a-b-c.slice:p:n", true, path, sizeof(path)),
			 -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cgroupfs),
		cmocka_unit_test(systemd),
		cmocka_unit_test(crun),
		cmocka_unit_test(unknown_place),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
