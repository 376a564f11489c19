/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/bytes.h"
#include "tests/cmocka.h"

static void getters_consume_or_leave_all_as_it_was(void **state)
{
	static const uint8_t raw[] = { 1, 0, 0, 1, 2, 3, 0, 0, 0 };
	struct bytes b = bytes_of(raw, sizeof(raw)), part;
	uint64_t u64;
	uint32_t u32;
	uint8_t u8;

	(void)state;
	assert_int_equal(bytes_u8(&b, &u8), 0);
	assert_int_equal(u8, 1);
	assert_int_equal(bytes_be32(&b, &u32), 0);
	assert_int_equal(u32, 0x00000102);
	assert_int_equal(bytes_le64(&b, &u64), BYTES_MORE);
	assert_int_equal(bytes_take(&b, 5, &part), BYTES_MORE);
	assert_int_equal(b.n, 4);
	assert_int_equal(bytes_le32(&b, &u32), 0);
	assert_int_equal(u32, 3);
	assert_int_equal(bytes_u8(&b, &u8), BYTES_MORE);
	assert_int_equal(bytes_take(&b, 0, &part), 0);
	assert_int_equal(part.n, 0);
	b = bytes_of(NULL, 0);
	assert_int_equal(bytes_take(&b, 0, &part), 0);
}

static void until_takes_the_text_without_its_end(void **state)
{
	struct bytes b = bytes_of("a\nbc\nd", 6), line;

	(void)state;
	assert_int_equal(bytes_until(&b, '\n', &line), 0);
	assert_true(bytes_is(line, "a"));
	assert_int_equal(bytes_until(&b, '\n', &line), 0);
	assert_true(bytes_is(line, "bc"));
	assert_int_equal(bytes_until(&b, '\n', &line), BYTES_MORE);
	assert_true(bytes_is(b, "d"));
}

static void is_compares_byte_for_byte(void **state)
{
	(void)state;
	assert_true(bytes_is(bytes_of(NULL, 0), ""));
	assert_true(bytes_is(bytes_of("abc", 2), "ab"));
	assert_false(bytes_is(bytes_of("abc", 3), "ab"));
	assert_false(bytes_is(bytes_of("a", 1), "ab"));
	assert_false(bytes_is(bytes_of("a\0", 2), "a"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(getters_consume_or_leave_all_as_it_was),
		cmocka_unit_test(until_takes_the_text_without_its_end),
		cmocka_unit_test(is_compares_byte_for_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
