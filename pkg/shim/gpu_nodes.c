/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device nodes of a restored container. CRIU brings back the /dev that was dumped, with the nodes
 * of the GPUs of then; the driver, in the container, opens those of the GPUs that the container has
 * now, and says NOT_SUPPORTED when one is missing (ai-dynamo/snapshot issue 379).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/path.h"
#include "shim/gpu.h"

#define NODE_MODE (S_IFCHR | 0666)

/* Its numbers: those of the spec, or, of a bind mount, those of what is mounted. */
static bool number_of(const struct bundle *b, size_t i, dev_t *ret)
{
	struct stat st;

	if (b->gpu_nodes[i].known)
		*ret = makedev(b->gpu_nodes[i].major, b->gpu_nodes[i].minor);
	else if (stat(b->gpu_devices.items[i], &st) == 0 && S_ISCHR(st.st_mode))
		*ret = st.st_rdev;
	else
		return false;
	return true;
}

/* A privileged container may have the host's own /dev, which is not ours to fill. n: of path, up to
 * the name and with the slash in front. */
static bool is_hosts(int dir, const char *path, size_t n)
{
	char folder[PATH_MAX];
	struct stat its, hosts;

	return PATH_PRINTF(folder, "%.*s", (int)n, path) == 0 && fstat(dir, &its) == 0 &&
	       stat(folder, &hosts) == 0 && its.st_dev == hosts.st_dev && its.st_ino == hosts.st_ino;
}

/* The container runs already, and what is in its /dev is its own: no link of it is followed, and
 * what is there stays as it is. */
static int make_node(int root, const char *path, dev_t number)
{
	_cleanup_close_ int dir = -1;
	char folder[PATH_MAX], *name;
	mode_t mask;
	int r;

	if (path[0] != '/' || PATH_PRINTF(folder, "%s", path + 1) < 0)
		return -EINVAL;
	name = strrchr(folder, '/');
	if (!name || !name[1])
		return -EINVAL;
	*name++ = 0;
	dir = path_open_beneath(root, folder, O_PATH | O_DIRECTORY);
	if (dir < 0)
		return dir;
	if (is_hosts(dir, path, (size_t)(name - folder)))
		return 0;
	mask = umask(0); /* rather than a chmod, which could be led elsewhere */
	r = mknodat(dir, name, NODE_MODE, number) < 0 && errno != EEXIST ? -errno : 0;
	(void)umask(mask);
	return r;
}

int gpu_make_nodes(const struct container *c, struct error *err)
{
	const struct bundle *b = &c->bundle;
	_cleanup_close_ int root = -1;
	char path[64];

	(void)PATH_PRINTF(path, "/proc/%d/root", c->init.pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return error_sys(err, errno, "the root of the restored container");
	for (size_t i = 0; i < b->gpu_devices.n; i++) {
		dev_t number;
		int r = number_of(b, i, &number) ? make_node(root, b->gpu_devices.items[i], number)
						 : 0;

		if (r < 0)
			return error_reason(err, REASON_GPU_MISMATCH, r,
					    "the device node %s cannot be made in the restored "
					    "container: %s",
					    b->gpu_devices.items[i], strerror(-r));
	}
	return 0;
}
