/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The helper programs for file systems in user space: mount.fuse, mount.fuse3, fusermount,
 * fusermount3. Rare, and the one place where this layer starts a program and waits for it.
 */
#ifndef KYB_MNT_HELPER_H
#define KYB_MNT_HELPER_H

#include "base/error.h"
#include "base/time.h"

/*
 * Runs argv (NULL-terminated, looked up in PATH) to its end and reaps it, for at most limit;
 * then it is killed. Its input is empty; the start of what it prints goes into err. Returns 0,
 * -ENOENT (no such program), -ETIMEDOUT, -EIO (it failed) or another -errno.
 */
int helper_run(const char *const *argv, nsec_t limit, struct error *err);

#endif
