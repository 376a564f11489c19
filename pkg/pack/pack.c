/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/scan.h"
#include "artifact/verify.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "pack/filecheck.h"
#include "pack/member.h"
#include "pack/outfile.h"
#include "pack/part.h"

#define READ_SIZE ((size_t)1 << 20)
#define EXTRA_MAX ((size_t)64 << 10)

struct packing {
	const struct pack_options *options;
	int in; /* the checkpoint's directory */
	struct arena arena;
	struct buf text; /* of metadata.json */
	struct metadata metadata;
	struct manifest manifest;
	struct scan scan;
	struct digester *digester;
	uint8_t *buffer; /* READ_SIZE */
	struct outfile out;
};

static int check_stopped(const struct packing *p, struct error *err)
{
	if (p->options->stopped && p->options->stopped(p->options->arg))
		return error_reason(err, REASON_CANCELED, -ECANCELED, "stopped");
	return 0;
}

/* -- what is there --------------------------------------------------------------------------- */

static int read_description(struct packing *p, const char *ref, struct error *err)
{
	int r = scan_read(p->in, layout_checkpoint.description, &p->text, err);

	if (r == 0)
		r = metadata_read(buf_bytes(&p->text), &p->arena, &p->metadata, err);
	if (r == 0 && strcmp(p->metadata.ref, ref) != 0)
		r = fail_corrupt(err, "is that of checkpoint '%s'", p->metadata.ref);
	if (r < 0)
		return error_wrap(err, r, "%s", layout_checkpoint.description);
	return verify_manifest(p->in, &layout_checkpoint, &p->metadata.manifest, &p->arena,
			       &p->manifest, err);
}

static bool is_own(const char *path)
{
	return strcmp(path, layout_checkpoint.description) == 0 ||
	       strcmp(path, layout_checkpoint.manifest) == 0;
}

/* The files of the manifest and no others, before anything is written. */
static int check_names(struct packing *p, struct error *err)
{
	int r = scan_dir(p->in, &layout_checkpoint, &p->scan, err);

	for (size_t i = 0; r == 0 && i < p->scan.n_files; i++)
		if (!is_own(p->scan.files[i].path) &&
		    !manifest_find(&p->manifest, p->scan.files[i].path))
			r = fail_corrupt(err, "%s: is not in the manifest", p->scan.files[i].path);
	for (size_t i = 0; r == 0 && i < p->manifest.n_files; i++) {
		const struct manifest_file *want = &p->manifest.files[i];
		const struct scan_file *f = scan_find(&p->scan, want->path);

		if (!f)
			r = fail_corrupt(err, "%s: is missing", want->path);
		else if (f->size != want->size || f->mode != want->mode)
			r = fail_corrupt(err, "%s: has another size or mode than the manifest says",
					 want->path);
	}
	return r;
}

/* -- the layer ------------------------------------------------------------------------------- */

static int copy(struct packing *p, int fd, const struct manifest_file *want, struct error *err)
{
	struct filecheck check;
	uint64_t left = want->size;
	int r = filecheck_begin(&check, p->digester, want, err);

	while (r == 0 && left) {
		size_t n = left < READ_SIZE ? (size_t)left : READ_SIZE;
		ssize_t got = read(fd, p->buffer, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail_sys(err, errno, "read %s", want->path);
		if (got == 0)
			break; /* filecheck_end() tells */
		left -= (uint64_t)got;
		r = filecheck_add(&check, p->buffer, (size_t)got, err);
		if (r == 0)
			r = outfile_data(&p->out, p->buffer, (size_t)got, err);
		if (r == 0)
			r = check_stopped(p, err);
	}
	return r < 0 ? r : filecheck_end(&check, err);
}

static int put_file(struct packing *p, const struct manifest_file *want, const char *name,
		    struct error *err)
{
	const struct scan_file *f = scan_find(&p->scan, want->path);
	_cleanup_close_ int fd = -1;
	int r = scan_open(p->in, f, &fd, err);

	if (r == 0)
		r = outfile_entry(&p->out, name, false, want->size, f->mtime.tv_sec, err);
	if (r == 0)
		r = copy(p, fd, want, err);
	return r < 0 ? r : scan_recheck(fd, f, err);
}

static time_t sealed_at(const struct packing *p)
{
	const struct scan_file *f = scan_find(&p->scan, layout_checkpoint.description);

	return f ? f->mtime.tv_sec : 0;
}

static int put_text(struct packing *p, const char *name, struct bytes text, struct error *err)
{
	int r = outfile_entry(&p->out, name, false, text.n, sealed_at(p), err);

	return r < 0 ? r : outfile_data(&p->out, text.p, text.n, err);
}

/* The manifest's own text: is it still the one that was read? */
static int put_manifest(struct packing *p, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(MANIFEST_TEXT_MAX + 1);
	struct digest is;
	int r = scan_read(p->in, layout_checkpoint.manifest, &text, err);

	if (r < 0)
		return r;
	r = digester_bytes(p->digester, buf_bytes(&text), &is);
	if (r < 0)
		return fail_sys(err, r, "hash %s", layout_checkpoint.manifest);
	if (!digest_equal(&is, &p->metadata.manifest.sha256))
		return fail_corrupt(err, "%s: changed while it was read",
				    layout_checkpoint.manifest);
	return put_text(p, layout_checkpoint.manifest, buf_bytes(&text), err);
}

static int put_files(struct packing *p, struct error *err)
{
	char name[MEMBER_NAME_MAX + 1];
	int r = 0;

	for (size_t i = 0; r == 0 && i < p->manifest.n_files; i++) {
		const struct manifest_file *want = &p->manifest.files[i];

		r = member_name(want->path, name);
		if (r < 0)
			return fail_sys(err, r, "%s: has no name in an archive", want->path);
		r = put_file(p, want, name, err);
	}
	return r;
}

static int put_extras(struct packing *p, struct error *err)
{
	_cleanup_buf_ struct buf config = BUF_LIMIT(EXTRA_MAX), status = BUF_LIMIT(EXTRA_MAX);
	int r = ocidoc_write_config_dump(&p->metadata, &config, err);

	if (r == 0)
		r = ocidoc_write_status_dump(&p->metadata, &status, err);
	/* In the order of the alphabet: see unpack.c. */
	if (r == 0)
		r = put_text(p, MEMBER_CONFIG, buf_bytes(&config), err);
	if (r == 0)
		r = put_text(p, MEMBER_STATUS, buf_bytes(&status), err);
	return r;
}

static int put_layer(struct packing *p, struct error *err)
{
	int r = outfile_begin(&p->out, err);

	if (r == 0)
		r = put_text(p, layout_checkpoint.description, buf_bytes(&p->text), err);
	if (r == 0)
		r = put_manifest(p, err);
	/* checkpointctl wants an entry for the directory. */
	if (r == 0)
		r = outfile_entry(&p->out, MEMBER_IMAGES, true, 0, sealed_at(p), err);
	if (r == 0)
		r = put_files(p, err);
	return r < 0 ? r : put_extras(p, err);
}

/* -- the archive ----------------------------------------------------------------------------- */

static int put_blob(struct packing *p, struct bytes text, struct ocidoc_blob *ret,
		    struct error *err)
{
	char name[OCIDOC_NAME_MAX];
	int r = digester_bytes(p->digester, text, &ret->digest);

	if (r < 0)
		return fail_sys(err, r, "write the archive");
	ret->size = text.n;
	return outfile_member(&p->out, ocidoc_blob_name(&ret->digest, name), text, err);
}

static int put_documents(struct packing *p, const struct ocidoc_blob *layer,
			 const struct digest *diff, struct digest *ret_image, struct error *err)
{
	_cleanup_buf_ struct buf config = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 manifest = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 index = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 layout = BUF_LIMIT(OCIDOC_TEXT_MAX);
	struct ocidoc_blob config_blob, manifest_blob;
	int r = ocidoc_write_config(&p->metadata, diff, &config, err);

	if (r == 0)
		r = put_blob(p, buf_bytes(&config), &config_blob, err);
	if (r == 0)
		r = ocidoc_write_manifest(&p->metadata, &config_blob, layer, &manifest, err);
	if (r == 0)
		r = put_blob(p, buf_bytes(&manifest), &manifest_blob, err);
	if (r == 0)
		r = ocidoc_write_index(&p->metadata, &manifest_blob, &index, err);
	if (r == 0)
		r = outfile_member(&p->out, OCIDOC_INDEX, buf_bytes(&index), err);
	if (r == 0)
		r = ocidoc_write_layout(&layout, err);
	if (r == 0)
		r = outfile_member(&p->out, OCIDOC_LAYOUT, buf_bytes(&layout), err);
	if (r == 0)
		*ret_image = manifest_blob.digest;
	return r;
}

static int put_archive(struct packing *p, struct pack_result *ret, struct error *err)
{
	struct ocidoc_blob layer;
	struct digest diff;
	int r = put_layer(p, err);

	if (r == 0)
		r = outfile_end_layer(&p->out, &layer, &diff, err);
	if (r == 0)
		r = put_documents(p, &layer, &diff, &ret->image, err);
	if (r == 0)
		r = outfile_end(&p->out, err);
	if (r == 0 && fsync(p->out.fd) < 0)
		r = fail_sys(err, errno, "write the archive");
	if (r < 0)
		return r;
	ret->files = p->metadata.manifest.files;
	ret->bytes = p->metadata.manifest.bytes;
	ret->archive_bytes = p->out.at;
	return check_stopped(p, err);
}

static int exists(struct error *err, const char *name)
{
	return error_reason(err, REASON_REF_EXISTS, -EEXIST, "there is a file %s already", name);
}

static int publish(int dirfd, const char *part, const char *name, bool force, struct error *err)
{
	if (renameat2(dirfd, part, dirfd, name, force ? 0 : RENAME_NOREPLACE) < 0)
		return errno == EEXIST ? exists(err, name)
				       : fail_sys(err, errno, "rename the archive");
	return fsync(dirfd) < 0 ? fail_sys(err, errno, "sync the archive's directory") : 0;
}

/* Under a name of its own first; the lock says that somebody writes it. */
static int write_archive(struct packing *p, int dirfd, const char *name, struct pack_result *ret,
			 struct error *err)
{
	char part[PART_NAME_MAX];
	int r = part_name(name, part);

	if (r < 0)
		return fail_sys(err, r, "name the archive '%s'", name);
	p->out.fd = openat(dirfd, part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (p->out.fd < 0)
		return fail_sys(err, errno, "create the archive");
	r = flock(p->out.fd, LOCK_EX | LOCK_NB) < 0 ? fail_sys(err, errno, "lock the archive") : 0;
	if (r == 0)
		r = put_archive(p, ret, err);
	if (r == 0)
		r = publish(dirfd, part, name, p->options->force, err);
	if (r < 0)
		(void)unlinkat(dirfd, part, 0);
	outfile_done(&p->out);
	(void)close(p->out.fd);
	return r;
}

static int prepare(struct packing *p, struct error *err)
{
	int r = digester_new(&p->digester);

	p->buffer = malloc(READ_SIZE);
	if (r == 0 && !p->buffer)
		r = -ENOMEM;
	return r < 0 ? fail_sys(err, r, "pack the checkpoint") : 0;
}

int pack_checkpoint(const struct store *s, const char *ref, int dirfd, const char *name,
		    const struct pack_options *options, struct pack_result *ret, struct error *err)
{
	struct packing p = {
		.options = options,
		.arena = ARENA_LIMIT(METADATA_MEMORY_MAX + MANIFEST_MEMORY_MAX),
		.text = BUF_LIMIT(METADATA_TEXT_MAX + 1),
		.scan = SCAN_NULL,
		.out = OUTFILE_NULL,
	};
	struct store_pin pin = STORE_PIN_NULL;
	struct pack_result result;
	struct stat st;
	int r = 0;

	/* Told before an hour's work; the rename tells in any case. */
	if (!options->force && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return exists(err, name);
	r = store_pin(s, ref, &pin, err);
	if (r < 0)
		return r;
	p.in = pin.fd;
	r = prepare(&p, err);
	if (r == 0)
		r = read_description(&p, ref, err);
	if (r == 0)
		r = check_names(&p, err);
	if (r == 0)
		r = write_archive(&p, dirfd, name, &result, err);
	if (r == 0)
		*ret = result;
	free(p.buffer);
	digester_free(p.digester);
	scan_done(&p.scan);
	buf_done(&p.text);
	arena_done(&p.arena);
	store_unpin(&pin);
	return r < 0 ? error_wrap(err, r, "checkpoint '%s'", ref) : 0;
}

/* -- what was left --------------------------------------------------------------------------- */

static int clean_one(int dirfd, const char *name)
{
	_cleanup_close_ int fd = path_open_beneath(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int pack_clean(int dirfd, struct error *err)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = fail_sys(err, errno, "list the archives");
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(dir)))
		if (part_is(e->d_name))
			r = clean_one(dirfd, e->d_name);
	if (r == 0)
		r = -errno;
	return r < 0 ? fail_sys(err, r, "clean up among the archives") : 0;
}
