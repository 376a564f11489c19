/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers as people read them. All return buf. */
#ifndef KYB_CTL_HUMAN_H
#define KYB_CTL_HUMAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/time.h"

#define HUMAN_MAX 48

/* "512 B", "1.5 KiB", "40.0 GiB", "1.2 TiB": multiples of 1024, one decimal, never "1024.0". */
const char *human_size(uint64_t bytes, char *buf);
/* "12.3/40.0 GiB": both in the unit of total. */
const char *human_part(uint64_t done, uint64_t total, char *buf);
/* Megabytes (10^6 bytes) a second: "812 MB/s"; "" when took is 0. */
const char *human_rate(uint64_t bytes, nsec_t took, char *buf);
/* "0.3ms", "45ms", "8.1s", "2m05s", "3h07m" */
const char *human_duration(nsec_t d, char *buf);
/* "just now", "12s ago", "3m ago", "5h ago", "12d ago", "2y ago" */
const char *human_age(nsec_t d, char *buf);

/*
 * RFC 3339 ("2026-11-23T15:22:01.5Z", or with "+01:00") to nanoseconds since the epoch.
 * Returns 0, -EINVAL, or -ERANGE (before 1970 or after 2500).
 */
int human_time(const char *rfc3339, nsec_t *ret);

#endif
