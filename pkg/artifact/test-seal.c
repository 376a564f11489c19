/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "artifact/seal.h"
#include "artifact/test-tree.h"
#include "artifact/verify.h"

static struct tree tree; /* stands for a store */
static struct error err;
static struct metadata_manifest sealed;

static const struct hashing alone = { .workers = 1 };

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	tree_make(&tree);
	tree_work(tree.fd, ".new-a");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tree_remove(&tree);
	return 0;
}

static int seal(void)
{
	struct metadata m = tree_metadata("a");

	return seal_checkpoint(tree.fd, ".new-a", &m, &alone, &sealed, &err);
}

static int verify(const char *ref)
{
	int fd = openat(tree.fd, ref, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	struct verify_damage damage;

	assert_true(fd >= 0);
	r = verify_checkpoint(fd, ref, 0, &alone, &sealed, &damage, &err);
	(void)close(fd);
	return r;
}

static void not_sealed(const char *why)
{
	assert_int_equal(seal(), -EBADMSG);
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
	assert_false(tree_has(tree.fd, "a"));
	assert_true(tree_has(tree.fd, ".new-a"));
	assert_false(tree_has(tree.fd, ".new-a/metadata.json"));
}

static void a_directory_becomes_a_checkpoint(void **state)
{
	(void)state;
	assert_int_equal(seal(), 0);
	assert_false(tree_has(tree.fd, ".new-a"));
	assert_true(tree_has(tree.fd, "a/metadata.json"));
	assert_true(tree_has(tree.fd, "a/manifest.json"));
	assert_true(tree_has(tree.fd, "a/criu/kybernate.json"));
	assert_true(tree_has(tree.fd, "a/criu/kybernate-manifest.json"));
	/* Seven files of the work directory, and two that describe the images. */
	assert_int_equal(sealed.files, 9);
	assert_int_equal(verify("a"), 0);
}

static void metadata_names_the_manifest(void **state)
{
	_cleanup_buf_ struct buf list = BUF_NULL, text = BUF_NULL;
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	_cleanup_digester_ struct digester *digester = NULL;
	struct digest digest;
	struct metadata m;

	(void)state;
	assert_int_equal(seal(), 0);
	assert_int_equal(file_read(tree.fd, "a/metadata.json", &text), 0);
	assert_int_equal(file_read(tree.fd, "a/manifest.json", &list), 0);
	assert_int_equal(metadata_read(buf_bytes(&text), &arena, &m, &err), 0);
	assert_int_equal(digester_new(&digester), 0);
	assert_int_equal(digester_bytes(digester, buf_bytes(&list), &digest), 0);
	assert_memory_equal(&digest, &m.manifest.sha256, sizeof(digest));
	assert_memory_equal(&sealed.sha256, &digest, sizeof(digest));
	assert_string_equal(m.ref, "a");
}

static void the_images_can_travel_alone(void **state)
{
	struct verify_damage damage;
	struct tree other;
	char command[512];

	(void)state;
	assert_int_equal(seal(), 0);
	tree_make(&other);
	/* As containerd's importer does it: every file made anew, with modes of its own, and the
	 * statistics and logs left behind. */
	(void)snprintf(command, sizeof(command),
		       "cp --no-preserve=all '%s'/a/criu/* '%s'/ && rm '%s'/stats-dump && "
		       "chmod 0644 '%s'/*", tree.path, other.path, other.path, other.path);
	assert_int_equal(system(command), 0);
	assert_int_equal(verify_image(other.fd, 0, &alone, &sealed, &damage, &err), 0);
	assert_int_equal(sealed.files, 4);
	tree_remove(&other);
}

static void files_get_mode_0600(void **state)
{
	struct stat st;
	mode_t old = umask(0277);

	(void)state;
	assert_int_equal(fchmodat(tree.fd, ".new-a/criu/core-1.img", 0644, 0), 0);
	assert_int_equal(seal(), 0);
	(void)umask(old);
	assert_int_equal(fstatat(tree.fd, "a/criu/core-1.img", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(tree.fd, "a/metadata.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(verify("a"), 0);
}

static void a_name_that_is_taken_is_not_taken_again(void **state)
{
	(void)state;
	assert_int_equal(seal(), 0);
	tree_work(tree.fd, ".new-a");
	assert_int_equal(seal(), -EEXIST);
	assert_int_equal(err.reason, REASON_REF_EXISTS);
	assert_int_equal(verify("a"), 0);
}

static void it_can_be_tried_again_after_a_failure(void **state)
{
	(void)state;
	assert_int_equal(mkfifoat(tree.fd, ".new-a/criu/x.img", 0600), 0);
	not_sealed("criu/x.img: is a FIFO");
	assert_int_equal(unlinkat(tree.fd, ".new-a/criu/x.img", 0), 0);
	/* And what a crash in the middle of writing leaves. */
	tree_text(tree.fd, ".new-a/metadata.json", "{");
	tree_text(tree.fd, ".new-a/.metadata.json.tmp", "{");
	tree_text(tree.fd, ".new-a/.manifest.json.tmp", "{");
	tree_text(tree.fd, ".new-a/criu/kybernate.json", "{");
	tree_text(tree.fd, ".new-a/criu/.kybernate.json.tmp", "{");
	tree_text(tree.fd, ".new-a/criu/.kybernate-manifest.json.tmp", "{");
	assert_int_equal(seal(), 0);
	assert_int_equal(verify("a"), 0);
}

static void no_images_is_no_checkpoint(void **state)
{
	(void)state;
	assert_int_equal(path_remove_tree(tree.fd, ".new-a/criu"), 0);
	not_sealed("there is no directory criu");
	assert_int_equal(mkdirat(tree.fd, ".new-a/criu", 0700), 0);
	/* Statistics are no image. */
	tree_text(tree.fd, ".new-a/criu/stats-dump", "x");
	not_sealed("there are no images in criu/");
}

static void a_link_in_place_of_the_images_is_refused(void **state)
{
	(void)state;
	assert_int_equal(renameat(tree.fd, ".new-a/criu", tree.fd, "elsewhere"), 0);
	assert_int_equal(symlinkat("../elsewhere", tree.fd, ".new-a/criu"), 0);
	not_sealed("there is no directory criu");
}

static void a_link_in_place_of_a_temporary_file_is_not_followed(void **state)
{
	(void)state;
	tree_text(tree.fd, "victim", "precious");
	assert_int_equal(symlinkat("../victim", tree.fd, ".new-a/.metadata.json.tmp"), 0);
	assert_int_equal(seal(), 0);
	{
		_cleanup_buf_ struct buf b = BUF_NULL;

		assert_int_equal(file_read(tree.fd, "victim", &b), 0);
		assert_string_equal(buf_str(&b), "precious");
	}
}

static void the_work_directory_has_to_be_there(void **state)
{
	struct metadata m = tree_metadata("b");

	(void)state;
	assert_int_equal(seal_checkpoint(tree.fd, ".new-b", &m, &alone, &sealed, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
	assert_int_equal(symlinkat(".new-a", tree.fd, ".new-b"), 0);
	assert_int_equal(seal_checkpoint(tree.fd, ".new-b", &m, &alone, &sealed, &err), -ENOTDIR);
}

/* Writes to a file as soon as the hashing has read it. */
static void spoil(const struct hashing *h, uint64_t done, uint64_t total)
{
	(void)total;
	if (done)
		tree_text(tree.fd, h->arg, "written by somebody who has not finished");
}

static void a_file_still_written_to_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = spoil,
		.arg = (char[]){ ".new-a/criu/core-1.img" },
	};
	struct metadata m = tree_metadata("a");

	(void)state;
	assert_int_equal(seal_checkpoint(tree.fd, ".new-a", &m, &h, &sealed, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "criu/core-1.img: changed while it was read");
	assert_false(tree_has(tree.fd, "a"));
}

static void a_file_that_comes_late_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = spoil,
		.arg = (char[]){ ".new-a/criu/late.img" },
	};
	struct metadata m = tree_metadata("a");

	(void)state;
	assert_int_equal(seal_checkpoint(tree.fd, ".new-a", &m, &h, &sealed, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "criu/late.img: came while it was sealed");
	assert_false(tree_has(tree.fd, "a"));
}

static void an_image_directory_is_described_in_place(void **state)
{
	_cleanup_close_ int fd = openat(tree.fd, ".new-a/criu", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct metadata m = tree_metadata(NULL);
	struct verify_damage damage;
	struct stat st;

	(void)state;
	assert_int_equal(fchmodat(fd, "core-1.img", 0644, 0), 0);
	assert_int_equal(seal_image(fd, &m, &alone, &sealed, &err), 0);
	assert_int_equal(sealed.files, 4);
	/* Not ours to change. */
	assert_int_equal(fstatat(fd, "core-1.img", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(verify_image(fd, 0, &alone, &sealed, &damage, &err), 0);
	/* Again, over what is there. */
	assert_int_equal(seal_image(fd, &m, &alone, &sealed, &err), 0);
	assert_int_equal(verify_image(fd, 0, &alone, &sealed, &damage, &err), 0);
}

static void logs_may_grow_while_an_image_directory_is_described(void **state)
{
	_cleanup_close_ int fd = openat(tree.fd, ".new-a/criu", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct hashing h = {
		.workers = 1, .progress = spoil, .arg = (char[]){ ".new-a/criu/dump.log" },
	};
	struct metadata m = tree_metadata(NULL);
	struct verify_damage damage;

	(void)state;
	assert_int_equal(seal_image(fd, &m, &h, &sealed, &err), 0);
	assert_int_equal(verify_image(fd, 0, &h, &sealed, &damage, &err), 0);
}

static void an_empty_directory_is_no_image(void **state)
{
	_cleanup_close_ int fd = openat(tree.fd, ".new-a/logs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct metadata m = tree_metadata(NULL);

	(void)state;
	assert_int_equal(unlinkat(fd, "dump.log", 0), 0);
	assert_int_equal(seal_image(fd, &m, &alone, &sealed, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "there are no images in the directory");
}

static void a_big_file_gets_chunks(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
	_cleanup_buf_ struct buf list = BUF_NULL;
	const struct manifest_file *f;
	struct manifest m;

	(void)state;
	tree_sparse(tree.fd, ".new-a/criu/pages-2.img", MANIFEST_TREE_MIN + 5);
	assert_int_equal(seal(), 0);
	assert_int_equal(file_read(tree.fd, "a/manifest.json", &list), 0);
	assert_int_equal(manifest_read(buf_bytes(&list), &layout_checkpoint, &arena, &m, &err), 0);
	f = manifest_find(&m, "criu/pages-2.img");
	assert_non_null(f);
	assert_int_equal(f->n_chunks, 17);
	/* All chunks of zeroes are alike, but for the last short one. */
	assert_true(digest_equal(&f->chunks[0], &f->chunks[15]));
	assert_false(digest_equal(&f->chunks[0], &f->chunks[16]));
	assert_int_equal(verify("a"), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_directory_becomes_a_checkpoint),
		T(metadata_names_the_manifest),
		T(the_images_can_travel_alone),
		T(files_get_mode_0600),
		T(a_name_that_is_taken_is_not_taken_again),
		T(it_can_be_tried_again_after_a_failure),
		T(no_images_is_no_checkpoint),
		T(a_link_in_place_of_the_images_is_refused),
		T(a_link_in_place_of_a_temporary_file_is_not_followed),
		T(the_work_directory_has_to_be_there),
		T(a_file_still_written_to_is_told),
		T(a_file_that_comes_late_is_told),
		T(an_image_directory_is_described_in_place),
		T(logs_may_grow_while_an_image_directory_is_described),
		T(an_empty_directory_is_no_image),
		T(a_big_file_gets_chunks),
	};

	tree_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
