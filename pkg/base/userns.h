/* SPDX-License-Identifier: Apache-2.0 */
/* Are we root, or only called so? In a user namespace the kernel refuses some things to root. */
#ifndef KYB_BASE_USERNS_H
#define KYB_BASE_USERNS_H

#include <stdbool.h>

/*
 * Does this process run in a user namespace other than the machine's own? By proc/self/uid_map,
 * which maps all ids onto themselves there and nowhere else. proc is "/proc" except in tests.
 * False when the kernel has no such namespaces.
 */
bool userns_inside(const char *proc);

#endif
