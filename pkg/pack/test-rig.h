/* SPDX-License-Identifier: Apache-2.0 */
/* A store with a checkpoint in it, and a directory for archives. */
#ifndef KYB_PACK_TEST_RIG_H
#define KYB_PACK_TEST_RIG_H

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "artifact/hashing.h"
#include "artifact/seal.h"
#include "artifact/store.h"
#include "artifact/test-tree.h"
#include "artifact/verify.h"
#include "pack/pack.h"
#include "pack/unpack.h"

struct rig {
	struct tree store_dir, out;
	struct store *store;
	struct pack_options pack;
	struct pack_result packed;
	struct unpack_options unpack;
	struct unpack_result unpacked;
	struct error err;
};

static const struct hashing rig_alone = { .workers = 1 };

static inline void rig_seal(struct rig *r, const char *ref, uint64_t big)
{
	struct metadata m = tree_metadata(ref);
	struct metadata_manifest found;
	char work[64];

	(void)snprintf(work, sizeof(work), ".new-%s", ref);
	tree_work(r->store_dir.fd, work);
	(void)snprintf(work, sizeof(work), ".new-%s/criu/pages-2.img", ref);
	if (big)
		tree_sparse(r->store_dir.fd, work, big);
	(void)snprintf(work, sizeof(work), ".new-%s/rootfs-diff.tar.zst", ref);
	tree_text(r->store_dir.fd, work, "changed files");
	(void)snprintf(work, sizeof(work), ".new-%s", ref);
	assert_int_equal(seal_checkpoint(r->store_dir.fd, work, &m, &rig_alone, &found, &r->err),
			 0);
}

static inline void rig_open(struct rig *r)
{
	*r = (struct rig){ 0 };
	tree_in_memory();
	tree_make(&r->store_dir);
	tree_make(&r->out);
	tree_text(r->store_dir.fd, ".kybernate-store", "kybernate.io/store/v1\n");
	assert_int_equal(store_open(r->store_dir.path, STORE_READER, NULL, &r->store, &r->err), 0);
	rig_seal(r, "a", 0);
}

static inline void rig_close(struct rig *r)
{
	store_close(r->store);
	tree_remove(&r->store_dir);
	tree_remove(&r->out);
}

static inline int rig_pack(struct rig *r, const char *ref, const char *name)
{
	r->err = ERROR_NULL;
	return pack_checkpoint(r->store, ref, r->out.fd, name, &r->pack, &r->packed, &r->err);
}

static inline int rig_unpack(struct rig *r, const char *file, const char *name)
{
	int fd = openat(r->out.fd, file, O_RDONLY | O_CLOEXEC), result;

	assert_true(fd >= 0);
	r->err = ERROR_NULL;
	result = unpack_checkpoint(fd, r->out.fd, name, &r->unpack, &r->unpacked, &r->err);
	assert_int_equal(close(fd), 0);
	return result;
}

/* How many names the directory of archives holds. */
static inline int rig_count(const struct rig *r)
{
	int fd = openat(r->out.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *d = fdopendir(fd);
	const struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	assert_int_equal(closedir(d), 0);
	return n;
}

#endif
