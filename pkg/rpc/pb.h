/* SPDX-License-Identifier: Apache-2.0 */
/* protobuf-c with our memory: messages are unpacked into a request's arena, packed into a buf. */
#ifndef KYB_RPC_PB_H
#define KYB_RPC_PB_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"

/*
 * Unpacks bytes into a message that lives in the arena. NULL when the bytes are not such a
 * message, or need more memory than the arena allows.
 */
void *pb_unpack(const ProtobufCMessageDescriptor *type, struct bytes bytes, struct arena *arena);

/* Appends the packed message. Returns 0, -ENOMEM or -EMSGSIZE. */
int pb_pack(const ProtobufCMessage *msg, struct buf *out);

/* The message as the value of a google.protobuf.Any: bytes in the arena. NULL: out of memory. */
uint8_t *pb_pack_arena(const ProtobufCMessage *msg, struct arena *arena, size_t *ret_n);

#endif
