/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/membership.h"
#include "tests/cmocka.h"

static struct bytes text_of(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void hybrid(void **state)
{
	struct bytes text = text_of("12:cpu,cpuacct:/a\n"
				    "3:name=systemd:/sys:with:colons\n"
				    "0::/u");
	struct membership m;
	char path[64];

	(void)state;
	assert_int_equal(membership_next(&text, &m), 1);
	assert_true(membership_controls(&m, "cpu"));
	assert_true(membership_controls(&m, "cpuacct"));
	assert_false(membership_controls(&m, "cpua"));
	assert_false(membership_controls(&m, "acct"));
	assert_false(membership_controls(&m, ""));
	assert_int_equal(membership_path(&m, path, sizeof(path)), 0);
	assert_string_equal(path, "/a");
	assert_int_equal(membership_next(&text, &m), 1);
	assert_true(membership_controls(&m, "name=systemd"));
	assert_false(membership_controls(&m, "systemd"));
	assert_int_equal(membership_path(&m, path, sizeof(path)), 0);
	assert_string_equal(path, "/sys:with:colons");
	assert_int_equal(membership_next(&text, &m), 1); /* no newline at its end */
	assert_true(membership_controls(&m, ""));
	assert_false(membership_controls(&m, "cpu"));
	assert_int_equal(membership_next(&text, &m), 0);
	assert_int_equal(membership_next(&text, &m), 0);
}

static void refused(void **state)
{
	static const char *const bad[] = { "\n", "x", "1:cpu", "1:cpu:", "1:cpu:rel\n", "::\n" };
	struct membership m;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct bytes text = text_of(bad[i]);

		assert_int_equal(membership_next(&text, &m), -EBADMSG);
		assert_int_equal(membership_next(&text, &m), 0); /* it ends, whatever comes */
	}
	assert_int_equal(membership_next(&(struct bytes){ (const uint8_t *)"0::/a\0b", 7 }, &m),
			 -EBADMSG);
}

static void paths(void **state)
{
	struct bytes text = text_of("0::/gone (deleted)\n0::/12\n");
	struct membership m;
	char path[4];

	(void)state;
	assert_int_equal(membership_next(&text, &m), 1);
	assert_int_equal(membership_path(&m, path, sizeof(path)), -ENOENT);
	assert_int_equal(membership_next(&text, &m), 1);
	assert_int_equal(membership_path(&m, path, 3), -ENAMETOOLONG);
	assert_int_equal(membership_path(&m, path, 4), 0);
	assert_string_equal(path, "/12");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hybrid),
		cmocka_unit_test(refused),
		cmocka_unit_test(paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
