/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing the files of a directory, alone or with helper processes that share even a single big
 * file. Runs in the store worker: it blocks.
 *
 * A file is opened once, here; helpers get the open file, not its name, so that all of them read
 * the same file whatever happens to the name meanwhile.
 */
#ifndef KYB_ARTIFACT_HASHING_H
#define KYB_ARTIFACT_HASHING_H

#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/follow.h"
#include "artifact/scan.h"
#include "base/arena.h"
#include "base/error.h"

struct hashing {
	unsigned int workers; /* processes that hash; 1 = the caller itself */
	const char *program;  /* what helpers run, by worker_role() */
	/* Optional: told of progress every now and then, and at the end. */
	void (*progress)(const struct hashing *h, uint64_t done, uint64_t total);
	void *arg;
	/* Optional: what of the files has been hashed while they were written. */
	struct follow *followed;
};

/*
 * How many processes to hash with: half of the CPUs that this process may use, so that workloads
 * keep the rest, but two where there are two, and at most PROTOCOL_WORKERS_MAX. One core does some
 * 1.8 GB/s of SHA-256 with the CPU's instructions for it, a fraction of what GPUs and page caches do.
 */
unsigned int hashing_workers(void);

struct hash_item {
	const struct scan_file *file;
	uint64_t chunk_size; /* 0 = as a whole */
	/* Of the first chunks, where they are known already; fewer than all chunks. Borrowed. */
	const struct digest *known;
	size_t n_known;
	/* Filled in: */
	struct digest digest; /* of the whole, or the root of the chunks */
	struct digest *chunks;
	size_t n_chunks;
};

/*
 * Fills in items; chunks come from arena. Every file is looked at again after it was read.
 * Returns 0; -EBADMSG with REASON_IMAGE_CORRUPT when one changed meanwhile; or another -errno with
 * REASON_STORE_FAILED. On failure *ret_bad (may be NULL) is the item concerned, or n.
 */
int hash_items(const struct hashing *h, int dirfd, struct hash_item *items, size_t n,
	       struct arena *arena, size_t *ret_bad, struct error *err);

/* A helper's life: serves requests on socket until it is closed. Returns the exit status. */
int hash_helper(int socket);

#endif
