/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lower layers of an overlay mount, "DIR:DIR:...", and how to write them shorter. mount(2)
 * takes one page of options, which containerd's absolute names fill with some 45 layers: names
 * relative to the layers' common parent make room for more than 400.
 */
#ifndef KYB_MNT_LOWERDIRS_H
#define KYB_MNT_LOWERDIRS_H

#include <stddef.h>

#include "base/buf.h"
#include "base/bytes.h"

#define LOWERDIRS_MAX 512 /* the kernel stacks 500 (OVL_MAX_STACK) */

struct lowerdirs {
	struct bytes dir[LOWERDIRS_MAX]; /* as written, escapes included; borrowed */
	size_t n;
};

/* Splits at the colons that no backslash escapes. Returns 0 or -E2BIG. */
int lowerdirs_parse(const char *value, struct lowerdirs *ret);

/*
 * The deepest folder that all layers lie in, with a slash at its end. Returns 0, -ENOENT (there
 * is none but the root, or its name needs escapes, or a layer is empty as before "data-only"
 * layers) or -ENAMETOOLONG.
 */
int lowerdirs_parent(const struct lowerdirs *l, char *buf, size_t size);

/*
 * Appends the layers, their first skip bytes replaced by prefix, joined by colons. Returns 0 or
 * as buf_append() does.
 */
int lowerdirs_write(const struct lowerdirs *l, size_t skip, const char *prefix, struct buf *out);

#endif
