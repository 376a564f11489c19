/* SPDX-License-Identifier: Apache-2.0 */
/* Where a container's output goes: the URI in a task's stdout field. */
#ifndef KYB_SHIM_URI_H
#define KYB_SHIM_URI_H

#include "base/arena.h"
#include "base/error.h"

#define URI_MAX       4096
#define URI_PAIRS_MAX 64

enum uri_scheme {
	URI_FIFO,      /* "/path" or "fifo:///path"; the path may also be a regular file */
	URI_FILE,      /* "file:///path": created, appended to */
	URI_BINARY,    /* "binary:///path?key=value&...": a logger process */
	URI_BINARY_V2, /* the same; end of file on its ready pipe means that it failed (2.3+) */
};

struct uri {
	enum uri_scheme scheme;
	char *path; /* decoded */
	struct {
		char *key, *value;
	} pairs[URI_PAIRS_MAX]; /* of the query, decoded, in the order given */
	unsigned int n_pairs;
};

/*
 * Parses text; the parts live in the arena. Returns 0; -EINVAL with containerd's text for an
 * unknown scheme, a malformed %-escape, a NUL, an empty path, too many pairs; -ENAMETOOLONG;
 * -ENOMEM.
 */
int uri_parse(const char *text, struct arena *arena, struct uri *ret, struct error *err);

#endif
