/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/utf8.h"
#include "tests/cmocka.h"

static void mended(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
		/* cut off */
		{ "a\xc3", "a" },
		{ "a\xe2\x82", "a" },
		{ "a\xf0\x9f\x98", "a" },
		/* not UTF-8 */
		{ "a\xff" "b", "a?b" },
		{ "\x80" "a", "?a" },
		{ "\xc3" "a", "?a" },
		{ "\xe2\x82" "a", "??a" },
		{ "\xc0\xaf", "??" },
		{ "\xed\xa0\x80", "???" },
		{ "\xf4\x90\x80\x80", "????" },
		{ "a\xff", "a?" },
		{ "a\xc3\xff", "a??" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[32];

		(void)snprintf(text, sizeof(text), "%s", cases[i].text);
		utf8_mend(text);
		assert_string_equal(text, cases[i].expected);
	}
}

static void assert_well_formed(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t n = strlen(text);
	uint32_t c;

	while (n > 0) {
		size_t len = utf8_next(s, n, &c);

		assert_true(len > 0);
		s += len;
		n -= len;
	}
}

/* Errors travel as proto3 strings: wherever their text was cut, and whosever words it holds. */
static void errors_are_well_formed(void **state)
{
	char words[2 * ERROR_TEXT_MAX];
	struct error err = ERROR_NULL;

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(words); i++)
		words[i] = "\xe2\x82\xac"[i % 3];
	words[sizeof(words) - 1] = 0;
	for (unsigned int i = 0; i < 3; i++) {
		(void)error_set(&err, -EIO, "%s%s", words + 3 - i, words);
		assert_well_formed(err.text);
		assert_true(strlen(err.text) > ERROR_TEXT_MAX - 5);
		(void)error_wrap(&err, -EIO, "%.*s", (int)i + 1, "ab\xc3\xa9");
		assert_well_formed(err.text);
		(void)error_sys(&err, -EIO, "%.*s", ERROR_TEXT_MAX - 8 + (int)i, words);
		assert_well_formed(err.text);
		(void)error_reason(&err, REASON_BUSY, -EIO, "\xff%.*s", (int)i, words);
		assert_well_formed(err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mended),
		cmocka_unit_test(errors_are_well_formed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
