/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of memory and of ranges of files, and the hash of a big file that several processes can
 * compute at once:
 *
 * a file is cut into chunks of one size (the last one may be shorter), each chunk has its own
 * SHA-256, and the root is the SHA-256 of these, one after the other in binary. A chunk that
 * differs names the damaged range. No prefixes, so that any tool can check it:
 *
 *	split -b 4M --filter='openssl dgst -sha256 -binary' FILE | sha256sum
 *
 * Two levels and a size recorded beside the root: there is no second way to read a root, hence
 * no need to tell leaves from nodes.
 */
#ifndef KYB_ARTIFACT_DIGEST_H
#define KYB_ARTIFACT_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define DIGEST_SIZE    32
#define DIGEST_HEX_MAX (2 * DIGEST_SIZE + 1)

/* Chunks are a power of two of bytes, no smaller than this. */
#define DIGEST_CHUNK_MIN ((uint64_t)4 << 20)
#define DIGEST_CHUNK_MAX ((uint64_t)1 << 40)

struct digest {
	uint8_t byte[DIGEST_SIZE];
};

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
	return __builtin_memcmp(a->byte, b->byte, DIGEST_SIZE) == 0;
}

/* Lower-case hexadecimal; returns buf, which holds DIGEST_HEX_MAX bytes. */
const char *digest_hex(const struct digest *d, char *buf);
/* Exactly 64 lower-case hexadecimal digits. Returns 0 or -EINVAL. */
int digest_parse(const char *hex, struct digest *ret);

/*
 * What computes: a context of the crypto library and a read buffer. Where the library fails us -
 * it has no SHA-256, say - the error is -ELIBACC, so that nobody takes it for one of the disk.
 */
struct digester;

/* Returns 0, -ENOMEM or -ELIBACC. Free with digester_free(). */
int digester_new(struct digester **ret);
void digester_free(struct digester *d);

DEFINE_CLEANUP(struct digester *, digester_free);
#define _cleanup_digester_ _cleanup_(digester_free_p)

/* One digest after the other: begin, any number of add, end. Return 0 or -ELIBACC. */
int digester_begin(struct digester *d);
int digester_add(struct digester *d, const void *p, size_t n);
int digester_end(struct digester *d, struct digest *ret);

/* The digest of n bytes in memory. Returns 0 or -ELIBACC. */
int digester_bytes(struct digester *d, struct bytes in, struct digest *ret);
/*
 * The digest of length bytes of a file from offset; fd must allow pread(). Blocks on the disk.
 * Returns 0, -ENODATA when the file ends before, or another -errno; then *ret_at (may be NULL) is
 * where it could not read on.
 */
int digester_range(struct digester *d, int fd, uint64_t offset, uint64_t length,
		   struct digest *ret, uint64_t *ret_at);

/*
 * The smallest size of chunk that cuts a file into no more than chunks_max (not 0): bigger files
 * get bigger chunks rather than more of them.
 */
uint64_t digest_chunk_size(uint64_t file_size, uint64_t chunks_max);
/* How many chunks a file has; an empty file has none. chunk_size is not 0. */
uint64_t digest_chunk_count(uint64_t file_size, uint64_t chunk_size);
/* Returns 0 or -ELIBACC. */
int digest_root(struct digester *d, const struct digest *chunks, size_t n, struct digest *ret);

#endif
