/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "width-table.h"

void text_done(struct text *t)
{
	buf_done(&t->buf);
	t->failed = 0;
}

void text_clear(struct text *t)
{
	buf_clear(&t->buf);
	t->failed = 0;
}

void text_add_n(struct text *t, const char *s, size_t n)
{
	if (!t->failed)
		t->failed = buf_append(&t->buf, s, n);
}

void text_add(struct text *t, const char *s)
{
	text_add_n(t, s, strlen(s));
}

void text_printf(struct text *t, const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		t->failed = t->failed ? t->failed : -ENOMEM;
		return;
	}
	text_add_n(t, s, (size_t)n);
	free(s);
}

void text_spaces(struct text *t, size_t n)
{
	static const char blank[] = "                                ";

	for (; n > sizeof(blank) - 1 && !t->failed; n -= sizeof(blank) - 1)
		text_add(t, blank);
	text_add_n(t, blank, n > sizeof(blank) - 1 ? 0 : n);
}

/* --- Unicode -------------------------------------------------------------------------------- */

static int compare(const void *key, const void *range)
{
	const uint32_t c = *(const uint32_t *)key;
	const struct width_range *r = range;

	return c < r->first ? -1 : c > r->last;
}

#define IN_TABLE(c, table)                                                                         \
	(bsearch(&(c), table, sizeof(table) / sizeof((table)[0]), sizeof((table)[0]), compare) !=  \
	 NULL)

static unsigned int columns_of(uint32_t c)
{
	if (c < 0x300)
		return 1;
	if (IN_TABLE(c, width_zero))
		return 0;
	return IN_TABLE(c, width_wide) ? 2 : 1;
}

/* --- escaping ------------------------------------------------------------------------------- */

static void escape(struct text *t, uint32_t c)
{
	if (c == '\n')
		text_add(t, "\\n");
	else if (c == '\t')
		text_add(t, "\\t");
	else if (c == '\r')
		text_add(t, "\\r");
	else if (c < 0x80)
		text_printf(t, "\\x%02x", c);
	else if (c < 0x10000)
		text_printf(t, "\\u%04x", c);
	else
		text_printf(t, "\\U%08x", c);
}

/* Adds the n bytes of s as they are, up to the first that must be escaped; returns how many. */
static size_t add_plain(struct text *t, const unsigned char *s, size_t n)
{
	size_t at = 0, len;
	uint32_t c;

	while (at < n && (len = utf8_next(s + at, n - at, &c)) && !IN_TABLE(c, width_hidden))
		at += len;
	text_add_n(t, (const char *)s, at);
	return at;
}

void text_escaped_n(struct text *t, const char *s, size_t max)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strnlen(s, max), at = 0, len;
	uint32_t c;

	/* Not in the middle of a character. */
	if (s[n])
		while (n > 0 && (p[n] & 0xc0) == 0x80)
			n--;
	while (!t->failed && (at += add_plain(t, p + at, n - at)) < n) {
		len = utf8_next(p + at, n - at, &c);
		if (len)
			escape(t, c);
		else
			text_printf(t, "\\x%02x", p[at]);
		at += len ? len : 1;
	}
	if (s[n])
		text_add(t, "...");
}

void text_escaped(struct text *t, const char *s)
{
	text_escaped_n(t, s, strlen(s));
}

void text_as_utf8(struct text *t, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strlen(s), at = 0, from = 0, len;
	uint32_t c;

	while (at < n) {
		len = utf8_next(p + at, n - at, &c);
		if (!len) {
			text_add_n(t, s + from, at - from);
			text_add(t, "\xef\xbf\xbd");
			from = at + 1;
		}
		at += len ? len : 1;
	}
	text_add_n(t, s + from, n - from);
}

/* --- width ---------------------------------------------------------------------------------- */

size_t text_fit(const char *s, size_t columns)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strlen(s), at = 0, used = 0, len;
	uint32_t c;

	while (at < n) {
		len = utf8_next(p + at, n - at, &c);
		used += len ? columns_of(c) : 1;
		if (used > columns)
			break;
		at += len ? len : 1;
	}
	return at;
}

size_t text_width(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strlen(s), at = 0, used = 0, len;
	uint32_t c;

	while (at < n) {
		len = utf8_next(p + at, n - at, &c);
		used += len ? columns_of(c) : 1;
		at += len ? len : 1;
	}
	return used;
}
