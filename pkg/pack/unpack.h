/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking: from a file that pack.h has written, and that may have been anywhere since, to a
 * directory with a checkpoint as the store has it. Its sub-directory criu/ is an image directory,
 * of which containers are restored.
 *
 * Only what a packer of ours writes is accepted, byte position by byte position: regular files
 * whose names, order, sizes and digests are those of the manifest in the archive, in tar headers of
 * one block. So there are no links, devices, sparse files, other names or names twice to be judged:
 * there is no room for them. Every length is known before a byte of it is written.
 *
 * Like any digests these tell damage, not who made the archive: docs/store.md, "Verification".
 */
#ifndef KYB_PACK_UNPACK_H
#define KYB_PACK_UNPACK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "base/error.h"
#include "base/path.h"

struct unpack_options {
	uint64_t max_bytes; /* of the files together; 0 = what the file system has room for */
	/* Optional: asked every now and then; true ends the work with -ECANCELED. */
	bool (*stopped)(void *arg);
	void *arg;
};

struct unpack_result {
	char ref[REF_MAX + 1];
	uint64_t files, bytes; /* of the checkpoint */
	struct digest image;   /* of the OCI manifest */
};

/*
 * Unpacks the file fd, which is to be a regular one open for reading, as the directory name of the
 * directory dirfd: mode 0700, the caller's. It gets that name when all of it is there, verified and
 * synced. On failure nothing of it is left.
 *
 * Returns 0; -EEXIST with REASON_REF_EXISTS when there is something of that name; -EBADMSG with
 * REASON_IMAGE_CORRUPT; -ECANCELED with REASON_CANCELED; REASON_STORE_FULL or REASON_STORE_FAILED.
 */
int unpack_checkpoint(int fd, int dirfd, const char *name, const struct unpack_options *options,
		      struct unpack_result *ret, struct error *err);

#endif
