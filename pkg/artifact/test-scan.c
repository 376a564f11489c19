/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "artifact/scan.h"
#include "artifact/test-tree.h"

static struct tree tree;
static struct error err;

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	tree_make(&tree);
	assert_int_equal(mkdirat(tree.fd, "criu", 0700), 0);
	tree_text(tree.fd, "criu/b.img", "b");
	tree_text(tree.fd, "criu/a.img", "aa");
	tree_text(tree.fd, "spec.json", "{}");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tree_remove(&tree);
	return 0;
}

static void refused(const char *why)
{
	_cleanup_scan_ struct scan s = SCAN_NULL;

	assert_int_equal(scan_dir(tree.fd, &layout_checkpoint, &s, &err), -EBADMSG);
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static void files_are_listed_in_order(void **state)
{
	_cleanup_scan_ struct scan s = SCAN_NULL;

	(void)state;
	assert_int_equal(scan_dir(tree.fd, &layout_checkpoint, &s, &err), 0);
	assert_int_equal(s.n_files, 3);
	assert_string_equal(s.files[0].path, "criu/a.img");
	assert_int_equal(s.files[0].size, 2);
	assert_int_equal(s.files[0].mode, 0600);
	assert_string_equal(s.files[1].path, "criu/b.img");
	assert_string_equal(s.files[2].path, "spec.json");
	assert_int_equal(s.n_dirs, 1);
	assert_string_equal(s.dirs[0], "criu");
	assert_ptr_equal(scan_find(&s, "spec.json"), &s.files[2]);
	assert_null(scan_find(&s, "spec.jso"));
}

static void it_can_be_done_twice(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		_cleanup_scan_ struct scan s = SCAN_NULL;

		assert_int_equal(scan_dir(tree.fd, &layout_checkpoint, &s, &err), 0);
		assert_int_equal(s.n_files, 3);
	}
}

/* GHSA-rgh6-rfwx-v388: a link in a checkpoint makes who reads it read something else. */
static void a_symbolic_link_is_refused(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("/etc/shadow", tree.fd, "criu/core-1.img"), 0);
	refused("criu/core-1.img: is a symbolic link");
}

static void a_link_to_a_file_of_the_same_checkpoint_is_refused(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("a.img", tree.fd, "criu/c.img"), 0);
	refused("criu/c.img: is a symbolic link");
}

/* CRIU's own link to the images of an earlier dump; it follows it without a question. */
static void a_parent_link_of_criu_is_refused(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("../../other/criu", tree.fd, "criu/parent"), 0);
	refused("criu/parent: is a symbolic link");
}

static void a_link_for_a_directory_is_refused(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("/tmp", tree.fd, "logs"), 0);
	refused("logs: is a symbolic link");
}

static void a_hard_link_is_refused(void **state)
{
	struct tree other;

	(void)state;
	tree_make(&other);
	assert_int_equal(linkat(tree.fd, "criu/a.img", other.fd, "a", 0), 0);
	refused("criu/a.img: has 2 names (hard links)");
	tree_remove(&other);
}

/* Opening it would wait for a writer that never comes. */
static void a_fifo_is_refused_without_waiting(void **state)
{
	(void)state;
	assert_int_equal(mkfifoat(tree.fd, "criu/pages-1.img", 0600), 0);
	refused("criu/pages-1.img: is a FIFO");
}

static void a_socket_is_refused(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/criu/s.img", tree.path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	refused("criu/s.img: is a socket");
}

static void a_device_node_is_refused(void **state)
{
	(void)state;
	if (mknodat(tree.fd, "criu/zero.img", S_IFCHR | 0600, makedev(1, 5)) < 0)
		skip(); /* not root */
	refused("criu/zero.img: is a device");
}

static void a_file_of_another_user_is_refused(void **state)
{
	(void)state;
	if (fchownat(tree.fd, "spec.json", 12345, -1, 0) < 0)
		skip(); /* not root */
	refused("spec.json: belongs to user 12345");
}

static void a_directory_of_another_user_is_refused(void **state)
{
	(void)state;
	if (fchownat(tree.fd, "criu", 12345, -1, 0) < 0)
		skip(); /* not root */
	refused("criu: belongs to user 12345");
}

static void a_directory_that_others_write_to_is_refused(void **state)
{
	(void)state;
	assert_int_equal(fchmodat(tree.fd, "criu", 0770, 0), 0);
	refused("criu: others may write to it (mode 0770)");
	assert_int_equal(fchmodat(tree.fd, "criu", 0700, 0), 0);
	assert_int_equal(fchmod(tree.fd, 01777), 0);
	refused("the directory: others may write to it (mode 1777)");
	assert_int_equal(fchmod(tree.fd, 0700), 0);
}

static void directories_below_directories_are_refused(void **state)
{
	_cleanup_scan_ struct scan s = SCAN_NULL;

	(void)state;
	assert_int_equal(mkdirat(tree.fd, "criu/sub", 0700), 0);
	refused("criu/sub: is a directory");
	/* An image directory has none at all: containerd's importer cannot take them. */
	assert_int_equal(scan_dir(tree.fd, &layout_image, &s, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "criu: is a directory");
}

static void names_with_control_bytes_are_refused_and_not_repeated(void **state)
{
	(void)state;
	tree_text(tree.fd, "criu/a\x1b]0;evil\a\n.img", "x");
	refused("'criu/a?]0;evil??.img': is not a name that may be here");
}

static void hidden_names_are_refused(void **state)
{
	(void)state;
	tree_text(tree.fd, ".hidden", "x");
	refused("'.hidden': is not a name that may be here");
}

static void names_that_are_no_text_are_refused(void **state)
{
	(void)state;
	tree_text(tree.fd, "criu/\xff", "x");
	refused("'criu/?': is not a name that may be here");
}

static void a_hidden_directory_is_refused(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(tree.fd, ".d", 0700), 0);
	refused(".d: is a directory");
}

static void huge_counts_of_files_are_refused(void **state)
{
	char name[32];

	(void)state;
	for (int i = 0; i < 16384 + 16; i++) {
		(void)snprintf(name, sizeof(name), "criu/f%d", i);
		assert_int_equal(mknodat(tree.fd, name, S_IFREG | 0600, 0), 0);
	}
	refused("there are more than 16400 files");
}

static void huge_counts_of_directories_are_refused(void **state)
{
	char name[32];

	(void)state;
	for (int i = 0; i < 32; i++) {
		(void)snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(mkdirat(tree.fd, name, 0700), 0);
	}
	refused("there are more than 32 directories");
}

static void open_the_first(const char *why)
{
	_cleanup_scan_ struct scan s = SCAN_NULL;
	_cleanup_close_ int fd = -1;

	assert_int_equal(scan_dir(tree.fd, &layout_checkpoint, &s, &err), 0);
	assert_int_equal(scan_open(tree.fd, &s.files[0], &fd, &err), 0);
	assert_int_equal(scan_recheck(fd, &s.files[0], &err), 0);
	(void)close(TAKE_FD(fd));
	if (strcmp(why, "replaced") == 0) {
		tree_text(tree.fd, "new", "aa");
		assert_int_equal(renameat(tree.fd, "new", tree.fd, "criu/a.img"), 0);
	} else if (strcmp(why, "link") == 0) {
		assert_int_equal(unlinkat(tree.fd, "criu/a.img", 0), 0);
		assert_int_equal(symlinkat("b.img", tree.fd, "criu/a.img"), 0);
	} else if (strcmp(why, "fifo") == 0) {
		assert_int_equal(unlinkat(tree.fd, "criu/a.img", 0), 0);
		assert_int_equal(mkfifoat(tree.fd, "criu/a.img", 0600), 0);
	} else if (strcmp(why, "gone") == 0) {
		assert_int_equal(unlinkat(tree.fd, "criu/a.img", 0), 0);
	} else if (strcmp(why, "hard link") == 0) {
		assert_int_equal(linkat(tree.fd, "criu/a.img", tree.fd, "x", 0), 0);
	} else if (strcmp(why, "grown") == 0) {
		tree_text(tree.fd, "criu/a.img", "aaa");
	} else if (strcmp(why, "directory moved") == 0) {
		assert_int_equal(renameat(tree.fd, "criu", tree.fd, "other"), 0);
		assert_int_equal(symlinkat("other", tree.fd, "criu"), 0);
	}
	assert_int_equal(scan_open(tree.fd, &s.files[0], &fd, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "criu/a.img: changed while it was read");
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static void a_file_replaced_since_is_told(void **state)
{
	(void)state;
	open_the_first("replaced");
}

static void a_file_replaced_by_a_link_is_told(void **state)
{
	(void)state;
	open_the_first("link");
}

static void a_file_replaced_by_a_fifo_is_told_without_waiting(void **state)
{
	(void)state;
	open_the_first("fifo");
}

static void a_file_gone_since_is_told(void **state)
{
	(void)state;
	open_the_first("gone");
}

static void a_file_linked_since_is_told(void **state)
{
	(void)state;
	open_the_first("hard link");
}

static void a_file_written_since_is_told(void **state)
{
	(void)state;
	open_the_first("grown");
}

static void a_directory_replaced_by_a_link_is_told(void **state)
{
	(void)state;
	open_the_first("directory moved");
}

static void a_small_file_is_read(void **state)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(3);

	(void)state;
	assert_int_equal(scan_read(tree.fd, "spec.json", &b, &err), 0);
	assert_string_equal(buf_str(&b), "{}");
}

static void what_is_no_small_file_is_not_read(void **state)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(3);

	(void)state;
	assert_int_equal(scan_read(tree.fd, "none", &b, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	tree_text(tree.fd, "big", "123");
	assert_int_equal(scan_read(tree.fd, "big", &b, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "big: is larger than 3 bytes");
	/* A sparse bomb costs nothing. */
	tree_sparse(tree.fd, "sparse", (uint64_t)1 << 40);
	assert_int_equal(scan_read(tree.fd, "sparse", &b, &err), -EBADMSG);
	assert_int_equal(mkfifoat(tree.fd, "fifo", 0600), 0);
	assert_int_equal(scan_read(tree.fd, "fifo", &b, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "fifo: is a FIFO");
	assert_int_equal(symlinkat("spec.json", tree.fd, "link"), 0);
	assert_int_equal(scan_read(tree.fd, "link", &b, &err), -EBADMSG);
	assert_int_equal(linkat(tree.fd, "spec.json", tree.fd, "hard", 0), 0);
	assert_int_equal(scan_read(tree.fd, "hard", &b, &err), -EBADMSG);
	assert_int_equal(scan_read(tree.fd, "criu", &b, &err), -EBADMSG);
	assert_int_equal(buf_len(&b), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(files_are_listed_in_order),
		T(it_can_be_done_twice),
		T(a_symbolic_link_is_refused),
		T(a_link_to_a_file_of_the_same_checkpoint_is_refused),
		T(a_parent_link_of_criu_is_refused),
		T(a_link_for_a_directory_is_refused),
		T(a_hard_link_is_refused),
		T(a_fifo_is_refused_without_waiting),
		T(a_socket_is_refused),
		T(a_device_node_is_refused),
		T(a_file_of_another_user_is_refused),
		T(a_directory_of_another_user_is_refused),
		T(a_directory_that_others_write_to_is_refused),
		T(directories_below_directories_are_refused),
		T(names_with_control_bytes_are_refused_and_not_repeated),
		T(hidden_names_are_refused),
		T(names_that_are_no_text_are_refused),
		T(a_hidden_directory_is_refused),
		T(huge_counts_of_files_are_refused),
		T(huge_counts_of_directories_are_refused),
		T(a_file_replaced_since_is_told),
		T(a_file_replaced_by_a_link_is_told),
		T(a_file_replaced_by_a_fifo_is_told_without_waiting),
		T(a_file_gone_since_is_told),
		T(a_file_linked_since_is_told),
		T(a_file_written_since_is_told),
		T(a_directory_replaced_by_a_link_is_told),
		T(a_small_file_is_read),
		T(what_is_no_small_file_is_not_read),
	};

	tree_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
