/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's client of the node agent: one stream an operation (api/agent/v1/agent.proto). The
 * stream is the lease on the operation: when it ends, for whatever reason, the agent undoes its
 * half, and the caller undoes its own.
 */
#ifndef KYB_SHIM_HOOKS_AGENT_H
#define KYB_SHIM_HOOKS_AGENT_H

#include <sys/types.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mount_record.h"
#include "event/loop.h"

/* Numbers of enum Order, Status and Phase in agent.proto. */
enum agent_order {
	AGENT_ORDER_NONE = 0,
	AGENT_ORDER_QUIESCE = 1,
	AGENT_ORDER_DUMP = 2,
	AGENT_ORDER_THAW = 3,
	AGENT_ORDER_EXIT = 4,
	AGENT_ORDER_RESTORE = 5,
	AGENT_ORDER_FREEZE = 6,
	AGENT_ORDER_RELEASE = 7,
	AGENT_ORDER_ABORT = 8,
};

#define AGENT_DETAIL_MAX 16

/* What explains a failure beyond its error; all borrowed. */
struct agent_detail {
	const char *lines[AGENT_DETAIL_MAX]; /* of CRIU's log */
	size_t n_lines;
	const char *log_path; /* the whole of it; NULL = there is none */
};

enum agent_kind { AGENT_CHECKPOINT, AGENT_RESTORE, AGENT_SUSPEND };

/* Everything the shim knows of the container. Strings may be NULL where they are not known. */
struct agent_request {
	enum agent_kind kind;
	const char *container_id, *pod_uid, *gpu_group, *gpu_seat;
	uint64_t timeout_ms; /* 0 = the agent's own limit */

	/* Context */
	const char *ns, *bundle, *pod_name, *pod_namespace, *sandbox_id, *container_name;
	const char *seat_generation, *group_annotation, *seat_annotation, *runtime;
	const char *const *visible_devices, *const *device_paths;
	size_t n_visible_devices, n_device_paths;
	const char *traceparent, *tracestate;
	pid_t task_pid;
	bool gpu;

	/* Checkpoint */
	bool exit, paused;
	bool stop; /* in place of the signal that stops it: into the store, by a ref of the agent's */
	const char *image_path, *work_path, *checkpoint_ref;
	const char *const *runtime_flags;
	size_t n_runtime_flags;

	struct mount_records mounts; /* to be kept with it, and handed back at a restore */

	/* A checkpoint that has begun under an agent that is no more. */
	bool came_back;
	enum agent_order last_order; /* that was given */
	bool last_answered;          /* it has been carried out: */
	int last_result;
	const struct error *last_err;
	const struct agent_detail *last_detail; /* NULL = none */

	/* Restore */
	bool prepare;

	/* Suspend */
	bool resume;
	bool if_asked; /* only if an operator asks the agent for it now */

	/* Of a container that is suspended: what agent_reply.held said then. */
	struct bytes held;
};

/* A reply; valid during the call. */
struct agent_reply {
	unsigned int phase;
	enum agent_order order;
	bool cuda_done, criu_done;
	const char *image_path, *work_path;
	char *const *runtime_flags;
	size_t n_runtime_flags;
	struct mount_records mounts; /* with AGENT_ORDER_RESTORE: agent_request.mounts of then */
	struct bytes held; /* with AGENT_ORDER_FREEZE of a suspend: to be kept */
};

struct agent_op;

struct agent_ops {
	/* Progress, or an order that agent_op_result() answers. */
	void (*reply)(void *data, const struct agent_reply *reply);
	/*
	 * The operation is over at the agent: r = 0, or negative with err: what the agent said, or
	 * REASON_AGENT_UNAVAILABLE when it could not be reached or the stream broke; r is -EPIPE then
	 * and never else. Called once; the op is freed after it.
	 */
	void (*ended)(void *data, int r, const struct error *err);
};

/*
 * path: the agent's socket, which root or we ourselves must serve (else REASON_PERMISSION). deadline
 * is absolute. Returns 0, or negative with err and no callback.
 */
int agent_op_open(struct agent_op **ret, struct loop *loop, const char *path,
		  const struct agent_request *req, nsec_t deadline, const struct agent_ops *ops,
		  void *data, struct error *err);

/* Answers an order: r = 0, or negative with err. task_pid: of ORDER_RESTORE, else 0. */
void agent_op_result(struct agent_op *op, enum agent_order order, int r, const struct error *err,
		     pid_t task_pid, nsec_t took);
/* The same for a failure that there is more to say of. */
void agent_op_failed(struct agent_op *op, enum agent_order order, const struct error *err,
		     const struct agent_detail *detail, nsec_t took);

/* Ends the lease; no callback follows. NULL is fine. Not from inside reply(). */
void agent_op_cancel(struct agent_op *op);

#endif
