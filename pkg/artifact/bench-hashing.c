/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast one big file is hashed, by 1, 2 and 4 processes, from the page cache:
 *
 *	bench-artifact-hashing [MEBIBYTES]     (in $TMPDIR, or /dev/shm)
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "artifact/hashing.h"
#include "artifact/manifest.h"
#include "artifact/store.h"
#include "artifact/test-tree.h"
#include "artifact/worker.h"
#include "base/num.h"
#include "base/time.h"

#define ROUNDS 5

static void fill(int dirfd, uint64_t mebibytes)
{
	static uint8_t block[1 << 20];
	int fd = openat(dirfd, "pages-1.img", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < mebibytes; i++) {
		memset(block, (int)i, sizeof(block));
		assert_int_equal(fd_write_all(fd, block, sizeof(block)), 0);
	}
	(void)close(fd);
}

/* Returns the time of the fastest round. */
static nsec_t measure(int dirfd, unsigned int workers)
{
	const struct hashing h = { .workers = workers, .program = WORKER_PROGRAM };
	nsec_t best = NSEC_NEVER;

	for (int i = 0; i < ROUNDS; i++) {
		_cleanup_arena_ struct arena arena = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
		_cleanup_scan_ struct scan scan = SCAN_NULL;
		struct error err = ERROR_NULL;
		struct hash_item item;
		nsec_t start = time_now(), took;

		assert_int_equal(scan_dir(dirfd, &layout_image, &scan, &err), 0);
		item = (struct hash_item){
			.file = scan.files,
			.chunk_size = manifest_chunk_size(scan.files->size, 1),
		};
		if (hash_items(&h, dirfd, &item, 1, &arena, NULL, &err) < 0)
			fail_msg("%s", error_text(&err));
		took = time_now() - start;
		best = took < best ? took : best;
	}
	return best;
}

int main(int argc, char **argv)
{
	static const unsigned int workers[] = { 1, 2, 4 };
	uint64_t mebibytes = 1024;
	struct tree tree;
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	if (argc > 2 || (argc == 2 && num_parse(argv[1], 1 << 20, &mebibytes) < 0))
		return EXIT_FAILURE;
	tree_in_memory();
	tree_make(&tree);
	fill(tree.fd, mebibytes);
	for (size_t i = 0; i < ARRAY_SIZE(workers); i++) {
		nsec_t took = measure(tree.fd, workers[i]);

		(void)printf("%u process%s: %.2f GB/s\n", workers[i], workers[i] > 1 ? "es" : "",
			     (double)(mebibytes << 20) / (double)took);
	}
	tree_remove(&tree);
	return EXIT_SUCCESS;
}
