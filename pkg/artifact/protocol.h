/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What agent, store worker and hash helper say to each other: an encoder and a strict, bounded
 * decoder for each message, without I/O. The worker reads what an enemy may have written, so its
 * master trusts it no further than this.
 *
 *	agent --- job --------------> worker         a stream of frames:
 *	agent <-- progress, result -- worker         u32 length of what follows, u8 type, body
 *
 *	worker -- hash request (+fd) -> helper       one packet each (SOCK_SEQPACKET)
 *	worker <- hash reply ---------- helper
 *
 * All numbers little endian. Text and blobs: u32 length, bytes.
 */
#ifndef KYB_ARTIFACT_PROTOCOL_H
#define KYB_ARTIFACT_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/layout.h"
#include "artifact/metadata.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/path.h"

/* Where a worker and a helper find what they were started with. */
#define PROTOCOL_SOCKET_FD 3
#define PROTOCOL_DIR_FD    4

#define PROTOCOL_WORKERS_MAX 16
#define PROTOCOL_NAME_MAX    (REF_MAX + 32) /* ".new-REF" and the like */
/* A job holds one description; a report one error text and one path. */
#define PROTOCOL_JOB_MAX    (METADATA_TEXT_MAX + 4096)
#define PROTOCOL_REPORT_MAX ((size_t)4096)

enum protocol_op {
	PROTOCOL_SEAL = 1,     /* dir = the store; name = the work directory; metadata.json */
	PROTOCOL_SEAL_IMAGE,   /* dir = the image directory; kybernate.json */
	PROTOCOL_VERIFY,       /* dir = the checkpoint; name = its ref */
	PROTOCOL_VERIFY_IMAGE, /* dir = the image directory */
	PROTOCOL_SWEEP,        /* dir = the store: remove what was renamed away */
	/*
	 * Hash what is being written, until the next job comes, which is to seal it; no result.
	 * dir and name as for that; max_bytes = how much it will be, about. No description.
	 */
	PROTOCOL_FOLLOW,
	PROTOCOL_OPS_END,
};

struct protocol_job {
	enum protocol_op op;
	uint32_t workers;   /* processes that hash, 1 to PROTOCOL_WORKERS_MAX */
	bool background;    /* at idle I/O priority and a low CPU priority */
	uint64_t max_bytes; /* refuse what is bigger; 0 = no limit */
	char name[PROTOCOL_NAME_MAX]; /* a single file name; "" = none */
	struct bytes description;
};

struct protocol_result {
	struct error err; /* code 0 = done */
	/* Sealed or verified: what it holds. */
	uint64_t files, bytes;
	struct digest manifest;
	/* Not verified: where, as far as it is known. */
	char damaged[LAYOUT_PATH_MAX]; /* "" = not known */
	uint64_t damaged_offset, damaged_length;
};

enum protocol_type { PROTOCOL_JOB = 1, PROTOCOL_PROGRESS, PROTOCOL_RESULT };

struct protocol_report {
	enum protocol_type type; /* PROTOCOL_PROGRESS or PROTOCOL_RESULT */
	uint64_t done, total;    /* bytes */
	struct protocol_result result;
};

/* Encoders append one frame. Return 0, -EINVAL (out of bounds) or -ENOMEM. */
int protocol_put_job(struct buf *out, const struct protocol_job *job);
int protocol_put_progress(struct buf *out, uint64_t done, uint64_t total);
int protocol_put_result(struct buf *out, const struct protocol_result *result);

/*
 * Take one frame off the front of in. Return 0, BYTES_MORE when it is not all there (in is
 * unchanged), or -EBADMSG. The description leads into in's memory.
 */
int protocol_get_job(struct bytes *in, struct protocol_job *ret);
int protocol_get_report(struct bytes *in, struct protocol_report *ret);

/* Hash length bytes from offset in chunks of chunk_size: at most PROTOCOL_HASH_CHUNKS of them. */
#define PROTOCOL_HASH_CHUNKS 64
#define PROTOCOL_HASH_REQUEST 24
#define PROTOCOL_HASH_REPLY_MAX (16 + PROTOCOL_HASH_CHUNKS * DIGEST_SIZE)

struct protocol_hash {
	uint64_t offset, length, chunk_size;
};

struct protocol_hashed {
	int code;    /* 0, or negative: what went wrong ... */
	uint64_t at; /* ... at that offset */
	size_t n;
	struct digest digests[PROTOCOL_HASH_CHUNKS];
};

/* How many digests it takes: an empty range has one, that of nothing. 0 = not a valid request. */
size_t protocol_hash_count(const struct protocol_hash *h);

void protocol_put_hash(uint8_t *to, const struct protocol_hash *h);
/* Returns the length. */
size_t protocol_put_hashed(uint8_t *to, const struct protocol_hashed *h);
/* Return 0 or -EBADMSG; the packet must be all of it. */
int protocol_get_hash(struct bytes packet, struct protocol_hash *ret);
int protocol_get_hashed(struct bytes packet, size_t n_expected, struct protocol_hashed *ret);

#endif
