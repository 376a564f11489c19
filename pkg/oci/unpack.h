/* SPDX-License-Identifier: Apache-2.0 */
/* protobuf-c into an arena: one free for a whole message, and a hard limit to what it may cost.
 * Only for the sources of this layer: its headers hand out plain structs. */
#ifndef KYB_OCI_UNPACK_H
#define KYB_OCI_UNPACK_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/bytes.h"

/* The message, in mem; NULL when in is none or mem's limit is reached. Never free it. */
void *unpack(const ProtobufCMessageDescriptor *type, struct bytes in, struct arena *mem);

#endif
