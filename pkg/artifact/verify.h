/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification: is every byte of a checkpoint still what was sealed? The work itself, which
 * blocks; the agent has it done in a child process, see bulk.h.
 *
 * Rules: see docs/store.md. The verdict is about the bytes that were read, through files opened
 * once; what was replaced meanwhile makes it fail. It tells damage and tampering with parts from a
 * sound checkpoint. It does not tell who made it: whoever can write the whole directory can make
 * one that verifies.
 */
#ifndef KYB_ARTIFACT_VERIFY_H
#define KYB_ARTIFACT_VERIFY_H

#include <stdint.h>

#include "artifact/hashing.h"
#include "artifact/layout.h"
#include "artifact/manifest.h"
#include "artifact/metadata.h"
#include "base/error.h"

/* Where it is wrong, as far as that is known. */
struct verify_damage {
	char path[LAYOUT_PATH_MAX]; /* "" = not a matter of one file */
	uint64_t offset, length;    /* length 0 = not a matter of content */
};

/*
 * Verifies a checkpoint of the store, which calls itself ref, or an image directory anywhere.
 * max_bytes: refuse before reading what claims to be larger; 0 = no limit.
 *
 * Returns 0 with what was verified in *ret; -ENOENT with REASON_IMAGE_MISSING when there is no
 * description; -EBADMSG with REASON_IMAGE_CORRUPT and *damage; or another -errno with
 * REASON_STORE_FAILED, which says nothing of the checkpoint.
 */
int verify_checkpoint(int dirfd, const char *ref, uint64_t max_bytes, const struct hashing *h,
		      struct metadata_manifest *ret, struct verify_damage *damage,
		      struct error *err);
int verify_image(int dirfd, uint64_t max_bytes, const struct hashing *h,
		 struct metadata_manifest *ret, struct verify_damage *damage, struct error *err);

/*
 * Reads the manifest of a directory, if it is the one that the description names. *ret leads into
 * arena (MANIFEST_MEMORY_MAX). Returns 0, -EBADMSG with REASON_IMAGE_CORRUPT, or another -errno with
 * REASON_STORE_FAILED.
 */
int verify_manifest(int dirfd, const struct layout *layout, const struct metadata_manifest *named,
		    struct arena *arena, struct manifest *ret, struct error *err);

#endif
