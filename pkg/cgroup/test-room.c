/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/room.h"
#include "cgroup/testbed.h"

static const char v1_mounts[] = "2 1 0:2 / @/memory rw - cgroup cgroup rw,memory\n";

static void v2_group(const struct bed *b, const char *path, const char *max, const char *now,
		     const char *stat)
{
	char name[128];

	assert_int_equal(PATH_PRINTF(name, "cgroup/%s/memory.max", path), 0);
	bed_file(b, name, max);
	assert_int_equal(PATH_PRINTF(name, "cgroup/%s/memory.current", path), 0);
	bed_file(b, name, now);
	assert_int_equal(PATH_PRINTF(name, "cgroup/%s/memory.stat", path), 0);
	bed_file(b, name, stat);
	assert_int_equal(PATH_PRINTF(name, "cgroup/%s/cgroup.procs", path), 0);
	bed_file(b, name, "");
}

static void least_of_all_above(void **state)
{
	struct cgroup_room room;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/kubepods/pod1/c1\n");
	v2_group(&b, "kubepods/pod1/c1", "1000\n", "600\n",
		 "anon 300\nshmem 20\ninactive_file 200\n");
	v2_group(&b, "kubepods/pod1", "900\n", "700\n", "inactive_file 200\n");
	v2_group(&b, "kubepods", "max\n", "5000\n", "inactive_file 0\n");
	assert_int_equal(cgroup_room(&b.cg, &room), 0);
	assert_int_equal(room.room, 400); /* 900 - (700 - 200), less than 1000 - 400 */
	assert_int_equal(room.limit, 900);
	assert_string_equal(room.path, "/kubepods/pod1");
	assert_int_equal(room.resident, 320);
	bed_close(&b);
}

static void no_limit(void **state)
{
	struct cgroup_room room;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/c\n");
	v2_group(&b, "c", "max\n", "600\n", "anon 7\n");
	assert_int_equal(cgroup_room(&b.cg, &room), 0);
	assert_true(room.room == CGROUP_NO_LIMIT && room.limit == CGROUP_NO_LIMIT);
	assert_int_equal(room.resident, 7);
	bed_close(&b);
}

static void more_than_the_limit(void **state)
{
	struct cgroup_room room;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/c\n");
	v2_group(&b, "c", "100\n", "600\n", "inactive_file 50\n");
	assert_int_equal(cgroup_room(&b.cg, &room), 0);
	assert_int_equal(room.room, 0);
	bed_close(&b);
}

static void version_1(void **state)
{
	struct cgroup_room room;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, v1_mounts);
	bed_member(&b, "2:memory:/pod/c\n");
	bed_file(&b, "cgroup/memory/pod/c/cgroup.procs", "");
	bed_file(&b, "cgroup/memory/pod/c/memory.limit_in_bytes", "9223372036854771712\n");
	bed_file(&b, "cgroup/memory/pod/c/memory.usage_in_bytes", "600\n");
	bed_file(&b, "cgroup/memory/pod/c/memory.stat",
		 "rss 1\ntotal_rss 30\ntotal_inactive_file 100\n");
	bed_file(&b, "cgroup/memory/pod/memory.limit_in_bytes", "1000\n");
	bed_file(&b, "cgroup/memory/pod/memory.usage_in_bytes", "600\n");
	bed_file(&b, "cgroup/memory/pod/memory.stat", "total_inactive_file 100\n");
	assert_int_equal(cgroup_room(&b.cg, &room), 0);
	assert_int_equal(room.room, 500);
	assert_string_equal(room.path, "/pod");
	assert_int_equal(room.resident, 30);
	bed_close(&b);
}

static void gone(void **state)
{
	struct cgroup_room room;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/never\n");
	assert_int_equal(cgroup_room(&b.cg, &room), -ENOENT);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(least_of_all_above), cmocka_unit_test(no_limit),
		cmocka_unit_test(more_than_the_limit), cmocka_unit_test(version_1),
		cmocka_unit_test(gone),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
