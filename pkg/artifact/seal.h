/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing: from a directory full of files to a checkpoint. This is the work itself, which blocks
 * on the disk for as long as it takes; the agent has it done in a child process, see bulk.h.
 *
 * The order is what makes it safe. Every file is hashed and on the disk (fsync) before the
 * manifest, the manifest before the description, the description before the directory gets its
 * final name; at each step the directory concerned is on the disk too. Whoever is killed in
 * between, or loses power, leaves either the whole checkpoint under its name, or no such name and a
 * work directory that the agent removes (or seals anew) later.
 */
#ifndef KYB_ARTIFACT_SEAL_H
#define KYB_ARTIFACT_SEAL_H

#include "artifact/hashing.h"
#include "artifact/metadata.h"
#include "base/error.h"

/*
 * Seals STORE/work_name as STORE/m->ref: all its files, with the images in criu/ described a second
 * time by criu/kybernate.json, so that they can travel alone. m->manifest is ignored.
 *
 * Files get mode 0600. What an earlier attempt left in the directory is replaced, so that it can be
 * tried again after a failure.
 *
 * Returns 0 with what was sealed in *ret. On failure nothing has the name m->ref that did not have
 * it before: -EEXIST with REASON_REF_EXISTS; REASON_STORE_FULL or REASON_STORE_FAILED;
 * -EBADMSG with REASON_IMAGE_CORRUPT when the directory holds what a checkpoint may not, or one of
 * its files changed meanwhile.
 */
int seal_checkpoint(int store_fd, const char *work_name, const struct metadata *m,
		    const struct hashing *h, struct metadata_manifest *ret, struct error *err);

/*
 * Describes the images in a directory in place, with kybernate-manifest.json and kybernate.json:
 * containerd's own checkpoint directory, for instance. Modes are left as they are. Returns as
 * above.
 */
int seal_image(int dirfd, const struct metadata *m, const struct hashing *h,
	       struct metadata_manifest *ret, struct error *err);

#endif
