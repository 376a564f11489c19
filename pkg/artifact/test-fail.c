/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "artifact/fail.h"
#include "tests/cmocka.h"

static void what_more_room_would_cure_is_a_full_store(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(fail_sys(&err, ENOSPC, "write %s", "x"), -ENOSPC);
	assert_int_equal(err.reason, REASON_STORE_FULL);
	assert_string_equal(error_text(&err), "write x: No space left on device");
	assert_int_equal(fail_sys(&err, -EDQUOT, "write x"), -EDQUOT);
	assert_int_equal(err.reason, REASON_STORE_FULL);
}

static void everything_else_is_a_failed_store(void **state)
{
	static const int codes[] = { EIO, EROFS, EMFILE, ENFILE, ENOMEM, EACCES, ENOENT };
	struct error err = ERROR_NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		assert_int_equal(fail_sys(&err, codes[i], "x"), -codes[i]);
		assert_int_equal(err.reason, REASON_STORE_FAILED);
	}
	assert_int_equal(fail_sys(NULL, EIO, "x"), -EIO);
}

static void a_wrong_checkpoint_is_corrupt(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(fail_corrupt(&err, "%s is wrong", "it"), -EBADMSG);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
	assert_string_equal(error_text(&err), "it is wrong");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_more_room_would_cure_is_a_full_store),
		cmocka_unit_test(everything_else_is_a_failed_store),
		cmocka_unit_test(a_wrong_checkpoint_is_corrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
