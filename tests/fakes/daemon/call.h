/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of a driver library, from CALL to its RESULT: faults before, the call itself - done by
 * the library or by the target's restore thread - and faults after. A connection has one at a time.
 */
#ifndef FAKEGPUD_CALL_H
#define FAKEGPUD_CALL_H

#include "daemon/fault.h"
#include "daemon/server.h"

struct session;
struct process;

enum call_stage {
	CALL_IDLE,
	CALL_DELAYED,
	CALL_HELD, /* until released */
	CALL_OUT   /* PROCEED was said */
};

struct call {
	struct list node; /* in its target's calls, while the restore thread may take it up */
	enum call_stage stage;
	bool answering; /* the faults after the call, not those before */
	enum fg_call id;
	uint64_t seq;
	uint64_t entry; /* in the call log; also the token the restore thread is signalled with */
	struct process *target;
	struct session *helper; /* the restore thread that executes it */
	uint64_t timeout_ms;
	uint8_t pairs[FG_PAIRS_MAX * 32];
	size_t pairs_len;
	struct plan plan;
	struct timer timer;
	uint64_t code, value;
};

void call_init(struct call *c);
/* FG_CALL; fd (-1 = none) is a pidfd and borrowed. Returns 0 or -EBADMSG. */
int call_begin(struct session *s, const struct fg_msg *m, int fd);
/* FG_END: the library did its part, or could not reach the restore thread. */
int call_end(struct session *s, const struct fg_msg *m);
/* FG_TAKE: a restore thread came for the call with that token. Returns 0 or -EBADMSG. */
int call_serve(struct session *helper, const struct fg_msg *m);
/* FG_DONE. Returns 0 or -EBADMSG. */
int call_done(struct session *helper, const struct fg_msg *m);
/* The restore thread's connection is closed: now nothing of it is left for CRIU to find, and the
 * caller may be told. */
void call_helper_gone(struct session *helper);
/* The target died. */
void call_target_gone(struct call *c);
/* The caller is gone. */
void call_abandon(struct session *s);
/* Lets calls go on that a fault holds; rule 0 = of all rules. Returns how many. */
unsigned int call_release(struct server *srv, uint64_t rule);

#endif
