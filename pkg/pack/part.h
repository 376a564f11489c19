/* SPDX-License-Identifier: Apache-2.0 */
/* The names of what is not finished: ".NAME.1a2b3c4d.part", beside what it is going to be. */
#ifndef KYB_PACK_PART_H
#define KYB_PACK_PART_H

#include <limits.h>
#include <stdbool.h>

#define PART_NAME_MAX (NAME_MAX + 1)

/* ret holds PART_NAME_MAX bytes. Returns 0, -EINVAL (name is not that of a file), -ENAMETOOLONG or
 * -EIO (no random numbers). */
int part_name(const char *name, char *ret);
/* Has it that form? */
bool part_is(const char *name);

#endif
