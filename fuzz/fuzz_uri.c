/* SPDX-License-Identifier: Apache-2.0 */
/* Where a client wants a container's output: a path, or the URI of a FIFO, a file, a logger. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shim/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT((size_t)1 << 20);
	_cleanup_free_ char *text = strndup((const char *)data, n);
	struct error err = ERROR_NULL;
	struct uri uri;

	if (!text)
		abort();
	if (uri_parse(text, &arena, &uri, &err) < 0) {
		assert(err.text[0]);
		return 0;
	}
	assert((uri.path[0] || !*text) && strlen(uri.path) <= URI_MAX && uri.n_pairs <= URI_PAIRS_MAX);
	for (unsigned int i = 0; i < uri.n_pairs; i++)
		assert(strlen(uri.pairs[i].key) + strlen(uri.pairs[i].value) <= URI_MAX);
	return 0;
}
