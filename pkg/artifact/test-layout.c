/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "artifact/layout.h"
#include "tests/cmocka.h"

static void names_of_criu_are_valid(void **state)
{
	(void)state;
	assert_true(layout_name_valid("pages-1.img"));
	assert_true(layout_name_valid("netns-ct-9.img"));
	assert_true(layout_name_valid("tmpfs-dev-73.tar.gz.img"));
	assert_true(layout_name_valid("descriptors.json"));
	assert_true(layout_name_valid("0"));
}

static void names_that_are_more_than_names_are_not(void **state)
{
	char longest[LAYOUT_NAME_MAX + 2];

	(void)state;
	assert_false(layout_name_valid(""));
	assert_false(layout_name_valid("."));
	assert_false(layout_name_valid(".."));
	assert_false(layout_name_valid(".hidden"));
	assert_false(layout_name_valid("-rf"));
	assert_false(layout_name_valid("a/b"));
	assert_false(layout_name_valid("a b"));
	assert_false(layout_name_valid("a\nb"));
	assert_false(layout_name_valid("a\x1b[2J"));
	assert_false(layout_name_valid("caf\xc3\xa9"));
	memset(longest, 'a', sizeof(longest));
	longest[LAYOUT_NAME_MAX + 1] = 0;
	assert_false(layout_name_valid(longest));
	longest[LAYOUT_NAME_MAX] = 0;
	assert_true(layout_name_valid(longest));
}

static void paths_have_one_directory_at_most(void **state)
{
	(void)state;
	assert_true(layout_path_valid(&layout_checkpoint, "spec.json"));
	assert_true(layout_path_valid(&layout_checkpoint, "criu/pages-1.img"));
	assert_false(layout_path_valid(&layout_checkpoint, "criu/"));
	assert_false(layout_path_valid(&layout_checkpoint, "/criu"));
	assert_false(layout_path_valid(&layout_checkpoint, "/etc/passwd"));
	assert_false(layout_path_valid(&layout_checkpoint, "criu//x"));
	assert_false(layout_path_valid(&layout_checkpoint, "a/b/c"));
	assert_false(layout_path_valid(&layout_checkpoint, "../x"));
	assert_false(layout_path_valid(&layout_checkpoint, "criu/.."));
	assert_true(layout_path_valid(&layout_image, "pages-1.img"));
	assert_false(layout_path_valid(&layout_image, "criu/pages-1.img"));
}

static void what_is_covered_in_an_image_directory(void **state)
{
	(void)state;
	assert_int_equal(layout_coverage(&layout_image, "pages-1.img"), COVERED);
	assert_int_equal(layout_coverage(&layout_image, "core-1.img"), COVERED);
	assert_int_equal(layout_coverage(&layout_image, "dump.log"), UNCOVERED);
	assert_int_equal(layout_coverage(&layout_image, "stats-dump"), UNCOVERED);
	assert_int_equal(layout_coverage(&layout_image, "stats-restore"), UNCOVERED);
	assert_int_equal(layout_coverage(&layout_image, "restore.log"), UNCOVERED);
	assert_int_equal(layout_coverage(&layout_image, "descriptors.json"), TOLERATED);
	assert_int_equal(layout_coverage(&layout_image, "kybernate.json"), OWN);
	assert_int_equal(layout_coverage(&layout_image, ".kybernate.json.tmp"), OWN);
	assert_int_equal(layout_coverage(&layout_image, "kybernate-manifest.json"), OWN);
	/* Names that only look alike. */
	assert_int_equal(layout_coverage(&layout_image, "dump.log.img"), COVERED);
	assert_int_equal(layout_coverage(&layout_image, "metadata.json"), COVERED);
}

static void in_a_checkpoint_everything_else_is_covered(void **state)
{
	(void)state;
	assert_int_equal(layout_coverage(&layout_checkpoint, "metadata.json"), OWN);
	assert_int_equal(layout_coverage(&layout_checkpoint, ".metadata.json.tmp"), OWN);
	assert_int_equal(layout_coverage(&layout_checkpoint, "manifest.json"), OWN);
	assert_int_equal(layout_coverage(&layout_checkpoint, "criu/metadata.json"), COVERED);
	assert_int_equal(layout_coverage(&layout_checkpoint, "criu/kybernate.json"), COVERED);
	assert_int_equal(layout_coverage(&layout_checkpoint, "criu/stats-dump"), COVERED);
	assert_int_equal(layout_coverage(&layout_checkpoint, "stats-dump"), COVERED);
	assert_int_equal(layout_coverage(&layout_checkpoint, "logs/dump.log"), COVERED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_criu_are_valid),
		cmocka_unit_test(names_that_are_more_than_names_are_not),
		cmocka_unit_test(paths_have_one_directory_at_most),
		cmocka_unit_test(what_is_covered_in_an_image_directory),
		cmocka_unit_test(in_a_checkpoint_everything_else_is_covered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
