/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the CUDA driver's ABI that the emulation offers, restated: sizes, offsets, numbers
 * and symbol names are those of cuda.h (CUDA 13.0), and test-abi.c compares them with that header
 * where it is installed. Restated, because the tests must build on machines without CUDA.
 */
#ifndef FAKEGPU_CUDA_ABI_H
#define FAKEGPU_CUDA_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int fcu_result;
typedef int fcu_device;

struct fcu_uuid {
	char bytes[16];
};

struct fcu_lock_args {
	unsigned int timeout_ms;
	unsigned int reserved0;
	uint64_t reserved1[7];
};

struct fcu_plain_args { /* of Checkpoint and Unlock; of Restore before CUDA 13.0 */
	uint64_t reserved[8];
};

struct fcu_gpu_pair {
	struct fcu_uuid old_uuid, new_uuid;
};

struct fcu_restore_args { /* from CUDA 13.0 on */
	struct fcu_gpu_pair *pairs;
	unsigned int n_pairs;
	char reserved[52 - sizeof(struct fcu_gpu_pair *)];
	uint64_t reserved1;
};

#ifndef FCU_TYPES_ONLY /* beside cuda.h, which declares these in its own types */

#define FCU_EXPORT __attribute__((visibility("default")))

/* A driver of branch 550 has no such symbols: its build of the library hides them. */
#ifdef FAKEGPU_OLD_DRIVER
#define FCU_CHECKPOINT
#else
#define FCU_CHECKPOINT FCU_EXPORT
#endif

FCU_EXPORT fcu_result cuInit(unsigned int flags);
FCU_EXPORT fcu_result cuDriverGetVersion(int *version);
FCU_EXPORT fcu_result cuGetErrorName(fcu_result error, const char **ret);
FCU_EXPORT fcu_result cuGetErrorString(fcu_result error, const char **ret);
FCU_EXPORT fcu_result cuDeviceGetCount(int *count);
FCU_EXPORT fcu_result cuDeviceGet(fcu_device *device, int ordinal);
FCU_EXPORT fcu_result cuDeviceGetName(char *name, int len, fcu_device device);
FCU_EXPORT fcu_result cuDeviceGetUuid(struct fcu_uuid *uuid, fcu_device device);
FCU_EXPORT fcu_result cuDeviceGetUuid_v2(struct fcu_uuid *uuid, fcu_device device);
FCU_EXPORT fcu_result cuDeviceTotalMem_v2(size_t *bytes, fcu_device device);
FCU_EXPORT fcu_result cuGetProcAddress(const char *symbol, void **pfn, int version,
				       uint64_t flags);
FCU_EXPORT fcu_result cuGetProcAddress_v2(const char *symbol, void **pfn, int version,
					  uint64_t flags, int *status);
FCU_CHECKPOINT fcu_result cuCheckpointProcessGetRestoreThreadId(int pid, int *tid);
FCU_CHECKPOINT fcu_result cuCheckpointProcessGetState(int pid, int *state);
FCU_CHECKPOINT fcu_result cuCheckpointProcessLock(int pid, struct fcu_lock_args *args);
FCU_CHECKPOINT fcu_result cuCheckpointProcessCheckpoint(int pid, struct fcu_plain_args *args);
FCU_CHECKPOINT fcu_result cuCheckpointProcessRestore(int pid, struct fcu_restore_args *args);
FCU_CHECKPOINT fcu_result cuCheckpointProcessUnlock(int pid, struct fcu_plain_args *args);

/* The application's side: app.c. */
struct fcu_function;
struct fcu_stream;
struct fcu_graph;
struct fcu_event;

FCU_EXPORT fcu_result cuDevicePrimaryCtxRetain(void **context, fcu_device device);
FCU_EXPORT fcu_result cuCtxSetCurrent(void *context);
FCU_EXPORT fcu_result cuCtxSynchronize(void);
FCU_EXPORT fcu_result cuModuleLoadData(void **module, const void *image);
FCU_EXPORT fcu_result cuModuleGetFunction(struct fcu_function **function, void *module,
					  const char *name);
FCU_EXPORT fcu_result cuMemAlloc_v2(uint64_t *address, size_t n);
FCU_EXPORT fcu_result cuMemAllocManaged(uint64_t *address, size_t n, unsigned int flags);
FCU_EXPORT fcu_result cuMemFree_v2(uint64_t address);
FCU_EXPORT fcu_result cuMemHostAlloc(void **ret, size_t n, unsigned int flags);
FCU_EXPORT fcu_result cuMemFreeHost(void *p);
FCU_EXPORT fcu_result cuMemsetD32_v2(uint64_t address, unsigned int value, size_t n);
FCU_EXPORT fcu_result cuMemsetD32Async(uint64_t address, unsigned int value, size_t n,
				       struct fcu_stream *stream);
FCU_EXPORT fcu_result cuMemcpyDtoH_v2(void *to, uint64_t from, size_t n);
FCU_EXPORT fcu_result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n,
					   struct fcu_stream *stream);
FCU_EXPORT fcu_result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n,
					   struct fcu_stream *stream);
FCU_EXPORT fcu_result cuLaunchKernel(struct fcu_function *function, unsigned int gx,
				     unsigned int gy, unsigned int gz, unsigned int bx,
				     unsigned int by, unsigned int bz, unsigned int shared,
				     struct fcu_stream *stream, void **args, void **extra);
FCU_EXPORT fcu_result cuStreamCreate(struct fcu_stream **ret, unsigned int flags);
FCU_EXPORT fcu_result cuStreamSynchronize(struct fcu_stream *stream);
FCU_EXPORT fcu_result cuStreamBeginCapture_v2(struct fcu_stream *stream, int mode);
FCU_EXPORT fcu_result cuStreamEndCapture(struct fcu_stream *stream, struct fcu_graph **graph);
FCU_EXPORT fcu_result cuGraphInstantiateWithFlags(struct fcu_graph **exec, struct fcu_graph *graph,
						  uint64_t flags);
FCU_EXPORT fcu_result cuGraphLaunch(struct fcu_graph *exec, struct fcu_stream *stream);
FCU_EXPORT fcu_result cuEventCreate(struct fcu_event **ret, unsigned int flags);
FCU_EXPORT fcu_result cuEventRecord(struct fcu_event *event, struct fcu_stream *stream);
FCU_EXPORT fcu_result cuEventSynchronize(struct fcu_event *event);
FCU_EXPORT fcu_result cuEventElapsedTime(float *ms, struct fcu_event *from, struct fcu_event *to);

#endif

#endif
