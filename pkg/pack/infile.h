/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive being read: the outer tar file, and its layer as a stream through decompression and
 * the inner tar format. libarchive reads the formats; what it accepts beyond what outfile.h writes
 * is refused here, by position: an entry is one header block of 512 bytes and its content, the next
 * one begins there, and after the last one come two blocks of zeros and the end. Whatever tar can
 * say beside that - long names, attributes, sparse maps, another archive behind the end - takes
 * blocks of its own.
 *
 * Errors: -EBADMSG with REASON_IMAGE_CORRUPT, or another -errno with REASON_STORE_FAILED.
 */
#ifndef KYB_PACK_INFILE_H
#define KYB_PACK_INFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "base/bytes.h"
#include "base/error.h"
#include "pack/member.h"
#include "pack/ocidoc.h"

/* Layer, configuration, manifest, index and layout. */
#define INFILE_MEMBERS 5

struct infile_member {
	char name[OCIDOC_NAME_MAX];
	uint64_t offset, size; /* of the content */
};

/* Lists the members of a file, of which there are INFILE_MEMBERS, no two of one name. */
int infile_list(int fd, struct infile_member *ret, struct error *err);

struct archive;

struct inlayer {
	int fd;             /* borrowed */
	uint64_t from, end; /* of what is still to be read of the blob */
	int code;           /* of the read that failed */
	struct archive *zstd, *tar;
	struct digester *blob, *diff;
	uint8_t *buffer;
	uint64_t out, max;  /* bytes that came out of the decompression, and the most that may */
	uint64_t at;        /* where the next entry begins */
};

#define INLAYER_NULL                                                                               \
	(struct inlayer)                                                                           \
	{                                                                                          \
		.fd = -1                                                                           \
	}

struct inlayer_entry {
	char name[MEMBER_NAME_MAX + 1];
	bool dir;
	uint64_t size;
};

/*
 * Begins to read the layer. max: the bytes that may come out; may be changed later on.
 * inlayer_done() in every case; l is INLAYER_NULL.
 */
int inlayer_open(struct inlayer *l, int fd, const struct infile_member *blob, uint64_t max,
		 struct error *err);
/* The next entry: a regular file, or a directory. Returns 0, 1 at the end, or negative. */
int inlayer_next(struct inlayer *l, struct inlayer_entry *ret, struct error *err);
/* Content of it: valid until the next call. Returns 0, 1 at its end, or negative. */
int inlayer_data(struct inlayer *l, struct bytes *ret, struct error *err);
/* After the end: was all of it what these digests say, and is there nothing behind it? */
int inlayer_finish(struct inlayer *l, const struct digest *blob, const struct digest *diff,
		   struct error *err);
void inlayer_done(struct inlayer *l);

#endif
