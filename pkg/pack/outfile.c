/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/outfile.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "artifact/fail.h"

#define BLOCK 512

/* -- what libarchive calls --------------------------------------------------------------------- */

static int write_all(struct outfile *o, uint64_t at, const void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t w = pwrite(o->fd, (const char *)p + done, n - done, (off_t)(at + done));

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0) {
			o->code = w < 0 ? -errno : -EIO;
			return o->code;
		}
		done += (size_t)w;
	}
	return 0;
}

/* An archive that is freed before its end is completed: zeros for what is missing of an entry. */
static la_ssize_t refuse(struct archive *a)
{
	archive_set_error(a, ECANCELED, "dropped");
	return -1;
}

static la_ssize_t append(struct archive *a, void *client, const void *p, size_t n)
{
	struct outfile *o = client;

	if (o->dropped)
		return refuse(a);
	if (write_all(o, o->at, p, n) < 0) {
		archive_set_error(a, -o->code, "write");
		return -1;
	}
	o->at += n;
	return (la_ssize_t)n;
}

/* Compressed bytes of the layer. */
static la_ssize_t append_blob(struct archive *a, void *client, const void *p, size_t n)
{
	struct outfile *o = client;

	if (o->dropped)
		return refuse(a);
	if (digester_add(o->blob, p, n) < 0) {
		o->code = -ELIBACC;
		return -1;
	}
	return append(a, client, p, n);
}

/* Bytes of the layer's tar archive: on to the compression. */
static la_ssize_t append_tar(struct archive *a, void *client, const void *p, size_t n)
{
	struct outfile *o = client;

	if (o->dropped)
		return refuse(a);
	if (digester_add(o->diff, p, n) < 0) {
		o->code = -ELIBACC;
		return -1;
	}
	if (archive_write_data(o->zstd, p, n) != (la_ssize_t)n) {
		archive_set_error(a, EIO, "compress");
		return -1;
	}
	return (la_ssize_t)n;
}

/* The header of the layer, which is all that is written of a member with that name and size. */
static la_ssize_t put_header(struct archive *a, void *client, const void *p, size_t n)
{
	struct outfile *o = client;

	if (o->dropped)
		return refuse(a);
	if (n != BLOCK || write_all(o, 0, p, n) < 0) {
		archive_set_error(a, EIO, "write");
		return -1;
	}
	return (la_ssize_t)n;
}

/* -- the layer --------------------------------------------------------------------------------- */

static int failed(struct outfile *o, struct archive *a, struct error *err)
{
	int code = o->code;

	if (code == 0 && o->zstd)
		code = -archive_errno(o->zstd);
	if (code == 0 && a)
		code = -archive_errno(a);
	/* libarchive numbers some of its own errors from below 0. */
	return fail_sys(err, code < 0 ? code : -EIO, "write the archive");
}

/* A tar archive that is handed on as it is made, without padding at its end. */
static struct archive *new_tar(struct outfile *o, archive_write_callback *writer)
{
	struct archive *a = archive_write_new();

	if (a && (archive_write_set_format_gnutar(a) != ARCHIVE_OK ||
		  archive_write_set_bytes_per_block(a, 0) != ARCHIVE_OK ||
		  archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
		  archive_write_open(a, o, NULL, writer, NULL) != ARCHIVE_OK)) {
		(void)archive_write_free(a);
		a = NULL;
	}
	return a;
}

/* What is compressed is a stream of bytes to libarchive: its format "raw", of one entry. */
static struct archive *new_zstd(struct outfile *o)
{
	struct archive *a = archive_write_new();
	struct archive_entry *e = archive_entry_new();
	bool ok = a && e;

	if (ok) {
		archive_entry_set_filetype(e, AE_IFREG);
		/* ARCHIVE_WARN: it would have run a program. */
		ok = archive_write_set_format_raw(a) == ARCHIVE_OK &&
		     archive_write_add_filter_zstd(a) == ARCHIVE_OK &&
		     archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK &&
		     archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
		     archive_write_open(a, o, NULL, append_blob, NULL) == ARCHIVE_OK &&
		     archive_write_header(a, e) == ARCHIVE_OK;
	}
	archive_entry_free(e);
	if (!ok && a) {
		(void)archive_write_free(a);
		a = NULL;
	}
	return a;
}

int outfile_begin(struct outfile *o, struct error *err)
{
	int r = digester_new(&o->blob);

	if (r == 0)
		r = digester_new(&o->diff);
	if (r == 0)
		r = digester_begin(o->blob);
	if (r == 0)
		r = digester_begin(o->diff);
	if (r < 0)
		return fail_sys(err, r, "write the archive");
	o->at = BLOCK;
	o->zstd = new_zstd(o);
	o->tar = o->zstd ? new_tar(o, append_tar) : NULL;
	return o->tar ? 0 : fail_sys(err, -ENOMEM, "write the archive");
}

static int put_entry(struct archive *a, const char *name, bool dir, uint64_t size, time_t mtime)
{
	struct archive_entry *e = archive_entry_new();
	int r;

	if (!e)
		return ARCHIVE_FATAL;
	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, dir ? AE_IFDIR : AE_IFREG);
	archive_entry_set_perm(e, dir ? 0700 : 0600);
	archive_entry_set_size(e, (la_int64_t)size);
	archive_entry_set_mtime(e, mtime, 0);
	r = archive_write_header(a, e);
	archive_entry_free(e);
	return r;
}

int outfile_entry(struct outfile *o, const char *name, bool dir, uint64_t size, time_t mtime,
		  struct error *err)
{
	return put_entry(o->tar, name, dir, size, mtime) == ARCHIVE_OK ? 0 : failed(o, o->tar, err);
}

int outfile_data(struct outfile *o, const void *p, size_t n, struct error *err)
{
	return archive_write_data(o->tar, p, n) == (la_ssize_t)n ? 0 : failed(o, o->tar, err);
}

static int pad(struct outfile *o)
{
	static const char zeros[BLOCK];
	size_t n = (BLOCK - o->at % BLOCK) % BLOCK;
	int r = write_all(o, o->at, zeros, n);

	o->at += n;
	return r;
}

static int write_header(struct outfile *o, const struct ocidoc_blob *layer)
{
	struct archive *a = new_tar(o, put_header);
	char name[OCIDOC_NAME_MAX];
	int r;

	if (!a)
		return -ENOMEM;
	r = put_entry(a, ocidoc_blob_name(&layer->digest, name), false, layer->size, 0);
	/* Its content is there already. */
	o->dropped = true;
	(void)archive_write_free(a);
	o->dropped = false;
	return r == ARCHIVE_OK ? 0 : -EIO;
}

int outfile_end_layer(struct outfile *o, struct ocidoc_blob *ret_layer, struct digest *ret_diff,
		      struct error *err)
{
	struct ocidoc_blob layer;
	struct digest diff;
	int r;

	if (archive_write_close(o->tar) != ARCHIVE_OK || archive_write_close(o->zstd) != ARCHIVE_OK)
		return failed(o, o->tar, err);
	layer.size = o->at - BLOCK;
	r = digester_end(o->blob, &layer.digest);
	if (r == 0)
		r = digester_end(o->diff, &diff);
	if (r == 0)
		r = pad(o);
	if (r == 0)
		r = write_header(o, &layer);
	if (r == 0) {
		o->members = new_tar(o, append);
		r = o->members ? 0 : -ENOMEM;
	}
	if (r < 0)
		return fail_sys(err, o->code ? o->code : r, "write the archive");
	*ret_layer = layer;
	*ret_diff = diff;
	return 0;
}

int outfile_member(struct outfile *o, const char *name, struct bytes content, struct error *err)
{
	if (put_entry(o->members, name, false, content.n, 0) != ARCHIVE_OK ||
	    archive_write_data(o->members, content.p, content.n) != (la_ssize_t)content.n)
		return failed(o, o->members, err);
	return 0;
}

int outfile_end(struct outfile *o, struct error *err)
{
	return archive_write_close(o->members) == ARCHIVE_OK ? 0 : failed(o, o->members, err);
}

void outfile_done(struct outfile *o)
{
	o->dropped = true;
	(void)archive_write_free(o->tar);
	(void)archive_write_free(o->zstd);
	(void)archive_write_free(o->members);
	o->tar = o->zstd = o->members = NULL;
	digester_free(o->blob);
	digester_free(o->diff);
	o->blob = o->diff = NULL;
}
