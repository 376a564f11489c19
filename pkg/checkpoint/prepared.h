/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between PREPARE and RESTORE: which container is about to be restored from which checkpoint, with
 * the checkpoint pinned, so that it cannot be deleted meanwhile and need not be verified twice.
 */
#ifndef KYB_CHECKPOINT_PREPARED_H
#define KYB_CHECKPOINT_PREPARED_H

#include "checkpoint/operation.h"

/* Keeps an operation's pin for its container; for a while. Without memory nothing is kept, and
 * RESTORE verifies again. */
void prepared_keep(struct operation *op);
/* Was this operation's container prepared from this operation's checkpoint? Forgets it. */
bool prepared_claim(struct operation *op);
void prepared_free_all(struct node *node);

#endif
