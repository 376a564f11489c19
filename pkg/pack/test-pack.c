/* SPDX-License-Identifier: Apache-2.0 */
/* There and back, and what gives no archive. */
#include "pack/test-rig.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/file.h>

#include "base/fd.h"
#include "pack/infile.h"
#include "pack/member.h"
#include "pack/part.h"

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	rig_open(&rig);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_close(&rig);
	return 0;
}

static void same_file(const char *a, const char *b)
{
	_cleanup_buf_ struct buf one = BUF_NULL, two = BUF_NULL;

	assert_int_equal(file_read(rig.store_dir.fd, a, &one), 0);
	assert_int_equal(file_read(rig.out.fd, b, &two), 0);
	assert_int_equal(buf_len(&one), buf_len(&two));
	assert_memory_equal(buf_str(&one), buf_str(&two), buf_len(&one));
}

static void there_and_back(void **state)
{
	static const char *const files[] = {
		"metadata.json", "manifest.json", "spec.json", "rootfs-diff.tar.zst",
		"criu/core-1.img", "criu/inventory.img", "criu/stats-dump", "criu/kybernate.json",
		"criu/kybernate-manifest.json", "logs/dump.log",
	};
	char a[64], b[64];
	struct stat st;

	(void)state;
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), 0);
	assert_int_equal(fstatat(rig.out.fd, "a.tar", &st, 0), 0);
	assert_int_equal(st.st_size, rig.packed.archive_bytes);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(rig_unpack(&rig, "a.tar", "back"), 0);
	assert_string_equal(rig.unpacked.ref, "a");
	assert_int_equal(rig.unpacked.files, rig.packed.files);
	assert_int_equal(rig.unpacked.bytes, rig.packed.bytes);
	assert_true(digest_equal(&rig.unpacked.image, &rig.packed.image));
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(a, sizeof(a), "a/%s", files[i]);
		(void)snprintf(b, sizeof(b), "back/%s", files[i]);
		same_file(a, b);
	}
	assert_int_equal(fstatat(rig.out.fd, "back", &st, 0), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);
	assert_int_equal(rig_count(&rig), 2);
}

/* As a checkpoint of a store, and as an image directory. */
static void what_comes_back_verifies(void **state)
{
	struct metadata_manifest found;
	struct verify_damage damage;
	int fd, images;

	(void)state;
	rig_seal(&rig, "big", MANIFEST_TREE_MIN + 5);
	assert_int_equal(rig_pack(&rig, "big", "big.tar"), 0);
	assert_true(rig.packed.archive_bytes < rig.packed.bytes / 10);
	assert_int_equal(rig_unpack(&rig, "big.tar", "big"), 0);
	fd = openat(rig.out.fd, "big", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	images = openat(fd, "criu", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(verify_checkpoint(fd, "big", 0, &rig_alone, &found, &damage, &rig.err), 0);
	assert_int_equal(found.bytes, rig.packed.bytes);
	assert_int_equal(verify_image(images, 0, &rig_alone, &found, &damage, &rig.err), 0);
	assert_int_equal(close(images), 0);
	assert_int_equal(close(fd), 0);
}

static void the_same_checkpoint_gives_the_same_archive(void **state)
{
	struct digest first;

	(void)state;
	assert_int_equal(rig_pack(&rig, "a", "one"), 0);
	first = rig.packed.image;
	assert_int_equal(rig_pack(&rig, "a", "two"), 0);
	assert_true(digest_equal(&first, &rig.packed.image));
}

/* -- what others read ------------------------------------------------------------------------- */

/* The names in the layer, one a line, and the content of one of them. */
static void read_layer(const char *file, const char *wanted, struct buf *names, struct buf *content)
{
	struct infile_member members[INFILE_MEMBERS];
	int fd = openat(rig.out.fd, file, O_RDONLY | O_CLOEXEC);
	struct inlayer in = INLAYER_NULL;
	struct inlayer_entry e;
	struct bytes b;

	assert_int_equal(infile_list(fd, members, &rig.err), 0);
	assert_int_equal(inlayer_open(&in, fd, &members[0], UINT64_MAX / 2, &rig.err), 0);
	while (inlayer_next(&in, &e, &rig.err) == 0) {
		assert_int_equal(buf_printf(names, "%s\n", e.name), 0);
		while (strcmp(e.name, wanted) == 0 && inlayer_data(&in, &b, &rig.err) == 0)
			assert_int_equal(buf_append(content, b.p, b.n), 0);
	}
	inlayer_done(&in);
	assert_int_equal(close(fd), 0);
}

/* The names that containerd, CRI-O and checkpointctl look for. */
static void the_layer_has_what_others_expect(void **state)
{
	_cleanup_buf_ struct buf names = BUF_NULL, content = BUF_NULL;
	json_t *doc;

	(void)state;
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), 0);
	read_layer("a.tar", "config.dump", &names, &content);
	assert_string_equal(buf_str(&names),
			    "metadata.json\nmanifest.json\ncheckpoint/\ncheckpoint/core-1.img\n"
			    "checkpoint/descriptors.json\ncheckpoint/inventory.img\n"
			    "checkpoint/kybernate-manifest.json\ncheckpoint/kybernate.json\n"
			    "checkpoint/pages-1.img\ncheckpoint/stats-dump\ndump.log\n"
			    "rootfs-diff.tar\nspec.dump\nconfig.dump\nstatus.dump\n");
	doc = json_loads(buf_str(&content), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(doc, "id")), "c1");
	assert_string_equal(json_string_value(json_object_get(doc, "checkpointedTime")),
			    "2026-11-23T15:22:01Z");
	json_decref(doc);
}

static void names_in_archives(void **state)
{
	char name[MEMBER_NAME_MAX + 1], longest[200] = "criu/";

	(void)state;
	assert_int_equal(member_name("criu/core-1.img", name), 0);
	assert_string_equal(name, "checkpoint/core-1.img");
	assert_int_equal(member_name("container.pb", name), 0);
	assert_string_equal(name, "container.pb");
	assert_int_equal(member_name("logs/stats-dump", name), 0);
	assert_string_equal(name, "stats-dump");
	/* Not in the place of another. */
	assert_int_equal(member_name("stats-dump", name), -EEXIST);
	assert_int_equal(member_name("spec.dump", name), -EEXIST);
	assert_int_equal(member_name("config.dump", name), -EEXIST);
	assert_int_equal(member_name("rootfs-diff.tar", name), -EEXIST);
	assert_int_equal(member_name("checkpoint/core-1.img", name), -EEXIST);
	assert_int_equal(member_name("metadata.json", name), -EEXIST);
	memset(longest + 5, 'x', MEMBER_NAME_MAX - strlen("checkpoint/"));
	assert_int_equal(member_name(longest, name), 0);
	longest[strlen(longest)] = 'x';
	assert_int_equal(member_name(longest, name), -ENAMETOOLONG);
}

/* -- what gives no archive --------------------------------------------------------------------- */

static void refused(int code, enum reason reason, const char *why)
{
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), code);
	assert_int_equal(rig.err.reason, reason);
	assert_string_equal(error_text(&rig.err), why);
	assert_int_equal(rig_count(&rig), 0);
}

static void damage_gives_no_archive(void **state)
{
	(void)state;
	tree_poke(rig.store_dir.fd, "a/criu/pages-1.img", 3, 'X');
	refused(-EBADMSG, REASON_IMAGE_CORRUPT, "checkpoint 'a': criu/pages-1.img: is damaged");
}

static void damage_of_a_chunk_is_told_with_its_place(void **state)
{
	(void)state;
	rig_seal(&rig, "big", MANIFEST_TREE_MIN + 5);
	tree_poke(rig.store_dir.fd, "big/criu/pages-2.img", ((uint64_t)9 << 20) + 7, 'X');
	assert_int_equal(rig_pack(&rig, "big", "big.tar"), -EBADMSG);
	assert_string_equal(error_text(&rig.err),
			    "checkpoint 'big': criu/pages-2.img: is damaged in "
			    "the chunk from offset 8388608");
	assert_int_equal(rig_count(&rig), 0);
}

static void other_files_give_no_archive(void **state)
{
	(void)state;
	tree_text(rig.store_dir.fd, "a/criu/extra.img", "");
	refused(-EBADMSG, REASON_IMAGE_CORRUPT,
		"checkpoint 'a': criu/extra.img: is not in the manifest");
	assert_int_equal(unlinkat(rig.store_dir.fd, "a/criu/extra.img", 0), 0);
	assert_int_equal(unlinkat(rig.store_dir.fd, "a/criu/core-1.img", 0), 0);
	refused(-EBADMSG, REASON_IMAGE_CORRUPT, "checkpoint 'a': criu/core-1.img: is missing");
	assert_int_equal(symlinkat("/etc/passwd", rig.store_dir.fd, "a/criu/core-1.img"), 0);
	refused(-EBADMSG, REASON_IMAGE_CORRUPT,
		"checkpoint 'a': criu/core-1.img: is a symbolic link");
}

static void a_changed_manifest_gives_no_archive(void **state)
{
	(void)state;
	tree_poke(rig.store_dir.fd, "a/manifest.json", 20, ' ');
	refused(-EBADMSG, REASON_IMAGE_CORRUPT,
		"checkpoint 'a': manifest.json: is not the one that metadata.json names");
}

static void names_are_checked(void **state)
{
	(void)state;
	assert_int_equal(rig_pack(&rig, "none", "a.tar"), -ENOENT);
	assert_int_equal(rig.err.reason, REASON_IMAGE_MISSING);
	assert_int_equal(rig_pack(&rig, "../a", "a.tar"), -EINVAL);
	assert_int_equal(rig.err.reason, REASON_REF_INVALID);
	assert_int_equal(rig_pack(&rig, "a", "../a.tar"), -EINVAL);
	assert_int_equal(rig_count(&rig), 0);
}

static void nothing_is_overwritten_unasked(void **state)
{
	(void)state;
	tree_text(rig.out.fd, "a.tar", "mine");
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), -EEXIST);
	assert_int_equal(rig.err.reason, REASON_REF_EXISTS);
	rig.pack.force = true;
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), 0);
	assert_int_equal(rig_unpack(&rig, "a.tar", "back"), 0);
	assert_int_equal(rig_unpack(&rig, "a.tar", "back"), -EEXIST);
	assert_int_equal(rig_count(&rig), 2);
}

static bool stop_at_once(void *arg)
{
	(void)arg;
	return true;
}

static void who_is_stopped_leaves_nothing(void **state)
{
	(void)state;
	rig.pack.stopped = stop_at_once;
	refused(-ECANCELED, REASON_CANCELED, "checkpoint 'a': stopped");
	rig.pack.stopped = NULL;
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), 0);
	rig.unpack.stopped = stop_at_once;
	assert_int_equal(rig_unpack(&rig, "a.tar", "back"), -ECANCELED);
	assert_int_equal(rig_count(&rig), 1);
}

/* A checkpoint that is packed cannot be deleted: both hold a lock. */
static bool lock_is_held(void *arg)
{
	int fd = openat(rig.store_dir.fd, "a", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*(bool *)arg = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	assert_int_equal(close(fd), 0);
	return false;
}

static void a_checkpoint_stays_while_it_is_packed(void **state)
{
	bool held = false;

	(void)state;
	rig.pack.stopped = lock_is_held;
	rig.pack.arg = &held;
	assert_int_equal(rig_pack(&rig, "a", "a.tar"), 0);
	assert_true(held);
	(void)lock_is_held(&held);
	assert_false(held);
}

static void what_a_killed_packer_left_is_removed(void **state)
{
	char part[PART_NAME_MAX];
	int fd;

	(void)state;
	assert_int_equal(part_name("a.tar", part), 0);
	assert_true(part_is(part));
	assert_false(part_is(".a.tar.part"));
	assert_false(part_is("a.tar.12345678.part"));
	assert_false(part_is(".12345678.part"));
	tree_text(rig.out.fd, part, "half");
	tree_text(rig.out.fd, ".a.tar.1234567g.part", "somebody's");
	fd = openat(rig.out.fd, part, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0); /* it lives */
	assert_int_equal(pack_clean(rig.out.fd, &rig.err), 0);
	assert_int_equal(rig_count(&rig), 2);
	assert_int_equal(close(fd), 0);
	assert_int_equal(pack_clean(rig.out.fd, &rig.err), 0);
	assert_int_equal(rig_count(&rig), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(there_and_back),
		T(what_comes_back_verifies),
		T(the_same_checkpoint_gives_the_same_archive),
		T(the_layer_has_what_others_expect),
		T(names_in_archives),
		T(damage_gives_no_archive),
		T(damage_of_a_chunk_is_told_with_its_place),
		T(other_files_give_no_archive),
		T(a_changed_manifest_gives_no_archive),
		T(names_are_checked),
		T(nothing_is_overwritten_unasked),
		T(who_is_stopped_leaves_nothing),
		T(a_checkpoint_stays_while_it_is_packed),
		T(what_a_killed_packer_left_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
