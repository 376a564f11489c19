/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that speaks HTTP/2 by hand, so that it can speak it wrongly: frames written byte for
 * byte, and what comes back taken apart. For the tests of server and client.
 */
#ifndef KYB_RPC_TEST_RAW_H
#define KYB_RPC_TEST_RAW_H

#include <nghttp2/nghttp2.h>

#include "base/buf.h"

struct raw_frame {
	uint32_t length;
	uint8_t type, flags;
	uint32_t id;
	uint32_t error; /* of RST_STREAM and GOAWAY */
};

struct raw {
	int fd;
	struct buf in;
	nghttp2_hd_inflater *inflater;
	bool closed;
	size_t skip; /* set to NGHTTP2_CLIENT_MAGIC_LEN to play the server */
	/* What has come so far. */
	unsigned int frames[16]; /* by type */
	struct raw_frame rst, goaway; /* the last of each */
	struct buf fields; /* "name: value\n" of all header blocks */
	struct buf data;   /* of all DATA frames */
};

/* Takes over fd, a connected non-blocking socket. */
void raw_init(struct raw *r, int fd);
void raw_done(struct raw *r);

/* Sends bytes, as far as the kernel takes them: false = it did not take all. */
bool raw_send(struct raw *r, const void *p, size_t n);
bool raw_frame(struct raw *r, uint8_t type, uint8_t flags, uint32_t id, const void *p, size_t n);
/* The client's preface and an empty SETTINGS. */
void raw_preface(struct raw *r);

/* A header block, uncompressed: fields is "name: value\n"... */
void raw_block(struct buf *to, const char *fields);
/* HEADERS with such a block. */
bool raw_headers(struct raw *r, uint32_t id, const char *fields, bool end_stream);
/* The usual request header for path. */
bool raw_request(struct raw *r, uint32_t id, const char *path, bool end_stream);
/* A gRPC message in a DATA frame. */
bool raw_message(struct raw *r, uint32_t id, uint8_t flag, const char *text, bool end_stream);

/* Reads and takes apart what has come; acknowledges nothing. */
void raw_receive(struct raw *r);
/* Is that text in the fields received? */
bool raw_got(const struct raw *r, const char *field);

#define RAW_REQUEST(path)                                                                          \
	":method: POST\n:scheme: http\n:path: " path                                               \
	"\n:authority: x\nte: trailers\ncontent-type: application/grpc\n"

#endif
