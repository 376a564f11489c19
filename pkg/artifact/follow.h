/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing big images while CRIU still writes them, and having the kernel write them to the disk
 * meanwhile, so that little of either is left to do when CRIU has ended.
 *
 * Only files that CRIU writes from the beginning to the end and never goes back in: pages-*.img. In a
 * dump only criu/page-xfer.c writes to them, write_pages_loc(), by splice() to the file's own position,
 * one after the other, and nothing seeks in them (3.17.1 to 4.2). What does change one that exists is
 * punch_hole() in criu/pagemap.c, under --auto-dedup: in the images of a *parent* when dumping, in its
 * own when restoring. We never ask for that option, and a parent is another directory.
 *
 * A chunk is hashed when all of it has been written. Nothing that the file system keeps can show that
 * a chunk was not written to again while the file grew. So what was hashed early is a proposal:
 * follow_known() first reads some of it anew, and if anything differs all of it is forgotten, and
 * hashed as ever.
 *
 * What a seal promises, followed or not: no byte of any file changed from the moment that CRIU had
 * ended (size, mtime, ctime and inode are compared again when all is on the disk), and the digests are
 * those of the bytes as they were read. Of a chunk that was followed, that moment is the one when it
 * was hashed: that it was final by then is CRIU's way of writing, as above, and SAMPLES chunks of each
 * file prove it for themselves. If that were wrong, the restore's verification would refuse the
 * checkpoint (IMAGE_CORRUPT); it could not restore other bytes than were sealed.
 *
 * Runs in the store worker: it blocks.
 */
#ifndef KYB_ARTIFACT_FOLLOW_H
#define KYB_ARTIFACT_FOLLOW_H

#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/scan.h"
#include "base/cleanup.h"

struct follow;

/*
 * Follows what is written to the directory, whose descriptor is borrowed. expected: about how many
 * bytes that will be; more than expected is hashed as ever if its chunks would have to be bigger.
 * Returns 0 or -errno. Free with follow_free().
 */
int follow_new(int dirfd, uint64_t expected, struct follow **ret);
void follow_free(struct follow *f);

DEFINE_CLEANUP(struct follow *, follow_free);
#define _cleanup_follow_ _cleanup_(follow_free_p)

/*
 * Hashes one chunk, if there is one that has been written and not been hashed. Returns 1 when there
 * may be more to do at once, or 0. What cannot be read, or got smaller, is not followed any more.
 */
int follow_step(struct follow *f);

/*
 * The chunks of a file that are known, from its first one on; never its last one, which may still
 * have been growing. *ret is f's, until f is freed. Returns their number, with the size of each in
 * *ret_chunk_size; 0 = none, or they would be smaller than chunk_min, the file's proper size of
 * chunks.
 */
size_t follow_known(struct follow *f, const struct scan_file *file, uint64_t chunk_min,
		    const struct digest **ret, uint64_t *ret_chunk_size);

#endif
