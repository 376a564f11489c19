/* SPDX-License-Identifier: Apache-2.0 */
/* libnvidia-ml.so.1 of the emulated driver. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "driver/drv.h"
#include "driver/nvml_abi.h"
#include "proto/fg_wire.h"

#define PROCESSES_MAX 1024

/* nvmlInit() and nvmlShutdown() nest, for the whole process: the one global. */
static atomic_int initialized;

/* A handle is the device's index plus one. */
static fnv_device handle_of(unsigned int index)
{
	return (fnv_device)(uintptr_t)(index + 1); /* NOLINT(performance-no-int-to-ptr) */
}

static unsigned int index_of(fnv_device device)
{
	return (unsigned int)((uintptr_t)device - 1);
}

static int to_nvml(int code)
{
	return code == DRV_NO_DAEMON ? FNV_DRIVER_NOT_LOADED : code;
}

/* What every call begins with. DRV_PROCEED: d is open; else the code to return. */
static int begin(struct drv *d, enum fg_call which, uint64_t *value)
{
	struct drv_call call = { .role = FG_NVML, .call = which, .pidfd = -1 };

	if (which != FG_CALL_NVML_INIT && atomic_load(&initialized) <= 0)
		return FNV_UNINITIALIZED;
	if (drv_open(d, FG_NVML) < 0)
		return FNV_DRIVER_NOT_LOADED;
	return to_nvml(drv_begin(d, &call, value));
}

static int finish(struct drv *d, int code, uint64_t value, uint64_t *ret_value)
{
	return to_nvml(drv_end(d, code, value, ret_value));
}

struct gpus {
	uint8_t buf[FG_SMALL];
	struct fg_gpu_info info[FG_GPUS_MAX];
	unsigned int n;
};

static int get_gpus(struct drv *d, struct gpus *ret)
{
	struct fg_msg m = { .type = FG_GPUS, .fd = -1 }, answer;

	if (drv_ask(d, &m, &answer, ret->buf, sizeof(ret->buf)) < 0)
		return FNV_DRIVER_NOT_LOADED;
	ret->n = (unsigned int)(answer.len / sizeof(ret->info[0]));
	if (ret->n > FG_GPUS_MAX)
		return FNV_UNKNOWN;
	memcpy(ret->info, answer.data, ret->n * sizeof(ret->info[0]));
	return FNV_SUCCESS;
}

/* What the daemon says of one device. */
static int get_gpu(struct drv *d, fnv_device device, struct fg_gpu_info *ret)
{
	struct gpus g;
	int code = get_gpus(d, &g);

	if (code != FNV_SUCCESS)
		return code;
	if (index_of(device) >= g.n)
		return FNV_INVALID_ARGUMENT;
	*ret = g.info[index_of(device)];
	return FNV_SUCCESS;
}

/* The same without a call of its own in the log. */
static int look_up(fnv_device device, struct fg_gpu_info *ret)
{
	struct drv d;
	int code;

	if (atomic_load(&initialized) <= 0)
		return FNV_UNINITIALIZED;
	if (drv_open(&d, FG_NVML) < 0)
		return FNV_DRIVER_NOT_LOADED;
	code = get_gpu(&d, device, ret);
	drv_close(&d);
	return code;
}

static int copy_text(char *to, unsigned int length, const char *text)
{
	size_t n = strlen(text) + 1;

	if (n > length)
		return FNV_INSUFFICIENT_SIZE;
	memcpy(to, text, n);
	return FNV_SUCCESS;
}

fnv_result nvmlInit_v2(void)
{
	struct drv d;
	int code = begin(&d, FG_CALL_NVML_INIT, NULL);

	if (code == DRV_PROCEED)
		code = finish(&d, FNV_SUCCESS, 0, NULL);
	if (code == FNV_SUCCESS)
		(void)atomic_fetch_add(&initialized, 1);
	return code;
}

fnv_result nvmlShutdown(void)
{
	if (atomic_fetch_sub(&initialized, 1) > 0)
		return FNV_SUCCESS;
	(void)atomic_fetch_add(&initialized, 1);
	return FNV_UNINITIALIZED;
}

const char *nvmlErrorString(fnv_result result)
{
	switch (result) {
	case FNV_SUCCESS:
		return "Success";
	case FNV_UNINITIALIZED:
		return "Uninitialized";
	case FNV_INVALID_ARGUMENT:
		return "Invalid Argument";
	case FNV_NOT_SUPPORTED:
		return "Not Supported";
	case FNV_NO_PERMISSION:
		return "Insufficient Permissions";
	case FNV_NOT_FOUND:
		return "Not Found";
	case FNV_INSUFFICIENT_SIZE:
		return "Insufficient Size";
	case FNV_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case FNV_GPU_IS_LOST:
		return "GPU is lost";
	default:
		return "Unknown Error";
	}
}

fnv_result nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	struct drv d;
	int code;

	if (!version)
		return FNV_INVALID_ARGUMENT;
	code = begin(&d, FG_CALL_NVML_VERSION, NULL);
	if (code == DRV_PROCEED)
		code = finish(&d, copy_text(version, length, d.version), 0, NULL);
	return code;
}

fnv_result nvmlDeviceGetCount_v2(unsigned int *count)
{
	uint64_t value = 0;
	struct gpus g;
	struct drv d;
	int code;

	if (!count)
		return FNV_INVALID_ARGUMENT;
	code = begin(&d, FG_CALL_NVML_COUNT, &value);
	if (code == DRV_PROCEED) {
		code = get_gpus(&d, &g);
		code = finish(&d, code, code == FNV_SUCCESS ? g.n : 0, &value);
	}
	if (code == FNV_SUCCESS)
		*count = (unsigned int)value;
	return code;
}

fnv_result nvmlDeviceGetHandleByIndex_v2(unsigned int index, fnv_device *device)
{
	struct gpus g;
	struct drv d;
	int code;

	if (!device)
		return FNV_INVALID_ARGUMENT;
	code = begin(&d, FG_CALL_NVML_HANDLE, NULL);
	if (code == DRV_PROCEED) {
		code = get_gpus(&d, &g);
		if (code == FNV_SUCCESS && index >= g.n)
			code = FNV_INVALID_ARGUMENT;
		code = finish(&d, code, 0, NULL);
	}
	if (code == FNV_SUCCESS)
		*device = handle_of(index);
	return code;
}

fnv_result nvmlDeviceGetHandleByUUID(const char *uuid, fnv_device *device)
{
	unsigned int i = 0;
	uint8_t wanted[16];
	struct gpus g;
	struct drv d;
	int code;

	if (!uuid || !device)
		return FNV_INVALID_ARGUMENT;
	code = begin(&d, FG_CALL_NVML_HANDLE, NULL);
	if (code == DRV_PROCEED) {
		code = fg_uuid_parse(uuid, wanted) < 0 ? FNV_INVALID_ARGUMENT : get_gpus(&d, &g);
		if (code == FNV_SUCCESS) {
			while (i < g.n && memcmp(g.info[i].uuid, wanted, 16) != 0)
				i++;
			code = i < g.n ? FNV_SUCCESS : FNV_NOT_FOUND;
		}
		code = finish(&d, code, 0, NULL);
	}
	if (code == FNV_SUCCESS)
		*device = handle_of(i);
	return code;
}

fnv_result nvmlDeviceGetUUID(fnv_device device, char *uuid, unsigned int length)
{
	struct fg_gpu_info info;
	char text[FG_UUID_TEXT];
	int code = uuid ? look_up(device, &info) : FNV_INVALID_ARGUMENT;

	if (code != FNV_SUCCESS)
		return code;
	fg_uuid_text(info.uuid, text);
	return copy_text(uuid, length, text);
}

fnv_result nvmlDeviceGetName(fnv_device device, char *name, unsigned int length)
{
	struct fg_gpu_info info;
	int code = name ? look_up(device, &info) : FNV_INVALID_ARGUMENT;

	return code == FNV_SUCCESS ? copy_text(name, length, info.name) : code;
}

fnv_result nvmlDeviceGetMinorNumber(fnv_device device, unsigned int *minor)
{
	struct fg_gpu_info info;
	int code = minor ? look_up(device, &info) : FNV_INVALID_ARGUMENT;

	if (code == FNV_SUCCESS)
		*minor = info.minor;
	return code;
}

/* A call whose value is one number out of the device's info; *ret_info, too, on success. */
static int info_call(enum fg_call which, fnv_device device, struct fg_gpu_info *ret_info,
		     uint64_t *ret_value)
{
	struct fg_gpu_info info = { 0 };
	uint64_t value = 0;
	struct drv d;
	int code = begin(&d, which, ret_value);

	if (code == DRV_PROCEED) {
		code = get_gpu(&d, device, &info);
		if (which == FG_CALL_NVML_MEMORY)
			value = info.used;
		else
			value = which == FG_CALL_NVML_MIG ? info.mig : info.persistence;
		code = finish(&d, code, value, ret_value);
	}
	*ret_info = info;
	return code;
}

fnv_result nvmlDeviceGetMemoryInfo(fnv_device device, struct fnv_memory *memory)
{
	struct fg_gpu_info info;
	uint64_t used = 0;
	int code = memory ? info_call(FG_CALL_NVML_MEMORY, device, &info, &used)
			  : FNV_INVALID_ARGUMENT;

	if (code != FNV_SUCCESS)
		return code;
	memory->total = info.total;
	memory->used = used;
	memory->free = used > info.total ? 0 : info.total - used;
	return FNV_SUCCESS;
}

fnv_result nvmlDeviceGetMigMode(fnv_device device, unsigned int *current, unsigned int *pending)
{
	struct fg_gpu_info info;
	uint64_t mig = 0;
	int code = current && pending ? info_call(FG_CALL_NVML_MIG, device, &info, &mig)
				      : FNV_INVALID_ARGUMENT;

	if (code == FNV_SUCCESS)
		*current = *pending = (unsigned int)mig;
	return code;
}

fnv_result nvmlDeviceGetPersistenceMode(fnv_device device, int *mode)
{
	struct fg_gpu_info info;
	uint64_t on = 0;
	int code = mode ? info_call(FG_CALL_NVML_PERSISTENCE, device, &info, &on)
			: FNV_INVALID_ARGUMENT;

	if (code == FNV_SUCCESS)
		*mode = (int)on;
	return code;
}

#define PROCS_BUF (FG_HEAD_MAX + PROCESSES_MAX * sizeof(struct fg_proc_info))

static int get_processes(struct drv *d, fnv_device device, uint8_t *buf, struct fg_msg *ret)
{
	struct fg_msg m = { .type = FG_PROCS, .n = 1, .arg = { index_of(device) }, .fd = -1 };

	if (drv_ask(d, &m, ret, buf, PROCS_BUF) < 0)
		return FNV_DRIVER_NOT_LOADED;
	return ret->arg[0] ? FNV_INVALID_ARGUMENT : FNV_SUCCESS;
}

fnv_result nvmlDeviceGetComputeRunningProcesses_v3(fnv_device device, unsigned int *count,
						   struct fnv_process *processes)
{
	_cleanup_free_ uint8_t *buf = malloc(PROCS_BUF);
	struct fg_msg answer = { 0 };
	struct fg_proc_info info;
	uint64_t n = 0;
	struct drv d;
	int code;

	if (!buf)
		return FNV_UNKNOWN;
	if (!count || (*count && !processes))
		return FNV_INVALID_ARGUMENT;
	code = begin(&d, FG_CALL_NVML_PROCESSES, &n);
	if (code == DRV_PROCEED) {
		code = get_processes(&d, device, buf, &answer);
		code = finish(&d, code, answer.arg[1], &n);
	}
	if (code != FNV_SUCCESS)
		return code;
	if (n > answer.len / sizeof(info))
		n = answer.len / sizeof(info);
	if (n > *count)
		code = FNV_INSUFFICIENT_SIZE;
	for (uint64_t i = 0; i < n && code == FNV_SUCCESS; i++) {
		memcpy(&info, (const uint8_t *)answer.data + i * sizeof(info), sizeof(info));
		processes[i] = (struct fnv_process){
			.pid = (unsigned int)info.pid,
			.used_memory = info.bytes,
			.gpu_instance = ~0U,
			.compute_instance = ~0U,
		};
	}
	*count = (unsigned int)n;
	return code;
}
