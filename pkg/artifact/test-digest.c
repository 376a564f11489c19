/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "artifact/digest.h"
#include "base/fd.h"
#include "tests/cmocka.h"

static struct digester *digester;

static int setup(void **state)
{
	(void)state;
	return digester_new(&digester);
}

static int teardown(void **state)
{
	(void)state;
	digester_free(digester);
	return 0;
}

static const char *hex_of(const void *p, size_t n)
{
	static char hex[DIGEST_HEX_MAX];
	struct digest d;

	assert_int_equal(digester_bytes(digester, bytes_of(p, n), &d), 0);
	return digest_hex(&d, hex);
}

/* The examples of FIPS 180-2, appendix B. */
static void known_answers(void **state)
{
	(void)state;
	assert_string_equal(hex_of("", 0),
			    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	assert_string_equal(hex_of("abc", 3),
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void added_in_pieces_it_is_the_same(void **state)
{
	struct digest d;
	char hex[DIGEST_HEX_MAX];

	(void)state;
	assert_int_equal(digester_begin(digester), 0);
	assert_int_equal(digester_add(digester, "a", 1), 0);
	assert_int_equal(digester_add(digester, "bc", 2), 0);
	assert_int_equal(digester_end(digester, &d), 0);
	assert_string_equal(digest_hex(&d, hex), hex_of("abc", 3));
}

static void hex_goes_there_and_back(void **state)
{
	static const char good[] =
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
	char hex[DIGEST_HEX_MAX];
	struct digest d;

	(void)state;
	assert_int_equal(digest_parse(good, &d), 0);
	assert_string_equal(digest_hex(&d, hex), good);
}

static void hex_of_another_form_is_refused(void **state)
{
	struct digest d;

	(void)state;
	assert_int_equal(digest_parse("", &d), -EINVAL);
	/* 63 and 65 digits, upper case, a letter beyond f */
	assert_int_equal(digest_parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff6"
				      "1f20015a", &d), -EINVAL);
	assert_int_equal(digest_parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff6"
				      "1f20015add", &d), -EINVAL);
	assert_int_equal(digest_parse("BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff6"
				      "1f20015ad", &d), -EINVAL);
	assert_int_equal(digest_parse("ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff6"
				      "1f20015ad", &d), -EINVAL);
}

/* A file of a little over n_chunks chunks of 1 MiB. */
static int make_file(size_t size)
{
	int fd = memfd_create("digest", MFD_CLOEXEC);
	uint8_t block[4096];

	assert_true(fd >= 0);
	for (size_t at = 0; at < size; at += sizeof(block)) {
		memset(block, (int)(at >> 12), sizeof(block));
		assert_int_equal(fd_write_all(fd, block,
					      size - at < sizeof(block) ? size - at
									: sizeof(block)), 0);
	}
	return fd;
}

static void a_range_is_hashed_as_if_it_were_alone(void **state)
{
	_cleanup_close_ int fd = make_file(3 << 20);
	_cleanup_free_ uint8_t *copy = malloc(3 << 20);
	struct digest a, b;

	(void)state;
	assert_non_null(copy);
	assert_int_equal(pread(fd, copy, 3 << 20, 0), 3 << 20);
	assert_int_equal(digester_range(digester, fd, 12345, 2 << 20, &a, NULL), 0);
	assert_int_equal(digester_bytes(digester, bytes_of(copy + 12345, 2 << 20), &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
}

static void a_file_that_ends_early_is_told_with_the_place(void **state)
{
	_cleanup_close_ int fd = make_file(10000);
	struct digest d;
	uint64_t at = 0;

	(void)state;
	assert_int_equal(digester_range(digester, fd, 5000, 6000, &d, &at), -ENODATA);
	assert_int_equal(at, 10000);
}

static void an_unreadable_file_is_an_error(void **state)
{
	_cleanup_close_ int fd = memfd_create("digest", MFD_CLOEXEC);
	struct digest d;

	(void)state;
	assert_int_equal(digester_range(digester, -1, 0, 1, &d, NULL), -EBADF);
	/* Beyond what an offset can say. */
	assert_int_equal(digester_range(digester, fd, UINT64_MAX, 1, &d, NULL), -EINVAL);
}

/* The root as the comment in the header has it, spelt out. */
static void the_root_is_the_digest_of_the_chunks_digests(void **state)
{
	struct digest chunks[2], root, want;
	uint8_t raw[2 * DIGEST_SIZE];

	(void)state;
	assert_int_equal(digester_bytes(digester, bytes_of("left", 4), &chunks[0]), 0);
	assert_int_equal(digester_bytes(digester, bytes_of("right", 5), &chunks[1]), 0);
	memcpy(raw, chunks[0].byte, DIGEST_SIZE);
	memcpy(raw + DIGEST_SIZE, chunks[1].byte, DIGEST_SIZE);
	assert_int_equal(digest_root(digester, chunks, 2, &root), 0);
	assert_int_equal(digester_bytes(digester, bytes_of(raw, sizeof(raw)), &want), 0);
	assert_memory_equal(&root, &want, sizeof(root));
}

static void chunks_grow_with_the_file(void **state)
{
	uint64_t mib = 1 << 20, gib = 1 << 30;

	(void)state;
	assert_int_equal(digest_chunk_size(0, 4096), 4 * mib);
	assert_int_equal(digest_chunk_size(16 * gib, 4096), 4 * mib);
	assert_int_equal(digest_chunk_size(16 * gib + 1, 4096), 8 * mib);
	assert_int_equal(digest_chunk_size(80 * gib, 4096), 32 * mib);
	assert_int_equal(digest_chunk_size(80 * gib, 1), 128 * gib);
	assert_int_equal(digest_chunk_size(UINT64_MAX, 1), DIGEST_CHUNK_MAX);
}

static void chunks_are_counted_with_the_last_short_one(void **state)
{
	(void)state;
	assert_int_equal(digest_chunk_count(0, 4096), 0);
	assert_int_equal(digest_chunk_count(1, 4096), 1);
	assert_int_equal(digest_chunk_count(4096, 4096), 1);
	assert_int_equal(digest_chunk_count(4097, 4096), 2);
	assert_int_equal(digest_chunk_count(UINT64_MAX, 4096), (UINT64_MAX >> 12) + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(added_in_pieces_it_is_the_same),
		cmocka_unit_test(hex_goes_there_and_back),
		cmocka_unit_test(hex_of_another_form_is_refused),
		cmocka_unit_test(a_range_is_hashed_as_if_it_were_alone),
		cmocka_unit_test(a_file_that_ends_early_is_told_with_the_place),
		cmocka_unit_test(an_unreadable_file_is_an_error),
		cmocka_unit_test(the_root_is_the_digest_of_the_chunks_digests),
		cmocka_unit_test(chunks_grow_with_the_file),
		cmocka_unit_test(chunks_are_counted_with_the_last_short_one),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
