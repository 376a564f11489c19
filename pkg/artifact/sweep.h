/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing for good what has been renamed away: whatever lies in the store as ".del-...". Runs in
 * the store worker: many GiB can take a while.
 */
#ifndef KYB_ARTIFACT_SWEEP_H
#define KYB_ARTIFACT_SWEEP_H

#include "base/error.h"

#define SWEEP_PREFIX ".del-"

/*
 * Goes on after a failure, and returns the first one: -errno with REASON_STORE_FAILED. *ret_n
 * counts what was removed, in both cases.
 */
int sweep_store(int store_fd, unsigned int *ret_n, struct error *err);

#endif
