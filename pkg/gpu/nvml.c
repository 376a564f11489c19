/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "gpu/uuid.h"

/* nvmlReturn_t */
#define NVML_CODE_SUCCESS           0
#define NVML_CODE_INSUFFICIENT_SIZE 7

#define NVML_TEXT_MAX 96 /* NVML_DEVICE_NAME_V2_BUFFER_SIZE; UUIDs and versions take 80 */

/* nvmlMemory_t */
struct nvml_memory {
	unsigned long long total, free, used;
};

/* nvmlProcessInfo_t since r510, which the _v2 and _v3 calls fill. */
struct nvml_process {
	unsigned int pid;
	unsigned long long bytes;
	unsigned int gpu_instance, compute_instance;
};

static_assert(sizeof(struct nvml_memory) == 24, "nvmlMemory_t");
static_assert(sizeof(struct nvml_process) == 24, "nvmlProcessInfo_t");

struct nvml_calls {
	int (*init)(void);
	const char *(*error_string)(int code);
	int (*driver_version)(char *text, unsigned int size);
	int (*count)(unsigned int *n);
	int (*handle)(unsigned int index, void **device);
	int (*uuid)(void *device, char *text, unsigned int size);
	int (*name)(void *device, char *text, unsigned int size);
	int (*minor)(void *device, unsigned int *minor);
	int (*memory)(void *device, struct nvml_memory *memory);
	int (*mig)(void *device, unsigned int *now, unsigned int *pending);
	int (*persistence)(void *device, unsigned int *on);
	int (*processes)(void *device, unsigned int *n, struct nvml_process *list);
};

struct nvml {
	struct nvml_calls calls;
	char driver_version[NVML_TEXT_MAX];
};

#define ENTRY(exported, member, needed)                                                            \
	{                                                                                          \
		exported, offsetof(struct nvml_calls, member), needed                              \
	}

/* A name may come twice: the first that the library has is taken. */
static const struct {
	const char *exported;
	size_t offset;
	bool needed;
} entries[] = {
	ENTRY("nvmlInit_v2", init, true),
	ENTRY("nvmlErrorString", error_string, false),
	ENTRY("nvmlSystemGetDriverVersion", driver_version, false),
	ENTRY("nvmlDeviceGetCount_v2", count, true),
	ENTRY("nvmlDeviceGetHandleByIndex_v2", handle, true),
	ENTRY("nvmlDeviceGetUUID", uuid, true),
	ENTRY("nvmlDeviceGetName", name, false),
	ENTRY("nvmlDeviceGetMinorNumber", minor, false),
	ENTRY("nvmlDeviceGetMemoryInfo", memory, false),
	ENTRY("nvmlDeviceGetMigMode", mig, false),
	ENTRY("nvmlDeviceGetPersistenceMode", persistence, false),
	ENTRY("nvmlDeviceGetComputeRunningProcesses_v3", processes, false),
	ENTRY("nvmlDeviceGetComputeRunningProcesses_v2", processes, false),
};

static int resolve_all(void *library, struct nvml_calls *calls, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		char *slot = (char *)calls + entries[i].offset;
		void *fn = NULL, *have;

		memcpy(&have, slot, sizeof(have));
		if (!have)
			fn = dlsym(library, entries[i].exported);
		if (fn)
			memcpy(slot, &fn, sizeof(fn));
		else if (!have && entries[i].needed)
			return error_set(err, -ENOSYS, "it has no %s()", entries[i].exported);
	}
	return 0;
}

int nvml_open(const char *library, struct nvml **ret, struct error *err)
{
	const char *path = library ? library : NVML_LIBRARY;
	_cleanup_free_ struct nvml *nvml = calloc(1, sizeof(*nvml));
	void *handle;
	int r;

	if (!nvml)
		return error_set(err, -ENOMEM, "out of memory");
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		const char *why = dlerror();

		return error_set(err, -ENOENT, "%s", why ? why : path);
	}
	r = resolve_all(handle, &nvml->calls, err);
	if (r < 0)
		return error_wrap(err, r, "%s", path);
	r = nvml->calls.init();
	if (r != NVML_CODE_SUCCESS)
		return error_set(err, -ENODEV, "%s: nvmlInit_v2(): %s (%d)", path,
				 nvml->calls.error_string ? nvml->calls.error_string(r) : "error",
				 r);
	if (!nvml->calls.driver_version ||
	    nvml->calls.driver_version(nvml->driver_version, sizeof(nvml->driver_version) - 1) !=
		    NVML_CODE_SUCCESS)
		nvml->driver_version[0] = 0;
	*ret = TAKE_PTR(nvml);
	return 0;
}

const char *nvml_driver_version(const struct nvml *nvml)
{
	return nvml->driver_version;
}

/* The device with this UUID, one more if there is none yet; NULL when the list is full. */
static struct gpu_device *device_of(struct gpu_memory *m, const struct cuda_uuid *uuid)
{
	struct gpu_device *dev;

	for (uint32_t i = 0; i < m->n_devices; i++)
		if (memcmp(&m->devices[i].uuid, uuid, sizeof(*uuid)) == 0)
			return &m->devices[i];
	if (m->n_devices == GPU_DEVICES_MAX)
		return NULL;
	dev = &m->devices[m->n_devices++];
	gpu_device_init(dev);
	dev->uuid = *uuid;
	return dev;
}

static void fill_figures(const struct nvml_calls *calls, void *handle, struct gpu_device *dev)
{
	struct nvml_memory memory;
	char name[NVML_TEXT_MAX + 1] = "";
	unsigned int value, pending;

	if (!dev->name[0] && calls->name &&
	    calls->name(handle, name, NVML_TEXT_MAX) == NVML_CODE_SUCCESS)
		GPU_TEXT_SET(dev->name, name);
	if (calls->minor && calls->minor(handle, &value) == NVML_CODE_SUCCESS)
		dev->minor = (int32_t)value;
	if (calls->memory && calls->memory(handle, &memory) == NVML_CODE_SUCCESS) {
		dev->total = memory.total;
		dev->free = memory.free;
		dev->used = memory.used;
	}
	/* NOT_SUPPORTED here means a GPU that cannot do MIG at all. */
	if (calls->mig && calls->mig(handle, &value, &pending) == NVML_CODE_SUCCESS)
		dev->flags |= GPU_DEVICE_MIG_KNOWN | (value ? GPU_DEVICE_MIG : 0U);
	if (calls->persistence && calls->persistence(handle, &value) == NVML_CODE_SUCCESS)
		dev->flags |= GPU_DEVICE_PERSISTENCE_KNOWN | (value ? GPU_DEVICE_PERSISTENCE : 0U);
}

/* Appends the processes of one device. */
static void fill_processes(const struct nvml_calls *calls, void *handle, struct gpu_memory *m,
			   struct gpu_device *dev)
{
	struct nvml_process list[GPU_PROCESSES_MAX];
	unsigned int n = ARRAY_SIZE(list);
	int code;

	if (!calls->processes)
		return;
	code = calls->processes(handle, &n, list);
	if (code == NVML_CODE_INSUFFICIENT_SIZE)
		dev->flags |= GPU_DEVICE_PROCESSES_CUT;
	if (code != NVML_CODE_SUCCESS)
		return;
	for (unsigned int i = 0; i < n && i < ARRAY_SIZE(list); i++) {
		if (list[i].pid == 0 || list[i].pid > INT32_MAX)
			continue;
		if (m->n_processes == GPU_PROCESSES_MAX) {
			dev->flags |= GPU_DEVICE_PROCESSES_CUT;
			return;
		}
		m->processes[m->n_processes++] =
			(struct gpu_process){ .pid = (int32_t)list[i].pid,
					      .device = (uint32_t)(dev - m->devices),
					      .bytes = list[i].bytes };
	}
}

void nvml_fill(const struct nvml *nvml, struct gpu_memory *m)
{
	const struct nvml_calls *calls = &nvml->calls;
	unsigned int n = 0;

	if (calls->count(&n) != NVML_CODE_SUCCESS)
		return;
	for (unsigned int i = 0; i < n; i++) {
		char text[NVML_TEXT_MAX + 1] = "";
		struct gpu_device *dev;
		struct cuda_uuid uuid;
		void *handle;

		if (calls->handle(i, &handle) != NVML_CODE_SUCCESS ||
		    calls->uuid(handle, text, NVML_TEXT_MAX) != NVML_CODE_SUCCESS ||
		    gpu_uuid_parse(text, &uuid) < 0)
			continue;
		dev = device_of(m, &uuid);
		if (!dev)
			return;
		dev->nvml_index = (int32_t)i;
		dev->flags |= GPU_DEVICE_NVML;
		fill_figures(calls, handle, dev);
		fill_processes(calls, handle, m, dev);
	}
}
