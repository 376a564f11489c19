/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "table.h"
#include "tests/cmocka.h"

static const struct table_column columns[] = { { "NAME", false }, { "SIZE", true },
					       { "NOTE", false } };

static void aligned(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(columns);

	(void)state;
	table_cell(&table, "a");
	table_cell(&table, "5");
	table_blank(&table);
	table_cell(&table, "文件名");
	table_cell(&table, "12345");
	table_cell(&table, "no\tte");
	table_cell(&table, "");
	table_blank(&table);
	table_cell(&table, "x");
	table_write(&table, 2, false, &t);
	assert_string_equal(text_str(&t), "  NAME      SIZE   NOTE\n"
					  "  a            5\n"
					  "  文件名   12345   no\\tte\n"
					  "  -                x\n");
	assert_int_equal(t.failed, 0);
}

static void headless(void **state)
{
	static const struct table_column pair[] = { { NULL, false }, { NULL, false } };
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(pair);

	(void)state;
	table_write(&table, 0, false, &t);
	assert_string_equal(text_str(&t), "");
	table_cell(&table, "Key");
	table_cell(&table, "value");
	table_write(&table, 0, false, &t);
	assert_string_equal(text_str(&t), "Key   value\n");
}

static void coloured(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(columns);

	(void)state;
	table.n_columns = 2;
	table_cell_styled(&table, STYLE_BAD, "a");
	table_cell(&table, "1");
	table_write(&table, 0, true, &t);
	assert_string_equal(text_str(&t), "NAME   SIZE\n\033[31ma\033[0m         1\n");
}

static void failures_come_through(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(columns);

	(void)state;
	table.n_columns = 1;
	table.cells.buf.max = 4;
	table_cell(&table, "abcdef");
	table_write(&table, 0, false, &t);
	assert_true(t.failed < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aligned),
		cmocka_unit_test(headless),
		cmocka_unit_test(coloured),
		cmocka_unit_test(failures_come_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
