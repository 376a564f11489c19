/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an enemy can do to a checkpoint before, and while, it is verified. Background: containerd's
 * advisories GHSA-rgh6-rfwx-v388, GHSA-cvxm-645q-p574, GHSA-33vj-92qq-66hc.
 */
#include <errno.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "artifact/seal.h"
#include "artifact/test-tree.h"
#include "artifact/verify.h"

static struct tree tree; /* stands for a store */
static struct error err;
static struct metadata_manifest found;
static struct verify_damage damage;
static int checkpoint = -1, image = -1; /* of tree/a and tree/a/criu */

static const struct hashing alone = { .workers = 1 };

static void seal(void)
{
	struct metadata m = tree_metadata("a");

	assert_int_equal(seal_checkpoint(tree.fd, ".new-a", &m, &alone, &found, &err), 0);
	checkpoint = openat(tree.fd, "a", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	image = openat(tree.fd, "a/criu", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(checkpoint >= 0 && image >= 0);
}

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	tree_make(&tree);
	tree_work(tree.fd, ".new-a");
	seal();
	return 0;
}

/* With a file that is hashed in chunks. */
static int setup_big(void **state)
{
	(void)state;
	err = ERROR_NULL;
	tree_make(&tree);
	tree_work(tree.fd, ".new-a");
	tree_sparse(tree.fd, ".new-a/criu/pages-2.img", MANIFEST_TREE_MIN + 5);
	seal();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)close(checkpoint);
	(void)close(image);
	tree_remove(&tree);
	return 0;
}

static int verify_with(const struct hashing *h)
{
	return verify_checkpoint(checkpoint, "a", 0, h, &found, &damage, &err);
}

static void corrupt(const char *why)
{
	size_t n = strlen(why);

	err = ERROR_NULL;
	assert_int_equal(verify_with(&alone), -EBADMSG);
	/* Where JSON ends to be JSON is up to the library. */
	if (why[n - 1] == ' ' && strlen(err.text) > n)
		err.text[n] = 0;
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
	assert_int_equal(err.code, -EBADMSG);
}

static void image_corrupt(const char *why)
{
	err = ERROR_NULL;
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), -EBADMSG);
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static void at(const char *path, uint64_t offset, uint64_t length)
{
	assert_string_equal(damage.path, path);
	assert_int_equal(damage.offset, offset);
	assert_int_equal(damage.length, length);
}

/* -- damage ---------------------------------------------------------------------------------- */

static void a_sound_checkpoint_verifies(void **state)
{
	(void)state;
	assert_int_equal(verify_with(&alone), 0);
	assert_int_equal(found.files, 10); /* the two that describe the images are among them */
	at("", 0, 0);
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), 0);
	assert_int_equal(found.files, 5);
}

static void one_wrong_byte_is_told_with_its_file(void **state)
{
	(void)state;
	tree_poke(checkpoint, "criu/pages-1.img", 3, 'X');
	corrupt("criu/pages-1.img: is damaged");
	at("criu/pages-1.img", 0, 21);
	image_corrupt("pages-1.img: is damaged");
}

static void in_a_big_file_the_range_is_told(void **state)
{
	(void)state;
	tree_poke(checkpoint, "criu/pages-2.img", (9 << 20) + 1, 'X');
	corrupt("criu/pages-2.img: is damaged in the 4194304 bytes from offset 8388608");
	at("criu/pages-2.img", 8 << 20, 4 << 20);
	/* In the last, short chunk. */
	tree_poke(checkpoint, "criu/pages-2.img", (9 << 20) + 1, 0);
	tree_poke(checkpoint, "criu/pages-2.img", (64 << 20) + 4, 'X');
	corrupt("criu/pages-2.img: is damaged in the 5 bytes from offset 67108864");
	at("criu/pages-2.img", 64 << 20, 5);
}

static void a_file_cut_short_is_told(void **state)
{
	(void)state;
	tree_sparse(checkpoint, "criu/pages-2.img", MANIFEST_TREE_MIN);
	corrupt("criu/pages-2.img: has 67108864 bytes instead of 67108869");
	at("criu/pages-2.img", 0, 0);
}

static void a_file_that_is_gone_is_told(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "criu/core-1.img", 0), 0);
	corrupt("criu/core-1.img: is missing");
	image_corrupt("core-1.img: is missing");
}

static void a_changed_mode_is_told_in_the_store_only(void **state)
{
	(void)state;
	assert_int_equal(fchmodat(checkpoint, "criu/core-1.img", 0644, 0), 0);
	corrupt("criu/core-1.img: has mode 0644 instead of 0600");
	/* Importers make files anew, with modes of their own. */
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), 0);
}

static void without_metadata_it_is_no_checkpoint(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "metadata.json", 0), 0);
	assert_int_equal(verify_with(&alone), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	assert_int_equal(unlinkat(image, "kybernate.json", 0), 0);
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
}

static void without_its_manifest_it_is_corrupt(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "manifest.json", 0), 0);
	corrupt("manifest.json: is missing");
}

static void damaged_documents_are_told(void **state)
{
	(void)state;
	tree_poke(checkpoint, "manifest.json", 50, '#');
	corrupt("manifest.json: is not the one that metadata.json names");
	tree_poke(checkpoint, "metadata.json", 0, '#');
	corrupt("metadata.json: is not JSON ");
	tree_text(checkpoint, "metadata.json", "");
	corrupt("metadata.json: is not JSON ");
}

static void a_checkpoint_under_another_name_is_refused(void **state)
{
	(void)state;
	assert_int_equal(verify_checkpoint(checkpoint, "b", 0, &alone, &found, &damage, &err),
			 -EBADMSG);
	assert_string_equal(error_text(&err), "metadata.json: is that of checkpoint 'a'");
}

/* -- an enemy -------------------------------------------------------------------------------- */

static void a_file_exchanged_for_a_link_is_refused(void **state)
{
	(void)state;
	assert_int_equal(renameat(checkpoint, "criu/core-1.img", tree.fd, "moved"), 0);
	assert_int_equal(symlinkat("../../moved", checkpoint, "criu/core-1.img"), 0);
	corrupt("criu/core-1.img: is a symbolic link"); /* though its content is right */
	image_corrupt("core-1.img: is a symbolic link");
}

static void an_absolute_link_is_refused(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "spec.json", 0), 0);
	assert_int_equal(symlinkat("/etc/passwd", checkpoint, "spec.json"), 0);
	corrupt("spec.json: is a symbolic link");
}

static void the_image_directory_exchanged_for_a_link_is_refused(void **state)
{
	(void)state;
	assert_int_equal(renameat(checkpoint, "criu", tree.fd, "moved"), 0);
	assert_int_equal(symlinkat("../moved", checkpoint, "criu"), 0);
	corrupt("criu: is a symbolic link");
}

static void metadata_behind_a_link_is_refused(void **state)
{
	(void)state;
	assert_int_equal(renameat(checkpoint, "metadata.json", tree.fd, "moved"), 0);
	assert_int_equal(symlinkat("../moved", checkpoint, "metadata.json"), 0);
	corrupt("metadata.json: is a symbolic link");
}

static void metadata_that_is_a_fifo_does_not_block(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "metadata.json", 0), 0);
	assert_int_equal(mkfifoat(checkpoint, "metadata.json", 0600), 0);
	corrupt("metadata.json: is a FIFO");
}

/* Its other name may be in a directory that others write to. */
static void a_file_with_a_second_name_is_refused(void **state)
{
	(void)state;
	assert_int_equal(linkat(checkpoint, "criu/core-1.img", tree.fd, "second", 0), 0);
	corrupt("criu/core-1.img: has 2 names (hard links)");
}

static void a_fifo_in_place_of_a_file_does_not_block(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "criu/core-1.img", 0), 0);
	assert_int_equal(mkfifoat(checkpoint, "criu/core-1.img", 0600), 0);
	corrupt("criu/core-1.img: is a FIFO");
	image_corrupt("core-1.img: is a FIFO");
}

static void a_device_in_place_of_a_file_is_not_opened(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(checkpoint, "criu/core-1.img", 0), 0);
	if (mknodat(checkpoint, "criu/core-1.img", S_IFCHR | 0600, makedev(1, 5)) < 0)
		skip(); /* not root */
	corrupt("criu/core-1.img: is a device");
}

static void a_file_too_many_is_refused(void **state)
{
	(void)state;
	tree_text(checkpoint, "criu/ghost-file-1.img", "CRIU would restore this");
	corrupt("criu/ghost-file-1.img: is not in the manifest");
	image_corrupt("ghost-file-1.img: is not in the manifest");
}

static void a_link_to_parent_images_is_refused(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("/tmp", image, "parent"), 0);
	corrupt("criu/parent: is a symbolic link");
	image_corrupt("parent: is a symbolic link");
}

static void names_with_control_bytes_are_refused(void **state)
{
	(void)state;
	tree_text(checkpoint, "criu/\n\x1b[2J.img", "x");
	corrupt("'criu/?" "?[2J.img': is not a name that may be here");
}

static void a_sparse_bomb_is_refused_unread(void **state)
{
	(void)state;
	tree_sparse(checkpoint, "criu/pages-1.img", (uint64_t)8 << 40);
	corrupt("criu/pages-1.img: has 8796093022208 bytes instead of 21");
}

static void a_sparse_bomb_as_a_document_is_refused_unread(void **state)
{
	(void)state;
	tree_sparse(checkpoint, "manifest.json", (uint64_t)8 << 40);
	corrupt("manifest.json: is larger than 16777217 bytes");
	tree_sparse(checkpoint, "metadata.json", (uint64_t)8 << 40);
	corrupt("metadata.json: is larger than 2097153 bytes");
}

/* The whole directory is the enemy's, and agrees with itself. */
static void a_consistent_bomb_is_refused_by_its_claim(void **state)
{
	(void)state;
	assert_int_equal(verify_checkpoint(checkpoint, "a", 1 << 20, &alone, &found, &damage,
					   &err), -EBADMSG);
	assert_non_null(strstr(error_text(&err), "more than the 1048576 that are allowed"));
	assert_int_equal(verify_image(image, 1 << 20, &alone, &found, &damage, &err), -EBADMSG);
	assert_int_equal(verify_image(image, (uint64_t)1 << 30, &alone, &found, &damage, &err), 0);
}

static void directories_that_others_write_to_are_refused(void **state)
{
	(void)state;
	assert_int_equal(fchmod(image, 0777), 0);
	corrupt("criu: others may write to it (mode 0777)");
	image_corrupt("the directory: others may write to it (mode 0777)");
}

static void files_of_others_are_refused(void **state)
{
	(void)state;
	if (fchownat(checkpoint, "criu/core-1.img", 12345, -1, 0) < 0)
		skip(); /* not root */
	corrupt("criu/core-1.img: belongs to user 12345");
}

/* -- while it is verified -------------------------------------------------------------------- */

static void swap_file(const struct hashing *h, uint64_t done, uint64_t total)
{
	(void)total;
	/* Once, when the first files have been read: exchange one for its twin. */
	if (done && done < 100 && !tree_has(tree.fd, "twin-used")) {
		tree_text(tree.fd, "twin-used", "memory of the process");
		assert_int_equal(renameat(tree.fd, "twin-used", checkpoint, h->arg), 0);
		tree_text(tree.fd, "twin-used", "");
	}
}

static void a_file_swapped_after_it_was_read_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = swap_file, .arg = (char[]){ "criu/core-1.img" },
	};

	(void)state;
	assert_int_equal(verify_with(&h), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "criu/core-1.img: changed while it was read");
}

static void a_file_swapped_before_it_is_read_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = swap_file, .arg = (char[]){ "criu/pages-1.img" },
	};

	(void)state;
	/* Same size, same content, another file. */
	assert_int_equal(verify_with(&h), -EBADMSG);
	assert_string_equal(error_text(&err), "criu/pages-1.img: changed while it was read");
}

static void change_late(const struct hashing *h, uint64_t done, uint64_t total)
{
	/* After the last byte was read: what was read first is changed now. */
	if (done == total)
		tree_poke(checkpoint, h->arg, 0, 'X');
}

static void a_file_changed_after_it_was_read_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = change_late, .arg = (char[]){ "criu/core-1.img" },
	};

	(void)state;
	assert_int_equal(verify_with(&h), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "criu/core-1.img: changed while the checkpoint was verified");
	at("criu/core-1.img", 0, 0);
}

static void add_late(const struct hashing *h, uint64_t done, uint64_t total)
{
	if (done == total)
		tree_text(checkpoint, h->arg, "late");
}

static void a_file_added_while_it_is_verified_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = add_late, .arg = (char[]){ "criu/late.img" },
	};

	(void)state;
	assert_int_equal(verify_with(&h), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "criu/late.img: changed while the checkpoint was verified");
}

static void remove_late(const struct hashing *h, uint64_t done, uint64_t total)
{
	if (done == total)
		assert_int_equal(unlinkat(checkpoint, h->arg, 0), 0);
}

static void a_file_removed_while_it_is_verified_is_told(void **state)
{
	const struct hashing h = {
		.workers = 1, .progress = remove_late, .arg = (char[]){ "criu/core-1.img" },
	};

	(void)state;
	assert_int_equal(verify_with(&h), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "criu/core-1.img: vanished while the checkpoint was verified");
}

/* -- what is not covered --------------------------------------------------------------------- */

static void logs_and_statistics_of_criu_do_not_matter_in_an_image_directory(void **state)
{
	(void)state;
	tree_text(image, "stats-dump", "others");
	tree_text(image, "stats-restore", "new");
	tree_text(image, "restore.log", "new");
	tree_text(image, "dump.log", "new");
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), 0);
	/* In the store nobody has business to add any. */
	corrupt("criu/dump.log: is not in the manifest");
}

static void logs_are_no_way_in_either(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("/etc/passwd", image, "restore.log"), 0);
	image_corrupt("restore.log: is a symbolic link");
}

static void descriptors_may_come_later_but_not_change(void **state)
{
	struct metadata m = tree_metadata(NULL);

	(void)state;
	tree_text(image, "descriptors.json", "[\"pipe:[2]\"]");
	image_corrupt("descriptors.json: is damaged");
	/* Sealed without them. */
	assert_int_equal(unlinkat(image, "descriptors.json", 0), 0);
	assert_int_equal(seal_image(image, &m, &alone, &found, &err), 0);
	tree_text(image, "descriptors.json", "[\"pipe:[2]\"]");
	assert_int_equal(verify_image(image, 0, &alone, &found, &damage, &err), 0);
	tree_sparse(image, "descriptors.json", 1 << 20);
	image_corrupt("descriptors.json: is not in the manifest");
}

static void left_over_temporary_files_are_refused(void **state)
{
	(void)state;
	tree_text(checkpoint, ".metadata.json.tmp", "");
	corrupt(".metadata.json.tmp: is not in the manifest");
}

#define T(name)   cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BIG(name) cmocka_unit_test_setup_teardown(name, setup_big, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BIG(a_sound_checkpoint_verifies),
		T(one_wrong_byte_is_told_with_its_file),
		BIG(in_a_big_file_the_range_is_told),
		BIG(a_file_cut_short_is_told),
		T(a_file_that_is_gone_is_told),
		T(a_changed_mode_is_told_in_the_store_only),
		T(without_metadata_it_is_no_checkpoint),
		T(without_its_manifest_it_is_corrupt),
		T(damaged_documents_are_told),
		T(a_checkpoint_under_another_name_is_refused),
		T(a_file_exchanged_for_a_link_is_refused),
		T(an_absolute_link_is_refused),
		T(the_image_directory_exchanged_for_a_link_is_refused),
		T(metadata_behind_a_link_is_refused),
		T(metadata_that_is_a_fifo_does_not_block),
		T(a_file_with_a_second_name_is_refused),
		T(a_fifo_in_place_of_a_file_does_not_block),
		T(a_device_in_place_of_a_file_is_not_opened),
		T(a_file_too_many_is_refused),
		T(a_link_to_parent_images_is_refused),
		T(names_with_control_bytes_are_refused),
		T(a_sparse_bomb_is_refused_unread),
		T(a_sparse_bomb_as_a_document_is_refused_unread),
		BIG(a_consistent_bomb_is_refused_by_its_claim),
		T(directories_that_others_write_to_are_refused),
		T(files_of_others_are_refused),
		T(a_file_swapped_after_it_was_read_is_told),
		T(a_file_swapped_before_it_is_read_is_told),
		T(a_file_changed_after_it_was_read_is_told),
		T(a_file_added_while_it_is_verified_is_told),
		T(a_file_removed_while_it_is_verified_is_told),
		T(logs_and_statistics_of_criu_do_not_matter_in_an_image_directory),
		T(logs_are_no_way_in_either),
		T(descriptors_may_come_later_but_not_change),
		T(left_over_temporary_files_are_refused),
	};

	tree_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
