/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of a mount as containerd's clients write them: words of fstab, everything else is
 * data for the file system. Source: containerd repo, core/mount/mount_linux.go
 * (parseMountOptions). Two differences, both in what containerd would hand to the kernel as data
 * and the kernel would refuse or ignore: "defaults" means nothing, as in mount(8), and the words
 * of propagation ("rprivate", ...) are obeyed.
 */
#ifndef KYB_MNT_OPTIONS_H
#define KYB_MNT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct mnt_options {
	unsigned long flags;       /* MS_*, none of them of propagation */
	unsigned long propagation; /* MS_PRIVATE, ... perhaps with MS_REC; 0 = leave it */
	bool loop;                 /* the source is a file to be put behind a loop device */
	bool direct_io;            /* of that device */
	const char *uidmap, *gidmap; /* borrowed; both or none */
	const char *lowerdir;      /* borrowed: the first "lowerdir=" value, NULL without */
	const char **data;         /* borrowed strings: the rest, without that lowerdir */
	size_t n_data;
};

#define MNT_OPTIONS_MAX 1024

/*
 * Returns 0, or with err -EINVAL (an option that is containerd's own to deal with, "X-containerd.",
 * or one half of an id mapping), -E2BIG (over MNT_OPTIONS_MAX) or -ENOMEM. Free with
 * mnt_options_done(); the strings must live as long.
 */
int mnt_options_parse(const char *const *options, size_t n, struct mnt_options *ret,
		      struct error *err);
/* Harmless on a zeroed one. */
void mnt_options_done(struct mnt_options *o);

/*
 * Appends the data for mount(2): the words joined by commas, at the end "lowerdir=" with lowerdir
 * when that is not NULL. Returns 0 or as buf_append() does.
 */
int mnt_options_data(const struct mnt_options *o, const char *lowerdir, struct buf *out);

#define _cleanup_mnt_options_ _cleanup_(mnt_options_done)

#endif
