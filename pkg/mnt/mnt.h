/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting a container's root file system, as containerd's own shim does it. Mounts appear in
 * the mount namespace of the caller, the host's: a restarted containerd must see them.
 * Source: containerd repo, core/mount/mount_linux.go and mount_unix.go.
 *
 * A plain mount is a few system calls and starts no process. There is one exception for each of
 * these: an overlay whose options fill a page (one vfork()ed child, which changes the folder
 * that relative names count from, and lives for two system calls), idmapped mounts and FUSE.
 */
#ifndef KYB_MNT_MNT_H
#define KYB_MNT_MNT_H

#include <stddef.h>

#include "base/error.h"
#include "base/time.h"

struct mnt {
	const char *type;
	const char *source;
	const char *target; /* below the root given, "" or NULL for that itself */
	const char *const *options;
	size_t n_options;
};

#define MNT_MAX 256

/*
 * Mounts all, in order, below root (absolute, existing). Targets are resolved within root as if
 * it were "/", so that a symbolic link there leads nowhere else, and must exist. All or nothing:
 * after a failure what was mounted is unmounted again. Returns 0 or -errno.
 *
 * Takes as long as the kernel needs for mount(2); a FUSE helper up to 5 seconds.
 */
int mnt_all(const struct mnt *mounts, size_t n, const char *root, struct error *err);

/*
 * Unmounts path and all below it, the deepest first, stacked mounts too, without force. A path
 * that does not exist or where nothing is mounted is fine.
 *
 * What is busy - a short-lived process looks in - is tried again for up to patience, every 10 ms;
 * the call blocks for that long, so an event loop passes 0 and calls again from a timer. Returns
 * 0, -EBUSY or another -errno; what could be unmounted then is.
 */
int mnt_unmount_all(const char *path, nsec_t patience, struct error *err);

#endif
