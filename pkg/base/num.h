/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers from text, checked: the whole text must be the number. */
#ifndef KYB_BASE_NUM_H
#define KYB_BASE_NUM_H

#include <stddef.h>
#include <stdint.h>

#include "base/time.h"

/* Decimal, no sign, no spaces. Returns 0, -EINVAL (not a number) or -ERANGE (over max). */
int num_parse(const char *s, uint64_t max, uint64_t *ret);
/* As above for the n bytes at s, which need no NUL. */
int num_parse_n(const char *s, size_t n, uint64_t max, uint64_t *ret);
/* A duration: "90s", "1m30s", "250ms", "2h", or "0". Returns 0, -EINVAL or -ERANGE. */
int num_parse_duration(const char *s, nsec_t *ret);

#endif
