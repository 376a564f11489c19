/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gRPC writes into HTTP/2 header fields: time-outs, percent-encoded messages, base64 and
 * content types. Codecs without I/O.
 * Source: gRPC's doc/PROTOCOL-HTTP2.md, doc/http-grpc-status-mapping.md.
 */
#ifndef KYB_WIRE_GRPC_HEADER_H
#define KYB_WIRE_GRPC_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/code.h"
#include "base/time.h"

/*
 * The value of "grpc-timeout": 1 to 8 digits and a unit; NSEC_NEVER when it is longer than that
 * type can say (584 years). Returns 0 or -EINVAL.
 */
int grpc_timeout_parse(struct bytes text, nsec_t *ret);

#define GRPC_TIMEOUT_MAX 10 /* with the NUL */
/* The shortest value that is not shorter than left. */
void grpc_timeout_format(nsec_t left, char text[GRPC_TIMEOUT_MAX]);

/* "application/grpc", alone or with "+proto" or parameters: protobuf messages. */
bool grpc_content_type_ok(struct bytes text);

/*
 * The value of "grpc-message". Encoding keeps printable ASCII but '%'. Decoding never fails:
 * what is no valid escape stays as it is. Both return 0, -ENOMEM or -EMSGSIZE.
 */
int grpc_percent_encode(struct bytes text, struct buf *out);
int grpc_percent_decode(struct bytes text, struct buf *out);

/* Values of "-bin" fields. Written without padding, read with or without (RFC 4648, 4). */
int grpc_base64_encode(struct bytes raw, struct buf *out);
/* Returns 0, -EINVAL, -ENOMEM or -EMSGSIZE. */
int grpc_base64_decode(struct bytes text, struct buf *out);

/* The value of "grpc-status"; RPC_UNKNOWN for what is no status. */
enum rpc_code grpc_status_parse(struct bytes text);

/* For an answer without grpc-status. */
enum rpc_code grpc_code_of_http_status(unsigned int status);
/* For a stream that the peer reset: an error code of HTTP/2 (RFC 9113, 7). */
enum rpc_code grpc_code_of_h2_error(uint32_t error);

/* May a caller send a header field of this name? Lower case; not one of gRPC's or HTTP's own. */
bool grpc_metadata_name_ok(const char *name);
/* Is it a field of binary values, travelling as base64? */
bool grpc_metadata_is_bin(struct bytes name);
/* Printable ASCII without spaces at either end. */
bool grpc_metadata_value_ok(struct bytes value);

#endif
