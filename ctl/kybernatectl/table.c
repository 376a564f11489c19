/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <assert.h>
#include <string.h>

#define GAP 3

struct mark {
	size_t at;    /* in cells */
	size_t width; /* columns on the screen */
	enum style style;
};

void table_done(struct table *t)
{
	text_done(&t->cells);
	buf_done(&t->marks);
}

static size_t count(const struct table *t)
{
	return buf_len(&t->marks) / sizeof(struct mark);
}

static void add(struct table *t, enum style style, const char *text)
{
	size_t column = count(t) % t->n_columns;
	struct mark mark = { .at = buf_len(&t->cells.buf), .style = style };

	assert(t->n_columns > 0 && t->n_columns <= TABLE_COLUMNS_MAX);
	text_escaped(&t->cells, text);
	text_add_n(&t->cells, "", 1);
	if (t->cells.failed)
		return;
	mark.width = text_width((const char *)buf_bytes(&t->cells.buf).p + mark.at);
	if (mark.width > t->widths[column])
		t->widths[column] = mark.width;
	t->cells.failed = buf_append(&t->marks, &mark, sizeof(mark));
}

void table_cell_styled(struct table *t, enum style style, const char *text)
{
	add(t, style, *text ? text : "-");
}

void table_cell(struct table *t, const char *text)
{
	table_cell_styled(t, STYLE_PLAIN, text);
}

void table_blank(struct table *t)
{
	add(t, STYLE_PLAIN, "");
}

struct painter {
	const struct table *table;
	struct text *out;
	size_t widths[TABLE_COLUMNS_MAX];
	size_t owed; /* spaces, written only when something follows on the line */
};

static void paint(struct painter *p, size_t column, const char *text, size_t width)
{
	const struct table *t = p->table;
	size_t pad = p->widths[column] - width;
	bool right = t->columns[column].right;

	p->owed += right ? pad : 0;
	if (width) {
		text_spaces(p->out, p->owed);
		text_add(p->out, text);
		p->owed = 0;
	}
	p->owed += (right ? 0 : pad) + GAP;
}

static void head(struct painter *p, size_t indent)
{
	const struct table *t = p->table;

	if (!t->columns[0].title)
		return;
	for (size_t i = 0; i < t->n_columns; i++) {
		size_t width = text_width(t->columns[i].title);

		if (width > p->widths[i])
			p->widths[i] = width;
	}
	p->owed = indent;
	for (size_t i = 0; i < t->n_columns; i++)
		paint(p, i, t->columns[i].title, text_width(t->columns[i].title));
	text_add(p->out, "\n");
}

void table_write(const struct table *t, size_t indent, bool colour, struct text *out)
{
	struct bytes rest = buf_bytes(&t->marks), next;
	const char *cells = (const char *)buf_bytes(&t->cells.buf).p;
	struct painter p = { .table = t, .out = out };
	struct mark mark;

	if (t->cells.failed) {
		out->failed = out->failed ? out->failed : t->cells.failed;
		return;
	}
	memcpy(p.widths, t->widths, sizeof(p.widths));
	head(&p, indent);
	for (size_t i = 0; bytes_take(&rest, sizeof(mark), &next) == 0; i++) {
		size_t column = i % t->n_columns;

		memcpy(&mark, next.p, sizeof(mark));
		if (column == 0)
			p.owed = indent;
		screen_style(colour && mark.width, mark.style, out);
		paint(&p, column, cells + mark.at, mark.width);
		screen_unstyle(colour && mark.width, mark.style, out);
		if (column == t->n_columns - 1)
			text_add(out, "\n");
	}
}
