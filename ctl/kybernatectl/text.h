/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text on its way to a person. Everything that comes from somewhere else (the agent, an argument)
 * passes through text_escaped(), so that no process name or log line can move the cursor, change
 * colours, or make other text appear than there is.
 *
 * Errors stick: a text that could not take something takes nothing more, and text_failed() tells
 * at the end. The callers in between need not look.
 */
#ifndef KYB_CTL_TEXT_H
#define KYB_CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct text {
	struct buf buf;
	int failed; /* 0, or the first -errno */
};

/* 10,000 checkpoints take about 2 MiB. */
#define TEXT_MAX ((size_t)256 << 20)

#define TEXT_NULL                                                                                  \
	(struct text)                                                                              \
	{                                                                                          \
		.buf = BUF_LIMIT(TEXT_MAX)                                                         \
	}

/* Frees the memory; the text is empty afterwards and can be used again. */
void text_done(struct text *t);
/* Forgets content and error, keeps the memory. */
void text_clear(struct text *t);

void text_add(struct text *t, const char *s);
void text_add_n(struct text *t, const char *s, size_t n);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_spaces(struct text *t, size_t n);

/*
 * Adds s with what must not reach a terminal written out: "\n", "\t", "\x1b" for single bytes
 * (bytes that are not UTF-8 among them), "\u202e" for characters. Other UTF-8 stays as it is; so
 * does a backslash, which makes this a display and not a code.
 */
void text_escaped(struct text *t, const char *s);
/* The same, but at most max bytes of s; then "...". */
void text_escaped_n(struct text *t, const char *s, size_t max);

/* The columns that s takes on a terminal; s has been escaped. */
size_t text_width(const char *s);
/* How many bytes of s fit into so many columns, whole characters only. */
size_t text_fit(const char *s, size_t columns);

/* As UTF-8 that JSON may hold: what is not becomes U+FFFD. */
void text_as_utf8(struct text *t, const char *s);

static inline const char *text_str(const struct text *t)
{
	return buf_str(&t->buf);
}

#define _cleanup_text_ _cleanup_(text_done)

#endif
