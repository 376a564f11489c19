/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "base/cleanup.h"

#define CHUNK_SIZE_MIN 4096 /* of a manifest read; we write DIGEST_CHUNK_MIN and more */
#define VALUES_A_FILE  7    /* the object, its members, the array of its chunks */


static bool is_zero(const struct digest *d)
{
	static const struct digest zero;

	return digest_equal(d, &zero);
}

static int check_chunks(const struct manifest_file *f, struct error *err)
{
	if (f->chunk_size < CHUNK_SIZE_MIN || (f->chunk_size & (f->chunk_size - 1)))
		return fail_corrupt(err, "chunk_size: is not a power of two from %d",
				    CHUNK_SIZE_MIN);
	if (f->n_chunks == 0 || f->n_chunks != digest_chunk_count(f->size, f->chunk_size))
		return fail_corrupt(err, "chunks: %zu of them do not fit the file's size",
				    f->n_chunks);
	if (is_zero(&f->root))
		return fail_corrupt(err, "root: is missing");
	return 0;
}

static int check_file(const void *object, struct error *err)
{
	const struct manifest_file *f = object;
	bool whole = !is_zero(&f->sha256);
	bool chunks = f->chunk_size || f->n_chunks || !is_zero(&f->root);

	if (whole == chunks)
		return fail_corrupt(err, "has to have either 'sha256' or 'chunk_size', 'root' "
					 "and 'chunks'");
	return chunks ? check_chunks(f, err) : 0;
}

static const struct doc_field file_fields[] = {
	DOC_FIELD(struct manifest_file, path, DOC_TEXT, LAYOUT_PATH_MAX),
	DOC_FIELD(struct manifest_file, size, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct manifest_file, mode, DOC_OCTAL, 07777),
	DOC_FIELD(struct manifest_file, sha256, DOC_DIGEST, 0, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct manifest_file, chunk_size, DOC_NUMBER, DIGEST_CHUNK_MAX,
		  .flags = DOC_OPTIONAL),
	DOC_FIELD(struct manifest_file, root, DOC_DIGEST, 0, .flags = DOC_OPTIONAL),
	DOC_ARRAY(struct manifest_file, chunks, DOC_DIGESTS, MANIFEST_FILE_CHUNKS_MAX,
		  .flags = DOC_OPTIONAL),
};

static const struct doc_shape file_shape = {
	sizeof(struct manifest_file), file_fields, ARRAY_SIZE(file_fields), check_file,
};

static int check_manifest(const void *object, struct error *err)
{
	const struct manifest *m = object;

	for (size_t i = 1; i < m->n_files; i++)
		if (strcmp(m->files[i - 1].path, m->files[i].path) >= 0)
			return fail_corrupt(err, "files: [%zu]: is not in order, or there twice",
					    i);
	return 0;
}

static const struct doc_field manifest_fields[] = {
	DOC_ARRAY(struct manifest, files, DOC_OBJECTS, MANIFEST_FILES_MAX, .shape = &file_shape),
};

static const struct doc_shape manifest_shape = {
	sizeof(struct manifest), manifest_fields, ARRAY_SIZE(manifest_fields), check_manifest,
};

/* Not sealed: the description holds the digest of this document. */
static const struct doc_format format = {
	.family = "kybernate.io/manifest/v",
	.version = 1,
	.shape = &manifest_shape,
	.text_max = MANIFEST_TEXT_MAX,
	.values_max = MANIFEST_FILES_MAX * VALUES_A_FILE + MANIFEST_CHUNKS_MAX + 8,
};

static int compare_path(const void *path, const void *file)
{
	return strcmp(path, ((const struct manifest_file *)file)->path);
}

const struct manifest_file *manifest_find(const struct manifest *m, const char *path)
{
	if (!m->n_files)
		return NULL;
	return bsearch(path, m->files, m->n_files, sizeof(*m->files), compare_path);
}

uint64_t manifest_bytes(const struct manifest *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->n_files; i++)
		if (__builtin_add_overflow(sum, m->files[i].size, &sum))
			return UINT64_MAX;
	return sum;
}

uint64_t manifest_chunk_size(uint64_t file_size, size_t n_big)
{
	uint64_t share = MANIFEST_CHUNKS_MAX / (n_big ? n_big : 1);

	if (file_size < MANIFEST_TREE_MIN)
		return 0;
	return digest_chunk_size(file_size, share < MANIFEST_FILE_CHUNKS_MAX
						    ? share : MANIFEST_FILE_CHUNKS_MAX);
}

static int check_root(struct digester *digester, const struct manifest_file *f, struct error *err)
{
	struct digest root;
	int r = digest_root(digester, f->chunks, f->n_chunks, &root);

	if (r < 0)
		return error_sys(err, r, "hash");
	if (!digest_equal(&root, &f->root))
		return fail_corrupt(err, "root: does not fit the chunks");
	return 0;
}

int manifest_read(struct bytes text, const struct layout *layout, struct arena *arena,
		  struct manifest *ret, struct error *err)
{
	_cleanup_digester_ struct digester *digester = NULL;
	struct manifest m;
	int r = doc_read(&format, text, &m, arena, err);

	if (r < 0)
		return r;
	r = digester_new(&digester);
	if (r < 0)
		return error_sys(err, r, "hash");
	for (size_t i = 0; i < m.n_files; i++) {
		const struct manifest_file *f = &m.files[i];
		char shown[LAYOUT_NAME_MAX];

		if (!layout_path_valid(layout, f->path))
			return fail_corrupt(err, "files: [%zu]: '%s' is not a valid path here", i,
				   doc_clean_text(f->path, shown, sizeof(shown)));
		if (layout_coverage(layout, f->path) == OWN ||
		    layout_coverage(layout, f->path) == UNCOVERED)
			return fail_corrupt(err, "files: [%zu]: %s cannot be covered", i, f->path);
		r = f->chunk_size ? check_root(digester, f, err) : 0;
		if (r < 0)
			return error_wrap(err, r, "files: [%zu]", i);
	}
	*ret = m;
	return 0;
}

int manifest_write(const struct manifest *m, struct buf *out, struct error *err)
{
	return doc_write(&format, m, out, err);
}
