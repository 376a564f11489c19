/* SPDX-License-Identifier: Apache-2.0 */
/* What the helper that looks at mounts writes, and is told: what was taken survives being put again. */
#include <assert.h>
#include <string.h>

#include "oci/mounts_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MEMORY ((size_t)8 << 20)

static void same(const char *a, const char *b)
{
	assert(!a == !b);
	assert(!a || strcmp(a, b) == 0);
}

static void records(struct bytes text)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY), again = ARENA_LIMIT(2 * MEMORY);
	_cleanup_buf_ struct buf wire = BUF_LIMIT(4 * MEMORY);
	struct mount_records found, back;
	struct error err = ERROR_NULL;

	if (mounts_wire_take(text, &mem, &found, &err) < 0) {
		assert(err.text[0] && err.code < 0);
		return;
	}
	assert(found.n <= MOUNT_RECORDS_MAX);
	assert(mounts_wire_put(&found, &wire) == 0);
	assert(mounts_wire_take(buf_bytes(&wire), &again, &back, &err) == 0);
	assert(back.n == found.n);
	for (size_t i = 0; i < found.n; i++) {
		same(found.items[i].destination, back.items[i].destination);
		same(found.items[i].source, back.items[i].source);
		same(found.items[i].type, back.items[i].type);
		assert(found.items[i].size == back.items[i].size);
	}
}

static void prefixes(struct bytes text)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY), again = ARENA_LIMIT(2 * MEMORY);
	_cleanup_buf_ struct buf wire = BUF_LIMIT(4 * MEMORY);
	struct setting_list list, back;
	struct error err = ERROR_NULL;

	if (mounts_wire_take_prefixes(text, &mem, &list, &err) < 0) {
		assert(err.text[0] && err.code < 0);
		return;
	}
	assert(mounts_wire_put_prefixes(&list, &wire) == 0);
	assert(mounts_wire_take_prefixes(buf_bytes(&wire), &again, &back, &err) == 0);
	assert(back.n == list.n);
	for (size_t i = 0; i < list.n; i++)
		same(list.items[i], back.items[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	records(bytes_of(data, n));
	prefixes(bytes_of(data, n));
	return 0;
}
