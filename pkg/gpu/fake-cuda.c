/* SPDX-License-Identifier: Apache-2.0 */
/* The scripted driver, see fake-cuda.h. With FAKE_OLD it is one without the checkpoint API. */
#include "gpu/fake-cuda.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static struct fake_cuda *fake;

EXPORT int cuInit(unsigned int flags);
EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuGetErrorName(int code, const char **name);
EXPORT int cuDeviceGetCount(int *n);
EXPORT int cuDeviceGet(int *device, int ordinal);
EXPORT int cuDeviceGetUuid_v2(struct cuda_uuid *uuid, int device);
EXPORT int cuDeviceGetName(char *name, int size, int device);
EXPORT int cuGetProcAddress_v2(const char *symbol, void **fn, int version, uint64_t flags,
			       int *status);

/* The real thing, not raise(): all signals are blocked in the threads that call us. */
__attribute__((no_sanitize("undefined"))) static void crash(void)
{
	*(volatile int *)NULL = 1;
}

static void obey(const struct fake_script *s)
{
	if (s->delay_ms)
		(void)usleep(s->delay_ms * 1000);
	while (__atomic_load_n(&s->hang, __ATOMIC_RELAXED))
		(void)usleep(1000);
	if (s->crash)
		crash();
}

int cuInit(unsigned int flags)
{
	const char *path = getenv(FAKE_CUDA_ENV);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0 || flags)
		return CUDA_CODE_NO_DEVICE;
	p = mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (p == MAP_FAILED)
		return CUDA_CODE_OPERATING_SYSTEM;
	fake = p;
	fake->calls[FAKE_INIT]++;
	obey(&fake->scripts[FAKE_INIT]);
	return fake->scripts[FAKE_INIT].code < 0 ? 0 : fake->scripts[FAKE_INIT].code;
}

int cuDriverGetVersion(int *version)
{
	*version = fake->cuda_version;
	return CUDA_CODE_SUCCESS;
}

int cuGetErrorName(int code, const char **name)
{
	static const struct {
		int code;
		const char *name;
	} names[] = { { 0, "CUDA_SUCCESS" },
		      { 1, "CUDA_ERROR_INVALID_VALUE" },
		      { 2, "CUDA_ERROR_OUT_OF_MEMORY" },
		      { 3, "CUDA_ERROR_NOT_INITIALIZED" },
		      { 100, "CUDA_ERROR_NO_DEVICE" },
		      { 304, "CUDA_ERROR_OPERATING_SYSTEM" },
		      { 401, "CUDA_ERROR_ILLEGAL_STATE" },
		      { 600, "CUDA_ERROR_NOT_READY" },
		      { 801, "CUDA_ERROR_NOT_SUPPORTED" },
		      { 999, "CUDA_ERROR_UNKNOWN" } };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].code == code) {
			*name = names[i].name;
			return CUDA_CODE_SUCCESS;
		}
	}
	*name = NULL;
	return CUDA_CODE_INVALID_VALUE;
}

int cuDeviceGetCount(int *n)
{
	*n = (int)fake->n_gpus;
	return CUDA_CODE_SUCCESS;
}

int cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return CUDA_CODE_SUCCESS;
}

int cuDeviceGetUuid_v2(struct cuda_uuid *uuid, int device)
{
	*uuid = fake->gpus[device];
	return CUDA_CODE_SUCCESS;
}

int cuDeviceGetName(char *name, int size, int device)
{
	(void)snprintf(name, (size_t)size, "Fake GPU %d", device);
	return CUDA_CODE_SUCCESS;
}

#ifndef FAKE_OLD
EXPORT int cuCheckpointProcessGetRestoreThreadId(int pid, int *tid);
EXPORT int cuCheckpointProcessGetState(int pid, unsigned int *state);
EXPORT int cuCheckpointProcessLock(int pid, const struct cuda_lock_args *args);
EXPORT int cuCheckpointProcessCheckpoint(int pid, const struct cuda_plain_args *args);
EXPORT int cuCheckpointProcessRestore(int pid, const void *args);
EXPORT int cuCheckpointProcessUnlock(int pid, const struct cuda_plain_args *args);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct fake_process *find(int pid)
{
	for (int i = 0; i < FAKE_PROCESSES_MAX; i++)
		if (fake->processes[i].pid == pid)
			return &fake->processes[i];
	return NULL;
}

static int check_zero(const void *p, size_t n)
{
	for (const char *at = p; n; n--)
		if (*at++) {
			(void)__atomic_add_fetch(&fake->bad_args, 1, __ATOMIC_RELAXED);
			return CUDA_CODE_INVALID_VALUE;
		}
	return CUDA_CODE_SUCCESS;
}

static struct fake_process *enter(int pid, enum gpu_op op, struct fake_script *ret)
{
	struct fake_process *p;

	(void)pthread_mutex_lock(&lock);
	fake->calls[op]++;
	if (++fake->inside > fake->most_inside)
		fake->most_inside = fake->inside;
	p = find(pid);
	if (p && p->inside++)
		fake->overlaps++;
	*ret = fake->scripts[op];
	(void)pthread_mutex_unlock(&lock);
	/* Out of the lock: these may take long. */
	if (p && p->script_op == op) {
		obey(&p->script);
		*ret = p->script;
	} else {
		obey(&fake->scripts[op]);
	}
	(void)pthread_mutex_lock(&lock);
	return p;
}

static int leave(struct fake_process *p, int code)
{
	fake->inside--;
	if (p)
		p->inside--;
	(void)pthread_mutex_unlock(&lock);
	return code;
}

/* A call that changes the state. */
static int change(int pid, enum gpu_op op, unsigned int from, unsigned int to, int bad)
{
	struct fake_script s;
	struct fake_process *p = enter(pid, op, &s);
	int code = s.code;

	if (code < 0)
		code = bad	       ? bad
		       : !p	       ? CUDA_CODE_NOT_INITIALIZED
		       : p->state != from ? CUDA_CODE_ILLEGAL_STATE
					  : CUDA_CODE_SUCCESS;
	if (p && code == CUDA_CODE_SUCCESS)
		p->state = to;
	return leave(p, code);
}

int cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
	struct fake_script s;
	struct fake_process *p = enter(pid, GPU_OP_PROBE, &s);

	if (s.code < 0)
		s.code = p ? CUDA_CODE_SUCCESS : CUDA_CODE_NOT_INITIALIZED;
	*tid = pid + 1;
	return leave(p, s.code);
}

int cuCheckpointProcessGetState(int pid, unsigned int *state)
{
	struct fake_script s;
	struct fake_process *p = enter(pid, GPU_OP_STATE, &s);

	if (s.code < 0)
		s.code = p ? CUDA_CODE_SUCCESS : CUDA_CODE_NOT_INITIALIZED;
	if (p)
		*state = p->state;
	return leave(p, s.code);
}

int cuCheckpointProcessLock(int pid, const struct cuda_lock_args *args)
{
	int bad = args ? check_zero(&args->reserved0, 60) : 0;

	__atomic_store_n(&fake->last_timeout_ms, args ? args->timeout_ms : 0, __ATOMIC_RELAXED);
	return change(pid, GPU_OP_LOCK, CUDA_STATE_RUNNING, CUDA_STATE_LOCKED, bad);
}

int cuCheckpointProcessCheckpoint(int pid, const struct cuda_plain_args *args)
{
	int bad = args ? check_zero(args, sizeof(*args)) : 0;

	return change(pid, GPU_OP_CHECKPOINT, CUDA_STATE_LOCKED, CUDA_STATE_CHECKPOINTED, bad);
}

int cuCheckpointProcessRestore(int pid, const void *args)
{
	const struct cuda_restore_args *with = args;
	int bad;

	if (fake->cuda_version < CUDA_VERSION_GPU_PAIRS) {
		bad = check_zero(args, sizeof(struct cuda_plain_args)); /* the old layout */
	} else {
		bad = check_zero(with->reserved, sizeof(with->reserved) + sizeof(with->reserved1));
		(void)pthread_mutex_lock(&lock);
		fake->n_pairs = with->n_pairs;
		if (with->n_pairs <= GPU_DEVICES_MAX && with->n_pairs)
			memcpy(fake->pairs, with->pairs, with->n_pairs * sizeof(with->pairs[0]));
		(void)pthread_mutex_unlock(&lock);
	}
	return change(pid, GPU_OP_RESTORE, CUDA_STATE_CHECKPOINTED, CUDA_STATE_LOCKED, bad);
}

int cuCheckpointProcessUnlock(int pid, const struct cuda_plain_args *args)
{
	int bad = args ? check_zero(args, sizeof(*args)) : 0;

	return change(pid, GPU_OP_UNLOCK, CUDA_STATE_LOCKED, CUDA_STATE_RUNNING, bad);
}
#endif

int cuGetProcAddress_v2(const char *symbol, void **fn, int version, uint64_t flags, int *status)
{
#ifndef FAKE_OLD
	static const struct {
		const char *symbol;
		void *fn;
	} calls[] = {
		{ "cuCheckpointProcessGetState", (void *)cuCheckpointProcessGetState },
		{ "cuCheckpointProcessLock", (void *)cuCheckpointProcessLock },
	};

	/* Before cuInit() there is nothing to look at: the environment must do. */
	for (size_t i = 0; getenv(FAKE_BY_VERSION_ENV) && i < 2; i++) {
		if (strcmp(symbol, calls[i].symbol) == 0 && version >= CUDA_VERSION_CHECKPOINT) {
			*fn = calls[i].fn;
			*status = CUDA_PROC_ADDRESS_FOUND;
			return CUDA_CODE_SUCCESS;
		}
	}
#endif
	(void)symbol;
	(void)version;
	(void)flags;
	*fn = NULL;
	*status = 1; /* CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND */
	return CUDA_CODE_SUCCESS;
}
