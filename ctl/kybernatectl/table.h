/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of text: columns as wide as their widest cell, three spaces between them, nothing ever
 * cut. The last column is not padded, so that no line ends with blanks.
 */
#ifndef KYB_CTL_TABLE_H
#define KYB_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "screen.h"
#include "text.h"

#define TABLE_COLUMNS_MAX 12

struct table_column {
	const char *title; /* NULL in all of them: a table without a head */
	bool right;        /* aligned to the right: numbers */
};

struct table {
	const struct table_column *columns; /* borrowed */
	size_t n_columns;
	struct text cells;       /* escaped, each with its NUL */
	struct buf marks;        /* struct mark, one a cell */
	size_t widths[TABLE_COLUMNS_MAX]; /* of the cells */
};

/* A table with the columns of this array, at most TABLE_COLUMNS_MAX. */
#define TABLE_OF(array)                                                                            \
	(struct table)                                                                             \
	{                                                                                          \
		.columns = (array), .n_columns = ARRAY_SIZE(array), .cells = TEXT_NULL,            \
		.marks = BUF_LIMIT(TEXT_MAX)                                                       \
	}

void table_done(struct table *t);

/* The next cell, from left to right, row by row. text is escaped and copied; "" shows as "-". */
void table_cell(struct table *t, const char *text);
void table_cell_styled(struct table *t, enum style style, const char *text);
/* A cell that stays empty. */
void table_blank(struct table *t);

/* Adds the table to out, each line with indent spaces in front. */
void table_write(const struct table *t, size_t indent, bool colour, struct text *out);

#define _cleanup_table_ _cleanup_(table_done)

#endif
