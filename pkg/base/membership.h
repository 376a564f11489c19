/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of /proc/PID/cgroup: one line a hierarchy, "ID:CONTROLLERS:PATH". CONTROLLERS is a
 * comma list ("cpu,cpuacct", "name=systemd"), empty for the unified hierarchy of cgroup v2.
 * Source: cgroups(7). The kernel allows no newline in a cgroup's name, but does allow colons.
 */
#ifndef KYB_BASE_MEMBERSHIP_H
#define KYB_BASE_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

struct membership {
	struct bytes controllers;
	struct bytes path; /* absolute; see membership_path() */
};

/*
 * Takes the next line off the front of text. Returns 1 (a line), 0 (no more), or -EBADMSG; text
 * is then spent. The last line needs no newline.
 */
int membership_next(struct bytes *text, struct membership *ret);

/* Is this the hierarchy of the controller named? "" names the unified hierarchy. */
bool membership_controls(const struct membership *m, const char *controller);

/*
 * The path as a string. Returns 0, -ENAMETOOLONG, or -ENOENT when that cgroup has been removed
 * (the kernel then appends " (deleted)").
 */
int membership_path(const struct membership *m, char *buf, size_t size);

#endif
