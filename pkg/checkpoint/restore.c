/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A restore, in two operations. PREPARE, before the new container's root file system is mounted:
 * the checkpoint is verified and its changed files are put back. RESTORE, when it is to run: CRIU
 * brings the processes back, then the driver their GPU memory, and only when every one of them is
 * seen RUNNING the task may be called running.
 *
 * What does not fit is refused before CRIU starts: the driver's first out-of-memory in a restore
 * is final for the process (NVIDIA/cuda-checkpoint issue 44).
 */
#include "artifact/hashing.h"
#include "checkpoint/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "base/path.h"
#include "checkpoint/fit.h"
#include "checkpoint/gpu_steps.h"
#include "checkpoint/jobfile.h"
#include "checkpoint/prepared.h"

/* --- preflight ------------------------------------------------------------------------------ */

static int open_image(struct operation *op, struct error *err)
{
	int r;

	if (*op->req.ref) {
		r = store_pin(op->node->store, op->req.ref, &op->pin, err);
		if (r == 0)
			r = store_get(op->node->store, op->req.ref, &op->metadata_mem,
				      &op->metadata, err);
		if (r == 0)
			r = PATH_PRINTF(op->image_path, "%s", op->pin.criu_path);
		return r;
	}
	if (op->req.image_path[0] != '/' ||
	    PATH_PRINTF(op->image_path, "%s", op->req.image_path) < 0)
		return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
				    "the image path \"%.200s\" is not an absolute path",
				    op->req.image_path);
	op->image_fd = open(op->image_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (op->image_fd < 0)
		return error_reason(err, REASON_IMAGE_MISSING, -errno, "%s: %s", op->image_path,
				    strerror(errno));
	return image_get(op->image_fd, &op->metadata_mem, &op->metadata, err);
}

static void memory_known(struct gpu_call *call)
{
	struct operation *op = container_of(call, struct operation, memory_call);
	struct error err = call->err;
	int r = call->result;

	if (r == 0)
		r = fit_check(op, &err);
	else if (!op->flow.canceled) /* it knows better what is wrong with the worker */
		(void)gpu_worker_usable(op->node->worker, &err);
	/* CRIU takes its time: nobody else may be given that memory meanwhile. */
	if (r == 0 && op->req.kind == OPERATION_RESTORE)
		list_append(&op->node->returning, &op->promise.node);
	flow_resume(&op->flow, r, &err);
}

static int step_preflight(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	int r;

	r = preflight_seat(op->node, &op->req, err);
	if (r == 0)
		r = open_image(op, err);
	if (r < 0 || op->metadata.gpu.n_processes == 0)
		return r;
	r = gpu_worker_usable(op->node->worker, err);
	if (r < 0 && r != -EAGAIN)
		return r;
	*err = ERROR_NULL;
	/* Which waits for a worker that is being replaced. */
	gpu_worker_memory(op->node->worker, &op->memory_call, &op->memory,
			  r < 0 ? preflight_worker_deadline(op) : operation_step_deadline(op),
			  memory_known);
	return FLOW_WAIT;
}

static void cancel_preflight(struct flow *f)
{
	gpu_call_cancel(&operation_of_flow(f)->memory_call);
}

/* --- verify --------------------------------------------------------------------------------- */

static void verify_progress(struct bulk *b, uint64_t done, uint64_t total)
{
	struct operation *op = container_of(b, struct operation, bulk);

	op->bytes_done = done;
	op->bytes_total = total;
	op->host->update(op);
}

static void verified(struct bulk *b, int r, const struct error *err)
{
	struct operation *op = container_of(b, struct operation, bulk);

	flow_resume(&op->flow, r, err);
}

static int step_verify(struct flow *f, struct error *err)
{
	static const struct bulk_ops ops = { .progress = verify_progress, .done = verified };
	struct operation *op = operation_of_flow(f);
	nsec_t deadline = operation_step_deadline(op);
	int r;

	if (op->pin.fd < 0)
		r = image_verify(op->node->bulk, op->image_fd, hashing_workers(), 0, deadline,
				 &op->bulk, &ops, err);
	else if (prepared_claim(op))
		return 0; /* this very operation's PREPARE has just read every byte of it */
	else
		r = store_verify(op->node->store, &op->pin, hashing_workers(), false, 0, deadline,
				 &op->bulk, &ops, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_bulk(struct flow *f)
{
	bulk_cancel(&operation_of_flow(f)->bulk);
}

/* --- changed files -------------------------------------------------------------------------- */

static int step_rootfs(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (op->pin.fd < 0 || !op->host->rootfs)
		return 0;
	return op->host->rootfs(op, err);
}

static void cancel_rootfs(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	if (op->host->rootfs_cancel)
		op->host->rootfs_cancel(op);
}

/* --- CRIU ----------------------------------------------------------------------------------- */

static void slot_granted(struct slot *slot)
{
	struct operation *op = container_of(slot, struct operation, slot);
	struct error err = ERROR_NULL;
	int r;

	op->restoring = true;
	r = operation_order(op, ORDER_RESTORE, &err);
	if (r < 0)
		flow_resume(&op->flow, r, &err);
}

static int step_criu(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	slot_request(&op->node->criu, &op->slot, slot_granted);
	return FLOW_WAIT;
}

static void cancel_criu(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	if (!op->restoring) {
		slot_release(&op->slot);
		flow_resume(f, -ECANCELED, NULL);
	} else {
		operation_abort_order(op);
	}
}

/* What was restored is ended by the shim, which is told by our last word, or by our silence. */
static int undo_criu(struct flow *f, struct error *err)
{
	(void)err;
	slot_release(&operation_of_flow(f)->slot);
	return 0;
}

/* --- GPU memory ----------------------------------------------------------------------------- */

static void restored(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	list_remove(&op->promise.node); /* what is back is NVML's to count */
	gpu_step_restored(op, r, err);
}

static void looked(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct error mine = ERROR_NULL;

	if (r == 0)
		r = fit_processes(op, &mine);
	if (r == 0)
		r = jobfile_restore(op->group, &op->metadata.gpu, op->image_path, &mine);
	if (r < 0) {
		flow_resume(&op->flow, r, mine.code ? &mine : err);
		return;
	}
	op->bytes_total = metadata_vram_bytes(&op->metadata);
	gpu_group_expect(op->group, &op->promise);
	gpu_group_restore(op->group, op->pairs, op->n_pairs, operation_step_deadline(op), restored,
			  op);
}

static void discovered(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0)
		flow_resume(&op->flow, r, err);
	else
		gpu_group_look(op->group, operation_step_deadline(op), looked, op);
}

static int step_vram(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	int r;

	slot_release(&op->slot);
	if (op->metadata.gpu.n_processes == 0 && !op->req.gpu)
		return 0;
	if (!op->task_pid)
		return error_reason(err, REASON_RUNTIME_FAILED, -EPROTO,
				    "the shim has restored a container without a process");
	r = operation_find_processes(op, op->task_pid, err);
	if (r < 0 || !op->group)
		return r;
	gpu_group_discover(op->group, operation_step_deadline(op), discovered, op);
	return FLOW_WAIT;
}

static int step_unlock(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	if (!op->group || gpu_group_size(op->group) == 0)
		return 0;
	op->bytes_done = metadata_vram_bytes(&op->metadata);
	gpu_group_unlock(op->group, operation_step_deadline(op), operation_group_done, op);
	return FLOW_WAIT;
}

/* --- the two flows -------------------------------------------------------------------------- */

static const struct flow_step steps[] = {
	{ "preflight", step_preflight, NULL, cancel_preflight },
	{ "verify", step_verify, NULL, cancel_bulk },
	{ "criu_restore", step_criu, undo_criu, cancel_criu },
	{ "vram_restore", step_vram, NULL, gpu_step_cancel },
	{ "unlock", step_unlock, NULL, gpu_step_cancel },
};

static const struct flow_step prepare_steps[] = {
	{ "preflight", step_preflight, NULL, cancel_preflight },
	{ "verify", step_verify, NULL, cancel_bulk },
	{ "rootfs", step_rootfs, NULL, cancel_rootfs },
};

static void done(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (r == 0 && op->req.kind == OPERATION_PREPARE)
		prepared_keep(op);
	operation_finish(op, r == 0 ? OPERATION_OK : OPERATION_FAILED, err);
}

const struct flow_ops restore_flow = { .steps = steps,
				       .n_steps = ARRAY_SIZE(steps),
				       .timeout = operation_timeout,
				       .observe = operation_observe,
				       .done = done };

const struct flow_ops prepare_flow = { .steps = prepare_steps,
				       .n_steps = ARRAY_SIZE(prepare_steps),
				       .timeout = operation_timeout,
				       .observe = operation_observe,
				       .done = done };
