/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ttrpc's frames, as a codec without I/O. Source: ttrpc repo, PROTOCOL.md and channel.go.
 *
 *	length u32 | stream u32 | type u8 | flags u8, big-endian, then length bytes
 */
#ifndef KYB_WIRE_TTRPC_FRAME_H
#define KYB_WIRE_TTRPC_FRAME_H

#include "base/buf.h"
#include "base/bytes.h"

#define TTRPC_HEADER_SIZE ((size_t)10)
#define TTRPC_DATA_MAX    ((uint32_t)4 << 20) /* messageLengthMax */

enum ttrpc_type {
	TTRPC_REQUEST = 1,
	TTRPC_RESPONSE = 2,
	TTRPC_DATA = 3, /* streams; no service of containerd's shims uses them */
};

struct ttrpc_frame {
	uint32_t length; /* may be over TTRPC_DATA_MAX: the receiver decides what to do then */
	uint32_t stream;
	uint8_t type;  /* unknown ones are to be ignored */
	uint8_t flags; /* likewise */
};

/* Takes a header off in. Returns 0 or BYTES_MORE. */
int ttrpc_frame_header(struct bytes *in, struct ttrpc_frame *ret);

/* Appends a whole frame. Returns 0, -ENOMEM, or -EMSGSIZE (over TTRPC_DATA_MAX or out's max). */
int ttrpc_frame_put(struct buf *out, uint32_t stream, enum ttrpc_type type, struct bytes data);

#endif
