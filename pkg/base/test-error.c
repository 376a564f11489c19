/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "tests/cmocka.h"

static void setting(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(error_set(&err, -ENOENT, "no %s", "file"), -ENOENT);
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(error_text(&err), "no file");
	assert_int_equal(error_sys(&err, EPERM, "open"), -EPERM); /* made negative */
	assert_string_equal(error_text(&err), "open: Operation not permitted");
	assert_int_equal(error_set(&err, 0, "odd"), -EIO); /* a failure is never 0 */
	assert_int_equal(error_set(NULL, -EBUSY, "x"), -EBUSY);
	assert_int_equal(error_sys(NULL, -EBUSY, "x"), -EBUSY);
	assert_int_equal(error_rpc(NULL, RPC_NOT_FOUND, -EBUSY, "x"), -EBUSY);
	assert_int_equal(error_reason(NULL, REASON_BUSY, -EBUSY, "x"), -EBUSY);
	assert_int_equal(error_wrap(NULL, -EBUSY, "x"), -EBUSY);
}

static void wrapping(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	(void)error_rpc(&err, RPC_NOT_FOUND, -ENOENT, "gone");
	err.reason = REASON_BUSY;
	assert_int_equal(error_wrap(&err, -EIO, "task %d", 7), -EIO);
	assert_int_equal(err.code, -ENOENT);
	assert_int_equal(err.rpc, RPC_NOT_FOUND);
	assert_int_equal(err.reason, REASON_BUSY);
	assert_string_equal(err.text, "task 7: gone");
	err = ERROR_NULL;
	assert_int_equal(error_wrap(&err, -EIO, "read"), -EIO); /* nobody set a text before */
	assert_int_equal(err.code, -EIO);
	assert_string_equal(err.text, "read: Input/output error");
}

/* Setting an error anew from its own text must not read what it overwrites. */
static void from_itself(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	(void)error_set(&err, -EIO, "the cause");
	(void)error_reason(&err, REASON_BUSY, -EBUSY, "refused (%s)", error_text(&err));
	assert_string_equal(err.text, "refused (the cause)");
	(void)error_set(&err, -EIO, "the cause");
	(void)error_sys(&err, -EBUSY, "again: %s", err.text);
	assert_string_equal(err.text, "again: the cause: Device or resource busy");
	(void)error_wrap(&err, -EBUSY, "[%s]", err.text);
	assert_string_equal(err.text, "[again: the cause: Device or resource busy]: "
				      "again: the cause: Device or resource busy");
}

static void cut(void **state)
{
	char longer[ERROR_TEXT_MAX * 2];
	struct error err = ERROR_NULL;

	(void)state;
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	(void)error_set(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
	(void)error_sys(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
	(void)error_wrap(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
	(void)error_set(&err, -EIO, "short");
	(void)error_wrap(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
}

static void codes(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	(void)error_sys(&err, -ENOENT, "stray");
	assert_int_equal(error_rpc_code(&err), RPC_UNKNOWN); /* never NOT_FOUND by errno */
	(void)error_reason(&err, REASON_IMAGE_MISSING, -ENOENT, "x");
	assert_int_equal(error_rpc_code(&err), RPC_NOT_FOUND);
	err.rpc = RPC_ABORTED;
	assert_int_equal(error_rpc_code(&err), RPC_ABORTED); /* chosen beats derived */
	(void)error_reason(&err, REASON_MIG, -EINVAL, "x");
	assert_int_equal(error_rpc_code(&err), RPC_FAILED_PRECONDITION);
	assert_string_equal(rpc_code_name(RPC_OK), "OK");
	assert_string_equal(rpc_code_name(RPC_UNAUTHENTICATED), "UNAUTHENTICATED");
	assert_string_equal(rpc_code_name((enum rpc_code)17), "CODE_?");
	assert_string_equal(rpc_code_name((enum rpc_code)-1), "CODE_?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(setting), cmocka_unit_test(wrapping),
		cmocka_unit_test(from_itself), cmocka_unit_test(cut), cmocka_unit_test(codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
