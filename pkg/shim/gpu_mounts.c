/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounts of a GPU container that config.json does not tell, at its restore: oci/mounts.h has
 * the why. For its checkpoint see gpu_look.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "shim/gpu.h"

static int open_bundle(const struct container *c, struct error *err)
{
	int fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? error_sys(err, errno, "%s", c->path) : fd;
}

int gpu_map_mounts(const struct container *c, const struct mount_records *then, struct arena *mem,
		   struct mount_maps *ret, struct error *err)
{
	_cleanup_close_ int bundle = -1;
	const char *rootfs = c->bundle.rootfs ? c->bundle.rootfs : "rootfs";
	char path[PATH_MAX];
	struct mounts_restore where = {
		.rootfs = path,
		.prefixes = &c->shim->settings.gpu.mount_prefixes,
	};
	int r;

	*ret = (struct mount_maps){ 0 };
	if (then->n == 0)
		return 0;
	where.bundle = bundle = open_bundle(c, err);
	if (bundle < 0)
		return bundle;
	r = rootfs[0] == '/' ? PATH_PRINTF(path, "%s", rootfs)
			     : PATH_PRINTF(path, "%s/%s", c->path, rootfs);
	if (r < 0)
		return error_sys(err, r, "%s", rootfs);
	return mounts_map(&where, then, mem, ret, err);
}

int gpu_verify_mounts(const struct container *c, const struct mount_records *then,
		      struct error *err)
{
	char path[64];

	(void)PATH_PRINTF(path, "/proc/%d/mountinfo", c->init.pid);
	return then->n ? mounts_verify(path, then, err) : 0;
}
