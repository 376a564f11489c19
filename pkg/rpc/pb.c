/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/pb.h"

#include <errno.h>

static void *arena_get(void *data, size_t n)
{
	return arena_alloc(data, n);
}

static void arena_forget(void *data, void *p)
{
	(void)data; /* freed with the arena */
	(void)p;
}

void *pb_unpack(const ProtobufCMessageDescriptor *type, struct bytes bytes, struct arena *arena)
{
	ProtobufCAllocator a = {
		.alloc = arena_get, .free = arena_forget, .allocator_data = arena
	};

	return protobuf_c_message_unpack(type, &a, bytes.n, bytes.p ? bytes.p : (const uint8_t *)"");
}

int pb_pack(const ProtobufCMessage *msg, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(msg);
	uint8_t *to = buf_reserve(out, n);

	if (!to)
		return -errno;
	buf_commit(out, protobuf_c_message_pack(msg, to));
	return 0;
}

uint8_t *pb_pack_arena(const ProtobufCMessage *msg, struct arena *arena, size_t *ret_n)
{
	size_t n = protobuf_c_message_get_packed_size(msg);
	uint8_t *to = arena_alloc(arena, n ? n : 1);

	if (to)
		*ret_n = protobuf_c_message_pack(msg, to);
	return to;
}
