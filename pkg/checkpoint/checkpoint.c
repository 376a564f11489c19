/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint: preflight, quiesce, lock, VRAM to RAM, CRIU, changed files, seal; then either the
 * container goes on with its GPU memory back, or it is ended.
 *
 * Two flows. Up to and with the seal everything can be taken back, and is when anything fails: the
 * container runs on. CRIU always leaves it frozen and alive, also for a checkpoint with exit: it
 * is ended only when the image is sealed. After the seal there is no way back and no need for one.
 */
#include "artifact/hashing.h"
#include "checkpoint/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/path.h"
#include "cgroup/room.h"
#include "checkpoint/describe.h"
#include "checkpoint/gpu_steps.h"
#include "checkpoint/jobfile.h"
#include "checkpoint/survey.h"

/* What is less is hashed in no time. */
#define FOLLOW_MIN ((uint64_t)64 << 20)

static bool has_gpu(const struct operation *op)
{
	return op->group != NULL;
}

/* --- preflight ------------------------------------------------------------------------------ */

static int open_store(struct operation *op, struct error *err)
{
	int r;

	if (!*op->req.ref) {
		r = PATH_PRINTF(op->image_path, "%s", op->req.image_path);
		if (r == 0)
			r = PATH_PRINTF(op->work_path, "%s", op->req.work_path);
		if (r < 0 || op->image_path[0] != '/')
			return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
					    "the image path \"%.200s\" is not an absolute path",
					    op->req.image_path);
		return 0;
	}
	r = store_begin(op->node->store, op->req.ref, &op->work, err);
	if (r == 0)
		r = PATH_PRINTF(op->image_path, "%s", op->work.criu_path);
	if (r == 0)
		r = PATH_PRINTF(op->work_path, "%s", op->work.logs_path);
	return r;
}

static int look_at_container(struct operation *op, struct error *err)
{
	int r = operation_find_processes(op, op->req.task_pid, err);

	if (r == 0)
		r = preflight_pod(&op->req, &op->cgroup, err);
	if (r == 0)
		r = open_store(op, err);
	if (r < 0)
		return r;
	return op->req.held ? operation_confirm_held(op, err) : survey_operation(op, err);
}

static int step_preflight(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	int r = preflight_seat(op->node, &op->req, err);

	return r < 0 ? r : preflight_driver(op, look_at_container, err);
}

static int undo_preflight(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	bulk_release(&op->bulk);
	return op->work.fd >= 0 ? store_abort(&op->work, err) : 0;
}

/* --- quiesce -------------------------------------------------------------------- */

static int step_quiesce(struct flow *f, struct error *err)
{
	return operation_order(operation_of_flow(f), ORDER_QUIESCE, err);
}

/* --- CRIU ----------------------------------------------------------------------------------- */

static void following_ended(struct bulk *b, int r, const struct error *err)
{
	(void)b;
	(void)r;
	log_warning("images are hashed when they are complete", F_ERR(err));
}

/*
 * Has the images hashed and written back while CRIU writes them. Without, it is done when they are
 * complete, as it is after an agent that died: so this is no step that can fail.
 */
static void follow_dump(struct operation *op)
{
	static const struct bulk_ops ops = { .done = following_ended };
	uint64_t held = op->group ? gpu_group_vram_bytes(op->group) : 0;
	struct error err = ERROR_NULL;
	struct cgroup_room room;
	_cleanup_close_ int dir = -1;
	int r;

	/* By now GPU memory is among what the processes hold, where the cgroup counts it. */
	if (cgroup_room(&op->cgroup, &room) == 0 && room.resident > held)
		held = room.resident;
	if (held < FOLLOW_MIN)
		return;
	held += held / 8;
	if (op->work.fd >= 0) {
		r = store_follow(&op->work, held, &op->bulk, &ops, &err);
	} else {
		dir = open(op->image_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (dir < 0)
			return; /* the shim makes it */
		r = image_follow(op->node->bulk, dir, held, &op->bulk, &ops, &err);
	}
	if (r < 0)
		log_warning("images are hashed when they are complete", F_ERR(&err));
}

static void slot_granted(struct slot *slot)
{
	struct operation *op = container_of(slot, struct operation, slot);
	struct error err = ERROR_NULL;
	int r;

	op->dumping = true;
	operation_watch_size(op);
	r = record_write(op, phase_name(PHASE_CRIU_DUMP), &err); /* now it does begin */
	if (r == 0)
		r = operation_order(op, ORDER_DUMP, &err);
	if (r == FLOW_WAIT)
		follow_dump(op);
	if (r < 0)
		flow_resume(&op->flow, r, &err);
}

static int step_dump(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	/* The one rule that everything else serves. */
	if (!op->cuda_done)
		return error_reason(err, REASON_INTERNAL, -EPROTO,
				    "CRIU may not run: GPU memory has not been saved");
	slot_request(&op->node->criu, &op->slot, slot_granted);
	return FLOW_WAIT;
}

static void cancel_dump(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	if (!op->dumping) {
		slot_release(&op->slot);
		flow_resume(f, -ECANCELED, NULL);
	} else {
		operation_abort_order(op);
	}
}

static void thawed_by_us(struct operation *op, int r, const struct error *err)
{
	flow_resume(&op->flow, r, err);
}

static int order_thaw(struct operation *op, struct error *err)
{
	if (!op->host_lost)
		return operation_order(op, ORDER_THAW, err);
	operation_thaw(op, thawed_by_us);
	return FLOW_WAIT;
}

static int undo_dump(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	slot_release(&op->slot);
	bulk_release(&op->bulk);
	if (!op->dumping || op->req.held)
		return 0;
	/* The driver needs the processes to run before it can bring their memory back. */
	op->dumping = false;
	return order_thaw(op, err);
}

/* --- changed files, seal -------------------------------------------------------------------- */

/*
 * Who is in the image, and the job files of these: as they are while the container stands still,
 * for the processes' restore changes the files, and the image is sealed after it. On record before
 * it is let go, so that nobody who takes the operation up asks again.
 */
static int settle(struct operation *op, struct error *err)
{
	int r;

	if (!op->group || op->settled)
		return 0;
	gpu_group_find_apart(op->group, op->req.task_pid);
	r = jobfile_save(op->group, op->image_path, err);
	if (r < 0)
		return r;
	op->settled = true;
	return record_write(op, phase_name(PHASE_ROOTFS), err);
}

static int step_rootfs(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	int r;

	slot_release(&op->slot);
	op->criu_done = true;
	r = settle(op, err);
	if (r < 0)
		return r;
	if (op->work.fd < 0 || !op->host->rootfs)
		return 0; /* containerd's client saves them by itself */
	return op->host->rootfs(op, err);
}

static void cancel_rootfs(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	if (op->host->rootfs_cancel)
		op->host->rootfs_cancel(op);
}

static void seal_progress(struct bulk *b, uint64_t done, uint64_t total)
{
	struct operation *op = container_of(b, struct operation, bulk);

	op->bytes_done = done;
	op->bytes_total = total;
	op->host->update(op);
}

static void sealed(struct bulk *b, int r, const struct error *err)
{
	struct operation *op = container_of(b, struct operation, bulk);

	if (r == 0)
		op->bytes_done = op->bytes_total;
	flow_resume(&op->flow, r, err);
}

static int step_seal(struct flow *f, struct error *err)
{
	static const struct bulk_ops ops = { .progress = seal_progress, .done = sealed };
	struct operation *op = operation_of_flow(f);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(METADATA_MEMORY_MAX);
	_cleanup_close_ int dir = -1;
	struct metadata m;
	int r;

	if (op->canceled.code) { /* while the GPU memory was being brought back */
		*err = op->canceled;
		return err->code;
	}
	r = describe_checkpoint(op, &mem, &m);
	if (r < 0)
		return error_set(err, r, "describe the checkpoint: out of memory");
	if (op->work.fd >= 0) {
		r = store_commit(&op->work, &m, hashing_workers(), operation_step_deadline(op),
				 &op->bulk, &ops, err);
		return r < 0 ? r : FLOW_WAIT;
	}
	dir = open(op->image_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return error_reason(err, REASON_STORE_FAILED, -errno, "open the images in %s: %s",
				    op->image_path, strerror(errno));
	r = image_commit(op->node->bulk, dir, &m, hashing_workers(), operation_step_deadline(op),
			 &op->bulk, &ops, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_bulk(struct flow *f)
{
	bulk_cancel(&operation_of_flow(f)->bulk);
}

/* --- the GPU memory back -------------------------------------------------------------------- */

static int step_thaw(struct flow *f, struct error *err)
{
	return order_thaw(operation_of_flow(f), err);
}

static int step_vram_back(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	op->dumping = false;
	if (!gpu_steps_needed(op))
		return 0;
	/* After an agent that died nobody knows how far it was. */
	if (op->revival)
		gpu_group_recover(op->group, operation_step_deadline(op), operation_group_done, op);
	else
		gpu_group_restore(op->group, NULL, 0, operation_step_deadline(op),
				  gpu_step_restored, op);
	return FLOW_WAIT;
}

/* The container is its user's again. */
static int release(struct operation *op, struct error *err)
{
	return op->host_lost ? 0 : operation_order(op, ORDER_RELEASE, err);
}

static void unlocked_then_release(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct error late = ERROR_NULL;

	if (r == 0) {
		r = release(op, &late);
		err = &late;
	}
	if (r != FLOW_WAIT)
		flow_resume(&op->flow, r, err);
}

static int step_unlock(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (!gpu_steps_needed(op) || op->revival)
		return release(op, err);
	gpu_group_unlock(op->group, operation_step_deadline(op), unlocked_then_release, op);
	return FLOW_WAIT;
}

static int step_release(struct flow *f, struct error *err)
{
	return release(operation_of_flow(f), err);
}

static int step_exit(struct flow *f, struct error *err)
{
	return operation_order(operation_of_flow(f), ORDER_EXIT, err);
}

/* --- the course of things ------------------------------------------------------------------- */

static const struct flow_step steps[] = {
	{ "preflight", step_preflight, undo_preflight, gpu_step_cancel },
	{ "quiesce", step_quiesce, NULL, NULL },
	{ "lock", gpu_step_lock, gpu_undo, gpu_step_cancel },
	{ "vram_save", gpu_step_save, NULL, gpu_step_cancel },
	{ "criu_dump", step_dump, undo_dump, cancel_dump },
	{ "rootfs", step_rootfs, NULL, cancel_rootfs },
	/* Only of one that ends: it must not, before its image is whole and on the disk. */
	{ "seal", step_seal, NULL, cancel_bulk },
};

/*
 * One that runs on is given its GPU memory back before the image is hashed and synced, which takes
 * as long again as writing it. What fails here is no reason to give anything up: the undo tries
 * again, as long as there is time, and then goes on in the background.
 */
static const struct flow_step leave_steps[] = {
	{ "quiesce", step_thaw, gpu_undo_frozen, NULL },
	{ "vram_restore", step_vram_back, NULL, gpu_step_cancel },
	{ "unlock", step_unlock, NULL, gpu_step_cancel },
};

/* One that is suspended stays so: its GPU memory is where it was, and it was not thawed. */
static const struct flow_step held_steps[] = {
	{ "preflight", step_preflight, undo_preflight, gpu_step_cancel },
	{ "quiesce", step_quiesce, NULL, NULL },
	{ "criu_dump", step_dump, undo_dump, cancel_dump },
	{ "rootfs", step_rootfs, NULL, cancel_rootfs },
	{ "seal", step_seal, NULL, cancel_bulk },
};

static const struct flow_step held_leave_steps[] = { { "quiesce", step_release, NULL, NULL } };
static const struct flow_step held_exit_steps[] = { { "exit", step_exit, NULL, NULL } };

static const struct flow_step leave_seal_steps[] = {
	{ "seal", step_seal, undo_preflight, cancel_bulk },
};

/* A container that cannot be ended runs on, whole. */
static const struct flow_step exit_steps[] = { { "exit", step_exit, gpu_undo_frozen, NULL } };

static void end(struct operation *op, int r, const struct error *err)
{
	enum operation_status status = op->status == OPERATION_DEGRADED ? OPERATION_DEGRADED
				       : r < 0				? OPERATION_FAILED
									: OPERATION_OK;

	operation_finish(op, status, status == OPERATION_OK ? NULL : err);
}

/* Sealed, or not: the container is well either way, or as well as it can be. */
static void leave_sealed(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (r < 0) {
		end(op, r, err);
		return;
	}
	store_work_close(&op->work);
	end(op, op->after.code, &op->after);
}

static const struct flow_ops leave_seal_flow = { .steps = leave_seal_steps,
						 .n_steps = ARRAY_SIZE(leave_seal_steps),
						 .timeout = operation_timeout,
						 .observe = operation_observe,
						 .done = leave_sealed };

/*
 * r < 0: something went wrong with the container, not with the image, which is worth the more for
 * it. Where the undo has brought the GPU memory back after all, everything is well.
 */
static void left_running(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (r < 0 && (op->status == OPERATION_DEGRADED || !has_gpu(op) || op->req.held ||
		      op->misplaced))
		op->after = *err;
	op->deadline = op->patience;
	flow_start(f, op->node->loop, &leave_seal_flow);
}

static const struct flow_ops leave_flow = { .steps = leave_steps,
					    .n_steps = ARRAY_SIZE(leave_steps),
					    .timeout = operation_timeout,
					    .observe = operation_observe,
					    .done = left_running };

static const struct flow_ops held_leave_flow = { .steps = held_leave_steps,
						 .n_steps = ARRAY_SIZE(held_leave_steps),
						 .timeout = operation_timeout,
						 .observe = operation_observe,
						 .done = left_running };

static void exited(struct flow *f, int r, const struct error *err)
{
	end(operation_of_flow(f), r, err);
}

static const struct flow_ops exit_flow = { .steps = exit_steps,
					   .n_steps = ARRAY_SIZE(exit_steps),
					   .timeout = operation_timeout,
					   .observe = operation_observe,
					   .done = exited };

static const struct flow_ops held_exit_flow = { .steps = held_exit_steps,
						.n_steps = ARRAY_SIZE(held_exit_steps),
						.timeout = operation_timeout,
						.observe = operation_observe,
						.done = exited };

static const struct flow_ops *what_follows(const struct operation_request *req)
{
	if (req->held)
		return req->exit ? &held_exit_flow : &held_leave_flow;
	return req->exit ? &exit_flow : &leave_flow;
}

static void dumped(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (r < 0) {
		end(op, r, err);
		return;
	}
	if (op->req.exit) {
		store_work_close(&op->work);
		op->sealed = true;
	}
	checkpoint_goes_on(op);
}

/* Of one that an agent before us has dumped, and not sealed. */
static const struct flow_step exit_seal_steps[] = {
	{ "seal", step_seal, gpu_undo_frozen, cancel_bulk },
};

static const struct flow_ops exit_seal_flow = { .steps = exit_seal_steps,
						.n_steps = ARRAY_SIZE(exit_seal_steps),
						.timeout = operation_timeout,
						.observe = operation_observe,
						.done = dumped };

void checkpoint_goes_on(struct operation *op)
{
	struct error err = ERROR_NULL;

	/* Of a dump that an agent before us has ordered. Without the job files the image would be
	 * good for nothing, and is not sealed. */
	if (!op->sealed && settle(op, &err) < 0)
		op->canceled = err;
	if (op->req.exit && !op->sealed) {
		flow_start(&op->flow, op->node->loop, &exit_seal_flow);
		return;
	}
	/* From here on nobody's patience counts, only what each phase may take. */
	op->patience = op->deadline;
	op->deadline = NSEC_NEVER;
	flow_start(&op->flow, op->node->loop, what_follows(&op->req));
}

const struct flow_ops checkpoint_exit_flow = { .steps = steps,
					       .n_steps = ARRAY_SIZE(steps),
					       .timeout = operation_timeout,
					       .observe = operation_observe,
					       .done = dumped };

const struct flow_ops checkpoint_flow = { .steps = steps,
					  .n_steps = ARRAY_SIZE(steps) - 1,
					  .timeout = operation_timeout,
					  .observe = operation_observe,
					  .done = dumped };

const struct flow_ops checkpoint_held_exit_flow = { .steps = held_steps,
						    .n_steps = ARRAY_SIZE(held_steps),
						    .timeout = operation_timeout,
						    .observe = operation_observe,
						    .done = dumped };

const struct flow_ops checkpoint_held_flow = { .steps = held_steps,
					       .n_steps = ARRAY_SIZE(held_steps) - 1,
					       .timeout = operation_timeout,
					       .observe = operation_observe,
					       .done = dumped };
