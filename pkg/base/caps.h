/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up capabilities: what our programs do at their start, whoever started them. */
#ifndef KYB_BASE_CAPS_H
#define KYB_BASE_CAPS_H

#include <stddef.h>

/*
 * Empties the bounding set of all but kept (CAP_..., n of them), as far as CAP_SETPCAP is there for
 * it: without, no new privileges (prctl) do the same for what is started. What the process has
 * itself is as it was.
 */
void caps_bound(const int *kept, size_t n);

/*
 * Gives up all but kept, of those that the process has: bounding, ambient and inheritable set as
 * well. Returns 0 or -errno.
 */
int caps_keep(const int *kept, size_t n);

#endif
