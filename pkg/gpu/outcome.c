/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/outcome.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/time.h"

static const struct {
	const char *call;
	enum reason reason;
} ops[GPU_OP_LAST + 1] = {
	[GPU_OP_PROBE] = { "cuCheckpointProcessGetRestoreThreadId", REASON_CUDA_QUERY_FAILED },
	[GPU_OP_STATE] = { "cuCheckpointProcessGetState", REASON_CUDA_QUERY_FAILED },
	[GPU_OP_LOCK] = { "cuCheckpointProcessLock", REASON_CUDA_LOCK_FAILED },
	[GPU_OP_CHECKPOINT] = { "cuCheckpointProcessCheckpoint", REASON_CUDA_SAVE_FAILED },
	[GPU_OP_RESTORE] = { "cuCheckpointProcessRestore", REASON_CUDA_RESTORE_FAILED },
	/* What cannot be unlocked does not run on: for the caller that is a failed restore. */
	[GPU_OP_UNLOCK] = { "cuCheckpointProcessUnlock", REASON_CUDA_RESTORE_FAILED },
};

/*
 * What the driver's codes are known to mean; the first row that fits counts. op 0 = any, reason
 * NONE = that of the op. Sources: docs/drivers.md.
 */
static const struct rule {
	unsigned int op;
	int code;
	enum reason reason;
	int err;
	const char *hint;
} rules[] = {
	{ GPU_OP_LOCK, CUDA_CODE_NOT_READY, REASON_LOCK_TIMEOUT, -ETIMEDOUT,
	  "submitted work did not end in time; the process runs on" },
	{ GPU_OP_RESTORE, CUDA_CODE_OUT_OF_MEMORY, REASON_VRAM_SHORT, -ENOMEM,
	  "too little free GPU memory; a driver may refuse every further restore of this process" },
	{ GPU_OP_CHECKPOINT, CUDA_CODE_OUT_OF_MEMORY, REASON_NONE, -ENOMEM,
	  "too little host memory for the GPU's content, or a limit of the container; MIG too "
	  "shows up as this" },
	{ 0, CUDA_CODE_OUT_OF_MEMORY, REASON_NONE, -ENOMEM, "MIG too shows up as this" },
	{ GPU_OP_LOCK, CUDA_CODE_ILLEGAL_STATE, REASON_NONE, -EBUSY,
	  "it is not RUNNING: locked by somebody else, or CUDA was only just initialised" },
	{ GPU_OP_CHECKPOINT, CUDA_CODE_ILLEGAL_STATE, REASON_NONE, -EBUSY, "it is not LOCKED" },
	{ GPU_OP_RESTORE, CUDA_CODE_ILLEGAL_STATE, REASON_NONE, -EBUSY, "it is not CHECKPOINTED" },
	{ GPU_OP_UNLOCK, CUDA_CODE_ILLEGAL_STATE, REASON_NONE, -EBUSY, "it is not LOCKED" },
	{ 0, CUDA_CODE_ILLEGAL_STATE, REASON_NONE, -EBUSY, NULL },
	{ GPU_OP_RESTORE, CUDA_CODE_INVALID_VALUE, REASON_NONE, -EINVAL,
	  "the pairs must name every GPU that the driver recorded, each once, and GPUs of the same "
	  "chip; or the process has no CUDA" },
	{ 0, CUDA_CODE_INVALID_VALUE, REASON_NONE, -ENXIO, "the process has no CUDA (any more)" },
	{ 0, CUDA_CODE_NOT_INITIALIZED, REASON_NONE, -ENXIO, "the process has no CUDA (any more)" },
	{ GPU_OP_RESTORE, CUDA_CODE_NOT_SUPPORTED, REASON_NONE, -EOPNOTSUPP,
	  "a GPU of another chip, or its /dev/nvidiaN is missing in the container" },
	{ GPU_OP_CHECKPOINT, CUDA_CODE_NOT_SUPPORTED, REASON_NONE, -EOPNOTSUPP,
	  "managed (UVM) or IPC memory, MPS, MIG, vGPU or a profiler is in use; unlocked, the "
	  "process runs on" },
	{ 0, CUDA_CODE_NOT_SUPPORTED, REASON_NONE, -EOPNOTSUPP,
	  "managed (UVM) or IPC memory, MPS, MIG, vGPU or a profiler is in use" },
	{ 0, CUDA_CODE_OPERATING_SYSTEM, REASON_NONE, -EIO,
	  "the process is frozen or stopped, out of reach (another pid namespace, too few "
	  "privileges), or lost its GPU state in an earlier failure" },
	{ 0, CUDA_CODE_NOT_PERMITTED, REASON_NONE, -EPERM, "the agent lacks privileges" },
	{ 0, CUDA_CODE_DEINITIALIZED, REASON_DRIVER_UNAVAILABLE, -ENODEV, NULL },
	{ 0, CUDA_CODE_STUB_LIBRARY, REASON_DRIVER_UNAVAILABLE, -ENODEV,
	  "this libcuda is the toolkit's stub, not the driver's" },
	{ 0, CUDA_CODE_NEWER_DRIVER, REASON_DRIVER_TOO_OLD, -EOPNOTSUPP, NULL },
	{ 0, CUDA_CODE_DEVICE_UNAVAILABLE, REASON_NONE, -EBUSY, NULL },
	{ 0, CUDA_CODE_NO_DEVICE, REASON_DRIVER_UNAVAILABLE, -ENODEV, "no GPU is visible" },
	{ 0, CUDA_CODE_SYSTEM_NOT_READY, REASON_DRIVER_UNAVAILABLE, -ENODEV,
	  "the fabric manager may not be running" },
	{ 0, CUDA_CODE_DRIVER_MISMATCH, REASON_DRIVER_UNAVAILABLE, -ENODEV,
	  "libcuda and the kernel module are of different versions" },
	{ 0, CUDA_CODE_COMPAT_NOT_SUPPORTED, REASON_DRIVER_UNAVAILABLE, -ENODEV, NULL },
};

enum reason gpu_op_reason(unsigned int op)
{
	if (op > GPU_OP_LAST || ops[op].reason == REASON_NONE)
		return REASON_WORKER_FAILED;
	return ops[op].reason;
}

const char *gpu_op_call(unsigned int op)
{
	return op > GPU_OP_LAST || !ops[op].call ? "the driver" : ops[op].call;
}

static const struct rule *find_rule(unsigned int op, int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].code == code && (rules[i].op == 0 || rules[i].op == op))
			return &rules[i];
	return NULL;
}

static int driver_refused(pid_t pid, const struct gpu_reply *reply, struct error *err)
{
	unsigned int op = reply->head.op;
	const struct rule *rule = find_rule(op, reply->code);
	enum reason reason = rule && rule->reason ? rule->reason : gpu_op_reason(op);
	const char *hint = rule ? rule->hint : NULL;
	int r = rule ? rule->err : -EIO;

	if (reply->gone) {
		r = -ESRCH;
		hint = "the process has exited";
	}
	return error_reason(err, reason, r, "process %d: %s: %s (%d) after %" PRIu64 " ms%s%s", pid,
			    gpu_op_call(op), reply->name[0] ? reply->name : "CUDA_ERROR_?",
			    reply->code, reply->took_ns / NSEC_PER_MSEC, hint ? ": " : "",
			    hint ? hint : "");
}

static int check_state(pid_t pid, const struct gpu_reply *reply, struct error *err)
{
	if (reply->state <= CUDA_STATE_CHECKPOINTED)
		return 0;
	if (reply->state == CUDA_STATE_FAILED)
		return error_reason(err, REASON_CUDA_STATE_LOST, -ENOTRECOVERABLE,
				    "process %d: the driver says that its CUDA state is FAILED: it "
				    "cannot be recovered",
				    pid);
	return error_reason(err, REASON_CUDA_STATE_WRONG, -EPROTO,
			    "process %d: its CUDA state is %s (%u), which we neither set nor use",
			    pid, gpu_state_name(reply->state), reply->state);
}

int gpu_outcome(pid_t pid, const struct gpu_reply *reply, struct error *err)
{
	unsigned int op = reply->head.op;

	switch ((enum gpu_status)reply->status) {
	case GPU_STATUS_OK:
		return op == GPU_OP_STATE ? check_state(pid, reply, err) : 0;
	case GPU_STATUS_DRIVER:
		return driver_refused(pid, reply, err);
	case GPU_STATUS_GONE:
		return error_reason(err, gpu_op_reason(op), -ESRCH, "process %d has exited", pid);
	case GPU_STATUS_REUSED:
		return error_reason(err, gpu_op_reason(op), -ESRCH,
				    "process %d has exited, its number is another's by now", pid);
	case GPU_STATUS_NOT_LEADER:
		return error_reason(err, gpu_op_reason(op), -EINVAL,
				    "%d is the number of a thread, not of a process", pid);
	case GPU_STATUS_UNAVAILABLE:
		return error_reason(err, REASON_DRIVER_UNAVAILABLE, -ENODEV, "%s", reply->text);
	case GPU_STATUS_TOO_OLD:
		return error_reason(err, REASON_DRIVER_TOO_OLD, -EOPNOTSUPP, "%s", reply->text);
	case GPU_STATUS_NO_PAIRS:
		return error_reason(err, REASON_GPU_MISMATCH, -EOPNOTSUPP,
				    "process %d: this driver restores onto the same GPUs only; "
				    "others need driver branch 580 or newer",
				    pid);
	case GPU_STATUS_CANCELED:
		return error_reason(err, REASON_CANCELED, -ECANCELED,
				    "process %d: %s was not begun: no longer wanted", pid,
				    gpu_op_name(op));
	case GPU_STATUS_BUSY:
		return error_reason(err, REASON_WORKER_FAILED, -EAGAIN, "the CUDA worker: %s",
				    reply->text);
	case GPU_STATUS_VERSION:
		return error_reason(err, REASON_WORKER_FAILED, -EPROTONOSUPPORT,
				    "the CUDA worker speaks another version");
	case GPU_STATUS_FAILED:
		break;
	}
	return error_reason(err, REASON_WORKER_FAILED, -EIO, "the CUDA worker: %s", reply->text);
}
