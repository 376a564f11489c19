/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 128

void buf_done(struct buf *b)
{
	size_t max = b->max;

	free(b->mem);
	*b = (struct buf){ .max = max };
}

void buf_clear(struct buf *b)
{
	b->start = b->end = 0;
	if (b->mem)
		b->mem[0] = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
	size_t len = buf_len(b), cap;
	uint8_t *mem;

	if (n > max || len > max - n) {
		errno = EMSGSIZE;
		return NULL;
	}
	if (b->cap > b->end && b->cap - b->end > n)
		return b->mem + b->end;
	/* Move the content to the front before growing: that alone may make the room. */
	if (b->start) {
		memmove(b->mem, b->mem + b->start, len + 1);
		b->start = 0;
		b->end = len;
		if (b->cap - b->end > n)
			return b->mem + b->end;
	}
	cap = b->cap ? b->cap : BUF_FIRST;
	while (cap <= len + n)
		cap *= 2;
	mem = realloc(b->mem, cap);
	if (!mem)
		return NULL;
	b->mem = mem;
	b->cap = cap;
	b->mem[b->end] = 0;
	return b->mem + b->end;
}

void buf_commit(struct buf *b, size_t n)
{
	assert(n < b->cap - b->end || n == 0);
	b->end += n;
	if (b->mem)
		b->mem[b->end] = 0;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
	uint8_t *to = buf_reserve(b, n);

	if (!to)
		return -errno;
	if (n)
		memcpy(to, p, n);
	buf_commit(b, n);
	return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_append_be32(struct buf *b, uint32_t v)
{
	uint8_t raw[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };

	return buf_append(b, raw, sizeof(raw));
}

int buf_append_u8(struct buf *b, uint8_t v)
{
	return buf_append(b, &v, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	uint8_t *to;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	to = buf_reserve(b, (size_t)n);
	if (!to)
		return -errno;
	va_start(ap, fmt);
	(void)vsnprintf((char *)to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf_commit(b, (size_t)n);
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= buf_len(b));
	b->start += n;
	if (b->start == b->end)
		buf_clear(b);
}

const char *buf_str(const struct buf *b)
{
	return b->mem ? (const char *)b->mem + b->start : "";
}

char *buf_take_str(struct buf *b)
{
	char *s = strdup(buf_str(b));

	if (s)
		buf_done(b);
	return s;
}
