/* SPDX-License-Identifier: Apache-2.0 */
/* How failures of the layer become reasons. */
#ifndef KYB_ARTIFACT_FAIL_H
#define KYB_ARTIFACT_FAIL_H

#include "base/error.h"

/*
 * A failed system call on the store: "<fmt>: <strerror>" with REASON_STORE_FULL where more room
 * would cure it (ENOSPC, which is also what the lack of inodes is, and EDQUOT), else
 * REASON_STORE_FAILED. Returns code (made negative).
 */
int fail_sys(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The checkpoint itself is wrong: REASON_IMAGE_CORRUPT. Returns -EBADMSG. */
int fail_corrupt(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
