/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a file behind a loop device. Source: containerd repo, core/mount/losetup_linux.go;
 * loop(4).
 */
#ifndef KYB_MNT_LOOPDEV_H
#define KYB_MNT_LOOPDEV_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define LOOPDEV_PATH_MAX 32

struct loopdev {
	bool readonly;
	bool direct_io; /* where the file system below can */
	char path[LOOPDEV_PATH_MAX]; /* "/dev/loop7", set on success */
};

/*
 * Attaches file. The device frees itself when its last user is gone: mount dev->path, then close
 * the descriptor returned. Other processes may take the free device first; that is tried again
 * for a tenth of a second at most. Returns a descriptor or -errno.
 */
int loopdev_attach(struct loopdev *dev, const char *file, struct error *err);

#endif
