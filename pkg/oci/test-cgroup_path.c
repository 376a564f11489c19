/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>

#include "oci/cgroup_path.h"
#include "tests/cmocka.h"

static void assert_path(const char *spec, bool systemd, const char *expected)
{
	char path[PATH_MAX];

	assert_int_equal(cgroup_path_of_spec(spec, systemd, path, sizeof(path)), 0);
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
}

static void unknown_place(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(cgroup_path_of_spec(NULL, false, path, sizeof(path)), -ENOENT);
	assert_int_equal(cgroup_path_of_spec("", true, path, sizeof(path)), -ENOENT);
	assert_int_equal(cgroup_path_of_spec("relative", false, path, sizeof(path)), -ENOENT);
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
		assert_int_equal(cgroup_path_of_spec(specs[i], true, path, sizeof(path)), -EINVAL);
}

static void too_long(void **state)
{
	char path[24];

	(void)state;
	assert_int_equal(cgroup_path_of_spec("/0123456789/0123456789/0", false, path, sizeof(path)),
			 -ENAMETOOLONG);
	assert_int_equal(cgroup_path_of_spec("a-b-c.slice:p:n", true, path, sizeof(path)),
			 -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cgroupfs),
		cmocka_unit_test(systemd),
		cmocka_unit_test(unknown_place),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
