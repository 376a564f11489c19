/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_frame.h"

#include <errno.h>

void grpc_frame_head(uint8_t head[GRPC_FRAME_HEAD], uint32_t n)
{
	head[0] = 0;
	head[1] = (uint8_t)(n >> 24);
	head[2] = (uint8_t)(n >> 16);
	head[3] = (uint8_t)(n >> 8);
	head[4] = (uint8_t)n;
}

/* Reads a head. Returns as grpc_frame_take(). */
static int take_head(struct bytes *in, size_t max, uint32_t *ret_n)
{
	struct bytes b = *in;
	uint8_t flag;

	if (bytes_u8(&b, &flag) == BYTES_MORE)
		return BYTES_MORE;
	if (flag == 1)
		return -ENOTSUP;
	if (flag != 0)
		return -EBADMSG;
	if (bytes_be32(&b, ret_n) == BYTES_MORE)
		return BYTES_MORE;
	if (*ret_n > max)
		return -EMSGSIZE;
	*in = b;
	return 0;
}

int grpc_frame_take(struct bytes *in, size_t max, struct bytes *ret)
{
	struct bytes b = *in;
	uint32_t n = 0;
	int r = take_head(&b, max, &n);

	if (r == 0)
		r = bytes_take(&b, n, ret);
	if (r == 0)
		*in = b;
	return r;
}

/* How many bytes the message in part still lacks; 0 when not even its head is whole. */
static size_t lacking(const struct grpc_reader *r)
{
	struct bytes b = buf_bytes(&r->part);
	uint32_t n;

	return take_head(&b, r->max, &n) == 0 ? n - b.n : 0;
}

/* Moves at most n bytes from in to part. */
static int take_part(struct grpc_reader *r, struct bytes *in, size_t n)
{
	struct bytes piece;

	(void)bytes_take(in, n < in->n ? n : in->n, &piece);
	return buf_append(&r->part, piece.p, piece.n);
}

/* Goes on with the message that part begins. */
static int continue_part(struct grpc_reader *r, struct bytes *in, struct bytes *ret)
{
	struct bytes b;
	int e = 0;

	if (buf_len(&r->part) < GRPC_FRAME_HEAD)
		e = take_part(r, in, GRPC_FRAME_HEAD - buf_len(&r->part));
	if (e == 0)
		e = take_part(r, in, lacking(r));
	if (e < 0)
		return e;
	b = buf_bytes(&r->part);
	e = grpc_frame_take(&b, r->max, ret);
	if (e == 0)
		r->given = buf_len(&r->part);
	return e;
}

int grpc_reader_next(struct grpc_reader *r, struct bytes *in, struct bytes *ret)
{
	int e;

	if (r->given) {
		buf_done(&r->part); /* between messages no memory is held */
		r->given = 0;
	}
	r->part.max = r->max + GRPC_FRAME_HEAD;
	if (buf_len(&r->part))
		return continue_part(r, in, ret);
	e = grpc_frame_take(in, r->max, ret);
	if (e != BYTES_MORE || in->n == 0)
		return e;
	e = take_part(r, in, in->n);
	return e < 0 ? e : BYTES_MORE;
}

void grpc_reader_done(struct grpc_reader *r)
{
	buf_done(&r->part);
	r->given = 0;
}
