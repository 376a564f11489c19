/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI Process of an exec, on its way from containerd to the runtime. */
#ifndef KYB_OCI_PROCESS_SPEC_H
#define KYB_OCI_PROCESS_SPEC_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"

/*
 * Checks that json is an object and sets its "terminal" to what the request says, which wins;
 * everything else passes through. Appends to out. Returns 0, -EINVAL (RPC_INVALID_ARGUMENT) or
 * -ENOMEM.
 */
int process_spec_rewrite(struct bytes json, bool terminal, struct buf *out, struct error *err);

#endif
