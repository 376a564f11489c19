/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "tests/cmocka.h"

static void empty(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	char *s;

	(void)state;
	assert_string_equal(buf_str(&b), "");
	assert_int_equal(buf_len(&b), 0);
	assert_int_equal(buf_bytes(&b).n, 0);
	buf_consume(&b, 0);
	buf_clear(&b);
	buf_commit(&b, 0);
	s = buf_take_str(&b);
	assert_string_equal(s, "");
	free(s);
	assert_int_equal(buf_append(&b, NULL, 0), 0);
	assert_string_equal(buf_str(&b), "");
}

static void append(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	assert_int_equal(buf_append_str(&b, "one "), 0);
	assert_int_equal(buf_printf(&b, "%d %s", 2, "three"), 0);
	assert_int_equal(buf_append_u8(&b, '!'), 0);
	assert_string_equal(buf_str(&b), "one 2 three!");
	buf_clear(&b);
	assert_int_equal(buf_append_be32(&b, 0x01020304), 0);
	assert_int_equal(buf_len(&b), 4);
	assert_memory_equal(buf_bytes(&b).p, "\1\2\3\4", 4);
}

/* Every length up to a few doublings, and always a NUL behind the content. */
static void growth(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	for (size_t i = 0; i < 3000; i++) {
		assert_int_equal(buf_append_u8(&b, (uint8_t)('a' + i % 26)), 0);
		assert_int_equal(buf_len(&b), i + 1);
		assert_int_equal(strlen(buf_str(&b)), i + 1);
	}
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(buf_bytes(&b).p[i], 'a' + i % 26);
}

static void limit(void **state)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(10);

	(void)state;
	assert_int_equal(buf_append_str(&b, "0123456789"), 0);
	assert_int_equal(buf_append_u8(&b, 'x'), -EMSGSIZE);
	assert_int_equal(buf_printf(&b, "x"), -EMSGSIZE);
	assert_string_equal(buf_str(&b), "0123456789");
	errno = 0;
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_int_equal(errno, EMSGSIZE);
	buf_consume(&b, 4);
	assert_string_equal(buf_str(&b), "456789");
	assert_int_equal(buf_append_str(&b, "abcd"), 0);
	assert_string_equal(buf_str(&b), "456789abcd");
	buf_done(&b);
	assert_int_equal(buf_append_str(&b, "0123456789x"), -EMSGSIZE); /* the limit stays */
	assert_int_equal(buf_append_str(&b, "ok"), 0);
}

/* As a queue: what is consumed at the front makes room without growing for ever. */
static void queue(void **state)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(256);
	uint8_t next = 0, first = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 7; k++)
			assert_int_equal(buf_append_u8(&b, next++), 0);
		for (size_t k = 0; k < (buf_len(&b) > 200 ? 60U : 5U); k++) {
			assert_int_equal(buf_bytes(&b).p[0], first++);
			buf_consume(&b, 1);
		}
	}
	assert_true(b.cap <= 512);
}

static void reserve_and_commit(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	uint8_t *to = buf_reserve(&b, 100);

	(void)state;
	assert_non_null(to);
	assert_int_equal(buf_len(&b), 0);
	assert_string_equal(buf_str(&b), "");
	memset(to, 'z', 100);
	buf_commit(&b, 60); /* less than was reserved */
	assert_int_equal(strlen(buf_str(&b)), 60);
	to = buf_reserve(&b, 40);
	assert_non_null(to);
	memset(to, 'z', 40);
	buf_commit(&b, 40);
	assert_int_equal(strlen(buf_str(&b)), 100);
}

static void take_str(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	char *s;

	(void)state;
	assert_int_equal(buf_append_str(&b, "xxkept"), 0);
	buf_consume(&b, 2);
	s = buf_take_str(&b);
	assert_string_equal(s, "kept");
	free(s);
	assert_int_equal(buf_len(&b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),
		cmocka_unit_test(append),
		cmocka_unit_test(growth),
		cmocka_unit_test(limit),
		cmocka_unit_test(queue),
		cmocka_unit_test(reserve_and_commit),
		cmocka_unit_test(take_str),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
