/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/hashing.h"
#include "artifact/metadata.h"
#include "artifact/scan.h"
#include "artifact/verify.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "pack/filecheck.h"
#include "pack/infile.h"
#include "pack/member.h"
#include "pack/ocidoc.h"
#include "pack/part.h"

#define BLOCK     512
#define EXTRA_MAX ((uint64_t)64 << 10)
#define FILE_MODE 0600

struct unpacking {
	const struct unpack_options *options;
	int fd;  /* the archive */
	int out; /* the directory that is being filled */
	struct infile_member members[INFILE_MEMBERS];
	struct ocidoc_blob image, config, layer;
	struct digest diff;
	struct inlayer in;
	struct digester *digester;
	struct arena arena;
	struct metadata metadata;
	struct manifest manifest;
	const char *dirs[SCAN_DIRS_MAX]; /* made so far; into the arena */
	size_t n_dirs;
};

static int check_stopped(const struct unpacking *u, struct error *err)
{
	if (u->options->stopped && u->options->stopped(u->options->arg))
		return error_reason(err, REASON_CANCELED, -ECANCELED, "stopped");
	return 0;
}

/* -- the documents of the image --------------------------------------------------------------- */

static const struct infile_member *find_member(const struct unpacking *u, const char *name)
{
	for (size_t i = 0; i < INFILE_MEMBERS; i++)
		if (strcmp(u->members[i].name, name) == 0)
			return &u->members[i];
	return NULL;
}

static int read_member(const struct unpacking *u, const struct infile_member *m, struct buf *out,
		       struct error *err)
{
	uint8_t *to = NULL;
	size_t at = 0;

	if (m->size >= OCIDOC_TEXT_MAX)
		return fail_corrupt(err, "the archive: has a document that is too large");
	to = buf_reserve(out, (size_t)m->size + 1);
	if (!to)
		return fail_sys(err, -ENOMEM, "read the archive");
	while (at < m->size) {
		ssize_t n = pread(u->fd, to + at, (size_t)m->size - at, (off_t)(m->offset + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail_sys(err, n < 0 ? errno : ENODATA, "read the archive");
		at += (size_t)n;
	}
	buf_commit(out, at);
	return 0;
}

static int read_document(const struct unpacking *u, const char *name, struct buf *out,
			 struct error *err)
{
	const struct infile_member *m = find_member(u, name);

	return m ? read_member(u, m, out, err) : fail_corrupt(err, "%s: is missing", name);
}

static const struct infile_member *find_blob(const struct unpacking *u, const struct ocidoc_blob *b)
{
	char name[OCIDOC_NAME_MAX];
	const struct infile_member *m = find_member(u, ocidoc_blob_name(&b->digest, name));

	return m && m->size == b->size ? m : NULL;
}

static int read_blob(const struct unpacking *u, const struct ocidoc_blob *b, struct buf *out,
		     struct error *err)
{
	const struct infile_member *m = find_blob(u, b);
	struct digest is;
	int r;

	if (!m)
		return fail_corrupt(err, "the archive: lacks a document that it names");
	r = read_member(u, m, out, err);
	if (r < 0)
		return r;
	r = digester_bytes(u->digester, buf_bytes(out), &is);
	if (r < 0)
		return fail_sys(err, r, "hash a document of the archive");
	return digest_equal(&is, &b->digest)
		       ? 0
		       : fail_corrupt(err, "the archive: a document is damaged");
}

/* Five members, five uses: all are named, so there is no other. */
static int read_documents(struct unpacking *u, struct error *err)
{
	_cleanup_buf_ struct buf layout = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 index = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 image = BUF_LIMIT(OCIDOC_TEXT_MAX),
				 config = BUF_LIMIT(OCIDOC_TEXT_MAX);
	int r = read_document(u, OCIDOC_LAYOUT, &layout, err);

	if (r == 0)
		r = ocidoc_read_layout(buf_bytes(&layout), err);
	if (r == 0)
		r = read_document(u, OCIDOC_INDEX, &index, err);
	if (r == 0)
		r = ocidoc_read_index(buf_bytes(&index), &u->image, err);
	if (r == 0)
		r = read_blob(u, &u->image, &image, err);
	if (r == 0)
		r = ocidoc_read_manifest(buf_bytes(&image), &u->config, &u->layer, err);
	if (r == 0)
		r = read_blob(u, &u->config, &config, err);
	if (r == 0)
		r = ocidoc_read_config(buf_bytes(&config), &u->diff, err);
	if (r == 0 && (digest_equal(&u->layer.digest, &u->config.digest) ||
		       digest_equal(&u->layer.digest, &u->image.digest) ||
		       digest_equal(&u->config.digest, &u->image.digest)))
		r = fail_corrupt(err, "the archive: a blob is named twice");
	if (r == 0 && !find_blob(u, &u->layer))
		r = fail_corrupt(err, "the archive: lacks the layer that it names");
	return r;
}

/* -- what describes the checkpoint ------------------------------------------------------------ */

static uint64_t padded(uint64_t size)
{
	return BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
}

static int next(struct unpacking *u, const char *name, bool dir, struct inlayer_entry *ret,
		struct error *err)
{
	int r = inlayer_next(&u->in, ret, err);

	if (r < 0)
		return r;
	if (r == 1 || strcmp(ret->name, name) != 0 || ret->dir != dir)
		return fail_corrupt(err, "the layer: lacks %s, or has it in another place", name);
	return 0;
}

static int read_text(struct unpacking *u, const char *name, struct buf *out, struct error *err)
{
	struct inlayer_entry e;
	struct bytes b;
	int r = next(u, name, false, &e, err);

	if (r == 0 && e.size >= out->max)
		r = fail_corrupt(err, "%s: is too large", name);
	if (r < 0)
		return r;
	while ((r = inlayer_data(&u->in, &b, err)) == 0)
		if (buf_append(out, b.p, b.n) < 0)
			return fail_sys(err, -ENOMEM, "read %s", name);
	if (r == 1 && buf_len(out) != e.size)
		return fail_corrupt(err, "%s: is cut off", name);
	return r < 0 ? r : 0;
}

static int check_manifest_text(struct unpacking *u, const struct buf *text, struct error *err)
{
	const struct metadata_manifest *named = &u->metadata.manifest;
	struct digest is;
	int r = digester_bytes(u->digester, buf_bytes(text), &is);

	if (r < 0)
		return fail_sys(err, r, "hash %s", layout_checkpoint.manifest);
	if (!digest_equal(&is, &named->sha256))
		return fail_corrupt(err, "%s: is not the one that %s names",
				    layout_checkpoint.manifest, layout_checkpoint.description);
	r = manifest_read(buf_bytes(text), &layout_checkpoint, &u->arena, &u->manifest, err);
	if (r < 0)
		return error_wrap(err, r, "%s", layout_checkpoint.manifest);
	if (u->manifest.n_files != named->files || manifest_bytes(&u->manifest) != named->bytes)
		return fail_corrupt(err, "%s: holds other files than %s says",
				    layout_checkpoint.manifest, layout_checkpoint.description);
	return 0;
}

static int put_text(const struct unpacking *u, const char *name, const struct buf *text,
		    struct error *err)
{
	_cleanup_close_ int fd = openat(u->out, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
					FILE_MODE);
	int r = fd < 0 ? -errno : fd_write_all(fd, buf_bytes(text).p, buf_len(text));

	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r < 0 ? fail_sys(err, r, "write %s", name) : 0;
}

static int check_room(const struct unpacking *u, struct error *err)
{
	uint64_t bytes = manifest_bytes(&u->manifest), room;
	struct statvfs fs;

	if (u->options->max_bytes && bytes > u->options->max_bytes)
		return fail_corrupt(err, "holds %" PRIu64 " bytes, more than the %" PRIu64
				    " that are allowed", bytes, u->options->max_bytes);
	if (fstatvfs(u->out, &fs) < 0)
		return fail_sys(err, errno, "look at the file system");
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (bytes > room)
		return fail_sys(err, -ENOSPC, "unpack %" PRIu64 " bytes", bytes);
	return 0;
}

static int read_descriptions(struct unpacking *u, struct error *err)
{
	_cleanup_buf_ struct buf metadata = BUF_LIMIT(METADATA_TEXT_MAX + 1),
				 manifest = BUF_LIMIT(MANIFEST_TEXT_MAX + 1);
	int r = read_text(u, layout_checkpoint.description, &metadata, err);

	if (r == 0) {
		r = metadata_read(buf_bytes(&metadata), &u->arena, &u->metadata, err);
		if (r < 0)
			return error_wrap(err, r, "%s", layout_checkpoint.description);
	}
	if (r == 0)
		r = read_text(u, layout_checkpoint.manifest, &manifest, err);
	if (r == 0)
		r = check_manifest_text(u, &manifest, err);
	if (r == 0)
		r = check_room(u, err);
	if (r == 0)
		r = put_text(u, layout_checkpoint.description, &metadata, err);
	return r < 0 ? r : put_text(u, layout_checkpoint.manifest, &manifest, err);
}

/* -- the files ------------------------------------------------------------------------------- */

/* The directory of a path of the manifest, which has one level of them at most. */
static int make_dir_of(struct unpacking *u, const char *path, struct error *err)
{
	const char *slash = strchr(path, '/');
	const char *dir;

	if (!slash)
		return 0;
	dir = arena_printf(&u->arena, "%.*s", (int)(slash - path), path);
	if (!dir)
		return fail_sys(err, -ENOMEM, "unpack %s", path);
	for (size_t i = 0; i < u->n_dirs; i++)
		if (strcmp(u->dirs[i], dir) == 0)
			return 0;
	if (u->n_dirs == SCAN_DIRS_MAX)
		return fail_corrupt(err, "there are more than %d directories", SCAN_DIRS_MAX);
	if (mkdirat(u->out, dir, 0700) < 0)
		return fail_sys(err, errno, "create %s", dir);
	u->dirs[u->n_dirs++] = dir;
	return 0;
}

static int write_content(struct unpacking *u, int fd, const struct manifest_file *want,
			 struct error *err)
{
	struct filecheck check;
	struct bytes b;
	int r = filecheck_begin(&check, u->digester, want, err);

	while (r == 0 && (r = inlayer_data(&u->in, &b, err)) == 0) {
		/* Before it is written: a file never gets longer than it is to be. */
		r = filecheck_add(&check, b.p, b.n, err);
		if (r < 0)
			break;
		r = fd_write_all(fd, b.p, b.n);
		r = r < 0 ? fail_sys(err, r, "write %s", want->path) : check_stopped(u, err);
	}
	return r < 0 ? r : filecheck_end(&check, err);
}

static int unpack_file(struct unpacking *u, const struct manifest_file *want, struct error *err)
{
	char name[MEMBER_NAME_MAX + 1];
	_cleanup_close_ int fd = -1;
	struct inlayer_entry e;
	int r = member_name(want->path, name);

	if (r < 0)
		return fail_corrupt(err, "%s: cannot be in an archive", want->path);
	/* Sealing gives every file this mode; nobody gets setuid bits through here. */
	if (want->mode != FILE_MODE)
		return fail_corrupt(err, "%s: has mode %04o instead of %04o", want->path,
				    (unsigned int)want->mode, FILE_MODE);
	r = next(u, name, false, &e, err);
	if (r == 0 && e.size != want->size)
		r = fail_corrupt(err, "%s: has %" PRIu64 " bytes instead of %" PRIu64, want->path,
				 e.size, want->size);
	if (r == 0)
		r = make_dir_of(u, want->path, err);
	if (r < 0)
		return r;
	fd = openat(u->out, want->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    FILE_MODE);
	if (fd < 0)
		return fail_sys(err, errno, "create %s", want->path);
	r = write_content(u, fd, want, err);
	if (r == 0 && fsync(fd) < 0)
		r = fail_sys(err, errno, "write %s", want->path);
	return r;
}

/* For other readers, and not kept: passed over, each once. */
static int skip_extras(struct unpacking *u, struct error *err)
{
	char last[MEMBER_NAME_MAX + 1] = "";
	struct inlayer_entry e;
	int r;

	while ((r = inlayer_next(&u->in, &e, err)) == 0) {
		/* In the order of the alphabet, as they are: none can come again. */
		if (e.dir || !member_is_extra(e.name) || strcmp(e.name, last) <= 0 ||
		    e.size > EXTRA_MAX)
			return fail_corrupt(err,
					    "the layer: has an entry that is not in the manifest");
		memcpy(last, e.name, sizeof(last));
	}
	return r < 0 ? r : 0;
}

/* Everything that can come out of the layer, now that the manifest is known. */
static uint64_t most(const struct unpacking *u)
{
	uint64_t n = u->in.at + padded(0) + 2 * padded(EXTRA_MAX) + 2 * BLOCK;

	for (size_t i = 0; i < u->manifest.n_files; i++)
		n += padded(u->manifest.files[i].size);
	return n;
}

static int unpack_layer(struct unpacking *u, struct error *err)
{
	uint64_t most_at_first = padded(METADATA_TEXT_MAX) + padded(MANIFEST_TEXT_MAX);
	struct inlayer_entry e;
	int r = inlayer_open(&u->in, u->fd, find_blob(u, &u->layer), most_at_first, err);

	if (r == 0)
		r = read_descriptions(u, err);
	if (r < 0)
		return r;
	u->in.max = most(u);
	r = next(u, MEMBER_IMAGES, true, &e, err);
	for (size_t i = 0; r == 0 && i < u->manifest.n_files; i++)
		r = unpack_file(u, &u->manifest.files[i], err);
	if (r == 0)
		r = skip_extras(u, err);
	return r < 0 ? r : inlayer_finish(&u->in, &u->layer.digest, &u->diff, err);
}

/* -- the directory --------------------------------------------------------------------------- */

static int open_image(const struct unpacking *u, struct error *err)
{
	int fd = path_open_beneath(u->out, LAYOUT_CRIU, O_RDONLY | O_DIRECTORY);

	if (fd == -ENOENT)
		return fail_corrupt(err, "holds no images");
	return fd < 0 ? fail_sys(err, fd, "open the images") : fd;
}

/* As a restore will: the images, which are described a second time, read back. */
static int verify(const struct unpacking *u, struct error *err)
{
	static const struct hashing alone = { .workers = 1 };
	_cleanup_close_ int fd = open_image(u, err);
	struct metadata_manifest found;
	struct verify_damage damage;

	return fd < 0 ? fd : verify_image(fd, 0, &alone, &found, &damage, err);
}

static int sync_dirs(const struct unpacking *u, struct error *err)
{
	for (size_t i = 0; i < u->n_dirs; i++) {
		_cleanup_close_ int fd = path_open_beneath(u->out, u->dirs[i],
							   O_RDONLY | O_DIRECTORY);

		if (fd < 0 || fsync(fd) < 0)
			return fail_sys(err, fd < 0 ? fd : errno, "sync %s", u->dirs[i]);
	}
	return fsync(u->out) < 0 ? fail_sys(err, errno, "sync the directory") : 0;
}

static int exists(const char *name, struct error *err)
{
	return error_reason(err, REASON_REF_EXISTS, -EEXIST, "there is a %s already", name);
}

static int fill(struct unpacking *u, int dirfd, const char *part, const char *name,
		struct error *err)
{
	int r;

	u->out = openat(dirfd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (u->out < 0)
		return fail_sys(err, errno, "open the directory");
	r = unpack_layer(u, err);
	if (r == 0)
		r = verify(u, err);
	if (r == 0)
		r = sync_dirs(u, err);
	if (r == 0)
		r = check_stopped(u, err);
	(void)close(u->out);
	if (r == 0 && renameat2(dirfd, part, dirfd, name, RENAME_NOREPLACE) < 0)
		r = errno == EEXIST ? exists(name, err)
				    : fail_sys(err, errno, "rename the directory");
	return r;
}

static int unpack_into(struct unpacking *u, int dirfd, const char *name, struct error *err)
{
	char part[PART_NAME_MAX];
	int r = part_name(name, part);

	if (r < 0)
		return fail_sys(err, r, "name the directory '%s'", name);
	if (mkdirat(dirfd, part, 0700) < 0)
		return fail_sys(err, errno, "create the directory");
	r = fill(u, dirfd, part, name, err);
	if (r < 0) {
		int gone = path_remove_tree(dirfd, part);

		return gone < 0 ? error_wrap(err, r, "%s stays, for it cannot be removed", part)
				: r;
	}
	return fsync(dirfd) < 0 ? fail_sys(err, errno, "sync the directory above") : 0;
}

int unpack_checkpoint(int fd, int dirfd, const char *name, const struct unpack_options *options,
		      struct unpack_result *ret, struct error *err)
{
	struct unpacking u = {
		.options = options, .fd = fd, .in = INLAYER_NULL,
		.arena = ARENA_LIMIT(METADATA_MEMORY_MAX + MANIFEST_MEMORY_MAX),
	};
	struct stat st;
	int r;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return exists(name, err);
	if (fstat(fd, &st) < 0)
		return fail_sys(err, errno, "look at the archive");
	if (!S_ISREG(st.st_mode))
		return fail_corrupt(err, "is not a regular file");
	r = digester_new(&u.digester);
	if (r < 0)
		return fail_sys(err, r, "unpack");
	r = infile_list(fd, u.members, err);
	if (r == 0)
		r = read_documents(&u, err);
	if (r == 0)
		r = unpack_into(&u, dirfd, name, err);
	if (r == 0) {
		*ret = (struct unpack_result){
			.files = u.metadata.manifest.files, .bytes = u.metadata.manifest.bytes,
			.image = u.image.digest,
		};
		(void)snprintf(ret->ref, sizeof(ret->ref), "%s", u.metadata.ref);
	}
	inlayer_done(&u.in);
	digester_free(u.digester);
	arena_done(&u.arena);
	return r;
}
