/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <string.h>

int bytes_take(struct bytes *b, size_t n, struct bytes *ret)
{
	if (b->n < n)
		return BYTES_MORE;
	*ret = (struct bytes){ b->p, n };
	if (n) /* NULL + 0 is undefined in C */
		*b = (struct bytes){ b->p + n, b->n - n };
	return 0;
}

int bytes_u8(struct bytes *b, uint8_t *ret)
{
	struct bytes v;

	if (bytes_take(b, 1, &v))
		return BYTES_MORE;
	*ret = v.p[0];
	return 0;
}

int bytes_be32(struct bytes *b, uint32_t *ret)
{
	struct bytes v;

	if (bytes_take(b, 4, &v))
		return BYTES_MORE;
	*ret = (uint32_t)v.p[0] << 24 | (uint32_t)v.p[1] << 16 | (uint32_t)v.p[2] << 8 | v.p[3];
	return 0;
}

int bytes_le32(struct bytes *b, uint32_t *ret)
{
	struct bytes v;

	if (bytes_take(b, 4, &v))
		return BYTES_MORE;
	*ret = (uint32_t)v.p[3] << 24 | (uint32_t)v.p[2] << 16 | (uint32_t)v.p[1] << 8 | v.p[0];
	return 0;
}

int bytes_le64(struct bytes *b, uint64_t *ret)
{
	struct bytes copy = *b;
	uint32_t low, high;

	if (bytes_le32(&copy, &low) || bytes_le32(&copy, &high))
		return BYTES_MORE;
	*b = copy;
	*ret = (uint64_t)high << 32 | low;
	return 0;
}

int bytes_until(struct bytes *b, uint8_t c, struct bytes *ret)
{
	const uint8_t *at = b->n ? memchr(b->p, c, b->n) : NULL;

	if (!at)
		return BYTES_MORE;
	*ret = (struct bytes){ b->p, (size_t)(at - b->p) };
	*b = (struct bytes){ at + 1, b->n - ret->n - 1 };
	return 0;
}

bool bytes_is(struct bytes b, const char *text)
{
	size_t n = strlen(text);

	return b.n == n && (n == 0 || memcmp(b.p, text, n) == 0);
}
