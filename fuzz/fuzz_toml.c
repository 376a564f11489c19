/* SPDX-License-Identifier: Apache-2.0 */
/* TOML: any text is read or refused, and what is read is within the limits and well-formed. */
#include <assert.h>
#include <string.h>

#include "conf/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static unsigned int count(const struct toml *node, unsigned int depth)
{
	unsigned int sum = 1;

	assert(node->line > 0);
	if (node->type == TOML_STRING) {
		assert(strlen(node->string) <= TOML_TEXT_MAX);
		return 1;
	}
	if (node->type != TOML_TABLE && node->type != TOML_ARRAY)
		return 1;
	/* Headers, a dotted key and nested values may come on top of each other. */
	assert(depth <= TOML_DEPTH_MAX * (TOML_DEPTH_MAX + 2));
	toml_for_each(i, node) {
		assert((node->type == TOML_TABLE) == (i->key != NULL));
		assert(!i->key || toml_get(node, i->key) == i);
		sum += count(i, depth + 1);
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	struct error err = ERROR_NULL;

	if (toml_parse(&doc, bytes_of(data, n), &err) < 0) {
		assert(err.text[0] && err.code < 0);
		return 0;
	}
	assert(count(doc.root, 0) <= TOML_NODES_MAX + 1);
	return 0;
}
