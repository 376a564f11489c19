/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <locale.h>
#include <string.h>
#include <wchar.h>

#include "base/cleanup.h"
#include "tests/cmocka.h"
#include "text.h"

static void escaping(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "", "" },
		{ "plain text, 1/2 (ok) \\ \"", "plain text, 1/2 (ok) \\ \"" },
		{ "a\nb\tc\rd", "a\\nb\\tc\\rd" },
		{ "\033[2J\a\x7f", "\\x1b[2J\\x07\\x7f" },
		{ "é 文 \xf0\x9f\x98\x80", "é 文 \xf0\x9f\x98\x80" },
		{ "\xc2\x9b" "31m", "\\u009b31m" },            /* CSI in one character */
		{ "a\xe2\x80\xae" "b", "a\\u202eb" },          /* right-to-left override */
		{ "\xe2\x81\xa6\xef\xbb\xbf", "\\u2066\\ufeff" },
		{ "\xf3\xa0\x80\x81", "\\U000e0001" },
		{ "\xee\x80\x80", "\\ue000" },                 /* private use */
		/* Not UTF-8: stray, cut, overlong, surrogate, too large. */
		{ "\x80x", "\\x80x" },
		{ "x\xe2\x82", "x\\xe2\\x82" },
		{ "\xc0\xaf\xe0\x80\xaf", "\\xc0\\xaf\\xe0\\x80\\xaf" },
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80" },
		{ "\xf4\x90\x80\x80\xf5\xff", "\\xf4\\x90\\x80\\x80\\xf5\\xff" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_text_ struct text t = TEXT_NULL;

		text_escaped(&t, cases[i].in);
		assert_string_equal(text_str(&t), cases[i].out);
		assert_int_equal(t.failed, 0);
	}
}

static void cutting(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	text_escaped_n(&t, "abcdef", 6);
	text_add(&t, "|");
	text_escaped_n(&t, "abcdef", 5);
	text_add(&t, "|");
	/* Not in the middle of a character. */
	text_escaped_n(&t, "a\xe6\x96\x87", 3);
	text_add(&t, "|");
	text_escaped_n(&t, "\x80\x80\x80", 1);
	assert_string_equal(text_str(&t), "abcdef|abcde...|a...|...");
}

static void width(void **state)
{
	static const struct {
		const char *text;
		size_t width;
	} cases[] = {
		{ "", 0 },           { "abc", 3 },      { "é", 1 },
		{ "文件", 4 },       { "한글", 4 },     { "\xef\xbc\xa1", 2 },
		{ "e\xcc\x81", 1 },  { "\xf0\x9f\x98\x80", 2 }, { "\xff", 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(text_width(cases[i].text), cases[i].width);
	assert_int_equal(text_fit("abc", 2), 2);
	assert_int_equal(text_fit("abc", 3), 3);
	assert_int_equal(text_fit("文件", 3), 3);
	assert_int_equal(text_fit("e\xcc\x81x", 1), 3);
	assert_int_equal(text_fit("abc", 0), 0);
}

/* The C library's idea of widths is another reading of the same data. */
static void width_as_libc(void **state)
{
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), old;
	unsigned int compared = 0, different = 0;

	(void)state;
	if (!utf8)
		skip();
	old = uselocale(utf8);
	for (wchar_t c = 0xa0; c < 0x20000; c++) {
		char s[8] = "";
		mbstate_t mb = { 0 };
		int libc = wcwidth(c);

		if (libc < 0 || wcrtomb(s, c, &mb) == (size_t)-1)
			continue;
		compared++;
		different += text_width(s) != (size_t)libc;
	}
	(void)uselocale(old);
	freelocale(utf8);
	assert_true(compared > 50000);
	/* Format characters (width 0 there; here they never reach a terminal), newer versions. */
	assert_true(different < compared / 200);
}

static void as_utf8(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	text_as_utf8(&t, "a\xff\xc0\xaf" "b\033é");
	assert_string_equal(text_str(&t), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" "b\033é");
}

static void spaces(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	for (size_t n = 0; n < 100; n++) {
		text_clear(&t);
		text_spaces(&t, n);
		assert_int_equal(strspn(text_str(&t), " "), n);
		assert_int_equal(strlen(text_str(&t)), n);
	}
}

static void errors_stick(void **state)
{
	_cleanup_text_ struct text t = { .buf = BUF_LIMIT(4) };

	(void)state;
	text_add(&t, "abc");
	text_printf(&t, "%d", 12345);
	assert_int_equal(t.failed, -EMSGSIZE);
	text_add(&t, "d");
	text_escaped(&t, "d");
	text_spaces(&t, 1);
	assert_string_equal(text_str(&t), "abc");
	text_clear(&t);
	text_add(&t, "d");
	assert_int_equal(t.failed, 0);
	assert_string_equal(text_str(&t), "d");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escaping),
		cmocka_unit_test(cutting),
		cmocka_unit_test(width),
		cmocka_unit_test(width_as_libc),
		cmocka_unit_test(as_utf8),
		cmocka_unit_test(spaces),
		cmocka_unit_test(errors_stick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
