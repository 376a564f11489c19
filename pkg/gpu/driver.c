/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/driver.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "gpu/capability.h"

/* The entry points; all of them take and return what cuda.h says. */
struct calls {
	int (*init)(unsigned int flags);
	int (*version)(int *version);
	int (*error_name)(int code, const char **name);
	int (*device_count)(int *n);
	int (*device)(int *device, int ordinal);
	int (*device_uuid)(struct cuda_uuid *uuid, int device);
	int (*device_name)(char *name, int size, int device);
	int (*get_proc_address)(const char *symbol, void **fn, int cuda_version, uint64_t flags,
				int *status);
	/* from CUDA 12.8 on */
	int (*restore_thread)(int pid, int *tid);
	int (*state)(int pid, unsigned int *state);
	int (*lock)(int pid, struct cuda_lock_args *args);
	int (*checkpoint)(int pid, struct cuda_plain_args *args);
	int (*restore)(int pid, void *args);
	int (*unlock)(int pid, struct cuda_plain_args *args);
	/* from CUDA 13.4 on; only looked for */
	int (*operation_complete)(void *handle);
};

struct driver {
	struct calls calls;
	int cuda_version;
	uint32_t caps;
	char library[PATH_MAX];
};

/*
 * What to look for: `exported` is the name dlsym() knows, which carries the ABI's version;
 * `symbol` and `version` are what cuGetProcAddress() is asked for. That way is taken first, for a
 * driver may keep several versions of a call and give out each by number only.
 */
struct entry {
	const char *symbol, *exported;
	int version;
	size_t offset; /* in struct calls */
	bool needed;   /* without it, this is no CUDA driver that we can use at all */
};

#define ENTRY(symbol, exported, version, member, needed)                                           \
	{                                                                                          \
		symbol, exported, version, offsetof(struct calls, member), needed                  \
	}

static const struct entry entries[] = {
	ENTRY("cuInit", "cuInit", 2000, init, true),
	ENTRY("cuDriverGetVersion", "cuDriverGetVersion", 2020, version, true),
	ENTRY("cuGetErrorName", "cuGetErrorName", 6000, error_name, false),
	ENTRY("cuDeviceGetCount", "cuDeviceGetCount", 2000, device_count, true),
	ENTRY("cuDeviceGet", "cuDeviceGet", 2000, device, true),
	ENTRY("cuDeviceGetUuid", "cuDeviceGetUuid_v2", 11040, device_uuid, false),
	ENTRY("cuDeviceGetName", "cuDeviceGetName", 2000, device_name, false),
	ENTRY("cuCheckpointProcessGetRestoreThreadId", "cuCheckpointProcessGetRestoreThreadId",
	      CUDA_VERSION_CHECKPOINT, restore_thread, false),
	ENTRY("cuCheckpointProcessGetState", "cuCheckpointProcessGetState",
	      CUDA_VERSION_CHECKPOINT, state, false),
	ENTRY("cuCheckpointProcessLock", "cuCheckpointProcessLock", CUDA_VERSION_CHECKPOINT, lock,
	      false),
	ENTRY("cuCheckpointProcessCheckpoint", "cuCheckpointProcessCheckpoint",
	      CUDA_VERSION_CHECKPOINT, checkpoint, false),
	ENTRY("cuCheckpointProcessRestore", "cuCheckpointProcessRestore", CUDA_VERSION_CHECKPOINT,
	      restore, false),
	ENTRY("cuCheckpointProcessUnlock", "cuCheckpointProcessUnlock", CUDA_VERSION_CHECKPOINT,
	      unlock, false),
	ENTRY("cuCheckpointOperationComplete", "cuCheckpointOperationComplete",
	      CUDA_VERSION_CUSTOM_STORAGE, operation_complete, false),
};

static void *resolve(void *library, const struct calls *calls, const struct entry *e)
{
	void *fn = NULL;
	int status = CUDA_PROC_ADDRESS_FOUND;

	if (calls->get_proc_address &&
	    calls->get_proc_address(e->symbol, &fn, e->version, 0, &status) == CUDA_CODE_SUCCESS &&
	    status == CUDA_PROC_ADDRESS_FOUND && fn)
		return fn;
	return dlsym(library, e->exported);
}

static int resolve_all(void *library, struct calls *calls, struct error *err)
{
	void *fn;

	/* POSIX lets data pointers from dlsym() be functions; ISO C needs the detour. */
	fn = dlsym(library, "cuGetProcAddress_v2"); /* from CUDA 12.0 on */
	memcpy(&calls->get_proc_address, &fn, sizeof(fn));
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		const struct entry *e = &entries[i];

		fn = resolve(library, calls, e);
		if (!fn && e->needed)
			return error_reason(err, REASON_DRIVER_UNAVAILABLE, -ENOSYS,
					    "it has no %s(): no CUDA driver", e->exported);
		memcpy((char *)calls + e->offset, &fn, sizeof(fn));
	}
	return 0;
}

static bool checkpoint_calls(const struct calls *c)
{
	return c->restore_thread && c->state && c->lock && c->checkpoint && c->restore && c->unlock;
}

/* Which file the loader took, so that people see it and CRIU's demand can be checked. */
static void find_file(void *library, struct driver *d)
{
	struct link_map *map = NULL;

	if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name &&
	    !realpath(map->l_name, d->library))
		d->library[0] = 0;
}

/* What cuInit() misses most often, and says least about. */
static const char *missing_node(void)
{
	static const char *const nodes[] = { "/dev/nvidiactl", "/dev/nvidia-uvm" };

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		if (access(nodes[i], F_OK) < 0 && errno == ENOENT)
			return nodes[i];
	return NULL;
}

static int initialise(struct driver *d, struct error *err)
{
	struct gpu_facts facts = { 0 };
	int code = d->calls.init(0);

	if (code == CUDA_CODE_SUCCESS)
		code = d->calls.version(&facts.cuda_version);
	if (code != CUDA_CODE_SUCCESS) {
		const char *node = missing_node();

		return error_reason(err, REASON_DRIVER_UNAVAILABLE, -ENODEV,
				    "cuInit(): %s (%d)%s%s", driver_error_name(d, code), code,
				    node ? ": there is no " : "", node ? node : "");
	}
	facts.checkpoint_calls = checkpoint_calls(&d->calls);
	facts.operation_complete = d->calls.operation_complete != NULL;
	d->cuda_version = facts.cuda_version;
	d->caps = gpu_capabilities(&facts);
	return 0;
}

int driver_open(const char *library, struct driver **ret, struct error *err)
{
	const char *name = library ? library : DRIVER_LIBRARY;
	_cleanup_free_ struct driver *d = calloc(1, sizeof(*d));
	void *handle;
	int r;

	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		const char *why = dlerror();

		return error_reason(err, REASON_DRIVER_UNAVAILABLE, -ENOENT, "%s",
				    why ? why : name);
	}
	find_file(handle, d);
	r = resolve_all(handle, &d->calls, err);
	if (r == 0)
		r = initialise(d, err);
	if (r < 0)
		return error_wrap(err, r, "%s", name);
	*ret = TAKE_PTR(d);
	return 0;
}

int driver_usable(const struct driver *d, struct error *err)
{
	if (d->caps & GPU_CAP_CHECKPOINT)
		return 0;
	return error_reason(err, REASON_DRIVER_TOO_OLD, -EOPNOTSUPP,
			    "the driver speaks CUDA %d.%d and has no checkpoint API: that came "
			    "with CUDA 12.8, driver branch 570",
			    d->cuda_version / 1000, d->cuda_version % 1000 / 10);
}

int driver_cuda_version(const struct driver *d)
{
	return d->cuda_version;
}

uint32_t driver_caps(const struct driver *d)
{
	return d->caps;
}

const char *driver_library(const struct driver *d)
{
	return d->library;
}

int driver_devices(const struct driver *d, struct gpu_memory *m)
{
	int n = 0, code = d->calls.device_count(&n);

	for (int i = 0; code == CUDA_CODE_SUCCESS && i < n; i++) {
		struct gpu_device dev;
		char name[256] = "";
		int device;

		if (m->n_devices == GPU_DEVICES_MAX)
			break;
		gpu_device_init(&dev);
		dev.cuda_index = i;
		dev.flags = GPU_DEVICE_CUDA;
		code = d->calls.device(&device, i);
		if (code == CUDA_CODE_SUCCESS && d->calls.device_uuid)
			code = d->calls.device_uuid(&dev.uuid, device);
		if (code == CUDA_CODE_SUCCESS && d->calls.device_name &&
		    d->calls.device_name(name, (int)sizeof(name) - 1, device) == CUDA_CODE_SUCCESS)
			GPU_TEXT_SET(dev.name, name);
		if (code == CUDA_CODE_SUCCESS)
			m->devices[m->n_devices++] = dev;
	}
	return code;
}

int driver_restore_thread(const struct driver *d, pid_t pid, int *ret_tid)
{
	int tid = 0, code = d->calls.restore_thread(pid, &tid);

	if (code == CUDA_CODE_SUCCESS)
		*ret_tid = tid;
	return code;
}

int driver_state(const struct driver *d, pid_t pid, unsigned int *ret_state)
{
	unsigned int state = CUDA_STATE_FAILED;
	int code = d->calls.state(pid, &state);

	if (code == CUDA_CODE_SUCCESS)
		*ret_state = state;
	return code;
}

int driver_lock(const struct driver *d, pid_t pid, uint32_t timeout_ms)
{
	struct cuda_lock_args args = { .timeout_ms = timeout_ms };

	assert(timeout_ms > 0);
	return d->calls.lock(pid, &args);
}

int driver_checkpoint(const struct driver *d, pid_t pid)
{
	struct cuda_plain_args args = { 0 };

	return d->calls.checkpoint(pid, &args);
}

int driver_restore(const struct driver *d, pid_t pid, const struct cuda_gpu_pair *pairs,
		   uint32_t n_pairs)
{
	struct cuda_restore_args with = { .pairs = pairs, .n_pairs = n_pairs };
	struct cuda_plain_args plain = { 0 };

	if (n_pairs == 0)
		return d->calls.restore(pid, &plain); /* the same bytes in both layouts */
	assert(d->caps & GPU_CAP_GPU_PAIRS);
	return d->calls.restore(pid, &with);
}

int driver_unlock(const struct driver *d, pid_t pid)
{
	struct cuda_plain_args args = { 0 };

	return d->calls.unlock(pid, &args);
}

const char *driver_error_name(const struct driver *d, int code)
{
	const char *name = NULL;

	if (d->calls.error_name && d->calls.error_name(code, &name) == CUDA_CODE_SUCCESS && name)
		return name;
	return "CUDA_ERROR_?";
}
