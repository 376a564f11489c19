/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives that somebody has made or changed: each is refused, and nothing of it stays. They are
 * forged from a sound one: its layer is taken apart, changed, and sealed again with the digests of
 * what it is now, so that it is not the digests of the image that find it out.
 */
#include "pack/test-rig.h"

#include <archive.h>
#include <archive_entry.h>

#include "artifact/doc.h"
#include "artifact/manifest.h"
#include "base/fd.h"
#include "pack/infile.h"
#include "pack/ocidoc.h"

#define BLOCK 512

static struct rig rig;
static struct buf tar;      /* the sound layer, decompressed */
static struct buf archive;  /* the sound file */
static struct digester *digester;

/* -- tar, by hand ------------------------------------------------------------------------------ */

static void seal_header(uint8_t *h)
{
	unsigned int sum = 0;

	memset(h + 148, ' ', 8);
	for (int i = 0; i < BLOCK; i++)
		sum += h[i];
	(void)snprintf((char *)h + 148, 8, "%06o", sum);
}

static void put_entry(struct buf *to, const char *name, char type, uint64_t size, const void *p,
		      size_t n)
{
	static const uint8_t zeros[BLOCK];
	uint8_t h[BLOCK] = { 0 };

	(void)snprintf((char *)h, 100, "%s", name);
	(void)snprintf((char *)h + 100, 8, "0000600");
	(void)snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)size);
	(void)snprintf((char *)h + 136, 12, "%011o", 0U);
	h[156] = (uint8_t)type;
	memcpy(h + 257, "ustar  ", 8);
	seal_header(h);
	assert_int_equal(buf_append(to, h, BLOCK), 0);
	if (n)
		assert_int_equal(buf_append(to, p, n), 0);
	assert_int_equal(buf_append(to, zeros, (BLOCK - n % BLOCK) % BLOCK), 0);
}

static uint64_t size_at(const uint8_t *h)
{
	return strtoull((const char *)h + 124, NULL, 8);
}

static size_t length_at(const uint8_t *h)
{
	return BLOCK + (size_t)((size_at(h) + BLOCK - 1) / BLOCK * BLOCK);
}

/* The header of an entry. */
static uint8_t *find(struct buf *b, const char *name)
{
	uint8_t *h = b->mem + b->start, *end = b->mem + b->end;

	for (; h < end && *h; h += length_at(h))
		if (strcmp((char *)h, name) == 0)
			return h;
	fail_msg("no entry %s", name);
	return NULL;
}

static void cut(struct buf *b, const uint8_t *at, size_t n)
{
	uint8_t *to = b->mem + (at - b->mem);

	memmove(to, to + n, (size_t)(b->mem + b->end - to) - n);
	b->end -= n;
}

static void insert(struct buf *b, const uint8_t *at, const struct buf *what)
{
	size_t offset = (size_t)(at - b->mem), n = buf_len(what);

	assert_non_null(buf_reserve(b, n));
	memmove(b->mem + offset + n, b->mem + offset, b->end - offset);
	memcpy(b->mem + offset, what->mem + what->start, n);
	buf_commit(b, n);
}

/* -- taking apart, and putting together -------------------------------------------------------- */

static la_ssize_t append(struct archive *a, void *client, const void *p, size_t n)
{
	(void)a;
	assert_int_equal(buf_append(client, p, n), 0);
	return (la_ssize_t)n;
}

static void compress(const struct buf *from, struct buf *to)
{
	struct archive *a = archive_write_new();
	struct archive_entry *e = archive_entry_new();

	archive_entry_set_filetype(e, AE_IFREG);
	assert_int_equal(archive_write_set_format_raw(a), ARCHIVE_OK);
	assert_int_equal(archive_write_add_filter_zstd(a), ARCHIVE_OK);
	assert_int_equal(archive_write_set_bytes_per_block(a, 0), ARCHIVE_OK);
	assert_int_equal(archive_write_set_bytes_in_last_block(a, 1), ARCHIVE_OK);
	assert_int_equal(archive_write_open(a, to, NULL, append, NULL), ARCHIVE_OK);
	assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
	assert_int_equal(archive_write_data(a, from->mem + from->start, buf_len(from)),
			 buf_len(from));
	assert_int_equal(archive_write_free(a), ARCHIVE_OK);
	archive_entry_free(e);
}

static void decompress(const uint8_t *p, size_t n, struct buf *to)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	la_int64_t offset;
	const void *block;
	size_t got;

	assert_int_equal(archive_read_support_format_raw(a), ARCHIVE_OK);
	assert_int_equal(archive_read_support_filter_zstd(a), ARCHIVE_OK);
	assert_int_equal(archive_read_open_memory(a, p, n), ARCHIVE_OK);
	assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
	while (archive_read_data_block(a, &block, &got, &offset) == ARCHIVE_OK)
		assert_int_equal(buf_append(to, block, got), 0);
	assert_int_equal(archive_read_free(a), ARCHIVE_OK);
}

static struct ocidoc_blob blob_of(const struct buf *b)
{
	struct ocidoc_blob blob = { .size = buf_len(b) };

	assert_int_equal(digester_bytes(digester, buf_bytes(b), &blob.digest), 0);
	return blob;
}

static void put_buf(struct buf *to, const char *name, const struct buf *b)
{
	put_entry(to, name, '0', buf_len(b), b->mem + b->start, buf_len(b));
}

static void put_blob(struct buf *to, const struct buf *b)
{
	struct ocidoc_blob blob = blob_of(b);
	char name[OCIDOC_NAME_MAX];

	put_buf(to, ocidoc_blob_name(&blob.digest, name), b);
}

static void end(struct buf *b)
{
	static const uint8_t zeros[2 * BLOCK];

	assert_int_equal(buf_append(b, zeros, sizeof(zeros)), 0);
}

/* An archive with this blob, which is the layer compressed: all digests are right. */
static void wrap_blob(const struct buf *blob, const struct buf *layer, struct buf *to)
{
	_cleanup_buf_ struct buf config = BUF_NULL, image = BUF_NULL, index = BUF_NULL,
				 layout = BUF_NULL;
	struct metadata m = tree_metadata("a");
	struct ocidoc_blob b = blob_of(blob), c, i;
	struct ocidoc_blob diff = blob_of(layer);

	assert_int_equal(ocidoc_write_config(&m, &diff.digest, &config, &rig.err), 0);
	c = blob_of(&config);
	assert_int_equal(ocidoc_write_manifest(&m, &c, &b, &image, &rig.err), 0);
	i = blob_of(&image);
	assert_int_equal(ocidoc_write_index(&m, &i, &index, &rig.err), 0);
	assert_int_equal(ocidoc_write_layout(&layout, &rig.err), 0);
	put_blob(to, blob);
	put_blob(to, &config);
	put_blob(to, &image);
	put_buf(to, OCIDOC_INDEX, &index);
	put_buf(to, OCIDOC_LAYOUT, &layout);
	end(to);
}

static void write_file(const struct buf *b)
{
	tree_write(rig.out.fd, "f", b->mem + b->start, buf_len(b));
}

static void refused_file(const struct buf *b, int code, enum reason reason, const char *why)
{
	write_file(b);
	assert_int_equal(rig_unpack(&rig, "f", "d"), code);
	if (!strstr(error_text(&rig.err), why))
		fail_msg("'%s' is not in '%s'", why, error_text(&rig.err));
	assert_int_equal(rig.err.reason, reason);
	assert_int_equal(rig_count(&rig), 1); /* the file itself */
}

/* As it is now, with digests of what it is now. */
static void refused(const char *why)
{
	_cleanup_buf_ struct buf blob = BUF_NULL, file = BUF_NULL;

	compress(&tar, &blob);
	wrap_blob(&blob, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, why);
}

static int setup(void **state)
{
	struct infile_member members[INFILE_MEMBERS];
	int fd;

	(void)state;
	rig_open(&rig);
	tar = archive = BUF_NULL;
	assert_int_equal(digester_new(&digester), 0);
	assert_int_equal(rig_pack(&rig, "a", "f"), 0);
	fd = openat(rig.out.fd, "f", O_RDONLY | O_CLOEXEC);
	assert_int_equal(infile_list(fd, members, &rig.err), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(file_read(rig.out.fd, "f", &archive), 0);
	decompress(archive.mem + members[0].offset, members[0].size, &tar);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	buf_done(&tar);
	buf_done(&archive);
	digester_free(digester);
	rig_close(&rig);
	return 0;
}

/* The forger's hand is sure: what he did not change is taken. */
static void a_forged_sound_one_is_taken(void **state)
{
	_cleanup_buf_ struct buf blob = BUF_NULL, file = BUF_NULL;

	(void)state;
	compress(&tar, &blob);
	wrap_blob(&blob, &tar, &file);
	write_file(&file);
	assert_int_equal(rig_unpack(&rig, "f", "d"), 0);
}

/* -- kinds of entries -------------------------------------------------------------------------- */

static void becomes(char type, const char *link, const char *why)
{
	_cleanup_buf_ struct buf kept = BUF_NULL;
	uint8_t *h = find(&tar, "checkpoint/pages-1.img");

	assert_int_equal(buf_append(&kept, tar.mem, tar.end), 0);
	h[156] = (uint8_t)type;
	(void)snprintf((char *)h + 157, 100, "%s", link);
	if (type != '0' && type != '1' && type != 'S') {
		size_t n = length_at(h) - BLOCK;

		(void)snprintf((char *)h + 124, 12, "%011o", 0U);
		cut(&tar, h + BLOCK, n);
	}
	seal_header(h);
	refused(why);
	buf_clear(&tar);
	assert_int_equal(buf_append(&tar, kept.mem, kept.end), 0);
}

static void links_and_devices(void **state)
{
	(void)state;
	becomes('2', "/etc/passwd", "no regular file");
	becomes('2', "core-1.img", "no regular file");
	becomes('1', "checkpoint/core-1.img", "link");
	becomes('3', "", "no regular file");
	becomes('4', "", "no regular file");
	becomes('6', "", "no regular file");
	becomes('5', "", "lacks checkpoint/pages-1.img");
}

/* GNU's old form has the map of holes in the header itself. */
static void holes(void **state)
{
	uint8_t *h = find(&tar, "checkpoint/pages-1.img");

	(void)state;
	h[156] = 'S';
	(void)snprintf((char *)h + 386, 12, "%011o", 0U);
	(void)snprintf((char *)h + 398, 12, "%011llo", (unsigned long long)size_at(h));
	(void)snprintf((char *)h + 483, 12, "%011llo", 1ULL << 32);
	seal_header(h);
	refused("has holes");
}

static void headers_of_other_kinds(void **state)
{
	static const char attributes[] = "25 path=../../etc/passwd\n";
	_cleanup_buf_ struct buf pax = BUF_NULL, name = BUF_NULL, link = BUF_NULL;

	(void)state;
	put_entry(&name, "././@LongLink", 'L', 12, "../../../x\0\0", 12);
	insert(&tar, find(&tar, "checkpoint/pages-1.img"), &name);
	refused("lacks checkpoint/pages-1.img");
	cut(&tar, find(&tar, "././@LongLink"), 2 * BLOCK);
	put_entry(&link, "././@LongLink", 'K', 12, "/etc/passwd", 12);
	insert(&tar, find(&tar, "checkpoint/pages-1.img"), &link);
	refused("the layer: ");
	cut(&tar, find(&tar, "././@LongLink"), 2 * BLOCK);
	put_entry(&pax, "PaxHeader", 'x', sizeof(attributes) - 1, attributes,
		  sizeof(attributes) - 1);
	insert(&tar, find(&tar, "checkpoint/pages-1.img"), &pax);
	refused("the layer");
}

/* A long name that says what was expected anyway: no second way to say it. */
static void a_header_that_changes_nothing(void **state)
{
	static const char same[] = "checkpoint/pages-1.img";
	_cleanup_buf_ struct buf name = BUF_NULL;

	(void)state;
	put_entry(&name, "././@LongLink", 'L', sizeof(same), same, sizeof(same));
	insert(&tar, find(&tar, same), &name);
	refused("something between two entries");
}

/* -- names ------------------------------------------------------------------------------------- */

static void renamed(const char *name)
{
	uint8_t *h = find(&tar, "checkpoint/pages-1.img");
	char kept[100];

	memcpy(kept, h, sizeof(kept));
	memset(h, 0, 100);
	(void)snprintf((char *)h, 100, "%s", name);
	seal_header(h);
	refused("lacks checkpoint/pages-1.img");
	memcpy(h, kept, sizeof(kept));
	seal_header(h);
}

static void other_names(void **state)
{
	(void)state;
	renamed("../pages-1.img");
	renamed("checkpoint/../../pages-1.img");
	renamed("/etc/cron.d/pages-1.img");
	renamed("./checkpoint/pages-1.img");
	renamed("checkpoint//pages-1.img");
	renamed("checkpoint/pages-1.img\n");
	renamed("checkpoint/core-1.img"); /* a name twice */
	renamed("checkpoint/a/b/c/d/e/f/pages-1.img");
	renamed("checkpoint/other.img");
	renamed("config.dump");
}

static void files_twice_missing_or_in_another_order(void **state)
{
	_cleanup_buf_ struct buf copy = BUF_NULL;
	uint8_t *h = find(&tar, "checkpoint/pages-1.img");
	size_t n = length_at(h);

	(void)state;
	assert_int_equal(buf_append(&copy, h, n), 0);
	insert(&tar, h, &copy); /* twice */
	refused("lacks checkpoint/stats-dump");
	cut(&tar, find(&tar, "checkpoint/pages-1.img"), n);
	cut(&tar, find(&tar, "checkpoint/pages-1.img"), n);
	refused("lacks checkpoint/pages-1.img");
	insert(&tar, find(&tar, "dump.log"), &copy);
	refused("lacks checkpoint/pages-1.img");
	cut(&tar, find(&tar, "checkpoint/pages-1.img"), n);
	insert(&tar, find(&tar, "metadata.json"), &copy);
	refused("lacks metadata.json");
}

static void extra_files(void **state)
{
	_cleanup_buf_ struct buf other = BUF_NULL, again = BUF_NULL, large = BUF_NULL;
	static const char text[70000];

	(void)state;
	put_entry(&other, "checkpoint/x.img", '0', 1, "x", 1);
	insert(&tar, find(&tar, "config.dump"), &other);
	refused("an entry that is not in the manifest");
	cut(&tar, find(&tar, "checkpoint/x.img"), 2 * BLOCK);
	put_entry(&again, "config.dump", '0', 1, "x", 1);
	insert(&tar, find(&tar, "status.dump"), &again);
	refused("an entry that is not in the manifest");
	cut(&tar, find(&tar, "config.dump"), length_at(find(&tar, "config.dump")));
	cut(&tar, find(&tar, "config.dump"), length_at(find(&tar, "config.dump")));
	put_entry(&large, "config.dump", '0', sizeof(text), text, sizeof(text));
	insert(&tar, find(&tar, "status.dump"), &large);
	refused("an entry that is not in the manifest");
}

/* -- sizes ------------------------------------------------------------------------------------- */

static void other_sizes(void **state)
{
	uint8_t *h = find(&tar, "checkpoint/pages-1.img");

	(void)state;
	(void)snprintf((char *)h + 124, 12, "%011o", 7U);
	seal_header(h);
	refused("criu/pages-1.img: has 7 bytes instead of 21");
	(void)snprintf((char *)h + 124, 12, "%011llo", 1ULL << 32);
	seal_header(h);
	refused("criu/pages-1.img: has 4294967296 bytes instead of 21");
	memset(h + 124, 0xff, 12); /* in base 256: less than nothing */
	seal_header(h);
	refused("the layer");
}

static void other_content(void **state)
{
	(void)state;
	find(&tar, "checkpoint/pages-1.img")[BLOCK + 3] ^= 1;
	refused("criu/pages-1.img: is damaged");
}

static void an_end_that_is_missing_or_goes_on(void **state)
{
	_cleanup_buf_ struct buf second = BUF_NULL;
	static const uint8_t zeros[BLOCK];

	(void)state;
	tar.end -= BLOCK;
	refused("has no proper end");
	tar.end -= BLOCK;
	refused("the layer");
	end(&tar);
	assert_int_equal(buf_append(&tar, zeros, sizeof(zeros)), 0);
	refused("has no proper end");
	tar.end -= BLOCK;
	put_entry(&second, "x", '0', 1, "x", 1);
	assert_int_equal(buf_append(&tar, second.mem, second.end), 0);
	refused("has no proper end");
	tar.end = (size_t)(find(&tar, "checkpoint/pages-1.img") - tar.mem) + BLOCK + 3;
	refused("the layer");
}

/* 256 MiB of zeros are some kilobytes: read as far as it takes to see that they are too many. */
static void bombs(void **state)
{
	_cleanup_buf_ struct buf blob = BUF_NULL, file = BUF_NULL,
				 nothing = BUF_LIMIT((size_t)1 << 30);
	size_t n = (size_t)256 << 20;

	(void)state;
	assert_non_null(buf_reserve(&nothing, n));
	memset(nothing.mem, 0, n);
	buf_commit(&nothing, n);
	tar.max = (size_t)1 << 30;
	assert_int_equal(buf_append(&tar, nothing.mem, n), 0);
	compress(&tar, &blob);
	assert_true(buf_len(&blob) < 1 << 20);
	wrap_blob(&blob, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "the layer: has no proper end");
	buf_clear(&blob);
	buf_clear(&file);
	memset(nothing.mem, 'x', BLOCK); /* in the first header's place */
	compress(&nothing, &blob);
	wrap_blob(&blob, &nothing, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "the layer");
}

static void more_than_is_allowed(void **state)
{
	(void)state;
	rig.unpack.max_bytes = 100;
	refused("more than the 100 that are allowed");
}

/* -- what describes it ------------------------------------------------------------------------- */

static void set_content(const char *name, const struct buf *text)
{
	_cleanup_buf_ struct buf entry = BUF_NULL;
	uint8_t *h = find(&tar, name);
	size_t offset = (size_t)(h - tar.mem);

	put_buf(&entry, name, text);
	cut(&tar, h, length_at(h));
	insert(&tar, tar.mem + offset, &entry);
}

/* Changes the manifest, and the metadata so that they fit. */
static void forge_manifest(void (*change)(struct manifest_file *files, size_t n))
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX + MANIFEST_MEMORY_MAX);
	_cleanup_buf_ struct buf text = BUF_NULL, about = BUF_NULL;
	const uint8_t *h = find(&tar, "manifest.json"), *d = find(&tar, "metadata.json");
	struct manifest_file files[32];
	struct manifest m;
	struct metadata metadata;

	assert_int_equal(manifest_read(bytes_of(h + BLOCK, size_at(h)), &layout_checkpoint, &arena,
				       &m, &rig.err), 0);
	assert_int_equal(
		metadata_read(bytes_of(d + BLOCK, size_at(d)), &arena, &metadata, &rig.err), 0);
	assert_true(m.n_files < ARRAY_SIZE(files));
	memcpy(files, m.files, m.n_files * sizeof(*files));
	change(files, m.n_files);
	m.files = files;
	assert_int_equal(manifest_write(&m, &text, &rig.err), 0);
	metadata.manifest.sha256 = blob_of(&text).digest;
	metadata.manifest.bytes = manifest_bytes(&m);
	assert_int_equal(metadata_write(&metadata, &about, &rig.err), 0);
	set_content("manifest.json", &text);
	set_content("metadata.json", &about);
}

static struct manifest_file *pages(struct manifest_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(files[i].path, "criu/pages-1.img") == 0)
			return &files[i];
	return NULL;
}

static void with_setuid(struct manifest_file *files, size_t n)
{
	pages(files, n)->mode = 04755;
}

static void huge(struct manifest_file *files, size_t n)
{
	pages(files, n)->size = (uint64_t)1 << 50;
}

static void too_long(struct manifest_file *files, size_t n)
{
	pages(files, n)->path =
		"criu/pages-1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
}

static void a_manifest_with_other_modes(void **state)
{
	(void)state;
	forge_manifest(with_setuid);
	refused("criu/pages-1.img: has mode 4755 instead of 0600");
}

static void a_manifest_with_names_that_fit_no_archive(void **state)
{
	(void)state;
	forge_manifest(too_long);
	refused("cannot be in an archive");
}

static void a_manifest_of_more_than_there_is_room_for(void **state)
{
	_cleanup_buf_ struct buf blob = BUF_NULL, file = BUF_NULL;

	(void)state;
	forge_manifest(huge);
	compress(&tar, &blob);
	wrap_blob(&blob, &tar, &file);
	refused_file(&file, -ENOSPC, REASON_STORE_FULL, "unpack 11258999");
}

static void descriptions_that_do_not_fit(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL;

	(void)state;
	find(&tar, "manifest.json")[BLOCK + 1] ^= 1;
	refused("manifest.json: is not the one that metadata.json names");
	assert_int_equal(buf_append_str(&text, "{}"), 0);
	set_content("metadata.json", &text);
	refused("metadata.json: ");
}

/* What restores read is described a second time: it is verified as they will. */
static void images_that_do_not_verify(void **state)
{
	(void)state;
	find(&tar, "checkpoint/kybernate.json")[BLOCK + 3] ^= 1;
	refused("criu/kybernate.json: is damaged");
}

/* -- the file itself --------------------------------------------------------------------------- */

static void refused_archive(const char *why)
{
	refused_file(&archive, -EBADMSG, REASON_IMAGE_CORRUPT, why);
}

static void no_archive_at_all(void **state)
{
	(void)state;
	buf_clear(&archive);
	refused_archive("the archive");
	assert_int_equal(buf_append_str(&archive, "what is this?"), 0);
	refused_archive("the archive");
	end(&archive);
	refused_archive("the archive");
}

static void files_that_are_cut_off_or_go_on(void **state)
{
	size_t whole = archive.end;

	(void)state;
	for (size_t n = whole - 1; n > 0; n = n > 700 ? n - 700 : 0) {
		archive.end = n;
		refused_archive("");
	}
	archive.end = whole;
	assert_int_equal(buf_append_str(&archive, "x"), 0);
	refused_archive("has no proper end");
	archive.end = whole;
	end(&archive);
	refused_archive("has no proper end");
	archive.end = whole;
	archive.mem[whole - 1] = 'x';
	refused_archive("has no proper end");
}

/* No bit of it may change, but in the padding and the times of the members. */
static void flipped_bits(void **state)
{
	unsigned int taken = 0;

	(void)state;
	for (size_t i = 0; i < archive.end; i += 97) {
		archive.mem[i] ^= 0x10;
		write_file(&archive);
		if (rig_unpack(&rig, "f", "d") == 0) {
			assert_int_equal(path_remove_tree(rig.out.fd, "d"), 0);
			taken++;
		}
		archive.mem[i] ^= 0x10;
		assert_int_equal(rig_count(&rig), 1);
	}
	/* Padding is up to 511 bytes a member. */
	assert_true(taken < INFILE_MEMBERS * 7);
}

static void rename_entry(uint8_t *h, const char *name)
{
	memset(h, 0, 100);
	memcpy(h, name, strlen(name));
	seal_header(h);
}

static void members_of_other_kinds(void **state)
{
	_cleanup_buf_ struct buf another = BUF_NULL;
	uint8_t *h = find(&archive, OCIDOC_LAYOUT);

	(void)state;
	assert_non_null(h);
	h[156] = '2';
	(void)snprintf((char *)h + 157, 100, "/etc/passwd");
	seal_header(h);
	refused_archive("no regular file");
	memset(h + 157, 0, 100);
	h[156] = '0';
	rename_entry(h, "../oci-layout");
	refused_archive("oci-layout: is missing");
	rename_entry(h, OCIDOC_INDEX);
	refused_archive("has a name twice");
	rename_entry(h, OCIDOC_LAYOUT);
	put_entry(&another, "x", '0', 1, "x", 1);
	insert(&archive, find(&archive, OCIDOC_LAYOUT), &another);
	refused_archive("has more than 5 members");
	cut(&archive, find(&archive, "x"), 2 * BLOCK);
	cut(&archive, find(&archive, OCIDOC_LAYOUT), 2 * BLOCK);
	refused_archive("has 4 members instead of 5");
}

/* Other documents in the place of the index. */
static void other_documents(void **state)
{
	static const char *const texts[] = {
		"", "[]", "{}", "null", "{\"manifests\":[]}", "{\"manifests\":[1,2]}",
		"{\"manifests\":[{\"mediaType\":\"text/plain\"}]}",
		"{\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
		"\"digest\":\"sha256:../../../../etc/passwd\",\"size\":1}]}",
		"{\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
		"\"digest\":\"sha256:00000000000000000000000000000000000000000000000000000000000000"
		"00\",\"size\":1}]}",
	};
	size_t at = (size_t)(find(&archive, OCIDOC_INDEX) - archive.mem);

	(void)state;
	cut(&archive, archive.mem + at, length_at(archive.mem + at));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_buf_ struct buf index = BUF_NULL;

		put_entry(&index, OCIDOC_INDEX, '0', strlen(texts[i]), texts[i], strlen(texts[i]));
		insert(&archive, archive.mem + at, &index);
		refused_archive("");
		cut(&archive, archive.mem + at, buf_len(&index));
	}
}

static void layers_that_are_not_compressed_or_twice(void **state)
{
	_cleanup_buf_ struct buf once = BUF_NULL, twice = BUF_NULL, file = BUF_NULL;

	(void)state;
	wrap_blob(&tar, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "is not compressed by zstd");
	compress(&tar, &once);
	compress(&once, &twice);
	buf_clear(&file);
	wrap_blob(&twice, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "is not compressed by zstd");
}

/* The compressed layer goes on: with rubbish, or with another frame. */
static void layers_with_something_behind(void **state)
{
	_cleanup_buf_ struct buf blob = BUF_NULL, more = BUF_NULL, nothing = BUF_NULL,
				 file = BUF_NULL;

	(void)state;
	compress(&tar, &blob);
	assert_int_equal(buf_append_str(&blob, "rubbish behind"), 0);
	wrap_blob(&blob, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "the layer");
	buf_clear(&blob);
	buf_clear(&file);
	compress(&tar, &blob);
	assert_int_equal(buf_append_str(&nothing, "more"), 0);
	compress(&nothing, &more);
	assert_int_equal(buf_append(&blob, more.mem, more.end), 0);
	wrap_blob(&blob, &tar, &file);
	refused_file(&file, -EBADMSG, REASON_IMAGE_CORRUPT, "the layer: has no proper end");
}

/* Nothing is written where a name leads elsewhere. */
static void the_target_is_a_name(void **state)
{
	(void)state;
	assert_int_equal(rig_unpack(&rig, "f", "../d"), -EINVAL);
	assert_int_equal(rig_unpack(&rig, "f", ".."), -EEXIST);
	assert_int_equal(rig_unpack(&rig, "f", ""), -EINVAL);
	assert_int_equal(symlinkat("/tmp", rig.out.fd, "d"), 0);
	assert_int_equal(rig_unpack(&rig, "f", "d"), -EEXIST);
	assert_int_equal(rig_count(&rig), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_forged_sound_one_is_taken),
		T(links_and_devices),
		T(holes),
		T(headers_of_other_kinds),
		T(a_header_that_changes_nothing),
		T(other_names),
		T(files_twice_missing_or_in_another_order),
		T(extra_files),
		T(other_sizes),
		T(other_content),
		T(an_end_that_is_missing_or_goes_on),
		T(bombs),
		T(more_than_is_allowed),
		T(a_manifest_with_other_modes),
		T(a_manifest_with_names_that_fit_no_archive),
		T(a_manifest_of_more_than_there_is_room_for),
		T(descriptions_that_do_not_fit),
		T(images_that_do_not_verify),
		T(no_archive_at_all),
		T(files_that_are_cut_off_or_go_on),
		T(flipped_bits),
		T(members_of_other_kinds),
		T(other_documents),
		T(layers_that_are_not_compressed_or_twice),
		T(layers_with_something_behind),
		T(the_target_is_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
