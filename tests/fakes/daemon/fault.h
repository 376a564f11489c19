/* SPDX-License-Identifier: Apache-2.0 */
/* Rules that make the driver misbehave, and what they decide for one call. */
#ifndef FAKEGPUD_FAULT_H
#define FAKEGPUD_FAULT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "proto/fg_proto.h"

#define RULES_MAX 256

/* In this order: wait, hang, signal the target, crash the caller, answer - or lie. */
struct plan {
	uint64_t rule; /* 0 = nothing is to be done */
	uint64_t delay_ms;
	bool hang; /* until released */
	int target_signal; /* 0 = none */
	bool crash;
	bool has_code;
	int code;
	bool noop;     /* SUCCESS, and nothing is done */
	uint64_t lies; /* enum fg_lie */
	bool has_value;
	uint64_t value; /* told instead of the true one */
};

struct rule {
	struct list node;
	uint64_t id;
	enum fg_call call; /* FG_CALLS = any */
	pid_t pid;         /* the target, or the caller where there is none; 0 = any */
	uint64_t skip;     /* calls to let pass first */
	uint64_t count;    /* calls to apply it to; 0 = without end */
	bool after;        /* the call is done first, its answer is what goes wrong */
	uint64_t hits;
	struct plan plan;
};

/*
 * What the first rule that fits says of this call; counts the hit. false, and *ret empty, when
 * none does.
 */
bool fault_match(struct list *rules, enum fg_call call, pid_t pid, bool after, struct plan *ret);
void fault_clear(struct list *rules, uint64_t id);

#endif
