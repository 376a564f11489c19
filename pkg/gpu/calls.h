/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's book of open calls: which wait to be sent, which are with the worker, which are
 * late. No I/O; worker.c does that. Private to this layer.
 */
#ifndef KYB_GPU_CALLS_H
#define KYB_GPU_CALLS_H

#include "gpu/worker.h"

/* A call that is with the worker. It outlives its owner: the driver's call is still watched. */
struct calls_slot {
	struct gpu_call *call; /* NULL = given up by its owner */
	uint64_t id;           /* 0 = free */
	unsigned int op;
	pid_t pid;
	nsec_t begun, deadline;
	bool cancel; /* CANCEL is to be sent */
	bool late;   /* this one is why the worker is killed */
};

struct calls {
	struct loop *loop;
	struct list queue; /* not yet sent */
	struct list ended; /* to be told in a round of the loop */
	struct timer deliver;
	unsigned int n_open, n_sent, n_cancel;
	uint64_t count; /* makes ids unique */
	struct calls_slot slots[GPU_CALLS_MAX];
};

void calls_init(struct calls *c, struct loop *loop);
/* Forgets all calls: they are idle, no done() is called. */
void calls_done(struct calls *c);

/* Takes a call whose private members are set. It is queued, or ends: too many. */
void calls_add(struct calls *c, struct gpu_call *call);
/* Ends a call that is not with the worker, in one of the next rounds. */
void calls_end_later(struct calls *c, struct gpu_call *call, const struct error *why);

/* The next call to send, or NULL. */
struct gpu_call *calls_next(const struct calls *c);
/* Gives it a slot, and fills its request. Follow with calls_sent() once it is sent. */
void calls_request(struct calls *c, struct gpu_call *call, struct gpu_request *ret);
void calls_sent(struct calls *c, struct gpu_call *call, const struct gpu_request *req);
/* The next CANCEL to send: true, and *ret is filled. Follow with calls_cancel_sent(). */
bool calls_next_cancel(const struct calls *c, struct gpu_request *ret);
void calls_cancel_sent(struct calls *c, const struct gpu_request *req);

/*
 * Ends the call that a reply belongs to. Returns 0, or -EPROTO with err: it belongs to none.
 * done() is called in here; the owner may do to other calls what it likes.
 */
int calls_reply(struct calls *c, const union gpu_any_reply *reply, struct error *err);

/* The earliest deadline of the calls queued, and of those sent; NSEC_NEVER when there is none. */
nsec_t calls_deadline(struct calls *c, bool with_sent);
/* Ends the calls still queued at their deadline, with down as the cause. */
void calls_expire_queue(struct calls *c, nsec_t now, const struct error *down);
/*
 * Looks for late calls among those sent. One that only waits behind another call of its process
 * ends, and is canceled in the worker. One that is late itself means that the worker hangs: true,
 * with err; then calls_fail_sent().
 */
bool calls_expire_sent(struct calls *c, nsec_t now, struct error *err);

/* Ends all calls that were sent (done() is called in here) or queued (later). */
void calls_fail_sent(struct calls *c, const struct error *why);
void calls_fail_queue(struct calls *c, const struct error *why);

/* Of gpu_call_cancel() and gpu_call_forget(); true when a CANCEL is to be sent. */
bool calls_cancel(struct calls *c, struct gpu_call *call);
void calls_forget(struct calls *c, struct gpu_call *call);

#endif
