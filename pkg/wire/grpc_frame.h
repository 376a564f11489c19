/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's message framing: one byte "compressed", four bytes length (big endian), the message.
 * A codec without I/O. DATA frames of HTTP/2 cut this stream anywhere.
 * Source: "Length-Prefixed-Message" in gRPC's doc/PROTOCOL-HTTP2.md.
 */
#ifndef KYB_WIRE_GRPC_FRAME_H
#define KYB_WIRE_GRPC_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"

#define GRPC_FRAME_HEAD 5

/* The head of an uncompressed message of n bytes. */
void grpc_frame_head(uint8_t head[GRPC_FRAME_HEAD], uint32_t n);

/*
 * Takes one whole message from the front of in; *ret is a view of the same memory.
 * Returns 0, BYTES_MORE (in is unchanged), -EMSGSIZE (longer than max), -ENOTSUP (compressed) or
 * -EBADMSG (no such flag). The head is judged before the message has come.
 */
int grpc_frame_take(struct bytes *in, size_t max, struct bytes *ret);

/*
 * Puts messages together that come in pieces. A message that lies whole in one piece is handed
 * out without a copy. Memory grows with what has come, never with what a head announces.
 */
struct grpc_reader {
	struct buf part; /* of a message, its head included */
	size_t max;      /* longest message, in bytes */
	size_t given;    /* bytes of part that the last message was a view of */
};

#define GRPC_READER(n)                                                                             \
	(struct grpc_reader)                                                                       \
	{                                                                                          \
		.max = (n)                                                                         \
	}

/*
 * Consumes from in until a message is whole. *ret is valid until the next call for this reader
 * and as long as the memory of in. Returns 0, BYTES_MORE (in is empty), -ENOMEM, or as
 * grpc_frame_take(); after a failure the stream has lost its frame and the reader is of no use.
 */
int grpc_reader_next(struct grpc_reader *r, struct bytes *in, struct bytes *ret);
void grpc_reader_done(struct grpc_reader *r);

/* Is there a message of which only a part has come? */
static inline int grpc_reader_partial(const struct grpc_reader *r)
{
	return buf_len(&r->part) > r->given;
}

#endif
