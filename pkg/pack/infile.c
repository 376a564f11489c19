/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/infile.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "base/cleanup.h"

#define BLOCK     512
#define TAIL      ((uint64_t)2 * BLOCK)
#define READ_SIZE ((size_t)128 << 10)
/* What the inner reader may have asked for beyond what it needed. */
#define AHEAD     ((uint64_t)1 << 20)

static inline void read_free_p(struct archive **a)
{
	(void)archive_read_free(*a);
}

#define _cleanup_read_ _cleanup_(read_free_p)

/* -- entries --------------------------------------------------------------------------------- */

static int unsound(struct archive *a, const char *what, struct error *err)
{
	char shown[160];

	if (archive_errno(a) == ENOMEM)
		return fail_sys(err, -ENOMEM, "read %s", what);
	return fail_corrupt(err, "%s cannot be read: %s", what,
			    doc_clean_text(archive_error_string(a) ? archive_error_string(a) : "?",
					   shown, sizeof(shown)));
}

static int next_header(struct archive *a, const char *what, struct archive_entry **ret,
		       struct error *err)
{
	int r = archive_read_next_header(a, ret);

	if (r == ARCHIVE_EOF)
		return 1;
	/* A warning is about something that a packer of ours has not written. */
	return r == ARCHIVE_OK ? 0 : unsound(a, what, err);
}

/* Where the one behind it begins. */
static int place_entry(struct archive *a, struct archive_entry *e, uint64_t *at, struct error *err)
{
	la_int64_t size = archive_entry_size(e);
	uint64_t padded;

	if (archive_format(a) != ARCHIVE_FORMAT_TAR_GNUTAR || !archive_entry_size_is_set(e) ||
	    size < 0 || (uint64_t)size > DOC_NUMBER_MAX)
		return fail_corrupt(err, "an entry is in another form than a packer writes it");
	if (archive_entry_hardlink(e) || archive_entry_symlink(e) ||
	    archive_entry_sparse_count(e) > 0)
		return fail_corrupt(err, "an entry is a link or has holes");
	if ((uint64_t)archive_read_header_position(a) != *at)
		return fail_corrupt(err, "there is something between two entries");
	padded = ((uint64_t)size + BLOCK - 1) / BLOCK * BLOCK;
	*at += BLOCK + padded;
	return 0;
}

static int copy_name(struct archive_entry *e, char *to, size_t size, struct error *err)
{
	const char *name = archive_entry_pathname(e);
	size_t n = name ? strlen(name) : 0;

	if (n == 0 || n >= size)
		return fail_corrupt(err, "an entry has no name, or one that is too long");
	memcpy(to, name, n + 1);
	return 0;
}

/* -- the file -------------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static int check_end(int fd, uint64_t at, struct error *err)
{
	uint8_t tail[TAIL];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at the archive");
	if ((uint64_t)st.st_size != at + TAIL ||
	    pread(fd, tail, sizeof(tail), (off_t)at) != (ssize_t)sizeof(tail) ||
	    !is_zero(tail, sizeof(tail)))
		return fail_corrupt(err, "the archive: has no proper end");
	return 0;
}

static int add_member(struct archive *a, struct archive_entry *e, struct infile_member *members,
		      size_t n, uint64_t *at, struct error *err)
{
	struct infile_member *m = &members[n];
	int r;

	if (n == INFILE_MEMBERS)
		return fail_corrupt(err, "the archive: has more than %d members", INFILE_MEMBERS);
	if (archive_entry_filetype(e) != AE_IFREG)
		return fail_corrupt(err, "the archive: has a member that is no regular file");
	m->offset = *at + BLOCK;
	m->size = (uint64_t)archive_entry_size(e);
	r = place_entry(a, e, at, err);
	if (r == 0)
		r = copy_name(e, m->name, sizeof(m->name), err);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (strcmp(members[i].name, m->name) == 0)
			r = fail_corrupt(err, "the archive: has a name twice");
	return r;
}

int infile_list(int fd, struct infile_member *ret, struct error *err)
{
	_cleanup_read_ struct archive *a = archive_read_new();
	struct archive_entry *e;
	uint64_t at = 0;
	size_t n = 0;
	int r;

	if (!a || archive_read_support_format_gnutar(a) != ARCHIVE_OK)
		return fail_sys(err, -ENOMEM, "read the archive");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return fail_sys(err, errno, "read the archive");
	if (archive_read_open_fd(a, fd, READ_SIZE) != ARCHIVE_OK)
		return unsound(a, "the archive", err);
	while ((r = next_header(a, "the archive", &e, err)) == 0) {
		r = add_member(a, e, ret, n++, &at, err);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if (n != INFILE_MEMBERS)
		return fail_corrupt(err, "the archive: has %zu members instead of %d", n,
				    INFILE_MEMBERS);
	return check_end(fd, at, err);
}

/* -- the layer ------------------------------------------------------------------------------- */

static la_ssize_t read_blob(struct archive *a, void *client, const void **ret)
{
	struct inlayer *l = client;
	uint64_t left = l->end - l->from;
	ssize_t n;

	do
		n = pread(l->fd, l->buffer, left < READ_SIZE ? (size_t)left : READ_SIZE,
			  (off_t)l->from);
	while (n < 0 && errno == EINTR);
	if (n < 0 || (n == 0 && left)) {
		l->code = n < 0 ? -errno : -ENODATA;
		archive_set_error(a, EIO, "the file cannot be read");
		return -1;
	}
	if (n && digester_add(l->blob, l->buffer, (size_t)n) < 0) {
		l->code = -ELIBACC;
		return -1;
	}
	l->from += (uint64_t)n;
	*ret = l->buffer;
	return n;
}

/* What comes out of the decompression, on to the tar format. */
static la_ssize_t read_tar(struct archive *a, void *client, const void **ret)
{
	struct inlayer *l = client;
	la_int64_t offset;
	size_t n;
	int r;

	do
		r = archive_read_data_block(l->zstd, ret, &n, &offset);
	while (r == ARCHIVE_OK && n == 0);
	if (r == ARCHIVE_EOF)
		return 0;
	if (r != ARCHIVE_OK) {
		archive_set_error(a, EINVAL, "the compressed data are damaged");
		return -1;
	}
	l->out += n;
	if (l->out > l->max + AHEAD) {
		archive_set_error(a, EFBIG, "it holds more than it says");
		return -1;
	}
	if (digester_add(l->diff, *ret, n) < 0) {
		l->code = -ELIBACC;
		return -1;
	}
	return (la_ssize_t)n;
}

static int layer_failed(struct inlayer *l, struct archive *a, struct error *err)
{
	return l->code ? fail_sys(err, l->code, "read the layer") : unsound(a, "the layer", err);
}

/* Only zstd: libarchive would take a layer that is not compressed, too. */
static int open_zstd(struct inlayer *l, struct error *err)
{
	struct archive_entry *e;

	if (archive_read_support_format_raw(l->zstd) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(l->zstd) != ARCHIVE_OK)
		return fail_sys(err, -ENOMEM, "read the layer");
	if (archive_read_open(l->zstd, l, NULL, read_blob, NULL) != ARCHIVE_OK ||
	    archive_read_next_header(l->zstd, &e) != ARCHIVE_OK)
		return layer_failed(l, l->zstd, err);
	if (archive_filter_count(l->zstd) != 2 ||
	    archive_filter_code(l->zstd, 0) != ARCHIVE_FILTER_ZSTD)
		return fail_corrupt(err, "the layer: is not compressed by zstd");
	return 0;
}

int inlayer_open(struct inlayer *l, int fd, const struct infile_member *blob, uint64_t max,
		 struct error *err)
{
	int r = digester_new(&l->blob);

	if (r == 0)
		r = digester_new(&l->diff);
	if (r == 0)
		r = digester_begin(l->blob);
	if (r == 0)
		r = digester_begin(l->diff);
	l->buffer = malloc(READ_SIZE);
	l->zstd = archive_read_new();
	l->tar = archive_read_new();
	if (r == 0 && (!l->buffer || !l->zstd || !l->tar))
		r = -ENOMEM;
	if (r < 0)
		return fail_sys(err, r, "read the layer");
	l->fd = fd;
	l->from = blob->offset;
	l->end = blob->offset + blob->size;
	l->max = max;
	r = open_zstd(l, err);
	if (r < 0)
		return r;
	if (archive_read_support_format_gnutar(l->tar) != ARCHIVE_OK)
		return fail_sys(err, -ENOMEM, "read the layer");
	return archive_read_open(l->tar, l, NULL, read_tar, NULL) == ARCHIVE_OK
		       ? 0
		       : layer_failed(l, l->tar, err);
}

int inlayer_next(struct inlayer *l, struct inlayer_entry *ret, struct error *err)
{
	struct archive_entry *e;
	unsigned int type;
	int r = next_header(l->tar, "the layer", &e, err);

	if (r < 0 && l->code)
		return layer_failed(l, l->tar, err);
	if (r != 0)
		return r;
	type = archive_entry_filetype(e);
	if (type != AE_IFREG && type != AE_IFDIR)
		return fail_corrupt(err, "the layer: has an entry that is no regular file");
	ret->dir = type == AE_IFDIR;
	ret->size = (uint64_t)archive_entry_size(e);
	r = place_entry(l->tar, e, &l->at, err);
	if (r == 0)
		r = copy_name(e, ret->name, sizeof(ret->name), err);
	if (r == 0 && ret->dir && ret->size)
		r = fail_corrupt(err, "the layer: has a directory with content");
	return r < 0 ? error_wrap(err, r, "the layer") : 0;
}

int inlayer_data(struct inlayer *l, struct bytes *ret, struct error *err)
{
	la_int64_t offset;
	const void *p;
	size_t n;
	int r = archive_read_data_block(l->tar, &p, &n, &offset);

	if (r == ARCHIVE_EOF)
		return 1;
	if (r != ARCHIVE_OK)
		return layer_failed(l, l->tar, err);
	*ret = bytes_of(p, n);
	return 0;
}

/*
 * What the tar reader has not asked for: the rest of the last blocks, or what somebody has put
 * behind them, of which a byte is enough.
 */
static int read_rest(struct inlayer *l, struct error *err)
{
	const void *p;
	la_ssize_t n;

	l->max = l->at + TAIL;
	do
		n = read_tar(l->tar, l, &p);
	while (n > 0 && l->out <= l->max);
	if (n < 0)
		return layer_failed(l, l->tar, err);
	if (l->out != l->max)
		return fail_corrupt(err, "the layer: has no proper end");
	return l->from == l->end ? 0 : fail_corrupt(err, "the layer: has something behind its end");
}

int inlayer_finish(struct inlayer *l, const struct digest *blob, const struct digest *diff,
		   struct error *err)
{
	struct digest is_blob, is_diff;
	int r = read_rest(l, err);

	if (r < 0)
		return r;
	r = digester_end(l->blob, &is_blob);
	if (r == 0)
		r = digester_end(l->diff, &is_diff);
	if (r < 0)
		return fail_sys(err, r, "hash the layer");
	if (!digest_equal(&is_blob, blob) || !digest_equal(&is_diff, diff))
		return fail_corrupt(err, "the layer: is damaged");
	return 0;
}

void inlayer_done(struct inlayer *l)
{
	(void)archive_read_free(l->tar);
	(void)archive_read_free(l->zstd);
	digester_free(l->blob);
	digester_free(l->diff);
	free(l->buffer);
	*l = INLAYER_NULL;
}
