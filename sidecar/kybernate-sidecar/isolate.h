/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sidecar reads what enemies may have written, through libraries that are large. So it gives
 * up, before it reads a byte of it, everything but that: as a process without root's user id, with
 * one capability or none, a list of system calls, and, where the kernel has Landlock, two
 * directories.
 */
#ifndef KYB_SIDECAR_ISOLATE_H
#define KYB_SIDECAR_ISOLATE_H

#include <stdbool.h>

#include "base/error.h"

struct isolate {
	/*
	 * The store is root's, 0700: who packs it keeps CAP_DAC_READ_SEARCH, where he has it. He
	 * cannot reach anything else by that: Landlock, and no open_by_handle_at().
	 */
	bool read_all;
	int readable; /* a directory, whose files may be read; -1 = none */
	int writable; /* one in which files may be made, read, changed and removed; -1 = none */
};

/*
 * Becomes that user, of whose groups only the first is kept, if name is not NULL. Refuses to be
 * root: -EPERM. To be called before anything of the user's is opened.
 */
int isolate_user(const char *name, bool read_all, struct error *err);

/*
 * No new privileges, no core dump, not traceable, umask 077, a few descriptors, no process beside
 * it; capabilities, Landlock, system calls as above: those that are not on the list fail with
 * EPERM.
 * Returns 0, or negative with err: then it must not go on.
 */
int isolate(const struct isolate *i, struct error *err);

#endif
