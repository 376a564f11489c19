/* SPDX-License-Identifier: Apache-2.0 */
/* The scripted NVML, see fake-cuda.h. GPUs in the other order, one process on each. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/fake-cuda.h"
#include "gpu/uuid.h"

#define EXPORT __attribute__((visibility("default")))

struct memory {
	unsigned long long total, free, used;
};

struct process {
	unsigned int pid;
	unsigned long long bytes;
	unsigned int gpu_instance, compute_instance;
};

static struct fake_cuda *fake;

EXPORT int nvmlInit_v2(void);
EXPORT const char *nvmlErrorString(int code);
EXPORT int nvmlSystemGetDriverVersion(char *text, unsigned int size);
EXPORT int nvmlDeviceGetCount_v2(unsigned int *n);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **device);
EXPORT int nvmlDeviceGetUUID(void *device, char *text, unsigned int size);
EXPORT int nvmlDeviceGetMinorNumber(void *device, unsigned int *minor);
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *m);
EXPORT int nvmlDeviceGetMigMode(void *device, unsigned int *now, unsigned int *pending);
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *n,
						   struct process *list);

static unsigned int number(void *device)
{
	return (unsigned int)((struct cuda_uuid *)device - fake->gpus);
}

int nvmlInit_v2(void)
{
	const char *path = getenv(FAKE_CUDA_ENV);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED
			 : mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		(void)close(fd);
	if (p == MAP_FAILED)
		return 9; /* NVML_ERROR_DRIVER_NOT_LOADED */
	fake = p;
	return (int)fake->nvml_code;
}

const char *nvmlErrorString(int code)
{
	return code == 9 ? "Driver Not Loaded" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned int size)
{
	(void)snprintf(text, size, "580.159.04");
	return 0;
}

int nvmlDeviceGetCount_v2(unsigned int *n)
{
	*n = fake->n_gpus;
	return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **device)
{
	*device = &fake->gpus[fake->n_gpus - 1 - i];
	return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned int size)
{
	char buf[GPU_UUID_TEXT_MAX];

	(void)snprintf(text, size, "%s", gpu_uuid_format(device, buf));
	return 0;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned int *minor)
{
	*minor = 10 + number(device);
	return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *m)
{
	*m = (struct memory){ .total = 80ULL << 30, .free = fake->free_bytes[number(device)] };
	m->used = m->total - m->free;
	return 0;
}

int nvmlDeviceGetMigMode(void *device, unsigned int *now, unsigned int *pending)
{
	*now = *pending = fake->mig >> number(device) & 1;
	return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *n, struct process *list)
{
	if (*n < 1)
		return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
	*n = 1;
	list[0] = (struct process){ .pid = 1000 + number(device), .bytes = 1ULL << 30 };
	return 0;
}
