/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/manifest.h"
#include "artifact/scan.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"

#define FILE_MODE 0600

/* The two files that describe an image directory, as a checkpoint's manifest has them. */
#define IMAGE_DOCS 2

/* -- documents ------------------------------------------------------------------------------- */

static int remove_name(int dirfd, const char *name, struct error *err)
{
	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		return fail_sys(err, errno, "remove %s", name);
	return 0;
}

/* The description goes first: without it the rest is nothing. */
static int remove_docs(int dirfd, const struct layout *layout, struct error *err)
{
	char tmp[LAYOUT_TMP_MAX];
	int r = remove_name(dirfd, layout->description, err);

	if (r == 0)
		r = remove_name(dirfd, layout_tmp_name(layout->description, tmp), err);
	if (r == 0)
		r = remove_name(dirfd, layout->manifest, err);
	if (r == 0)
		r = remove_name(dirfd, layout_tmp_name(layout->manifest, tmp), err);
	return r;
}

static int sync_fd(int fd, const char *what, struct error *err)
{
	return fsync(fd) < 0 ? fail_sys(err, errno, "write %s to the disk", what) : 0;
}

/* Puts a document in place, whole or not at all. The caller syncs the directory. */
static int write_doc(int dirfd, const char *name, const struct buf *text, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char tmp[LAYOUT_TMP_MAX];
	int r;

	(void)layout_tmp_name(name, tmp);
	/* O_EXCL: never through a link or into a FIFO that somebody has put there. */
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	if (fd < 0)
		return fail_sys(err, errno, "create %s", tmp);
	/* The manifest says so, whatever the umask is. */
	r = fchmod(fd, FILE_MODE) < 0 ? -errno : 0;
	if (r == 0)
		r = fd_write_all(fd, buf_bytes(text).p, buf_len(text));
	if (r < 0)
		r = fail_sys(err, r, "write %s", name);
	if (r == 0)
		r = sync_fd(fd, name, err);
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = fail_sys(err, errno, "rename %s", tmp);
	if (r < 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}

/* What a description says of the manifest whose text this is. */
static int describe(const struct manifest *m, const struct buf *text,
		    struct metadata_manifest *ret, struct error *err)
{
	_cleanup_digester_ struct digester *digester = NULL;
	int r = digester_new(&digester);

	ret->files = m->n_files;
	ret->bytes = manifest_bytes(m);
	if (r == 0)
		r = digester_bytes(digester, buf_bytes(text), &ret->sha256);
	return r < 0 ? fail_sys(err, r, "hash the manifest") : 0;
}

/*
 * Writes manifest and description, in this order, and has the directory on the disk when both are.
 * The texts are the caller's to look at afterwards.
 */
static int write_docs(int dirfd, const struct layout *layout, const struct manifest *manifest,
		      const struct metadata *metadata, struct buf *manifest_text,
		      struct buf *description, struct metadata_manifest *ret, struct error *err)
{
	struct metadata m = *metadata;
	int r = manifest_write(manifest, manifest_text, err);

	if (r == 0)
		r = describe(manifest, manifest_text, &m.manifest, err);
	if (r < 0)
		return error_wrap(err, r, "%s", layout->manifest);
	r = layout == &layout_image ? metadata_write_image(&m, description, err)
				    : metadata_write(&m, description, err);
	if (r < 0)
		return error_wrap(err, r, "%s", layout->description);
	r = write_doc(dirfd, layout->manifest, manifest_text, err);
	if (r == 0)
		r = sync_fd(dirfd, "the directory", err);
	if (r == 0)
		r = write_doc(dirfd, layout->description, description, err);
	if (r == 0)
		r = sync_fd(dirfd, "the directory", err);
	if (r == 0)
		*ret = m.manifest;
	return r;
}

/* -- files ----------------------------------------------------------------------------------- */

static bool is_covered(const struct layout *layout, const struct scan_file *f)
{
	enum coverage c = layout_coverage(layout, f->path);

	return c == COVERED || c == TOLERATED;
}

/*
 * Before the hashing: sets the mode, and has the kernel begin to write the file back, so that the
 * disk works while we hash what is still in memory.
 */
static int prepare_files(int dirfd, const struct layout *layout, const struct scan *scan,
			 bool set_mode, struct error *err)
{
	for (size_t i = 0; i < scan->n_files; i++) {
		const struct scan_file *f = &scan->files[i];
		_cleanup_close_ int fd = -1;
		int r;

		if (!is_covered(layout, f))
			continue;
		r = scan_open(dirfd, f, &fd, err);
		if (r < 0)
			return r;
		if (set_mode && f->mode != FILE_MODE && fchmod(fd, FILE_MODE) < 0)
			return fail_sys(err, errno, "set the mode of %s", f->path);
		/* A hint: what matters is the fsync() later. */
		(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	return 0;
}

/* After the hashing: everything that was hashed is on the disk, and still what was hashed. */
static int sync_files(int dirfd, const struct layout *layout, const struct scan *scan,
		      struct error *err)
{
	for (size_t i = 0; i < scan->n_files; i++) {
		const struct scan_file *f = &scan->files[i];
		_cleanup_close_ int fd = -1;
		int r;

		if (!is_covered(layout, f))
			continue;
		r = scan_open(dirfd, f, &fd, err);
		if (r == 0)
			r = sync_fd(fd, f->path, err);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < scan->n_dirs; i++) {
		_cleanup_close_ int fd = path_open_beneath(dirfd, scan->dirs[i],
							   O_RDONLY | O_DIRECTORY);
		int r;

		if (fd < 0)
			return fail_sys(err, fd, "open %s", scan->dirs[i]);
		r = sync_fd(fd, scan->dirs[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_image_doc(const char *path)
{
	return strcmp(path, LAYOUT_CRIU "/kybernate.json") == 0 ||
	       strcmp(path, LAYOUT_CRIU "/kybernate-manifest.json") == 0;
}

/* Has a file come or gone since the scan? The documents of an image directory have come. */
static int check_complete(int dirfd, const struct layout *layout, const struct scan *before,
			  struct error *err)
{
	_cleanup_scan_ struct scan now = SCAN_NULL;
	int r = scan_dir(dirfd, layout, &now, err);

	for (size_t i = 0; r == 0 && i < now.n_files; i++) {
		const struct scan_file *f = &now.files[i];

		if (is_covered(layout, f) && !is_image_doc(f->path) && !scan_find(before, f->path))
			r = fail_corrupt(err, "%s: came while it was sealed", f->path);
	}
	for (size_t i = 0; r == 0 && i < before->n_files; i++) {
		const struct scan_file *f = &before->files[i];

		if (is_covered(layout, f) && !scan_find(&now, f->path))
			r = fail_corrupt(err, "%s: vanished while it was sealed", f->path);
	}
	return r;
}

/* -- the list of files ----------------------------------------------------------------------- */

/* A manifest being made, with room for the image documents. */
struct draft {
	struct manifest_file *files;
	size_t n;
	struct arena arena; /* of the chunks */
};

static void draft_done(struct draft *d)
{
	free(d->files);
	arena_done(&d->arena);
}

static size_t count_big(const struct scan *scan)
{
	size_t n = 0;

	for (size_t i = 0; i < scan->n_files; i++)
		n += manifest_chunk_size(scan->files[i].size, 1) != 0;
	return n;
}

static struct manifest_file file_of(const struct hash_item *item)
{
	struct manifest_file f = {
		.path = item->file->path,
		.size = item->file->size,
		.mode = item->file->mode,
		.chunk_size = item->chunk_size,
		.chunks = item->chunks,
		.n_chunks = item->n_chunks,
	};

	if (f.chunk_size)
		f.root = item->digest;
	else
		f.sha256 = item->digest;
	return f;
}

/* Hashes what the layout covers. */
static int hash_scan(int dirfd, const struct layout *layout, const struct scan *scan,
		     const struct hashing *h, struct draft *ret, struct error *err)
{
	_cleanup_free_ struct hash_item *items = calloc(scan->n_files + 1, sizeof(*items));
	size_t n_big = count_big(scan), n = 0;
	int r;

	ret->arena = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
	ret->files = calloc(scan->n_files + IMAGE_DOCS, sizeof(*ret->files));
	if (!items || !ret->files)
		return fail_sys(err, -ENOMEM, "hash the files");
	for (size_t i = 0; i < scan->n_files; i++) {
		struct hash_item *item = &items[n];

		if (!is_covered(layout, &scan->files[i]))
			continue;
		*item = (struct hash_item){
			.file = &scan->files[i],
			.chunk_size = manifest_chunk_size(scan->files[i].size, n_big),
		};
		if (h->followed)
			item->n_known = follow_known(h->followed, item->file, item->chunk_size,
						     &item->known, &item->chunk_size);
		n++;
	}
	if (n + IMAGE_DOCS > MANIFEST_FILES_MAX)
		return fail_corrupt(err, "there are more than %d files",
				    MANIFEST_FILES_MAX - IMAGE_DOCS);
	r = hash_items(h, dirfd, items, n, &ret->arena, NULL, err);
	for (size_t i = 0; r == 0 && i < n; i++)
		ret->files[ret->n++] = file_of(&items[i]);
	return r;
}

/* The manifest of the images, out of that of the checkpoint: the same digests, other paths. */
static int select_images(const struct draft *all, struct draft *ret, struct error *err)
{
	static const char prefix[] = LAYOUT_CRIU "/";

	ret->files = calloc(all->n + 1, sizeof(*ret->files));
	if (!ret->files)
		return fail_sys(err, -ENOMEM, "list the images");
	for (size_t i = 0; i < all->n; i++) {
		struct manifest_file f = all->files[i];
		enum coverage c;

		if (strncmp(f.path, prefix, sizeof(prefix) - 1) != 0)
			continue;
		f.path += sizeof(prefix) - 1;
		c = layout_coverage(&layout_image, f.path);
		if (c == COVERED || c == TOLERATED)
			ret->files[ret->n++] = f;
	}
	if (!ret->n)
		return fail_corrupt(err, "there are no images in " LAYOUT_CRIU "/");
	return 0;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct manifest_file *)a)->path,
		      ((const struct manifest_file *)b)->path);
}

/* Adds a document that was written after the others were hashed. */
static int add_doc(struct draft *d, const char *path, const struct buf *text, struct error *err)
{
	_cleanup_digester_ struct digester *digester = NULL;
	struct manifest_file f = { .path = path, .size = buf_len(text), .mode = FILE_MODE };
	int r = digester_new(&digester);

	if (r == 0)
		r = digester_bytes(digester, buf_bytes(text), &f.sha256);
	if (r < 0)
		return fail_sys(err, r, "hash %s", path);
	d->files[d->n++] = f;
	qsort(d->files, d->n, sizeof(*d->files), compare_paths);
	return 0;
}

/* Describes criu/ by itself, and adds the description to the checkpoint's files. */
static int seal_criu_dir(int work, const struct metadata *m, struct draft *all, struct error *err)
{
	_cleanup_close_ int fd = path_open_beneath(work, LAYOUT_CRIU, O_RDONLY | O_DIRECTORY);
	_cleanup_buf_ struct buf list = BUF_NULL, description = BUF_NULL;
	_cleanup_(draft_done) struct draft images = { 0 };
	struct metadata_manifest ignored;
	struct manifest manifest;
	int r;

	if (fd < 0)
		return fail_sys(err, fd, "open " LAYOUT_CRIU);
	r = select_images(all, &images, err);
	if (r < 0)
		return r;
	manifest = (struct manifest){ images.files, images.n };
	r = write_docs(fd, &layout_image, &manifest, m, &list, &description, &ignored, err);
	if (r == 0)
		r = add_doc(all, LAYOUT_CRIU "/kybernate.json", &description, err);
	if (r == 0)
		r = add_doc(all, LAYOUT_CRIU "/kybernate-manifest.json", &list, err);
	return r;
}

/* -- sealing --------------------------------------------------------------------------------- */

/* Clears away what an earlier attempt has left, and finds out what is to be sealed. */
static int begin(int work, struct scan *scan, struct error *err)
{
	_cleanup_scan_ struct scan before = SCAN_NULL;
	_cleanup_close_ int criu = path_open_beneath(work, LAYOUT_CRIU, O_RDONLY | O_DIRECTORY);
	int r;

	if (criu < 0)
		return criu == -ENOENT || criu == -ELOOP || criu == -ENOTDIR
			       ? fail_corrupt(err, "there is no directory " LAYOUT_CRIU)
			       : fail_sys(err, criu, "open " LAYOUT_CRIU);
	r = remove_docs(work, &layout_checkpoint, err);
	if (r == 0)
		r = remove_docs(criu, &layout_image, err);
	if (r == 0)
		r = scan_dir(work, &layout_checkpoint, &before, err);
	if (r == 0)
		r = prepare_files(work, &layout_checkpoint, &before, true, err);
	/* Again, for the times that prepare_files() has changed. */
	return r < 0 ? r : scan_dir(work, &layout_checkpoint, scan, err);
}

static int seal_contents(int work, const struct metadata *m, const struct hashing *h,
			 struct metadata_manifest *ret, struct error *err)
{
	_cleanup_buf_ struct buf list = BUF_NULL, description = BUF_NULL;
	_cleanup_(draft_done) struct draft all = { 0 };
	_cleanup_scan_ struct scan scan = SCAN_NULL;
	struct manifest manifest;
	int r = begin(work, &scan, err);

	if (r == 0)
		r = hash_scan(work, &layout_checkpoint, &scan, h, &all, err);
	if (r == 0)
		r = seal_criu_dir(work, m, &all, err);
	if (r == 0)
		r = sync_files(work, &layout_checkpoint, &scan, err);
	if (r == 0)
		r = check_complete(work, &layout_checkpoint, &scan, err);
	if (r < 0)
		return r;
	manifest = (struct manifest){ all.files, all.n };
	return write_docs(work, &layout_checkpoint, &manifest, m, &list, &description, ret, err);
}

/* The last step: from here on it exists. */
static int publish(int store_fd, const char *work_name, const char *ref, struct error *err)
{
	int r;

	/* rename() replaces an empty directory only, and that is no checkpoint. */
	if (renameat(store_fd, work_name, store_fd, ref) < 0)
		return errno == EEXIST || errno == ENOTEMPTY
			       ? error_reason(err, REASON_REF_EXISTS, -EEXIST,
					      "a checkpoint '%s' exists", ref)
			       : fail_sys(err, errno, "rename the checkpoint to its name");
	r = sync_fd(store_fd, "the store's directory", err);
	/* It may vanish with the power, so it must not be counted on. */
	if (r < 0)
		(void)renameat(store_fd, ref, store_fd, work_name);
	return r;
}

int seal_checkpoint(int store_fd, const char *work_name, const struct metadata *m,
		    const struct hashing *h, struct metadata_manifest *ret, struct error *err)
{
	_cleanup_close_ int work = path_open_beneath(store_fd, work_name,
						     O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	struct metadata_manifest sealed;
	int r;

	if (!m->ref || !ref_valid(m->ref))
		return error_reason(err, REASON_REF_INVALID, -EINVAL, "no valid name to seal as");
	if (work < 0)
		return fail_sys(err, work, "open the work directory");
	r = seal_contents(work, m, h, &sealed, err);
	if (r == 0)
		r = publish(store_fd, work_name, m->ref, err);
	if (r == 0)
		*ret = sealed;
	return r;
}

int seal_image(int dirfd, const struct metadata *m, const struct hashing *h,
	       struct metadata_manifest *ret, struct error *err)
{
	_cleanup_buf_ struct buf list = BUF_NULL, description = BUF_NULL;
	_cleanup_(draft_done) struct draft all = { 0 };
	_cleanup_scan_ struct scan scan = SCAN_NULL;
	struct manifest manifest;
	int r = remove_docs(dirfd, &layout_image, err);

	if (r == 0)
		r = scan_dir(dirfd, &layout_image, &scan, err);
	if (r == 0)
		r = prepare_files(dirfd, &layout_image, &scan, false, err);
	if (r == 0)
		r = hash_scan(dirfd, &layout_image, &scan, h, &all, err);
	if (r == 0)
		r = sync_files(dirfd, &layout_image, &scan, err);
	if (r == 0)
		r = check_complete(dirfd, &layout_image, &scan, err);
	if (r < 0)
		return r;
	if (!all.n)
		return fail_corrupt(err, "there are no images in the directory");
	manifest = (struct manifest){ all.files, all.n };
	return write_docs(dirfd, &layout_image, &manifest, m, &list, &description, ret, err);
}
