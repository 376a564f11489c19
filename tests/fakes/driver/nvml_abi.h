/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of NVML's ABI that the emulation offers, restated as cuda_abi.h restates CUDA's.
 * Layouts and numbers: NVIDIA's NVML API reference; the two structures were checked against
 * libnvidia-ml.so.580.159.04.
 */
#ifndef FAKEGPU_NVML_ABI_H
#define FAKEGPU_NVML_ABI_H

#include <stdint.h>

typedef int fnv_result;
typedef struct fnv_device *fnv_device;

enum {
	FNV_SUCCESS = 0,
	FNV_UNINITIALIZED = 1,
	FNV_INVALID_ARGUMENT = 2,
	FNV_NOT_SUPPORTED = 3,
	FNV_NO_PERMISSION = 4,
	FNV_NOT_FOUND = 6,
	FNV_INSUFFICIENT_SIZE = 7,
	FNV_DRIVER_NOT_LOADED = 9,
	FNV_GPU_IS_LOST = 15,
	FNV_UNKNOWN = 999,
};

struct fnv_memory {
	unsigned long long total, free, used; /* bytes */
};

struct fnv_process {
	unsigned int pid;
	unsigned long long used_memory; /* bytes */
	unsigned int gpu_instance, compute_instance; /* ~0: no MIG */
};

#define FNV_EXPORT __attribute__((visibility("default")))

FNV_EXPORT fnv_result nvmlInit_v2(void);
FNV_EXPORT fnv_result nvmlShutdown(void);
FNV_EXPORT const char *nvmlErrorString(fnv_result result);
FNV_EXPORT fnv_result nvmlSystemGetDriverVersion(char *version, unsigned int length);
FNV_EXPORT fnv_result nvmlDeviceGetCount_v2(unsigned int *count);
FNV_EXPORT fnv_result nvmlDeviceGetHandleByIndex_v2(unsigned int index, fnv_device *device);
FNV_EXPORT fnv_result nvmlDeviceGetHandleByUUID(const char *uuid, fnv_device *device);
FNV_EXPORT fnv_result nvmlDeviceGetUUID(fnv_device device, char *uuid, unsigned int length);
FNV_EXPORT fnv_result nvmlDeviceGetName(fnv_device device, char *name, unsigned int length);
FNV_EXPORT fnv_result nvmlDeviceGetMemoryInfo(fnv_device device, struct fnv_memory *memory);
FNV_EXPORT fnv_result nvmlDeviceGetComputeRunningProcesses_v3(fnv_device device,
							      unsigned int *count,
							      struct fnv_process *processes);
FNV_EXPORT fnv_result nvmlDeviceGetMigMode(fnv_device device, unsigned int *current,
					   unsigned int *pending);
FNV_EXPORT fnv_result nvmlDeviceGetPersistenceMode(fnv_device device, int *mode);
FNV_EXPORT fnv_result nvmlDeviceGetMinorNumber(fnv_device device, unsigned int *minor);

#endif
