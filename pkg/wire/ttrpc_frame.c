/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ttrpc_frame.h"

#include <errno.h>
#include <string.h>

int ttrpc_frame_header(struct bytes *in, struct ttrpc_frame *ret)
{
	struct bytes b = *in;
	struct ttrpc_frame f;

	if (bytes_be32(&b, &f.length) || bytes_be32(&b, &f.stream) || bytes_u8(&b, &f.type) ||
	    bytes_u8(&b, &f.flags))
		return BYTES_MORE;
	*in = b;
	*ret = f;
	return 0;
}

int ttrpc_frame_put(struct buf *out, uint32_t stream, enum ttrpc_type type, struct bytes data)
{
	uint8_t head[TTRPC_HEADER_SIZE], *to;
	uint32_t n = (uint32_t)data.n;

	if (data.n > TTRPC_DATA_MAX)
		return -EMSGSIZE;
	for (int i = 0; i < 4; i++) {
		head[i] = (uint8_t)(n >> (24 - 8 * i));
		head[4 + i] = (uint8_t)(stream >> (24 - 8 * i));
	}
	head[8] = (uint8_t)type;
	head[9] = 0;
	to = buf_reserve(out, sizeof(head) + data.n); /* both or nothing */
	if (!to)
		return -errno;
	memcpy(to, head, sizeof(head));
	if (data.n)
		memcpy(to + sizeof(head), data.p, data.n);
	buf_commit(out, sizeof(head) + data.n);
	return 0;
}
