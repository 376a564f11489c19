/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a cgroup: memory.stat, cpu.stat, io.stat, blkio.*, memory.events, *.pressure,
 * rdma.*, /proc/partitions. The kernel writes them, but names of devices are not its own, and
 * formats grow.
 */
#include <assert.h>
#include <string.h>

#include "cgroup/parse.h"

#define MOST 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void lists(struct bytes text, struct arena *a)
{
	struct blkio_entry *blkio;
	struct io_entry *io;
	struct rdma_entry *rdma;
	uint64_t *numbers;
	size_t count;

	if (parse_numbers(text, MOST, a, &numbers, &count) == 0)
		assert(count <= MOST);
	if (parse_blkio(text, MOST, a, &blkio, &count) == 0)
		for (assert(count <= MOST); count > 0; count--)
			assert(strlen(blkio[count - 1].op) <= text.n && blkio[count - 1].device);
	if (parse_io(text, MOST, a, &io, &count) == 0)
		for (assert(count <= MOST); count > 0; count--)
			assert(io[count - 1].major <= UINT32_MAX && io[count - 1].minor <= UINT32_MAX);
	if (parse_rdma(text, MOST, a, &rdma, &count) == 0)
		for (assert(count <= MOST); count > 0; count--)
			assert(strlen(rdma[count - 1].device) > 0 && rdma[count - 1].device[0] > ' ');
	assert(strncmp(parse_partition(text, 8, 0, a), "/dev/", 5) <= 0);
}

static void single(struct bytes text)
{
	struct psi psi = { 0 };
	uint64_t v = 0;

	if (parse_value(text, 7, &v) < 0)
		assert(v == 0);
	if (parse_psi(text, &psi) == 0)
		assert(psi.present && psi.some.avg10 >= 0 && psi.full.avg300 >= 0);
	else
		assert(!psi.present);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct fields {
		uint64_t before, anon, oom_kill, after;
	} f = { .before = 1, .after = 2 };
	static const struct parse_key keys[] = {
		{ "anon", offsetof(struct fields, anon) },
		{ "oom_kill", offsetof(struct fields, oom_kill) },
	};
	_cleanup_arena_ struct arena large = ARENA_LIMIT(1 << 20), small = ARENA_LIMIT(200);
	struct bytes text = bytes_of(data, n), rest = text, key;
	char name[256], size[16];
	uint64_t v;

	single(text);
	lists(text, &large);
	lists(text, &small); /* running out in the middle */
	parse_pairs(text, keys, 2, &f);
	assert(f.before == 1 && f.after == 2);
	while (parse_pair(&rest, &key, &v)) {
		assert(rest.n < n && key.n > 0);
		n = rest.n;
	}
	/* parse_find() takes the first, parse_pairs() the last of a key. */
	if (f.anon == 0)
		(void)parse_find(text, "anon");
	if (text.n < sizeof(name) && text.n) {
		memcpy(name, text.p, text.n);
		name[text.n] = 0;
		(void)parse_hugepage_size(name, size, sizeof(size));
	}
	return 0;
}
