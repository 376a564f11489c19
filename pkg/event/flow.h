/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation that takes several rounds of the loop, as a table of steps - and a transaction:
 * when a step fails, every step that was begun is taken back, the newest first.
 *
 *	static const struct flow_step steps[] = {
 *		{ "lock", lock_all, unlock_all, stop_driver_call },
 *		{ "vram_save", save_all, restore_all, stop_driver_call },
 *	};
 *
 * A step does its work at once, or starts something and says FLOW_WAIT; whoever ends that
 * something calls flow_resume() - from the loop, never from inside the step's own run(). An undo
 * may wait in the same way. What is undone and why is decided here and nowhere else.
 */
#ifndef KYB_EVENT_FLOW_H
#define KYB_EVENT_FLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "event/loop.h"

struct flow;

#define FLOW_WAIT 1

struct flow_step {
	const char *name;
	/* Returns 0 (done), FLOW_WAIT, or negative with err filled. */
	int (*run)(struct flow *f, struct error *err);
	/*
	 * Takes the step back, whole or half done, or not really begun; NULL = nothing to take
	 * back. Returns as run() does; a failure is reported to observe() and the other undos go
	 * on all the same.
	 */
	int (*undo)(struct flow *f, struct error *err);
	/*
	 * Makes what run() or undo() waits for end soon: flow_resume() must still follow. Called
	 * at most once a step, when its time is over or at flow_abort(). NULL = cannot be hurried.
	 */
	void (*cancel)(struct flow *f);
};

enum flow_event { FLOW_BEGIN, FLOW_END, FLOW_FAILED, FLOW_UNDO, FLOW_UNDONE, FLOW_UNDO_FAILED };

struct flow_ops {
	const struct flow_step *steps;
	size_t n_steps;
	/* Optional: how long a step's run() or undo() may take; NSEC_NEVER = without limit. */
	nsec_t (*timeout)(struct flow *f, const struct flow_step *step);
	/*
	 * Optional: told of every step. err only with the two FAILED events. May call flow_abort()
	 * at FLOW_BEGIN: then the step fails without having been run.
	 */
	void (*observe)(struct flow *f, const struct flow_step *step, enum flow_event event,
			const struct error *err);
	/*
	 * All is done (r = 0) or taken back (r < 0; err is the first failure). Called once, never
	 * from inside flow_start(); the flow may be freed in it.
	 */
	void (*done)(struct flow *f, int r, const struct error *err);
};

struct flow {
	const struct flow_ops *ops;
	struct loop *loop;
	size_t at;
	enum { FLOW_IDLE, FLOW_FORWARD, FLOW_BACKWARD } direction;
	bool waiting, canceled;
	struct timer timer;
	struct job begin;
	nsec_t step_start; /* when the step under way began */
	struct error err;  /* the first failure */
	struct error late; /* scratch for failing undos */
};

/* Begins at the end of this round of the loop. */
void flow_start(struct flow *f, struct loop *loop, const struct flow_ops *ops);

/* Ends the wait of the present step: r = 0, or negative with err (copied) saying why. */
void flow_resume(struct flow *f, int r, const struct error *err);

/*
 * The operation is no longer wanted: as if the present step had failed with err. Ignored while
 * steps are being taken back.
 */
void flow_abort(struct flow *f, const struct error *err);

/* Is it under way? */
static inline bool flow_running(const struct flow *f)
{
	return f->direction != FLOW_IDLE;
}

/* The step under way, or NULL. */
const struct flow_step *flow_step(const struct flow *f);

#endif
