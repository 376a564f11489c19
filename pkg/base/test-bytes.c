/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"
#include "tests/cmocka.h"

static const uint8_t raw[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88 };

static void integers(void **state)
{
	struct bytes b = bytes_of(raw, sizeof(raw));
	uint8_t u8;
	uint32_t u32;
	uint64_t u64;

	(void)state;
	assert_int_equal(bytes_u8(&b, &u8), 0);
	assert_int_equal(u8, 1);
	assert_int_equal(bytes_be32(&b, &u32), 0);
	assert_int_equal(u32, 0x02030405);
	assert_int_equal(b.n, 3);
	b = bytes_of(raw, sizeof(raw));
	assert_int_equal(bytes_le64(&b, &u64), 0);
	assert_true(u64 == 0x8807060504030201ULL);
	assert_int_equal(b.n, 0);
	b = bytes_of(raw + 4, 4);
	assert_int_equal(bytes_le32(&b, &u32), 0);
	assert_int_equal(u32, 0x88070605);
	b = bytes_of(raw + 4, 4);
	assert_int_equal(bytes_be32(&b, &u32), 0);
	assert_int_equal(u32, 0x05060788);
}

/* A view that is too short stays as it is, whole. */
static void too_short(void **state)
{
	uint8_t u8 = 9;
	uint32_t u32 = 9;
	uint64_t u64 = 9;
	struct bytes part, b;

	(void)state;
	for (size_t n = 0; n < 8; n++) {
		b = bytes_of(raw, n);
		assert_int_equal(bytes_le64(&b, &u64), BYTES_MORE);
		assert_true(b.p == raw && b.n == n);
		if (n < 4) {
			assert_int_equal(bytes_be32(&b, &u32), BYTES_MORE);
			assert_int_equal(bytes_le32(&b, &u32), BYTES_MORE);
			assert_true(b.p == raw && b.n == n);
		}
		assert_int_equal(bytes_take(&b, n + 1, &part), BYTES_MORE);
		assert_int_equal(bytes_take(&b, SIZE_MAX, &part), BYTES_MORE);
		assert_true(b.p == raw && b.n == n);
	}
	b = bytes_of(NULL, 0);
	assert_int_equal(bytes_u8(&b, &u8), BYTES_MORE);
	assert_int_equal(u8, 9);
	assert_int_equal(u32, 9);
	assert_true(u64 == 9);
}

static void take(void **state)
{
	struct bytes b = bytes_of(raw, sizeof(raw)), part;

	(void)state;
	assert_int_equal(bytes_take(&b, 0, &part), 0);
	assert_int_equal(part.n, 0);
	assert_int_equal(bytes_take(&b, 3, &part), 0);
	assert_true(part.p == raw && part.n == 3);
	assert_int_equal(bytes_take(&b, 5, &part), 0);
	assert_true(part.p == raw + 3 && part.n == 5);
	assert_int_equal(b.n, 0);
	assert_int_equal(bytes_take(&b, 0, &part), 0);
}

static void until(void **state)
{
	static const char text[] = "one::last";
	struct bytes b = bytes_of(text, sizeof(text) - 1), part;

	(void)state;
	assert_int_equal(bytes_until(&b, ':', &part), 0);
	assert_int_equal(part.n, 3);
	assert_memory_equal(part.p, "one", 3);
	assert_int_equal(bytes_until(&b, ':', &part), 0);
	assert_int_equal(part.n, 0);
	assert_int_equal(bytes_until(&b, ':', &part), BYTES_MORE);
	assert_int_equal(b.n, 4);
	assert_memory_equal(b.p, "last", 4);
	b = bytes_of(NULL, 0);
	assert_int_equal(bytes_until(&b, ':', &part), BYTES_MORE);
	b = bytes_of(":", 1);
	assert_int_equal(bytes_until(&b, ':', &part), 0);
	assert_int_equal(part.n + b.n, 0);
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
		cmocka_unit_test(is_compares_byte_for_byte),
		cmocka_unit_test(integers),
		cmocka_unit_test(too_short),
		cmocka_unit_test(take),
		cmocka_unit_test(until),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
