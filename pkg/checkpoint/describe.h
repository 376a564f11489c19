/* SPDX-License-Identifier: Apache-2.0 */
/* What a checkpoint says of itself: from an operation to the store's metadata. */
#ifndef KYB_CHECKPOINT_DESCRIBE_H
#define KYB_CHECKPOINT_DESCRIBE_H

#include "checkpoint/operation.h"

/* Fills ret; what it points to lies in mem, the operation and its worker. Returns 0 or -ENOMEM. */
int describe_checkpoint(const struct operation *op, struct arena *mem, struct metadata *ret);

#endif
