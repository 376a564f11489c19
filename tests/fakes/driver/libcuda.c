/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcuda.so.1 of the emulated driver: devices and the checkpoint calls. What they answer where
 * cuda.h is silent was measured on driver 580.159.04; README.md, "What is faithful", has the list.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "driver/cuda_abi.h"
#include "driver/drv.h"
#include "driver/errors.h"
#include "driver/target.h"
#include "fakecuda/fakecuda.h"
#include "fakecuda/state.h"

#define BRANCH_CHECKPOINT 570
#define BRANCH_PAIRS      580

/* ---- init, devices ------------------------------------------------------------------------ */

fcu_result cuInit(unsigned int flags)
{
	return flags ? FG_INVALID_VALUE : fc_init();
}

fcu_result cuDriverGetVersion(int *version)
{
	struct drv d;

	if (!version)
		return FG_INVALID_VALUE;
	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_NO_DEVICE;
	*version = (int)d.hello.arg[2];
	drv_close(&d);
	return FG_SUCCESS;
}

fcu_result cuGetErrorName(fcu_result error, const char **ret)
{
	if (!ret)
		return FG_INVALID_VALUE;
	*ret = cuda_error_name(error);
	return *ret ? FG_SUCCESS : FG_INVALID_VALUE;
}

fcu_result cuGetErrorString(fcu_result error, const char **ret)
{
	if (!ret)
		return FG_INVALID_VALUE;
	*ret = cuda_error_text(error);
	return *ret ? FG_SUCCESS : FG_INVALID_VALUE;
}

fcu_result cuDeviceGetCount(int *count)
{
	struct drv_call call = { FG_DRIVER, FG_CALL_DEVICE_COUNT, .pidfd = -1 };
	uint64_t value = 0;
	struct drv d;
	int code, n = 0;

	if (!count)
		return FG_INVALID_VALUE;
	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_NOT_INITIALIZED;
	code = drv_begin(&d, &call, &value);
	if (code == DRV_PROCEED) {
		code = fc_device_count(&n);
		code = drv_end(&d, code, (uint64_t)n, &value);
	}
	if (code == FG_SUCCESS)
		*count = (int)value;
	return code == DRV_NO_DAEMON ? FG_UNKNOWN : code;
}

/* SUCCESS if the device exists and *p may be written. */
static fcu_result check_device(const void *p, fcu_device device)
{
	int n = 0, code = fc_device_count(&n);

	if (code != FG_SUCCESS)
		return code;
	if (!p)
		return FG_INVALID_VALUE;
	return device >= 0 && device < n ? FG_SUCCESS : FG_INVALID_DEVICE;
}

fcu_result cuDeviceGet(fcu_device *device, int ordinal)
{
	fcu_result r = check_device(device, ordinal);

	if (r == FG_SUCCESS)
		*device = ordinal;
	return r;
}

fcu_result cuDeviceGetName(char *name, int len, fcu_device device)
{
	fcu_result r = check_device(name, device);

	if (r == FG_SUCCESS && len <= 0)
		r = FG_INVALID_VALUE;
	if (r == FG_SUCCESS)
		(void)snprintf(name, (size_t)len, "%s", fc.gpus[device].info.name);
	return r;
}

fcu_result cuDeviceGetUuid_v2(struct fcu_uuid *uuid, fcu_device device)
{
	fcu_result r = check_device(uuid, device);

	if (r == FG_SUCCESS)
		memcpy(uuid->bytes, fc.gpus[device].info.uuid, sizeof(uuid->bytes));
	return r;
}

fcu_result cuDeviceGetUuid(struct fcu_uuid *uuid, fcu_device device)
{
	return cuDeviceGetUuid_v2(uuid, device);
}

fcu_result cuDeviceTotalMem_v2(size_t *bytes, fcu_device device)
{
	fcu_result r = check_device(bytes, device);

	if (r == FG_SUCCESS)
		*bytes = fc.gpus[device].info.total;
	return r;
}

/* ---- the checkpoint calls ----------------------------------------------------------------- */

static bool is_zero(const void *p, size_t from, size_t to)
{
	const char *c = p;

	for (size_t i = from; i < to; i++)
		if (c[i])
			return false;
	return true;
}

/* Why the call cannot even be tried; SUCCESS and *ret_tid if it can. */
static int find_thread(const struct drv *d, const struct target *t, bool look_only, pid_t *ret_tid)
{
	pid_t tid;

	if (d->hello.arg[1] < BRANCH_CHECKPOINT)
		return FG_NOT_SUPPORTED;
	tid = target_thread(t);
	if (tid < 0)
		return FG_OPERATING_SYSTEM;
	if (tid == 0)
		return (int)d->hello.arg[5];
	if (!look_only && !target_may_access(t))
		return FG_OPERATING_SYSTEM;
	*ret_tid = tid;
	return FG_SUCCESS;
}

/*
 * A call that the target's restore thread executes. refused: a code that the arguments have
 * earned already (the call is announced all the same, so that the log has it), or SUCCESS.
 */
static int remote_call(struct drv *d, struct drv_call *call, int refused, uint64_t *ret_value)
{
	struct target t;
	pid_t tid = 0;
	int code;

	call->role = FG_DRIVER;
	target_open(&t, call->pid);
	call->pidfd = t.pidfd;
	code = drv_begin(d, call, ret_value);
	if (code == DRV_PROCEED) {
		code = refused;
		if (code == FG_SUCCESS)
			code = find_thread(d, &t, false, &tid);
		if (code == FG_SUCCESS && target_signal(&t, tid, d->token) < 0)
			code = FG_OPERATING_SYSTEM;
		if (code == FG_SUCCESS)
			code = drv_wait(d, ret_value);
		else
			code = drv_end(d, code, 0, ret_value);
	}
	target_done(&t);
	return code < 0 ? FG_OPERATING_SYSTEM : code;
}

fcu_result cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
	struct drv_call call = { FG_DRIVER, FG_CALL_TID, .pid = pid };
	struct target t;
	uint64_t value = 0;
	pid_t found = 0;
	struct drv d;
	int code;

	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_OPERATING_SYSTEM;
	target_open(&t, pid);
	call.pidfd = t.pidfd;
	code = drv_begin(&d, &call, &value);
	if (code == DRV_PROCEED) {
		code = tid ? find_thread(&d, &t, true, &found) : FG_INVALID_VALUE;
		code = drv_end(&d, code, (uint64_t)found, &value);
	}
	target_done(&t);
	if (code == FG_SUCCESS && tid)
		*tid = (int)value;
	return code < 0 ? FG_OPERATING_SYSTEM : code;
}

fcu_result cuCheckpointProcessGetState(int pid, int *state)
{
	struct drv_call call = { .call = FG_CALL_STATE, .pid = pid };
	uint64_t value = 0;
	struct drv d;
	int code;

	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_OPERATING_SYSTEM;
	code = remote_call(&d, &call, state ? FG_SUCCESS : FG_INVALID_VALUE, &value);
	if (code == FG_SUCCESS && state)
		*state = (int)value;
	return code;
}

fcu_result cuCheckpointProcessLock(int pid, struct fcu_lock_args *args)
{
	struct drv_call call = { .call = FG_CALL_LOCK, .pid = pid };
	int refused = FG_SUCCESS;
	struct drv d;

	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_OPERATING_SYSTEM;
	if (args) {
		call.timeout_ms = args->timeout_ms;
		if (!is_zero(args, offsetof(struct fcu_lock_args, reserved0), sizeof(*args)))
			refused = FG_INVALID_VALUE;
	}
	return remote_call(&d, &call, refused, NULL);
}

static fcu_result plain_call(enum fg_call which, int pid, const struct fcu_plain_args *args)
{
	struct drv_call call = { .call = which, .pid = pid };
	struct drv d;

	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_OPERATING_SYSTEM;
	return remote_call(&d, &call,
			   args && !is_zero(args, 0, sizeof(*args)) ? FG_INVALID_VALUE : FG_SUCCESS,
			   NULL);
}

fcu_result cuCheckpointProcessCheckpoint(int pid, struct fcu_plain_args *args)
{
	return plain_call(FG_CALL_CHECKPOINT, pid, args);
}

fcu_result cuCheckpointProcessUnlock(int pid, struct fcu_plain_args *args)
{
	return plain_call(FG_CALL_UNLOCK, pid, args);
}

/* In the layout before CUDA 13.0 all of it was reserved. */
static int check_restore_args(const struct drv *d, const struct fcu_restore_args *args)
{
	if (d->hello.arg[1] < BRANCH_PAIRS)
		return is_zero(args, 0, sizeof(*args)) ? FG_SUCCESS : FG_INVALID_VALUE;
	if (!is_zero(args, offsetof(struct fcu_restore_args, reserved), sizeof(*args)) ||
	    args->n_pairs > FG_PAIRS_MAX)
		return FG_INVALID_VALUE;
	return FG_SUCCESS;
}

fcu_result cuCheckpointProcessRestore(int pid, struct fcu_restore_args *args)
{
	struct drv_call call = { .call = FG_CALL_RESTORE, .pid = pid };
	struct fcu_gpu_pair pairs[FG_PAIRS_MAX];
	int refused = FG_SUCCESS;
	struct drv d;

	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_OPERATING_SYSTEM;
	if (args) {
		refused = check_restore_args(&d, args);
		if (refused == FG_SUCCESS && args->n_pairs) {
			/* A count without an array crashes the caller in the real driver, too. */
			memcpy(pairs, args->pairs, args->n_pairs * sizeof(*pairs));
			call.pairs = pairs;
			call.n_pairs = args->n_pairs;
		}
	}
	if (refused == FG_SUCCESS && !fc_ready() && !d.hello.arg[4])
		refused = FG_NOT_INITIALIZED; /* no persistence mode either */
	return remote_call(&d, &call, refused, NULL);
}

/* ---- entry points ------------------------------------------------------------------------- */

#define STATUS_SUCCESS        0
#define STATUS_NOT_FOUND      1
#define STATUS_NOT_SUFFICIENT 2

typedef void (*any_function)(void);

/* Newest version of a symbol first. */
static const struct {
	const char *name;
	any_function function;
	int since;               /* CUDA version */
	unsigned int min_branch; /* of the driver */
} entries[] = {
#define E(name, function, since, branch) { name, (any_function)(function), since, branch }
	E("cuInit", cuInit, 2000, 0),
	E("cuDriverGetVersion", cuDriverGetVersion, 2020, 0),
	E("cuGetErrorName", cuGetErrorName, 6000, 0),
	E("cuGetErrorString", cuGetErrorString, 6000, 0),
	E("cuDeviceGetCount", cuDeviceGetCount, 2000, 0),
	E("cuDeviceGet", cuDeviceGet, 2000, 0),
	E("cuDeviceGetName", cuDeviceGetName, 2000, 0),
	E("cuDeviceGetUuid", cuDeviceGetUuid_v2, 11040, 0),
	E("cuDeviceGetUuid", cuDeviceGetUuid, 9020, 0),
	E("cuDeviceTotalMem", cuDeviceTotalMem_v2, 3020, 0),
	E("cuGetProcAddress", cuGetProcAddress_v2, 12000, 0),
	E("cuGetProcAddress", cuGetProcAddress, 11030, 0),
#define C(name) E("cuCheckpointProcess" #name, cuCheckpointProcess##name, 12080, BRANCH_CHECKPOINT)
	C(GetRestoreThreadId),
	C(GetState),
	C(Lock),
	C(Checkpoint),
	C(Restore),
	C(Unlock),
#undef C
#undef E
};

fcu_result cuGetProcAddress_v2(const char *symbol, void **pfn, int version, uint64_t flags,
			       int *status)
{
	int result = STATUS_NOT_FOUND;
	struct drv d;

	(void)flags; /* about default streams, of which there are none */
	if (!symbol || !pfn)
		return FG_INVALID_VALUE;
	*pfn = NULL;
	if (drv_open(&d, FG_DRIVER) < 0)
		return FG_NOT_INITIALIZED;
	drv_close(&d);
	if (version > (int)d.hello.arg[2])
		return FG_INVALID_VALUE;
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]) && !*pfn; i++) {
		if (strcmp(entries[i].name, symbol) != 0 ||
		    d.hello.arg[1] < entries[i].min_branch)
			continue;
		result = STATUS_NOT_SUFFICIENT;
		if (version >= entries[i].since)
			memcpy(pfn, &entries[i].function, sizeof(*pfn));
	}
	if (status)
		*status = *pfn ? STATUS_SUCCESS : result;
	return FG_SUCCESS;
}

fcu_result cuGetProcAddress(const char *symbol, void **pfn, int version, uint64_t flags)
{
	return cuGetProcAddress_v2(symbol, pfn, version, flags, NULL);
}
