/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was called, by whom, when and with what result: the evidence that tests argue with ("every
 * lock had ended before the first save began"). Order is told by ticks, a counter that goes up
 * with every entry: clocks can tie.
 */
#ifndef FAKEGPUD_CALLLOG_H
#define FAKEGPUD_CALLLOG_H

#include <stdint.h>
#include <sys/types.h>

#include "base/time.h"
#include "proto/fg_proto.h"

#define CALLLOG_MAX 16384 /* older entries are dropped */

/* Instead of a CUresult. */
enum calllog_end {
	CALLLOG_UNDER_WAY = -1,
	CALLLOG_CRASHED = -2,  /* the fault made the caller crash */
	CALLLOG_ABANDONED = -3 /* the caller died or left */
};

struct calllog_moment {
	uint64_t tick; /* 0 = has not happened */
	nsec_t time;   /* CLOCK_MONOTONIC */
};

struct calllog_entry {
	uint64_t id; /* 1, 2, ...; 0 = none */
	enum fg_call call;
	pid_t pid;         /* of the target, as the daemon sees it; 0 = none */
	pid_t caller, tid; /* tid as the caller sees it */
	uint64_t timeout_ms;
	struct calllog_moment begin;   /* the call was received */
	struct calllog_moment execute; /* the target's restore thread took it up */
	struct calllog_moment executed;
	struct calllog_moment end; /* the caller was answered */
	int code;      /* what the caller was told: a CUresult or enum calllog_end */
	int real_code; /* what the restore thread reported; CALLLOG_UNDER_WAY = nothing */
	uint64_t value;
	uint64_t rule; /* the fault that was applied; 0 = none */
};

struct calllog {
	struct calllog_entry *ring; /* CALLLOG_MAX of them */
	uint64_t last;              /* id of the newest entry */
	uint64_t tick;
};

/* Returns 0 or -ENOMEM. */
int calllog_init(struct calllog *log);
void calllog_done(struct calllog *log);
void calllog_clear(struct calllog *log);
/* A new entry, its begin set. */
struct calllog_entry *calllog_add(struct calllog *log);
/* NULL when it was dropped. */
struct calllog_entry *calllog_get(const struct calllog *log, uint64_t id);
/* Now. */
struct calllog_moment calllog_now(struct calllog *log);

#endif
