/* SPDX-License-Identifier: Apache-2.0 */
/* How much room there is: on the file system, and within the limit that the node's owner has set. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/store-internal.h"
#include "base/cleanup.h"

#define LEVELS  2   /* STORE/REF/criu/: files lie no deeper */
#define BLOCK   512 /* of st_blocks, whatever the file system's own is: stat(3) */

void store_set_limit(struct store *s, uint64_t bytes)
{
	s->limit = bytes;
}

static int add_dir(int at, const char *name, int levels, uint64_t *sum);

/* What vanishes while we look is being removed, and counts no more. */
static int add_entry(int at, const char *name, int levels, uint64_t *sum)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	*sum += (uint64_t)st.st_blocks * BLOCK;
	if (!S_ISDIR(st.st_mode) || levels == 0)
		return 0;
	return add_dir(at, name, levels - 1, sum);
}

static int add_dir(int at, const char *name, int levels, uint64_t *sum)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	unsigned int n = 0;
	struct dirent *e;

	if (!dir) {
		r = errno == ENOENT ? 0 : -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(dir)) && n++ < STORE_ENTRIES_MAX)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = add_entry(fd, e->d_name, levels, sum);
	return r < 0 ? r : -errno;
}

int store_space(const struct store *s, struct store_space *ret, struct error *err)
{
	struct store_space space;
	uint64_t used = 0, left;
	struct statvfs v;
	int r;

	if (fstatvfs(s->fd, &v) < 0)
		return fail_sys(err, errno, "look at the file system of the store");
	space = (struct store_space){
		.total_bytes = (uint64_t)v.f_blocks * v.f_frsize,
		.free_bytes = (uint64_t)v.f_bavail * v.f_frsize,
		.total_files = v.f_files,
		.free_files = v.f_favail,
	};
	if (s->limit) {
		r = add_dir(s->fd, ".", LEVELS, &used);
		if (r < 0)
			return fail_sys(err, r, "look how much the store holds");
		left = used < s->limit ? s->limit - used : 0;
		space.limited = left < space.free_bytes;
		if (space.limited)
			space.free_bytes = left;
		if (s->limit < space.total_bytes)
			space.total_bytes = s->limit;
	}
	*ret = space;
	return 0;
}
