/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "conf/json.h"
#include "tests/cmocka.h"

static json_t *parsed(const char *text)
{
	json_t *v = NULL;

	assert_int_equal(json_doc_parse(bytes_of(text, strlen(text)), &v, NULL), 0);
	return v;
}

static void look_ups_survive_anything(void **state)
{
	_cleanup_json_ json_t *v = parsed(
		"{\"a\":{\"b/c.d\":{\"e\":\"x\"}},\"n\":null,\"s\":\"t\"}");
	const char *s = "unchanged";

	(void)state;
	assert_int_equal(json_doc_string(JSON_DOC_AT(v, "a", "b/c.d", "e"), &s), 0);
	assert_string_equal(s, "x");
	assert_null(JSON_DOC_AT(v, "a", "absent", "e"));
	assert_null(JSON_DOC_AT(v, "s", "not", "an", "object"));
	assert_null(JSON_DOC_AT(v, "n"));
	assert_null(JSON_DOC_AT(NULL, "a"));
	s = "unchanged";
	assert_int_equal(json_doc_string(JSON_DOC_AT(v, "n"), &s), JSON_DOC_MISSING);
	assert_int_equal(json_doc_string(JSON_DOC_AT(v, "a"), &s), -EBADMSG);
	assert_string_equal(s, "unchanged");
}

static void types_are_checked(void **state)
{
	_cleanup_json_ json_t *v = parsed("{\"t\":true,\"f\":1.5,\"neg\":-7,\"big\":4294967296,"
					  "\"nul\":\"a\\u0000b\",\"max\":9223372036854775807}");
	const char *s = NULL;
	int64_t i = 1;
	uint64_t u = 1;
	bool b = false;

	(void)state;
	assert_int_equal(json_doc_bool(JSON_DOC_AT(v, "t"), &b), 0);
	assert_true(b);
	assert_int_equal(json_doc_bool(JSON_DOC_AT(v, "neg"), &b), -EBADMSG);
	assert_int_equal(json_doc_bool(NULL, &b), JSON_DOC_MISSING);
	assert_int_equal(json_doc_string(JSON_DOC_AT(v, "nul"), &s), -EBADMSG);
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "f"), &i), -EBADMSG);
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "neg"), &i), 0);
	assert_int_equal(i, -7);
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "max"), &i), 0);
	assert_true(i == INT64_MAX);
	assert_int_equal(json_doc_uint(JSON_DOC_AT(v, "neg"), UINT64_MAX, &u), -ERANGE);
	assert_int_equal(json_doc_uint(JSON_DOC_AT(v, "big"), UINT32_MAX, &u), -ERANGE);
	assert_int_equal(u, 1);
	assert_int_equal(json_doc_uint(JSON_DOC_AT(v, "big"), UINT64_MAX, &u), 0);
	assert_true(u == 4294967296);
}

static void an_integer_beyond_64_bits_is_no_reason_to_fail(void **state)
{
	_cleanup_json_ json_t *v = parsed(
		"{\"hard\":18446744073709551615,\"limit\":-1,\"mem\":9223372036854771712}");
	int64_t i;

	(void)state;
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "hard"), &i), -ERANGE);
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "limit"), &i), 0);
	assert_int_equal(i, -1);
	assert_int_equal(json_doc_int(JSON_DOC_AT(v, "mem"), &i), 0);
	assert_true(i == 9223372036854771712);
}

static void errors_name_the_place_and_quote_nothing(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "line 1, column 0: unexpected token" },
		{ "{\n\"a\": tru }", "line 2, column 8: invalid token" },
		{ "{\"env\":[\"TOKEN=secret", "line 1, column 21: premature end of input" },
		{ "{} x", "line 1, column 4: end of file expected" },
		{ "[1e999]", "line 1, column 6: real number overflow" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NULL;
		json_t *v = NULL;

		assert_int_equal(
			json_doc_parse(bytes_of(cases[i].text, strlen(cases[i].text)), &v, &err),
			-EBADMSG);
		assert_null(v);
		assert_null(strstr(error_text(&err), "secret"));
		assert_string_equal(error_text(&err), cases[i].why);
	}
}

static void files_are_bounded(void **state)
{
	struct error err = ERROR_NULL;
	json_t *v = NULL;

	(void)state;
	assert_int_equal(json_doc_read(AT_FDCWD, "/dev/zero", 1000, &v, &err), -EFBIG);
	assert_string_equal(error_text(&err), "read /dev/zero: File too large");
	assert_int_equal(json_doc_read(AT_FDCWD, "/proc/self/comm", 1000, &v, &err), -EBADMSG);
	assert_non_null(strstr(error_text(&err), "/proc/self/comm: line 1"));
	assert_null(v);
}

static void output_is_stable_and_bounded(void **state)
{
	_cleanup_json_ json_t *v = parsed("{\"b\":1,\"a\":[\"\\u00e9/\"]}");
	_cleanup_buf_ struct buf out = BUF_LIMIT(64), small = BUF_LIMIT(8);

	(void)state;
	assert_int_equal(json_doc_write(v, JSON_DOC_COMPACT, &out), 0);
	assert_string_equal(buf_str(&out), "{\"b\":1,\"a\":[\"\xc3\xa9/\"]}");
	buf_clear(&out);
	assert_int_equal(json_doc_write(v, JSON_DOC_PRETTY, &out), 0);
	assert_string_equal(buf_str(&out),
			    "{\n  \"b\": 1,\n  \"a\": [\n    \"\xc3\xa9/\"\n  ]\n}\n");
	assert_int_equal(json_doc_write(v, JSON_DOC_COMPACT, &small), -EMSGSIZE);
	assert_int_equal(json_doc_write(json_true(), JSON_DOC_COMPACT, &out), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(look_ups_survive_anything),
		cmocka_unit_test(types_are_checked),
		cmocka_unit_test(an_integer_beyond_64_bits_is_no_reason_to_fail),
		cmocka_unit_test(errors_name_the_place_and_quote_nothing),
		cmocka_unit_test(files_are_bounded),
		cmocka_unit_test(output_is_stable_and_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
