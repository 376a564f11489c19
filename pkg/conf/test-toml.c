/* SPDX-License-Identifier: Apache-2.0 */
/* What Python's reader cannot tell us (test-toml-oracle.py): our errors, limits and look-ups. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fd.h"
#include "conf/toml.h"
#include "tests/cmocka.h"

static int parse(struct toml_doc *doc, const char *text, struct error *err)
{
	return toml_parse(doc, bytes_of(text, strlen(text)), err);
}

/* The text is refused, and the error says exactly this. */
static void assert_refused(const char *text, const char *why)
{
	struct error err = ERROR_NULL;
	struct toml_doc doc;

	assert_int_equal(parse(&doc, text, &err), -EINVAL);
	assert_string_equal(error_text(&err), why);
	toml_done(&doc);
}

static void all_types_are_read(void **state)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	const struct toml *t, *v;

	(void)state;
	assert_int_equal(parse(&doc,
			       "s = \"a\\tb\"\ni = -42\nf = 1.5\nb = true\n"
			       "a = [1, 'two']\n[t]\nk.l = 'v'\n",
			       NULL),
			 0);
	v = toml_get(doc.root, "s");
	assert_int_equal(v->type, TOML_STRING);
	assert_string_equal(v->string, "a\tb");
	assert_int_equal(v->line, 1);
	v = toml_get(doc.root, "i");
	assert_int_equal(v->type, TOML_INTEGER);
	assert_int_equal(v->integer, -42);
	v = toml_get(doc.root, "f");
	assert_int_equal(v->type, TOML_FLOAT);
	assert_true(v->real > 1.49 && v->real < 1.51);
	v = toml_get(doc.root, "b");
	assert_int_equal(v->type, TOML_BOOLEAN);
	assert_true(v->boolean);
	v = toml_get(doc.root, "a");
	assert_int_equal(v->type, TOML_ARRAY);
	assert_int_equal(v->child.first->integer, 1);
	assert_string_equal(v->child.first->next->string, "two");
	assert_null(v->child.last->key);
	t = toml_get(doc.root, "t");
	assert_int_equal(t->type, TOML_TABLE);
	assert_int_equal(t->line, 6);
	assert_string_equal(toml_get(toml_get(t, "k"), "l")->string, "v");
	assert_null(toml_get(t, "k.l"));
	assert_null(toml_get(doc.root, "absent"));
}

static void arrays_of_tables_keep_their_order(void **state)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	const struct toml *groups;
	int64_t n = 0;

	(void)state;
	assert_int_equal(
		parse(&doc, "[[g]]\nn = 0\n[g.sub]\nx = 1\n[[g]]\nn = 1\n[[g]]\nn = 2\n", NULL), 0);
	groups = toml_get(doc.root, "g");
	assert_int_equal(groups->type, TOML_ARRAY);
	toml_for_each(i, groups)
		assert_int_equal(toml_get(i, "n")->integer, n++);
	assert_int_equal(n, 3);
	assert_int_equal(toml_get(toml_get(groups->child.first, "sub"), "x")->integer, 1);
}

static void an_empty_text_is_an_empty_table(void **state)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };

	(void)state;
	assert_int_equal(toml_parse(&doc, (struct bytes){ NULL, 0 }, NULL), 0);
	assert_null(doc.root->child.first);
}

static void errors_name_line_and_column(void **state)
{
	(void)state;
	assert_refused("a = 1\nb 2\n", "line 2, column 3: expected '=' after the key");
	assert_refused("a = 1 b = 2\n", "line 1, column 7: expected the end of the line");
	assert_refused("\n\na = 'x\n'", "line 3, column 7: the string does not end in its line");
	assert_refused("a = '''x\n\n", "line 3, column 1: the string does not end");
	assert_refused("a = [1 2]", "line 1, column 8: expected ',' or ']' in the array");
	assert_refused("a = {b = 1", "line 1, column 11: expected ',' or '}' in the inline table");
	assert_refused("[a\n", "line 1, column 3: expected ']' after the name of the table");
	assert_refused("a = 1\r\n\r\nb = \x01", "line 3, column 5: control character 0x01");
	assert_refused("a = '\xff'", "line 1, column 6: not valid UTF-8");
	assert_refused("a = \"\\q\"", "line 1, column 6: unknown escape sequence");
	assert_refused("a = yes", "line 1, column 5: expected a value, found 'yes'");
	assert_refused("a = 012", "line 1, column 5: malformed number");
}

static void nothing_is_defined_twice(void **state)
{
	(void)state;
	assert_refused("a = 1\n\na = 2", "line 3, column 3: 'a' is defined already, in line 1");
	assert_refused("[a]\n[a]", "line 2, column 4: 'a' is defined already, in line 1");
	assert_refused("a = {}\n[a.b]", "line 2, column 6: 'a' is defined already, in line 1");
	assert_refused("a = [{}]\n[[a]]", "line 2, column 6: 'a' is defined already, in line 1");
	assert_refused("a.b = 1\n[a]", "line 2, column 4: 'a' is defined already, in line 1");
}

static void what_is_left_out_is_refused_clearly(void **state)
{
	(void)state;
	assert_refused("d = 1979-05-27", "line 1, column 5: dates and times are not supported");
	assert_refused("d = 07:32:00", "line 1, column 5: dates and times are not supported");
	assert_refused("s = \"a\\u0000b\"",
		       "line 1, column 13: a NUL in a string is not supported");
	assert_refused("i = 9223372036854775808",
		       "line 1, column 5: the number does not fit into 64 bits");
}

static void depth_is_bounded(void **state)
{
	char text[256] = "a = ";
	struct toml_doc doc;

	(void)state;
	memset(text + 4, '[', TOML_DEPTH_MAX);
	memset(text + 4 + TOML_DEPTH_MAX, ']', TOML_DEPTH_MAX);
	assert_int_equal(parse(&doc, text, NULL), 0);
	toml_done(&doc);
	memset(text + 4, '[', 200);
	assert_refused(text, "line 1, column 37: values nested more than 32 deep");
	memset(text, 0, sizeof(text));
	for (int i = 0; i <= TOML_DEPTH_MAX; i++)
		memcpy(text + 2 * i, "k.", 2);
	assert_refused(text, "line 1, column 65: a key of more than 32 parts");
}

static void size_and_count_are_bounded(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct error err = ERROR_NULL;
	struct toml_doc doc;

	(void)state;
	for (int i = 0; i <= TOML_NODES_MAX; i++)
		assert_int_equal(buf_printf(&text, "k%d=1\n", i), 0);
	assert_int_equal(toml_parse(&doc, buf_bytes(&text), &err), -EINVAL);
	assert_string_equal(error_text(&err), "line 4097, column 7: more than 4096 entries");
	toml_done(&doc);
	buf_clear(&text);
	assert_non_null(buf_reserve(&text, TOML_TEXT_MAX + 1));
	memset(text.mem, '\n', TOML_TEXT_MAX + 1);
	buf_commit(&text, TOML_TEXT_MAX + 1);
	assert_int_equal(toml_parse(&doc, buf_bytes(&text), &err), -EINVAL);
	assert_string_equal(error_text(&err), "more than 1048576 bytes of TOML");
	toml_done(&doc);
	/* The most expensive text that is allowed still fits into the memory set aside. */
	buf_clear(&text);
	for (int i = 0; i < 4000; i++) {
		for (int k = 0; k < TOML_DEPTH_MAX - 1; k++)
			assert_int_equal(buf_append_str(&text, "a."), 0);
		assert_int_equal(buf_printf(&text, "k%d=1\n", i), 0);
	}
	assert_int_equal(toml_parse(&doc, buf_bytes(&text), &err), 0);
	toml_done(&doc);
}

static void files_are_named_in_errors(void **state)
{
	char dir[] = "/tmp/toml-test-XXXXXX", path[64], want[128];
	struct error err = ERROR_NULL;
	struct toml_doc doc;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/a.toml", dir);
	assert_int_equal(toml_read(&doc, AT_FDCWD, path, &err), -ENOENT);
	(void)snprintf(want, sizeof(want), "read %s: No such file or directory", path);
	assert_string_equal(error_text(&err), want);
	toml_done(&doc);
	assert_int_equal(file_write(AT_FDCWD, path, "a =\n", 4, 0600, FILE_PLAIN), 0);
	assert_int_equal(toml_read(&doc, AT_FDCWD, path, &err), -EINVAL);
	(void)snprintf(want, sizeof(want), "%s: line 1, column 4: expected a value", path);
	assert_string_equal(error_text(&err), want);
	toml_done(&doc);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_types_are_read),
		cmocka_unit_test(arrays_of_tables_keep_their_order),
		cmocka_unit_test(an_empty_text_is_an_empty_table),
		cmocka_unit_test(errors_name_line_and_column),
		cmocka_unit_test(nothing_is_defined_twice),
		cmocka_unit_test(what_is_left_out_is_refused_clearly),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(size_and_count_are_bounded),
		cmocka_unit_test(files_are_named_in_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
