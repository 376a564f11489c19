/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of files of a checkpoint or of an image directory: what each is called, how big it is
 * and what its bytes hash to. Sorted by path (strcmp), no path twice.
 *
 * Files from MANIFEST_TREE_MIN on are hashed in chunks (see digest.h), so that several processes
 * can share one, and damage can be told by range.
 */
#ifndef KYB_ARTIFACT_MANIFEST_H
#define KYB_ARTIFACT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/layout.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

#define MANIFEST_TREE_MIN   ((uint64_t)64 << 20)
#define MANIFEST_FILES_MAX  16384
#define MANIFEST_CHUNKS_MAX 131072 /* of all files together */
#define MANIFEST_FILE_CHUNKS_MAX 4096
#define MANIFEST_TEXT_MAX   ((size_t)16 << 20)
/* What reading one may take in memory: enough for the largest that is valid. */
#define MANIFEST_MEMORY_MAX ((size_t)64 << 20)

struct manifest_file {
	const char *path; /* layout_path_valid() */
	uint64_t size;
	uint64_t mode; /* permission bits */
	/* Either this, of the whole file: */
	struct digest sha256;
	/* Or these, with chunk_size not 0: */
	uint64_t chunk_size;
	struct digest root;
	const struct digest *chunks;
	size_t n_chunks;
};

struct manifest {
	const struct manifest_file *files;
	size_t n_files;
};

/* The digest that stands for the file: its SHA-256, or the root of its chunks. */
static inline const struct digest *manifest_digest(const struct manifest_file *f)
{
	return f->chunk_size ? &f->root : &f->sha256;
}

/* The file of that path, or NULL. */
const struct manifest_file *manifest_find(const struct manifest *m, const char *path);

/* The bytes of all files together. */
uint64_t manifest_bytes(const struct manifest *m);

/*
 * How a file of that size is hashed: 0 = as a whole, else the size of its chunks. n_big is how many
 * files of the manifest are that big: they share MANIFEST_CHUNKS_MAX.
 */
uint64_t manifest_chunk_size(uint64_t file_size, size_t n_big);

/*
 * *ret leads into arena. Every root has been computed anew from its chunks. Returns 0, -EBADMSG
 * with REASON_IMAGE_CORRUPT, or -ENOMEM.
 */
int manifest_read(struct bytes text, const struct layout *layout, struct arena *arena,
		  struct manifest *ret, struct error *err);

/* Returns 0, -EINVAL or -ENOMEM. */
int manifest_write(const struct manifest *m, struct buf *out, struct error *err);

#endif
