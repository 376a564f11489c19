/* SPDX-License-Identifier: Apache-2.0 */
#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "tests/cmocka.h"

static void zeroed_and_aligned(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(1 << 20);
	uint8_t *last = NULL;

	(void)state;
	for (size_t n = 1; n < 600; n++) {
		uint8_t *p = arena_alloc(&a, n);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(p[i], 0);
		memset(p, 0xff, n); /* must not show in the next one */
		assert_true(p != last);
		last = p;
	}
}

static void limit(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(1000);
	size_t n = 0;

	(void)state;
	assert_null(arena_alloc(&a, 1001));
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_alloc(&a, SIZE_MAX - 8));
	while (arena_alloc(&a, 100))
		n++;
	assert_true(n >= 8 && n <= 10);
	arena_done(&a);
	assert_non_null(arena_alloc(&a, 1000)); /* usable again, whole */
	assert_null(arena_alloc(&a, 1000));
}

/* A limit that is no multiple of the alignment still holds. */
static void odd_limit(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(17);

	(void)state;
	assert_non_null(arena_alloc(&a, 17));
	assert_null(arena_alloc(&a, 1));
	assert_null(arena_alloc(&a, 17));
}

/* An allocation over one chunk keeps the chunk before it usable: nothing overlaps. */
static void large_among_small(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(1 << 20);
	char *s[50];

	(void)state;
	for (int i = 0; i < 50; i++) {
		char *big = arena_alloc(&a, 5000);

		assert_non_null(big);
		memset(big, 0x55, 5000);
		s[i] = arena_printf(&a, "string %d", i);
		assert_non_null(s[i]);
	}
	for (int i = 0; i < 50; i++) {
		char want[32];

		(void)snprintf(want, sizeof(want), "string %d", i);
		assert_string_equal(s[i], want);
	}
}

static void strings(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(64);

	(void)state;
	assert_string_equal(arena_strdup(&a, ""), "");
	assert_string_equal(arena_strdup(&a, "abc"), "abc");
	assert_string_equal(arena_printf(&a, "%s-%d", "x", 1), "x-1");
	assert_null(arena_strdup(&a, "a text of more than the sixteen bytes that are left"));
	assert_null(arena_printf(&a, "%100d", 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeroed_and_aligned),
		cmocka_unit_test(limit),
		cmocka_unit_test(odd_limit),
		cmocka_unit_test(large_among_small),
		cmocka_unit_test(strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
