/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a hard maximum, written at the end and consumed from the front.
 * The content is always followed by a NUL that does not count, so that text can be used as a C
 * string through buf_str().
 */
#ifndef KYB_BASE_BUF_H
#define KYB_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/cleanup.h"

struct buf {
	uint8_t *mem;
	size_t start; /* consumed bytes at the front */
	size_t end;   /* first free byte */
	size_t cap;
	size_t max; /* most bytes of content; 0 = BUF_MAX_DEFAULT */
};

#define BUF_MAX_DEFAULT ((size_t)64 << 20)

#define BUF_NULL                                                                                   \
	(struct buf)                                                                               \
	{                                                                                          \
		0                                                                                  \
	}
/* A buffer that refuses to hold more than n bytes of content. */
#define BUF_LIMIT(n)                                                                               \
	(struct buf)                                                                               \
	{                                                                                          \
		.max = (n)                                                                         \
	}

/* Frees the memory; the buffer is empty afterwards and can be used again. */
void buf_done(struct buf *b);
/* Forgets the content, keeps the memory. */
void buf_clear(struct buf *b);

/*
 * Makes room for n more bytes and returns where they go, NULL when out of memory (errno ENOMEM)
 * or over the maximum (errno EMSGSIZE). Follow with buf_commit().
 */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

/* All of these return 0, -ENOMEM or -EMSGSIZE (over the maximum; the content is unchanged). */
int buf_append(struct buf *b, const void *p, size_t n);
int buf_append_str(struct buf *b, const char *s);
int buf_append_be32(struct buf *b, uint32_t v);
int buf_append_u8(struct buf *b, uint8_t v);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Drops n bytes at the front; n is at most buf_len(). */
void buf_consume(struct buf *b, size_t n);

static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

static inline struct bytes buf_bytes(const struct buf *b)
{
	return (struct bytes){ b->mem ? b->mem + b->start : NULL, b->end - b->start };
}

/* The content as a string; "" for an empty buffer. Valid until the next change. */
const char *buf_str(const struct buf *b);

/* Gives the content away as a malloc()ed string (free() it); NULL when out of memory. */
char *buf_take_str(struct buf *b);

#define _cleanup_buf_ _cleanup_(buf_done)

#endif
