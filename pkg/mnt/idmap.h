/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idmapped mounts: the files of a mount appear with other owners. For pods in user namespaces,
 * containerd [2.0+] sends uidmap= and gidmap= with the mounts. Source: containerd repo,
 * core/mount/mount_idmapped_linux.go; mount_setattr(2). Needs Linux 5.12 and a file system that
 * can (overlay from 5.19, and there through its layers).
 */
#ifndef KYB_MNT_IDMAP_H
#define KYB_MNT_IDMAP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"

#define IDMAP_LINES_MAX 340 /* what the kernel takes */

/*
 * "CONTAINER:HOST:SIZE[,...]" as the lines that /proc/PID/uid_map takes. Returns 0, -EINVAL,
 * -ERANGE or as buf_append() does.
 */
int idmap_parse(const char *text, struct buf *out);

/*
 * A user namespace with these maps, held by nothing but the descriptor returned. A child process
 * lives for as long as this call. Returns the descriptor or -errno.
 */
int idmap_userns(const char *uidmap, const char *gidmap, struct error *err);

/*
 * Mounts a clone of the tree at source on target, its owners mapped by userns_fd, private, perhaps
 * read-only. Returns 0 or -errno.
 */
int idmap_clone(const char *source, const char *target, int userns_fd, bool readonly,
		struct error *err);

#endif
