/* SPDX-License-Identifier: Apache-2.0 */
/* metadata.json: whatever is accepted can be written, and reads back as the same. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "artifact/metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_arena_ struct arena one = ARENA_LIMIT(METADATA_MEMORY_MAX);
	_cleanup_arena_ struct arena two = ARENA_LIMIT(METADATA_MEMORY_MAX);
	_cleanup_buf_ struct buf text = BUF_NULL, again = BUF_NULL;
	struct error err = ERROR_NULL;
	struct metadata a, b;

	if (metadata_read(bytes_of(data, n), &one, &a, &err) < 0) {
		assert(err.code < 0 && err.text[0]);
		return 0;
	}
	assert(metadata_write(&a, &text, &err) == 0);
	assert(metadata_read(buf_bytes(&text), &two, &b, &err) == 0);
	assert(metadata_write(&b, &again, &err) == 0);
	assert(strcmp(buf_str(&text), buf_str(&again)) == 0);
	assert(metadata_vram_bytes(&a) == metadata_vram_bytes(&b));
	return 0;
}
