/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the store's list takes, which the agent's loop waits for: bench-artifact-list [COUNT]
 * checkpoints of eight GPU processes each (in $TMPDIR, or /dev/shm).
 */
#include <stdio.h>

#include "artifact/store.h"
#include "artifact/test-tree.h"
#include "base/num.h"
#include "base/time.h"

#define ROUNDS 5

static void make(int store_fd, unsigned int i)
{
	struct metadata_process processes[8];
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct error err = ERROR_NULL;
	struct metadata m;
	char ref[64], name[96];

	(void)snprintf(ref, sizeof(ref), "trainer-20261123T152201Z-%04x", i);
	(void)snprintf(name, sizeof(name), "%s/metadata.json", ref);
	m = tree_metadata(ref);
	for (size_t k = 0; k < ARRAY_SIZE(processes); k++)
		processes[k] = m.gpu.processes[0];
	m.gpu.processes = processes;
	m.gpu.n_processes = ARRAY_SIZE(processes);
	assert_int_equal(mkdirat(store_fd, ref, 0700), 0);
	assert_int_equal(metadata_write(&m, &text, &err), 0);
	tree_write(store_fd, name, buf_bytes(&text).p, buf_len(&text));
}

int main(int argc, char **argv)
{
	uint64_t count = 1000;
	nsec_t best = NSEC_NEVER;
	struct bulk_env env = { 0 };
	struct error err = ERROR_NULL;
	struct store *store;
	struct tree tree;

	if (argc > 2 || (argc == 2 && num_parse(argv[1], 10000, &count) < 0))
		return EXIT_FAILURE;
	tree_in_memory();
	tree_make(&tree);
	assert_int_equal(store_open(tree.path, STORE_OWNER, &env, &store, &err), 0);
	for (unsigned int i = 0; i < count; i++)
		make(tree.fd, i);
	for (int i = 0; i < ROUNDS; i++) {
		nsec_t start = time_now(), took;
		struct store_list l;

		assert_int_equal(store_list(store, NULL, count, &l, &err), 0);
		took = time_now() - start;
		assert_int_equal(l.n_entries, count);
		store_list_done(&l);
		best = took < best ? took : best;
	}
	(void)printf("%llu checkpoints: %.2f ms\n", (unsigned long long)count,
		     (double)best / NSEC_PER_MSEC);
	store_close(store);
	tree_remove(&tree);
	return EXIT_SUCCESS;
}
