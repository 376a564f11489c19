/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is looked at before anything is touched: what the container's processes hold that cannot be
 * dumped, and whether there is room for the GPU memory in the container's memory limit and on the
 * node, and for the image in the store. Each check by itself, so that a person can be told of all.
 */
#ifndef KYB_CHECKPOINT_SURVEY_H
#define KYB_CHECKPOINT_SURVEY_H

#include "checkpoint/operation.h"

enum survey_check {
	SURVEY_PROCESSES, /* may every one of them be dumped? (descriptors) */
	SURVEY_LIMIT,     /* the memory limit against what is to come from the GPU */
	SURVEY_HOST,      /* the node's memory likewise */
	SURVEY_STORE,     /* the images' file system */
	SURVEY_JOBS,      /* checkpoint jobs: can the driver save them, are their files there? */
	SURVEY_COUNT,
};

/* What is known of the container. Zero where it is not. */
struct survey {
	const struct cgroup *cgroup;
	const struct gpu_group *group; /* NULL = no CUDA */
	const char *image_path;        /* NULL = the store; its file system counts */
	struct store *store;
	uint64_t promised; /* bytes of its room that others are about to take: survey_promised() */
	const struct gpu_worker *worker;
};

/* What checkpoints that are being made will still write into the store; but for that of op. */
uint64_t survey_promised(const struct node *node, const struct operation *op);

/* "descriptors", "memory limit", ... as doctor prints them. */
const char *survey_name(enum survey_check check);

/*
 * Makes one check; blocks for as long as a look into /proc takes. found: what was found, for a
 * person, on success too. Returns 0 or negative with err: IO_URING, LEFTOVER_DEVICE_FD, MEM_LIMIT,
 * STORE_FULL, DRIVER_TOO_OLD.
 */
int survey_one(const struct survey *s, enum survey_check check, char *found, size_t found_size,
	       struct error *err);

/* The container's CUDA processes give the GPU back at a checkpoint: has each? Returns 0 or negative
 * with err (LEFTOVER_DEVICE_FD). */
int survey_released(const struct gpu_group *group, struct error *err);

/*
 * The step of an operation: finds the CUDA processes and what they hold, then checks; before a dump
 * all, else memory and jobs. Returns FLOW_WAIT and flow_resume() follows, or as a step's run() does.
 */
int survey_operation(struct operation *op, struct error *err);

/* May this process have a descriptor of target open while it is dumped? REASON_NONE: yes. cuda: it
 * is a CUDA process that has not been checkpointed yet. */
enum reason survey_target(const char *target, bool cuda);

#endif
