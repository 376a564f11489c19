/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing: from a checkpoint of the store to one file, for other tiers and other tools. The file is
 * an OCI image layout (docs/store.md, "Packing"); member.h says what is where in its layer.
 *
 * The checkpoint is verified by the way: each byte is hashed as it is packed. A checkpoint that is
 * not what was sealed gives no archive.
 *
 * This blocks for as long as the disk and the compression take.
 */
#ifndef KYB_PACK_PACK_H
#define KYB_PACK_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/store.h"
#include "base/error.h"

struct pack_options {
	bool force; /* replaces a file of that name */
	/* Optional: asked every now and then; true ends the work with -ECANCELED. */
	bool (*stopped)(void *arg);
	void *arg;
};

struct pack_result {
	uint64_t files, bytes;  /* of the checkpoint */
	uint64_t archive_bytes;
	struct digest image;    /* of the OCI manifest: the image's digest */
};

/*
 * Packs checkpoint ref as the file name of the directory dirfd, mode 0600. It is written under
 * another name (pack_clean()), synced, and renamed; the checkpoint cannot be deleted meanwhile. On
 * failure there is no such file that was not there before.
 *
 * Returns 0; -EEXIST with REASON_REF_EXISTS when there is a file of that name; -ECANCELED with
 * REASON_CANCELED; -EBADMSG with REASON_IMAGE_CORRUPT; errors of store_pin(); REASON_STORE_FULL or
 * REASON_STORE_FAILED.
 */
int pack_checkpoint(const struct store *s, const char *ref, int dirfd, const char *name,
		    const struct pack_options *options, struct pack_result *ret,
		    struct error *err);

/*
 * Removes what packers that were killed have left in a directory; what is being written is left
 * alone. Returns 0 or -errno with REASON_STORE_FAILED.
 */
int pack_clean(int dirfd, struct error *err);

#endif
