/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "artifact/fail.h"
#include "artifact/manifest.h"
#include "artifact/scan.h"
#include "base/cleanup.h"

/* runc and crun read it whole, and it may have come from anywhere. */
#define TOLERATED_SIZE_MAX 65536

struct verify {
	int dirfd;
	const struct layout *layout;
	const char *ref; /* NULL: an image directory */
	uint64_t max_bytes;
	const struct hashing *h;
	struct verify_damage *damage;
	struct arena arena; /* of description and manifest */
	struct metadata metadata;
	struct manifest manifest;
	struct scan scan;
	struct hash_item *items; /* as manifest.files */
};

static void blame(struct verify *v, const char *path, uint64_t offset, uint64_t length)
{
	size_t n = strnlen(path, sizeof(v->damage->path) - 1);

	memcpy(v->damage->path, path, n);
	v->damage->path[n] = 0;
	v->damage->offset = offset;
	v->damage->length = length;
}

/* -- the documents --------------------------------------------------------------------------- */

static int read_description(struct verify *v, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(METADATA_TEXT_MAX + 1);
	int r = scan_read(v->dirfd, v->layout->description, &text, err);

	if (r < 0)
		return r;
	r = v->ref ? metadata_read(buf_bytes(&text), &v->arena, &v->metadata, err)
		   : metadata_read_image(buf_bytes(&text), &v->arena, &v->metadata, err);
	if (r < 0)
		return error_wrap(err, r, "%s", v->layout->description);
	if (v->ref && strcmp(v->ref, v->metadata.ref) != 0)
		return fail_corrupt(err, "%s: is that of checkpoint '%s'",
				    v->layout->description, v->metadata.ref);
	return 0;
}

static int check_manifest_text(const struct layout *layout, const struct metadata_manifest *named,
			       const struct buf *text, struct error *err)
{
	_cleanup_digester_ struct digester *digester = NULL;
	struct digest digest;
	int r = digester_new(&digester);

	if (r == 0)
		r = digester_bytes(digester, buf_bytes(text), &digest);
	if (r < 0)
		return fail_sys(err, r, "hash %s", layout->manifest);
	if (!digest_equal(&digest, &named->sha256))
		return fail_corrupt(err, "%s: is not the one that %s names", layout->manifest,
				    layout->description);
	return 0;
}

int verify_manifest(int dirfd, const struct layout *layout, const struct metadata_manifest *named,
		    struct arena *arena, struct manifest *ret, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(MANIFEST_TEXT_MAX + 1);
	struct manifest m;
	int r = scan_read(dirfd, layout->manifest, &text, err);

	if (r == -ENOENT)
		return fail_corrupt(err, "%s: is missing", layout->manifest);
	if (r == 0)
		r = check_manifest_text(layout, named, &text, err);
	if (r < 0)
		return r;
	r = manifest_read(buf_bytes(&text), layout, arena, &m, err);
	if (r < 0)
		return error_wrap(err, r, "%s", layout->manifest);
	if (m.n_files != named->files || manifest_bytes(&m) != named->bytes)
		return fail_corrupt(err, "%s: holds other files than %s says", layout->manifest,
				    layout->description);
	*ret = m;
	return 0;
}

static int read_manifest(struct verify *v, struct error *err)
{
	uint64_t bytes = v->metadata.manifest.bytes;

	if (v->max_bytes && bytes > v->max_bytes)
		return fail_corrupt(err, "holds %" PRIu64 " bytes, more than the %" PRIu64
				    " that are allowed", bytes, v->max_bytes);
	return verify_manifest(v->dirfd, v->layout, &v->metadata.manifest, &v->arena,
			       &v->manifest, err);
}

/* -- the files ------------------------------------------------------------------------------- */

/* A file that the manifest does not have. */
static int check_extra(struct verify *v, const struct scan_file *f, struct error *err)
{
	enum coverage c = layout_coverage(v->layout, f->path);

	/* Not their temporary names: a description that is in place leaves none. */
	if (c == OWN && (strcmp(f->path, v->layout->description) == 0 ||
			 strcmp(f->path, v->layout->manifest) == 0))
		return 0;
	if (c == UNCOVERED || (c == TOLERATED && f->size <= TOLERATED_SIZE_MAX))
		return 0;
	blame(v, f->path, 0, 0);
	return fail_corrupt(err, "%s: is not in the manifest", f->path);
}

static int check_listed(struct verify *v, const struct manifest_file *want, struct error *err)
{
	const struct scan_file *f = scan_find(&v->scan, want->path);

	blame(v, want->path, 0, 0);
	if (!f)
		return fail_corrupt(err, "%s: is missing", want->path);
	/* Before a byte is read: a file that claims to be huge costs nothing. */
	if (f->size != want->size)
		return fail_corrupt(err, "%s: has %" PRIu64 " bytes instead of %" PRIu64,
				    want->path, f->size, want->size);
	/* Whoever copies image directories about sets modes of his own. */
	if (v->ref && f->mode != want->mode)
		return fail_corrupt(err, "%s: has mode %04o instead of %04o", want->path, f->mode,
				    (unsigned int)want->mode);
	v->items[want - v->manifest.files] = (struct hash_item){
		.file = f,
		.chunk_size = want->chunk_size,
	};
	*v->damage = (struct verify_damage){ 0 };
	return 0;
}

static int check_names(struct verify *v, struct error *err)
{
	int r = scan_dir(v->dirfd, v->layout, &v->scan, err);

	v->items = calloc(v->manifest.n_files + 1, sizeof(*v->items));
	if (r == 0 && !v->items)
		r = fail_sys(err, -ENOMEM, "verify the files");
	for (size_t i = 0; r == 0 && i < v->scan.n_files; i++)
		if (!manifest_find(&v->manifest, v->scan.files[i].path))
			r = check_extra(v, &v->scan.files[i], err);
	for (size_t i = 0; r == 0 && i < v->manifest.n_files; i++)
		r = check_listed(v, &v->manifest.files[i], err);
	return r;
}

static int hash_files(struct verify *v, struct error *err)
{
	size_t bad;
	int r = hash_items(v->h, v->dirfd, v->items, v->manifest.n_files, &v->arena, &bad, err);

	if (r == 0)
		return 0;
	if (bad < v->manifest.n_files)
		blame(v, v->manifest.files[bad].path, 0, 0);
	/* The disk cannot give back what it was given: EUCLEAN is how XFS, ext4 and f2fs say so. */
	if ((r != -EIO && r != -EUCLEAN) || bad == v->manifest.n_files)
		return r;
	if (err) {
		err->code = -EBADMSG;
		err->reason = REASON_IMAGE_CORRUPT;
	}
	return -EBADMSG;
}

/* The first chunk that differs. There is one, for the roots do. */
static int name_chunk(struct verify *v, const struct manifest_file *want,
		      const struct hash_item *got, struct error *err)
{
	uint64_t offset = 0, length;
	size_t i = 0;

	while (i + 1 < want->n_chunks && digest_equal(&want->chunks[i], &got->chunks[i]))
		i++;
	offset = i * want->chunk_size;
	length = want->size - offset < want->chunk_size ? want->size - offset : want->chunk_size;
	blame(v, want->path, offset, length);
	return fail_corrupt(err,
			    "%s: is damaged in the %" PRIu64 " bytes from offset %" PRIu64,
			    want->path, length, offset);
}

static int compare(struct verify *v, struct error *err)
{
	for (size_t i = 0; i < v->manifest.n_files; i++) {
		const struct manifest_file *want = &v->manifest.files[i];
		const struct hash_item *got = &v->items[i];

		if (digest_equal(manifest_digest(want), &got->digest))
			continue;
		if (want->chunk_size)
			return name_chunk(v, want, got, err);
		blame(v, want->path, 0, want->size);
		return fail_corrupt(err, "%s: is damaged", want->path);
	}
	return 0;
}

/* Is the directory at the end what it was at the beginning? Nothing was swapped for reading. */
static int check_unchanged(struct verify *v, struct error *err)
{
	_cleanup_scan_ struct scan now = SCAN_NULL;
	int r = scan_dir(v->dirfd, v->layout, &now, err);

	for (size_t i = 0; r == 0 && i < now.n_files; i++) {
		const struct scan_file *f = &now.files[i];
		const struct scan_file *was = scan_find(&v->scan, f->path);

		/* A log may grow, or come. */
		if (layout_coverage(v->layout, f->path) == UNCOVERED)
			continue;
		if (was && was->ino == f->ino && was->dev == f->dev && was->size == f->size &&
		    was->ctime.tv_sec == f->ctime.tv_sec && was->ctime.tv_nsec == f->ctime.tv_nsec)
			continue;
		blame(v, f->path, 0, 0);
		r = fail_corrupt(err, "%s: changed while the checkpoint was verified", f->path);
	}
	for (size_t i = 0; r == 0 && i < v->manifest.n_files; i++)
		if (!scan_find(&now, v->manifest.files[i].path)) {
			blame(v, v->manifest.files[i].path, 0, 0);
			r = fail_corrupt(err, "%s: vanished while the checkpoint was verified",
					 v->manifest.files[i].path);
		}
	return r;
}

static int verify(struct verify *v, struct metadata_manifest *ret, struct error *err)
{
	int r;

	v->arena = ARENA_LIMIT(METADATA_MEMORY_MAX + 2 * MANIFEST_MEMORY_MAX);
	v->scan = SCAN_NULL;
	*v->damage = (struct verify_damage){ 0 };
	r = read_description(v, err);
	if (r == 0)
		r = read_manifest(v, err);
	if (r == 0)
		r = check_names(v, err);
	if (r == 0)
		r = hash_files(v, err);
	if (r == 0)
		r = compare(v, err);
	if (r == 0)
		r = check_unchanged(v, err);
	if (r == 0)
		*ret = v->metadata.manifest;
	free(v->items);
	scan_done(&v->scan);
	arena_done(&v->arena);
	return r;
}

int verify_checkpoint(int dirfd, const char *ref, uint64_t max_bytes, const struct hashing *h,
		      struct metadata_manifest *ret, struct verify_damage *damage,
		      struct error *err)
{
	struct verify v = {
		.dirfd = dirfd, .layout = &layout_checkpoint, .ref = ref,
		.max_bytes = max_bytes, .h = h, .damage = damage,
	};

	return verify(&v, ret, err);
}

int verify_image(int dirfd, uint64_t max_bytes, const struct hashing *h,
		 struct metadata_manifest *ret, struct verify_damage *damage, struct error *err)
{
	struct verify v = {
		.dirfd = dirfd, .layout = &layout_image, .max_bytes = max_bytes, .h = h,
		.damage = damage,
	};

	return verify(&v, ret, err);
}
