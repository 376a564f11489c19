/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of /proc/PID/mountinfo, one mount a line; proc(5):
 *   36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 * Blanks, newlines and backslashes inside a field are written as three octal digits (\040).
 */
#ifndef KYB_BASE_MOUNTINFO_H
#define KYB_BASE_MOUNTINFO_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* All views are borrowed and still escaped: see mountinfo_unescape(). */
struct mountinfo {
	uint64_t id, parent;
	struct bytes dev;   /* of the file system, "MAJOR:MINOR" */
	struct bytes root;  /* of the mount within its file system */
	struct bytes point; /* where it is mounted */
	struct bytes type, source;
	struct bytes super; /* options of the file system, a comma list */
};

/* One line, without its newline. Returns 0 or -EBADMSG. */
int mountinfo_parse(struct bytes line, struct mountinfo *ret);

/* A field as a string. Returns 0, -ENAMETOOLONG, or -EBADMSG (a NUL in it). */
int mountinfo_unescape(struct bytes field, char *buf, size_t size);

/*
 * Calls each() for every mount of the file until it returns non-zero, which is returned then.
 * Lines that do not parse are passed over. Else 0 or -errno (-EMSGSIZE: a line of more than
 * 64 KiB). Holds one line at a time in memory, however many mounts there are.
 */
int mountinfo_each(const char *file, int (*each)(void *arg, const struct mountinfo *m), void *arg);

#endif
