/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/toml_scan.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 128 /* characters of a number */

int toml_scan_error(struct toml_scan *s, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return error_set(s->err, -EINVAL, "line %u, column %td: %s", s->line,
			 s->at - s->line_start + 1, what);
}

bool toml_scan_eat(struct toml_scan *s, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, text, n) != 0)
		return false;
	s->at += n;
	return true;
}

/* Goes past a line end, if there is one. toml_scan_check() has seen to it that CR is CR LF. */
static bool eat_newline(struct toml_scan *s)
{
	if (!toml_scan_eat(s, "\n") && !toml_scan_eat(s, "\r\n"))
		return false;
	s->line++;
	s->line_start = s->at;
	return true;
}

void toml_scan_blank(struct toml_scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t'))
		s->at++;
}

static void blank_and_comment(struct toml_scan *s)
{
	toml_scan_blank(s);
	if (toml_scan_peek(s) != '#')
		return;
	while (s->at < s->end && *s->at != '\n' && *s->at != '\r')
		s->at++;
}

void toml_scan_blank_lines(struct toml_scan *s)
{
	do
		blank_and_comment(s);
	while (eat_newline(s));
}

int toml_scan_line_end(struct toml_scan *s)
{
	blank_and_comment(s);
	if (s->at == s->end || eat_newline(s))
		return 0;
	return toml_scan_error(s, "expected the end of the line");
}

/* The length of the valid UTF-8 character at p, or 0. Source: RFC 3629, section 4. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (n < len)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0; /* else it would be longer than it need be */
	else if (p[0] == 0xed)
		high = 0x9f; /* no surrogates */
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f; /* nothing above U+10FFFF */
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

int toml_scan_check(struct toml_scan *s)
{
	const uint8_t *start = s->at;

	while (s->at < s->end) {
		size_t len = utf8_length(s->at, (size_t)(s->end - s->at));

		if (eat_newline(s))
			continue;
		if (len == 0)
			return toml_scan_error(s, "not valid UTF-8");
		if (*s->at == 0x7f || (*s->at < 0x20 && *s->at != '\t'))
			return toml_scan_error(s, "control character 0x%02x", *s->at);
		s->at += len;
	}
	s->at = s->line_start = start;
	s->line = 1;
	return 0;
}

static int keep(struct toml_scan *s, const char **ret)
{
	*ret = arena_strdup(s->mem, buf_str(&s->text));
	return *ret ? 0 : error_sys(s->err, -ENOMEM, "read TOML");
}

static int add(struct toml_scan *s, const void *p, size_t n)
{
	int r = buf_append(&s->text, p, n);

	return r < 0 ? error_sys(s->err, r, "read TOML") : 0;
}

static int add_code_point(struct toml_scan *s, uint32_t c)
{
	uint8_t out[4];
	size_t n = 0;

	if (c < 0x80) {
		out[n++] = (uint8_t)c;
	} else if (c < 0x800) {
		out[n++] = (uint8_t)(0xc0 | c >> 6);
		out[n++] = (uint8_t)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		out[n++] = (uint8_t)(0xe0 | c >> 12);
		out[n++] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		out[n++] = (uint8_t)(0x80 | (c & 0x3f));
	} else {
		out[n++] = (uint8_t)(0xf0 | c >> 18);
		out[n++] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
		out[n++] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		out[n++] = (uint8_t)(0x80 | (c & 0x3f));
	}
	return add(s, out, n);
}

static int hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* What follows \u or \U. */
static int unicode_escape(struct toml_scan *s, unsigned int digits)
{
	uint32_t c = 0;

	for (unsigned int i = 0; i < digits; i++) {
		int digit = hex_digit(toml_scan_peek(s));

		if (digit < 0)
			return toml_scan_error(s, "expected %u hexadecimal digits", digits);
		c = c << 4 | (uint32_t)digit;
		s->at++;
	}
	if (c == 0)
		return toml_scan_error(s, "a NUL in a string is not supported");
	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return toml_scan_error(s, "not a Unicode character");
	return add_code_point(s, c);
}

/* At the backslash. */
static int escape(struct toml_scan *s, bool multi)
{
	static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
	const uint8_t *backslash = s->at++;
	const char *at;
	int c = toml_scan_peek(s);

	if (c > 0 && (at = strchr(from, c))) {
		s->at++;
		return add(s, &to[at - from], 1);
	}
	if (c == 'u' || c == 'U') {
		s->at++;
		return unicode_escape(s, c == 'u' ? 4 : 8);
	}
	if (multi) {
		/* At the end of a line: joins it with the next one that is not blank. */
		toml_scan_blank(s);
		if (eat_newline(s)) {
			do
				toml_scan_blank(s);
			while (eat_newline(s));
			return 0;
		}
	}
	s->at = backslash;
	return toml_scan_error(s, "unknown escape sequence");
}

/* The quotes that end a multi-line string may have one or two more in front of them, which belong
 * to the string. At the first of at least three. */
static int closing_quotes(struct toml_scan *s, const char *quote)
{
	s->at += 3;
	for (int i = 0; i < 2 && s->at < s->end && *s->at == (uint8_t)*quote; i++) {
		int r = add(s, quote, 1);

		if (r < 0)
			return r;
		s->at++;
	}
	return 0;
}

static int multi_line(struct toml_scan *s, const char *quote, const char *quotes)
{
	int r = 0;

	s->at += 3;
	(void)eat_newline(s); /* the first one does not count */
	while (r == 0) {
		int c = toml_scan_peek(s);

		if (c < 0)
			return toml_scan_error(s, "the string does not end");
		if (toml_scan_eat(s, quotes)) {
			s->at -= 3;
			return closing_quotes(s, quote);
		}
		if (c == '\\' && *quote == '"') {
			r = escape(s, true);
		} else if (eat_newline(s)) {
			r = add(s, "\n", 1);
		} else {
			r = add(s, s->at, 1);
			s->at++;
		}
	}
	return r;
}

static int one_line(struct toml_scan *s, const char *quote)
{
	int r = 0;

	s->at++;
	while (r == 0) {
		int c = toml_scan_peek(s);

		if (c < 0 || c == '\n' || c == '\r')
			return toml_scan_error(s, "the string does not end in its line");
		if (toml_scan_eat(s, quote))
			return 0;
		if (c == '\\' && *quote == '"') {
			r = escape(s, false);
		} else {
			r = add(s, s->at, 1);
			s->at++;
		}
	}
	return r;
}

int toml_scan_string(struct toml_scan *s, const char **ret)
{
	const char *quote = toml_scan_peek(s) == '"' ? "\"" : "'";
	const char *quotes = *quote == '"' ? "\"\"\"" : "'''";
	int r;

	buf_clear(&s->text);
	if (toml_scan_eat(s, quotes)) {
		s->at -= 3;
		r = multi_line(s, quote, quotes);
	} else {
		r = one_line(s, quote);
	}
	return r < 0 ? r : keep(s, ret);
}

static bool bare(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

int toml_scan_key(struct toml_scan *s, const char **ret)
{
	const uint8_t *start = s->at;
	int c = toml_scan_peek(s), r;

	buf_clear(&s->text);
	if (c == '"' || c == '\'') {
		r = one_line(s, c == '"' ? "\"" : "'");
		return r < 0 ? r : keep(s, ret);
	}
	while (bare(toml_scan_peek(s)))
		s->at++;
	if (s->at == start)
		return toml_scan_error(s, "expected a key");
	r = add(s, start, (size_t)(s->at - start));
	return r < 0 ? r : keep(s, ret);
}

/*
 * Copies the digits of a base that p starts with, without the underscores between them. Returns
 * how many characters of p that were, 0 when p does not start with a well-formed number.
 */
static size_t digits(const char *p, unsigned int base, char *out)
{
	size_t n = 0;

	for (;; n++) {
		int digit = hex_digit((unsigned char)p[n]);

		if (digit >= 0 && digit < (int)base) {
			*out++ = p[n];
			continue;
		}
		if (p[n] != '_')
			break;
		if (n == 0 || p[n - 1] == '_')
			return 0;
	}
	*out = 0;
	return n > 0 && p[n - 1] == '_' ? 0 : n;
}

static int integer(struct toml_scan *s, struct toml *node, const char *text, int base)
{
	long long v;

	errno = 0;
	v = strtoll(text, NULL, base);
	if (errno)
		return toml_scan_error(s, "the number does not fit into 64 bits");
	node->type = TOML_INTEGER;
	node->integer = v;
	return 0;
}

/* 0x, 0o or 0b: word is at that prefix. */
static int prefixed(struct toml_scan *s, struct toml *node, const char *word)
{
	int base = word[1] == 'x' ? 16 : word[1] == 'o' ? 8 : 2;
	char clean[NUMBER_MAX];
	size_t n = digits(word + 2, (unsigned int)base, clean);

	if (n == 0 || word[2 + n])
		return toml_scan_error(s, "malformed number");
	return integer(s, node, clean, base);
}

/* Digits with a sign, a fraction and an exponent as they come. */
static int decimal(struct toml_scan *s, struct toml *node, const char *word)
{
	char clean[NUMBER_MAX], *out = clean;
	const char *p = word;
	bool real = false;
	size_t n;

	if (*p == '+' || *p == '-')
		*out++ = *p++;
	n = digits(p, 10, out);
	if (n == 0 || (p[0] == '0' && n > 1))
		goto malformed;
	out += strlen(out);
	p += n;
	if (*p == '.') {
		real = true;
		*out++ = *p++;
		n = digits(p, 10, out);
		if (n == 0)
			goto malformed;
		out += strlen(out);
		p += n;
	}
	if (*p == 'e' || *p == 'E') {
		real = true;
		*out++ = *p++;
		if (*p == '+' || *p == '-')
			*out++ = *p++;
		n = digits(p, 10, out);
		if (n == 0)
			goto malformed;
		p += n;
	}
	if (*p)
		goto malformed;
	if (!real)
		return integer(s, node, clean, 10);
	node->type = TOML_FLOAT;
	node->real = strtod(clean, NULL);
	return 0;
malformed:
	return toml_scan_error(s, "malformed number");
}

/* "1979-05-27" or "07:32" */
static bool date_or_time(const char *word)
{
	size_t n = strspn(word, "0123456789");

	return (n == 4 && word[n] == '-') || (n == 2 && word[n] == ':');
}

int toml_scan_scalar(struct toml_scan *s, struct toml *node)
{
	const uint8_t *start = s->at, *end = start;
	const char *p;
	char word[NUMBER_MAX];
	size_t n;
	int r;

	while (end < s->end && (bare(*end) || *end == '+' || *end == '.' || *end == ':'))
		end++;
	n = (size_t)(end - start);
	if (n == 0 || n >= sizeof(word))
		return toml_scan_error(s, "expected a value");
	memcpy(word, start, n);
	word[n] = 0;
	p = word + (word[0] == '+' || word[0] == '-');
	if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
		node->type = TOML_BOOLEAN;
		node->boolean = word[0] == 't';
		r = 0;
	} else if (strcmp(p, "inf") == 0 || strcmp(p, "nan") == 0) {
		node->type = TOML_FLOAT;
		node->real = *p == 'i' ? (double)INFINITY : (double)NAN;
		if (word[0] == '-')
			node->real = -node->real;
		r = 0;
	} else if (date_or_time(word)) {
		r = toml_scan_error(s, "dates and times are not supported");
	} else if (word[0] == '0' && word[1] && strchr("xob", word[1])) {
		r = prefixed(s, node, word);
	} else if (*p >= '0' && *p <= '9') {
		r = decimal(s, node, word);
	} else {
		r = toml_scan_error(s, "expected a value, found '%s'", word);
	}
	if (r == 0)
		s->at = end;
	return r;
}
