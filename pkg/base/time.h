/* SPDX-License-Identifier: Apache-2.0 */
/* One unit of time everywhere: nanoseconds. Deadlines are absolute, on CLOCK_MONOTONIC. */
#ifndef KYB_BASE_TIME_H
#define KYB_BASE_TIME_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t nsec_t;

#define NSEC_PER_USEC ((nsec_t)1000)
#define NSEC_PER_MSEC ((nsec_t)1000000)
#define NSEC_PER_SEC  ((nsec_t)1000000000)
#define NSEC_NEVER    UINT64_MAX /* as a deadline: none */

/* CLOCK_MONOTONIC; for deadlines and durations. */
nsec_t time_now(void);
/* CLOCK_REALTIME since the epoch; for what other programs are told. */
nsec_t time_wall(void);
/* a + b without overflow; NSEC_NEVER stays so. */
nsec_t time_add(nsec_t a, nsec_t b);
/* Milliseconds that a peer named; NSEC_NEVER where they do not fit. */
nsec_t time_from_ms(uint64_t ms);

#define TIME_RFC3339_MAX 96
/* "2026-11-23T15:22:01.123456789Z", UTC. buf holds TIME_RFC3339_MAX bytes; returns buf. */
const char *time_rfc3339(nsec_t wall, char *buf);

#endif
