/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive being written: an OCI image layout as one tar file. Its first member is the layer, a
 * tar archive of its own that is compressed (zstd) while it is written: its size and digest, which
 * its header says, are known at its end, so that the header is written last. The small members
 * follow.
 *
 * The tar format is GNU's with one header block a member, whatever its size: see infile.h.
 *
 * All of this blocks on the disk. Errors: REASON_STORE_FULL or REASON_STORE_FAILED.
 */
#ifndef KYB_PACK_OUTFILE_H
#define KYB_PACK_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "artifact/digest.h"
#include "base/error.h"
#include "pack/ocidoc.h"

struct archive;

struct outfile {
	int fd;      /* borrowed; empty, and writable at any offset */
	uint64_t at; /* where it ends so far */
	int code;    /* of the write that failed */
	bool dropped; /* what libarchive still has to write is not wanted */
	struct archive *tar, *zstd;          /* of the layer */
	struct archive *members;             /* what follows it */
	struct digester *blob, *diff;        /* of the layer, compressed and not */
};

#define OUTFILE_NULL                                                                               \
	(struct outfile)                                                                           \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/* Begins the layer. o is OUTFILE_NULL with its fd set; outfile_done() in every case. */
int outfile_begin(struct outfile *o, struct error *err);
/* The next entry of the layer: a regular file of mode 0600, or a directory of mode 0700. */
int outfile_entry(struct outfile *o, const char *name, bool dir, uint64_t size, time_t mtime,
		  struct error *err);
/* Content of that entry, of which there has to be as much as was said. */
int outfile_data(struct outfile *o, const void *p, size_t n, struct error *err);
/* Ends the layer. */
int outfile_end_layer(struct outfile *o, struct ocidoc_blob *ret_layer, struct digest *ret_diff,
		      struct error *err);
/* A member beside the layer. */
int outfile_member(struct outfile *o, const char *name, struct bytes content, struct error *err);
/* Ends the archive. Does not sync it. */
int outfile_end(struct outfile *o, struct error *err);
/* Releases everything but fd; an archive that was not ended is none. */
void outfile_done(struct outfile *o);

#endif
