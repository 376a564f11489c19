/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by group*.c: passes of driver calls over the members of a group, and who these are. */
#ifndef KYB_CHECKPOINT_GROUP_PRIVATE_H
#define KYB_CHECKPOINT_GROUP_PRIVATE_H

#include "base/backoff.h"
#include "checkpoint/group.h"

#define GROUP_PAUSE_FIRST (20 * NSEC_PER_MSEC)
#define GROUP_PAUSE_MAX   (2 * NSEC_PER_SEC)

struct member {
	struct gpu_member pub;
	struct gpu_group *g;
	struct gpu_call call;
	enum gpu_op op; /* of the call */
	struct list node;
};

/* A process that may or may not be one of CUDA's. */
struct candidate {
	struct gpu_group *g;
	pid_t pid;
	uint64_t start_time;
	struct gpu_call call;
	struct list node;
};

struct gpu_group {
	struct loop *loop;
	struct gpu_worker *worker;
	gpu_group_lister list;
	void *list_data;
	struct list members; /* struct member, in the order of discovery */
	size_t n;
	struct list candidates;
	struct gpu_memory memory; /* before the save */
	struct gpu_memory now;    /* before a restore */
	struct list *returning;   /* groups whose restore is under way; NULL = there are no others */
	struct list returning_node;
	struct gpu_call memory_call;
	struct cuda_gpu_pair pairs[GPU_DEVICES_MAX];
	uint32_t n_pairs;

	/* The call under way. */
	gpu_group_done done;
	void *data;
	nsec_t deadline;
	bool recovering; /* it is gpu_group_recover(), */
	bool pausing;    /* before it tries again */
	bool canceled;
	struct error err;   /* the first failure; code 0 = none */
	size_t pending;     /* driver calls open */
	void (*next)(struct gpu_group *g);
	/* A pass that takes one after the other. */
	enum gpu_op turn_op;
	bool (*turn_wants)(const struct gpu_member *m);
	void (*turn_next)(struct gpu_group *g);
	struct member *turn; /* whose it is */
	struct timer timer; /* begins, pauses */
	size_t n_before;    /* members before a discovery */
	unsigned int discoveries;
	struct backoff backoff;
	enum gpu_op last_op; /* recover: the last thing done, 0 = nothing yet */
	size_t n_pids;       /* of the last listing */
	pid_t pids[GPU_PIDS_MAX];
};

typedef bool (*group_wants)(const struct gpu_member *m);

bool group_living(const struct gpu_member *m);
bool group_running(const struct gpu_member *m);
bool group_locked(const struct gpu_member *m);
bool group_checkpointed(const struct gpu_member *m);

/* A call of group.h begins: first() is called from the loop. */
void group_begin(struct gpu_group *g, nsec_t deadline, gpu_group_done done, void *data,
		 void (*first)(struct gpu_group *g));
/* Calls next() from the loop, when the calls begun have ended or there are none. */
void group_then(struct gpu_group *g, void (*next)(struct gpu_group *g));
/* One of the pending driver calls has ended. */
void group_one_less(struct gpu_group *g);
/* The call is over: done(). */
void group_finish(struct gpu_group *g);

/* Keeps the first failure. */
void group_note(struct gpu_group *g, const struct error *err);
bool group_failed(const struct gpu_group *g);

/* One driver call for each member that is to have it, all at the same time (but for jobs); then
 * next(). */
void group_pass(struct gpu_group *g, enum gpu_op op, group_wants which,
		void (*next)(struct gpu_group *g));
/* Are all that live in the state wanted? Else notes which one is not. */
bool group_all_in(struct gpu_group *g, unsigned int state);

struct member *group_find(const struct gpu_group *g, pid_t pid, uint64_t start_time);
/* Looks for CUDA processes that are not members yet; they become so. Then next(). */
void group_discover(struct gpu_group *g, void (*next)(struct gpu_group *g));
void group_forget_candidates(struct gpu_group *g);
/* Asks what each member holds. Then next(). */
void group_measure(struct gpu_group *g, void (*next)(struct gpu_group *g));
/* Have the GPUs room for what those hold that are CHECKPOINTED? Else notes which one has not
 * (VRAM_SHORT). What is not known decides nothing. Then next(). */
void group_room(struct gpu_group *g, void (*next)(struct gpu_group *g));

#endif
