/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view of bytes that is consumed from the front, and the only way this project reads packets:
 * nobody indexes into one. The memory is borrowed.
 */
#ifndef KYB_BASE_BYTES_H
#define KYB_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
	const uint8_t *p;
	size_t n;
};

/* What a getter returns when the view is too short; the view is then unchanged. */
#define BYTES_MORE 1

static inline struct bytes bytes_of(const void *p, size_t n)
{
	return (struct bytes){ p, n };
}

int bytes_u8(struct bytes *b, uint8_t *ret);
int bytes_be32(struct bytes *b, uint32_t *ret);
int bytes_le32(struct bytes *b, uint32_t *ret);
int bytes_le64(struct bytes *b, uint64_t *ret);
/* The next n bytes as a view of their own. */
int bytes_take(struct bytes *b, size_t n, struct bytes *ret);
/*
 * The text up to the next c, without it, as a view; c is consumed. BYTES_MORE when there is
 * no c.
 */
int bytes_until(struct bytes *b, uint8_t c, struct bytes *ret);
/* Is it this text, byte for byte? */
bool bytes_is(struct bytes b, const char *text);

#endif
