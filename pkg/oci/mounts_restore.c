/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mountinfo.h"
#include "base/path.h"
#include "oci/mounts_config.h"

#define CONFIG_MEMORY ((size_t)4 << 20)
#define FOLDER_MODE   0755
#define FILE_MODE     0644

static int missing(const struct mount_record *m, const char *why, struct error *err)
{
	return error_reason(
		err, REASON_MOUNT_MISMATCH, -ENOENT,
		"the container had %s mounted from %s of its host; here %s, and the new "
		"container's config.json mounts nothing there",
		m->destination, m->source ? m->source : "an unknown place", why);
}

static bool same_kind(const char *kind, mode_t mode)
{
	bool node = S_ISCHR(mode) || S_ISBLK(mode);

	if (strcmp(kind, MOUNT_DIRECTORY) == 0)
		return S_ISDIR(mode);
	if (strcmp(kind, MOUNT_NODE) == 0)
		return node;
	return !S_ISDIR(mode) && !node;
}

/* A library is mapped by the processes, and CRIU maps none that has changed. */
static bool is_library(const char *path)
{
	const char *name = strrchr(path, '/');

	return name && strstr(name, ".so");
}

static bool goes_up(const char *path)
{
	for (const char *p = path; (p = strstr(p, "/..")); p += 3)
		if (p[3] == '/' || p[3] == 0)
			return true;
	return false;
}

/*
 * Its counterpart here: the same name. The description of a checkpoint may come from anywhere, so
 * that it is a name among those that are allowed before anything is looked up - else it could lead
 * to a file server that is gone, or ask for what exists on the host - and afterwards, whatever
 * links were on the way.
 */
static int find_source(const struct mount_record *m, const struct setting_list *prefixes,
		       struct arena *mem, const char **ret, struct error *err)
{
	char path[PATH_MAX];
	struct stat st;

	if (!m->source)
		return missing(m, "nothing is known of it", err);
	if (m->source[0] != '/' || goes_up(m->source) || !mounts_allowed(m->source, prefixes))
		return missing(m, "it is none of gpu.mount_prefixes", err);
	if (!realpath(m->source, path) || stat(path, &st) < 0)
		return missing(m, "there is none", err);
	if (!mounts_allowed(path, prefixes))
		return missing(m, "it is none of gpu.mount_prefixes", err);
	if (!same_kind(m->kind, st.st_mode))
		return missing(m, "it is of another kind", err);
	if (is_library(m->destination) && S_ISREG(st.st_mode) && (uint64_t)st.st_size != m->size)
		return error_reason(
			err, REASON_MOUNT_MISMATCH, -ESTALE,
			"%s, which the container has mounted and mapped, is another file "
			"here: %jd bytes instead of %" PRIu64,
			path, (intmax_t)st.st_size, m->size);
	*ret = arena_strdup(mem, path);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* --- places --------------------------------------------------------------------------------- */

static int make_folders(int root, char *path)
{
	for (char *p = path; (p = strchr(p, '/')); p++) {
		_cleanup_close_ int dir = -1;
		char *name;

		*p = 0;
		name = strrchr(path, '/');
		dir = name ? -1 : fcntl(root, F_DUPFD_CLOEXEC, 0);
		if (name) {
			*name = 0;
			dir = path_open_beneath(root, path, O_PATH | O_DIRECTORY);
			*name = '/';
		}
		if (dir < 0)
			return name ? dir : -errno;
		if (mkdirat(dir, name ? name + 1 : path, FOLDER_MODE) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* The root file system is the user's: no link in it is followed. */
static int make_place(int root, const struct mount_record *m)
{
	_cleanup_close_ int dir = -1, fd = -1;
	char path[PATH_MAX], *name;
	struct stat st;
	int r;

	if (PATH_PRINTF(path, "%s", m->destination + 1) < 0)
		return -ENAMETOOLONG;
	fd = path_open_beneath(root, path, O_PATH);
	if (fd >= 0) {
		if (fstat(fd, &st) < 0)
			return -errno;
		if (S_ISDIR(st.st_mode) == (strcmp(m->kind, MOUNT_DIRECTORY) == 0))
			return 0;
		return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTDIR; /* mount(2) would refuse it */
	}
	r = fd == -ENOENT ? make_folders(root, path) : fd;
	if (r < 0)
		return r;
	name = strrchr(path, '/');
	if (name)
		*name++ = 0;
	dir = path_open_beneath(root, name ? path : ".", O_PATH | O_DIRECTORY);
	if (dir < 0)
		return dir;
	if (strcmp(m->kind, MOUNT_DIRECTORY) == 0)
		return mkdirat(dir, name ? name : path, FOLDER_MODE) < 0 ? -errno : 0;
	fd = openat(dir, name ? name : path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW,
		    FILE_MODE);
	return fd < 0 ? -errno : 0;
}

static int make_places(int root, const struct mount_records *then, const struct mounts_config *now,
		       struct error *err)
{
	for (size_t i = 0; i < then->n; i++) {
		const struct mount_record *m = &then->items[i];
		int r = m->in_root && mounts_config_find(now, m->destination) == MOUNTED_NOT
				? make_place(root, m)
				: 0;

		if (r < 0)
			return error_reason(err, REASON_MOUNT_MISMATCH, r,
					    "the place for the mount %s cannot be made in the new "
					    "container: %s",
					    m->destination, strerror(-r));
	}
	return 0;
}

/* --- the plan ------------------------------------------------------------------------------- */

static int map_one(const struct mounts_restore *where, const struct mounts_config *now,
		   const struct mount_record *m, struct arena *mem, struct mount_maps *ret,
		   struct error *err)
{
	enum mounted_by how = mounts_config_find(now, m->destination);
	const char *source;
	int r;

	if (!m->kind || !m->destination || m->destination[0] != '/' ||
	    !mounts_plain(m->destination))
		return error_reason(err, REASON_IMAGE_CORRUPT, -EBADMSG,
				    "a mount in the checkpoint's description has no proper name");
	/* The runtime gives both to CRIU, as it does at the dump. */
	if (!m->external || how == MOUNTED_BIND || how == MOUNTED_FIXED)
		return 0;
	r = find_source(m, where->prefixes, mem, &source, err);
	if (r == 0 && !mounts_plain(source))
		r = missing(m, "its name is none for CRIU's configuration", err);
	if (r == 0)
		ret->items[ret->n++] = (struct mount_map){ m->destination, source };
	return r;
}

int mounts_map(const struct mounts_restore *where, const struct mount_records *then,
	       struct arena *mem, struct mount_maps *ret, struct error *err)
{
	_cleanup_arena_ struct arena own = ARENA_LIMIT(CONFIG_MEMORY);
	_cleanup_close_ int root = open(where->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct mounts_config now;
	int r;

	*ret = (struct mount_maps){ .items = arena_alloc(mem,
							 (then->n + 1) * sizeof(*ret->items)) };
	if (!ret->items)
		return error_set(err, -ENOMEM, "out of memory");
	if (root < 0)
		return error_sys(err, errno, "%s", where->rootfs);
	r = mounts_config_read(where->bundle, root, &own, &now, err);
	for (size_t i = 0; i < then->n && r == 0; i++)
		r = map_one(where, &now, &then->items[i], mem, ret, err);
	return r < 0 ? r : make_places(root, then, &now, err);
}

/* --- afterwards ----------------------------------------------------------------------------- */

struct places {
	const struct mount_records *then;
	bool seen[MOUNT_RECORDS_MAX];
};

static int see(void *arg, const struct mountinfo *m)
{
	struct places *p = arg;
	char point[PATH_MAX];

	if (mountinfo_unescape(m->point, point, sizeof(point)) < 0)
		return 0;
	for (size_t i = 0; i < p->then->n; i++)
		if (strcmp(p->then->items[i].destination, point) == 0)
			p->seen[i] = true;
	return 0;
}

int mounts_verify(const char *mountinfo, const struct mount_records *then, struct error *err)
{
	struct places p = { .then = then };
	int r = then->n > MOUNT_RECORDS_MAX ? -E2BIG : mountinfo_each(mountinfo, see, &p);

	if (r < 0)
		return error_sys(err, r, "%s", mountinfo);
	for (size_t i = 0; i < then->n; i++)
		if (!p.seen[i])
			return error_reason(err, REASON_MOUNT_MISMATCH, -ENOENT,
					    "the restored container has lost the mount %s",
					    then->items[i].destination);
	return 0;
}
