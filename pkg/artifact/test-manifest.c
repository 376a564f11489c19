/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "artifact/manifest.h"
#include "tests/cmocka.h"

#define HASH_A "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define HASH_B "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
/* printf HASH_A HASH_B | xxd -r -p | sha256sum */
#define ROOT_AB "6f1290896ee81a0349174d19f4473d267a10289c40480861d5c42affffbd79f9"

#define HEAD "{\"schema\":\"kybernate.io/manifest/v1\",\"files\":["
#define FILE_OF(path)                                                                              \
	"{\"path\":\"" path "\",\"size\":1,\"mode\":\"0600\",\"sha256\":\"" HASH_A "\"}"

static struct arena arena;
static struct error err;
static struct manifest manifest;

static int read_as(const struct layout *layout, const char *text)
{
	arena_done(&arena);
	arena = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
	err = ERROR_NULL;
	return manifest_read(bytes_of(text, strlen(text)), layout, &arena, &manifest, &err);
}

static void refused(const char *text, const char *why)
{
	assert_int_equal(read_as(&layout_checkpoint, text), -EBADMSG);
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static int teardown(void **state)
{
	(void)state;
	arena_done(&arena);
	return 0;
}

static void a_manifest_is_read(void **state)
{
	const struct manifest_file *f;

	(void)state;
	assert_int_equal(read_as(&layout_checkpoint,
				 HEAD FILE_OF("criu/core-1.img") ","
				 "{\"path\":\"criu/pages-1.img\",\"size\":5000,\"mode\":\"0600\","
				 "\"chunk_size\":4096,\"root\":\"" ROOT_AB "\","
				 "\"chunks\":[\"" HASH_A "\",\"" HASH_B "\"]}]}"), 0);
	assert_int_equal(manifest.n_files, 2);
	assert_int_equal(manifest_bytes(&manifest), 5001);
	f = manifest_find(&manifest, "criu/pages-1.img");
	assert_non_null(f);
	assert_int_equal(f->n_chunks, 2);
	assert_int_equal(manifest_digest(f)->byte[0], 0x6f);
	f = manifest_find(&manifest, "criu/core-1.img");
	assert_non_null(f);
	assert_int_equal(f->mode, 0600);
	assert_int_equal(manifest_digest(f)->byte[0], 0xba);
	assert_null(manifest_find(&manifest, "criu/core-2.img"));
}

static void an_empty_one_is_a_manifest(void **state)
{
	(void)state;
	assert_int_equal(read_as(&layout_checkpoint, HEAD "]}"), 0);
	assert_int_equal(manifest.n_files, 0);
	assert_null(manifest_find(&manifest, "x"));
}

/* GHSA-rgh6-rfwx-v388, GHSA-cvxm-645q-p574: names in a checkpoint that lead out of it. */
static void paths_that_lead_elsewhere_are_refused(void **state)
{
	(void)state;
	refused(HEAD FILE_OF("/etc/passwd") "]}",
		"files: [0]: '/etc/passwd' is not a valid path here");
	refused(HEAD FILE_OF("../x") "]}", "files: [0]: '../x' is not a valid path here");
	refused(HEAD FILE_OF("criu/../../x") "]}",
		"files: [0]: 'criu/../../x' is not a valid path here");
	refused(HEAD FILE_OF(".hidden") "]}", "files: [0]: '.hidden' is not a valid path here");
	refused(HEAD FILE_OF("a\\nb") "]}",
		"files: [0]: path: holds a control character, or is not UTF-8");
	assert_int_equal(read_as(&layout_image, HEAD FILE_OF("criu/x") "]}"), -EBADMSG);
}

static void the_same_path_twice_is_refused(void **state)
{
	(void)state;
	refused(HEAD FILE_OF("a") "," FILE_OF("a") "]}",
		"files: [1]: is not in order, or there twice");
	refused(HEAD FILE_OF("b") "," FILE_OF("a") "]}",
		"files: [1]: is not in order, or there twice");
}

static void what_is_never_covered_cannot_be_listed(void **state)
{
	(void)state;
	refused(HEAD FILE_OF("metadata.json") "]}",
		"files: [0]: metadata.json cannot be covered");
	assert_int_equal(read_as(&layout_image, HEAD FILE_OF("kybernate.json") "]}"), -EBADMSG);
	assert_int_equal(read_as(&layout_image, HEAD FILE_OF("stats-dump") "]}"), -EBADMSG);
	assert_int_equal(read_as(&layout_image, HEAD FILE_OF("descriptors.json") "]}"), 0);
}

#define FILE_WITH(members) HEAD "{\"path\":\"a\",\"size\":5000,\"mode\":\"0600\"" members "}]}"

static void a_file_has_one_kind_of_digest(void **state)
{
	static const char why[] =
		"files: [0]: has to have either 'sha256' or 'chunk_size', 'root' and 'chunks'";

	(void)state;
	refused(FILE_WITH(""), why);
	refused(FILE_WITH(",\"sha256\":\"" HASH_A "\",\"chunk_size\":4096"), why);
	refused(FILE_WITH(",\"sha256\":\"" HASH_A "\",\"root\":\"" HASH_B "\""), why);
}

static void chunks_have_to_fit_the_file(void **state)
{
	(void)state;
	refused(FILE_WITH(",\"chunk_size\":4095,\"root\":\"" ROOT_AB "\",\"chunks\":[]"),
		"files: [0]: chunk_size: is not a power of two from 4096");
	refused(FILE_WITH(",\"chunk_size\":12288,\"root\":\"" ROOT_AB "\",\"chunks\":[]"),
		"files: [0]: chunk_size: is not a power of two from 4096");
	refused(FILE_WITH(",\"root\":\"" ROOT_AB "\",\"chunks\":[\"" HASH_A "\"]"),
		"files: [0]: chunk_size: is not a power of two from 4096");
	refused(FILE_WITH(",\"chunk_size\":4096,\"root\":\"" ROOT_AB "\",\"chunks\":[\"" HASH_A
			  "\"]"),
		"files: [0]: chunks: 1 of them do not fit the file's size");
	refused(HEAD "{\"path\":\"a\",\"size\":0,\"mode\":\"0600\",\"chunk_size\":4096,\"root\":\""
		HASH_B "\"}]}", "files: [0]: chunks: 0 of them do not fit the file's size");
	refused(FILE_WITH(",\"chunk_size\":4096,\"chunks\":[\"" HASH_A "\",\"" HASH_B "\"]"),
		"files: [0]: root: is missing");
	refused(FILE_WITH(",\"chunk_size\":4096,\"root\":\"" ROOT_AB "\",\"chunks\":[\"" HASH_B
			  "\",\"" HASH_A "\"]"),
		"files: [0]: root: does not fit the chunks");
}

static void huge_counts_are_refused(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	assert_int_equal(buf_append_str(&b, HEAD), 0);
	for (int i = 0; i <= MANIFEST_FILES_MAX; i++)
		assert_int_equal(buf_printf(&b, "%s0", i ? "," : ""), 0);
	assert_int_equal(buf_append_str(&b, "]}"), 0);
	refused(buf_str(&b), "files: has more than 16384 elements");
	buf_clear(&b);
	assert_int_equal(buf_append_str(&b, "[0"), 0);
	for (int i = 0; i < 1000000; i++)
		assert_int_equal(buf_append_str(&b, ",0"), 0);
	refused(buf_str(&b), "holds more than 245768 values");
	buf_clear(&b);
	while (buf_len(&b) <= MANIFEST_TEXT_MAX)
		assert_int_equal(buf_printf(&b, "%4096s", ""), 0);
	refused(buf_str(&b), "is larger than 16777216 bytes");
	refused(HEAD "{\"path\":\"a\",\"size\":9007199254740992,\"mode\":\"0600\",\"sha256\":\""
		HASH_A "\"}]}", "files: [0]: size: is over its maximum");
}

static void what_is_written_can_be_read(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct digest chunks[2];
	struct manifest_file files[2] = {
		{ .path = "criu/a.img", .size = 7, .mode = 0600 },
		{ .path = "criu/b.img", .size = 8192, .mode = 0600, .chunk_size = 4096,
		  .chunks = chunks, .n_chunks = 2 },
	};
	struct manifest m = { files, 2 };

	(void)state;
	assert_int_equal(digest_parse(HASH_A, &chunks[0]), 0);
	assert_int_equal(digest_parse(HASH_B, &chunks[1]), 0);
	assert_int_equal(digest_parse(HASH_A, &files[0].sha256), 0);
	assert_int_equal(digest_parse(ROOT_AB, &files[1].root), 0);
	assert_int_equal(manifest_write(&m, &b, &err), 0);
	assert_int_equal(read_as(&layout_checkpoint, buf_str(&b)), 0);
	assert_int_equal(manifest.n_files, 2);
	assert_int_equal(manifest.files[1].chunk_size, 4096);
	assert_memory_equal(manifest.files[1].chunks, chunks, sizeof(chunks));
	files[0].path = "criu/c.img";
	assert_int_equal(manifest_write(&m, &b, &err), -EINVAL);
	assert_int_equal(err.reason, REASON_INTERNAL);
}

/* Else a checkpoint could be taken that its own manifest has no room for. */
static void the_largest_manifest_can_be_written_and_read(void **state)
{
	static struct digest chunks[MANIFEST_CHUNKS_MAX / 64];
	static struct manifest_file files[MANIFEST_FILES_MAX];
	static char paths[MANIFEST_FILES_MAX][LAYOUT_PATH_MAX];
	_cleanup_digester_ struct digester *digester = NULL;
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct manifest m = { files, MANIFEST_FILES_MAX };
	struct digest root;
	uint64_t size;

	(void)state;
	assert_int_equal(digester_new(&digester), 0);
	memset(chunks, 0x5a, sizeof(chunks));
	/* 64 files of 100 TB, and names of a length that no runtime uses. */
	size = (uint64_t)100 << 40;
	assert_true(digest_chunk_count(size, manifest_chunk_size(size, 64)) <=
		    ARRAY_SIZE(chunks));
	for (size_t i = 0; i < MANIFEST_FILES_MAX; i++) {
		(void)snprintf(paths[i], sizeof(paths[i]), "criu/%05zu%0100d.img", i, 0);
		files[i] = (struct manifest_file){ .path = paths[i], .size = 1, .mode = 0600 };
		memset(&files[i].sha256, 0xa5, DIGEST_SIZE);
		if (i >= 64)
			continue;
		files[i].size = size;
		files[i].sha256 = (struct digest){ 0 };
		files[i].chunk_size = manifest_chunk_size(size, 64);
		files[i].chunks = chunks;
		files[i].n_chunks = digest_chunk_count(size, files[i].chunk_size);
		assert_int_equal(digest_root(digester, chunks, files[i].n_chunks, &root), 0);
		files[i].root = root;
	}
	assert_int_equal(manifest_write(&m, &b, &err), 0);
	assert_int_equal(read_as(&layout_checkpoint, buf_str(&b)), 0);
	assert_int_equal(manifest.n_files, MANIFEST_FILES_MAX);
}

static void big_files_are_cut_and_share_the_chunks(void **state)
{
	uint64_t gib = 1 << 30;

	(void)state;
	assert_int_equal(manifest_chunk_size(0, 0), 0);
	assert_int_equal(manifest_chunk_size(MANIFEST_TREE_MIN - 1, 1), 0);
	assert_int_equal(manifest_chunk_size(MANIFEST_TREE_MIN, 1), DIGEST_CHUNK_MIN);
	assert_int_equal(manifest_chunk_size(80 * gib, 1), DIGEST_CHUNK_MIN * 8);
	/* Alone it would have 4096. */
	assert_true(digest_chunk_count(80 * gib, manifest_chunk_size(80 * gib, 1024)) <= 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_manifest_is_read),
		cmocka_unit_test(an_empty_one_is_a_manifest),
		cmocka_unit_test(paths_that_lead_elsewhere_are_refused),
		cmocka_unit_test(the_same_path_twice_is_refused),
		cmocka_unit_test(what_is_never_covered_cannot_be_listed),
		cmocka_unit_test(a_file_has_one_kind_of_digest),
		cmocka_unit_test(chunks_have_to_fit_the_file),
		cmocka_unit_test(huge_counts_are_refused),
		cmocka_unit_test(what_is_written_can_be_read),
		cmocka_unit_test(the_largest_manifest_can_be_written_and_read),
		cmocka_unit_test(big_files_are_cut_and_share_the_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
