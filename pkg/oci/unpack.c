/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/unpack.h"

static void *take(void *arena, size_t n)
{
	return arena_alloc(arena, n);
}

static void keep(void *arena, void *p)
{
	(void)arena;
	(void)p;
}

void *unpack(const ProtobufCMessageDescriptor *type, struct bytes in, struct arena *mem)
{
	ProtobufCAllocator allocator = { .alloc = take, .free = keep, .allocator_data = mem };
	static const uint8_t nothing[1];

	return protobuf_c_message_unpack(type, &allocator, in.n, in.n ? in.p : nothing);
}
