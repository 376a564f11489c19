/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json and kybernate-manifest.json: what is accepted is in order, and in bounds. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "artifact/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct layout *layout, struct bytes in)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct error err = ERROR_NULL;
	struct manifest m;

	if (manifest_read(in, layout, &arena, &m, &err) < 0) {
		assert(err.code < 0 && err.text[0]);
		return;
	}
	for (size_t i = 0; i < m.n_files; i++) {
		const struct manifest_file *f = &m.files[i];

		assert(layout_path_valid(layout, f->path));
		assert(manifest_find(&m, f->path) == f);
		assert(i == 0 || strcmp(m.files[i - 1].path, f->path) < 0);
		assert(!f->chunk_size ||
		       f->n_chunks == digest_chunk_count(f->size, f->chunk_size));
	}
	assert(manifest_write(&m, &text, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	check(&layout_checkpoint, bytes_of(data, n));
	check(&layout_image, bytes_of(data, n));
	return 0;
}
