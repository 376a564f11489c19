/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The characters of TOML: where we are in the text, keys, strings and numbers. What they mean
 * together is toml.c's. Only for toml.c.
 */
#ifndef KYB_CONF_TOML_SCAN_H
#define KYB_CONF_TOML_SCAN_H

#include <stdbool.h>

#include "base/buf.h"
#include "conf/toml.h"

struct toml_scan {
	const uint8_t *at, *end;
	const uint8_t *line_start;
	unsigned int line;
	struct buf text; /* the string being put together */
	struct arena *mem;
	struct error *err;
};

/* "line L, column C: ..." as the error; returns -EINVAL. */
int toml_scan_error(struct toml_scan *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The next character, or -1 at the end. */
static inline int toml_scan_peek(const struct toml_scan *s)
{
	return s->at < s->end ? *s->at : -1;
}

/* Is the next thing this text? Then goes past it. */
bool toml_scan_eat(struct toml_scan *s, const char *text);
/* Spaces and tabs. */
void toml_scan_blank(struct toml_scan *s);
/* Blanks, comments and line ends. */
void toml_scan_blank_lines(struct toml_scan *s);
/* Blanks and a comment, then the end of the line or of the text. */
int toml_scan_line_end(struct toml_scan *s);

/* One part of a key: bare, "basic" or 'literal'. In mem. */
int toml_scan_key(struct toml_scan *s, const char **ret);
/* Any of the four kinds of string; the next character is its quote. In mem. */
int toml_scan_string(struct toml_scan *s, const char **ret);
/* A number or boolean: sets type and value of node. */
int toml_scan_scalar(struct toml_scan *s, struct toml *node);

/* The whole text is UTF-8 and holds no control character but tab and line ends. */
int toml_scan_check(struct toml_scan *s);

#endif
