/* SPDX-License-Identifier: Apache-2.0 */
/* A Checkpoint call; shared by checkpoint.c, gpu_checkpoint.c and gpu_dump.c. */
#ifndef KYB_SHIM_CHECKPOINT_H
#define KYB_SHIM_CHECKPOINT_H

#include <limits.h>

#include "base/backoff.h"
#include "cgroup/freezer.h"
#include "proc/command.h"
#include "shim/gpu.h"

/* A dump that fails over something that passes. */
enum dump_again {
	DUMP_AGAIN_NEVER, /* not, or not once more */
	DUMP_AGAIN_ONCE,
	DUMP_AGAIN_PAUSE, /* it runs for a moment before it is frozen again */
};

struct checkpoint {
	struct op op; /* first member */
	struct checkpoint_options options;
	char image_path[PATH_MAX], work_path[PATH_MAX];
	bool remove_work; /* work_path is ours */
	unsigned int stop_signal; /* what this checkpoint stands for; 0 = a call */

	/* With the agent. */
	struct agent_op *agent; /* NULL: over, or lost */
	enum agent_order order; /* being carried out; AGENT_ORDER_NONE = none */
	enum agent_order last_order; /* that or the one before it */
	int last_result;        /* of last_order, when it is done */
	struct error last_err;
	struct gpu_failure failure; /* what CRIU says of it, where it was CRIU */
	nsec_t return_by;       /* an agent that was lost has to be back by then; 0 = not lost */
	nsec_t stream_deadline;
	struct timer call_again;
	struct timer patience;  /* with the agent, between two orders */
	struct runtime_call *dumping;
	bool aborted; /* by the agent, since its order to dump */
	enum dump_again again;
	struct error first_err; /* of a dump that is tried again */
	nsec_t dump_until;      /* what all of the order may take; 0 = it has not begun */
	struct backoff pause;
	nsec_t order_start;
	struct freezer freezer;
	struct command sync;
	struct timer timer;
	bool was_paused; /* containerd paused it before the call */
	bool frozen;     /* by us, or still by containerd's pause */
	bool over;       /* the agent has said its last word */
	bool refreezing;
	int result;
	struct error err;
	nsec_t drain_until;
	struct arena mounts_mem;
	struct command look;
	void (*looked)(struct checkpoint *ck, int r, const struct error *err);
	struct mount_records mounts; /* with the agent: those that config.json does not tell */
	int hold; /* of the checkpoint that is being made; 0 = none */
};

/* Where CRIU logs: what the options say, or a folder in the bundle's work folder. Created. */
int checkpoint_work_path(struct checkpoint *ck, struct error *err);
/* The dump's arguments from options and settings, but for leave_running. */
void checkpoint_args(const struct checkpoint *ck, struct runtime_checkpoint *args);
/* Answers the call and frees ck. */
void checkpoint_end(struct checkpoint *ck, int r, const struct error *err);

/*
 * Looks at the container's mounts, into ck->mounts. looked() is called once, perhaps from inside
 * here, at the latest after timeouts.quiesce: then r < 0 (TIMEOUT), and nothing has been touched.
 * Uses ck->timer.
 */
void gpu_look(struct checkpoint *ck,
	      void (*looked)(struct checkpoint *ck, int r, const struct error *err));

/* Conducted by the agent. */
void gpu_checkpoint(struct checkpoint *ck);
/* The order under way has been carried out, well or not. */
void checkpoint_order_done(struct checkpoint *ck, int r, const struct error *err);
/* Freezes or thaws; done() is called in any case, perhaps from inside here. */
void checkpoint_freeze(struct checkpoint *ck, bool freeze, nsec_t timeout,
		       void (*done)(struct freezer *f, int r, const struct error *err));
/* Carries out the order to dump; checkpoint_order_done() follows. */
void gpu_dump(struct checkpoint *ck, const struct agent_reply *reply);
/* It comes to its end sooner, if it is under way; what has not begun does not begin. */
void gpu_dump_abort(struct checkpoint *ck);

#endif
