/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of CUDA's driver API that the programs here use, by dlopen(): they build where there is
 * no CUDA, and run on the system's libcuda.so.1 or on the emulated one. Names without "cu" and
 * version; signatures as in cuda.h, handles as void *, results as int (CUresult).
 */
#ifndef TESTS_GPU_CU_H
#define TESTS_GPU_CU_H

#include <stddef.h>
#include <stdint.h>

/* CUdeviceptr */
typedef unsigned long long cu_ptr;

/* X(member, symbol, parameters) */
#define CU_TABLE(X)                                                                                \
	X(init, "cuInit", (unsigned int flags))                                                    \
	X(error_name, "cuGetErrorName", (int code, const char **ret))                              \
	X(device_get, "cuDeviceGet", (int *ret, int ordinal))                                      \
	X(device_name, "cuDeviceGetName", (char *name, int size, int device))                      \
	X(context, "cuDevicePrimaryCtxRetain", (void **ret, int device))                           \
	X(set_current, "cuCtxSetCurrent", (void *context))                                         \
	X(synchronize, "cuCtxSynchronize", (void))                                                 \
	X(load, "cuModuleLoadData", (void **ret, const void *image))                               \
	X(function, "cuModuleGetFunction", (void **ret, void *module, const char *name))           \
	X(alloc, "cuMemAlloc_v2", (cu_ptr *ret, size_t n))                                         \
	X(free, "cuMemFree_v2", (cu_ptr p))                                                        \
	X(host_alloc, "cuMemHostAlloc", (void **ret, size_t n, unsigned int flags))                \
	X(host_free, "cuMemFreeHost", (void *p))                                                   \
	X(set32, "cuMemsetD32Async", (cu_ptr p, unsigned int value, size_t n, void *stream))       \
	X(to_host, "cuMemcpyDtoH_v2", (void *to, cu_ptr from, size_t n))                           \
	X(to_host_async, "cuMemcpyDtoHAsync_v2", (void *to, cu_ptr from, size_t n, void *stream))  \
	X(to_device_async, "cuMemcpyHtoDAsync_v2",                                                 \
	  (cu_ptr to, const void *from, size_t n, void *stream))                                   \
	X(stream, "cuStreamCreate", (void **ret, unsigned int flags))                              \
	X(stream_wait, "cuStreamSynchronize", (void *stream))                                      \
	X(capture, "cuStreamBeginCapture_v2", (void *stream, int mode))                            \
	X(capture_end, "cuStreamEndCapture", (void *stream, void **ret_graph))                     \
	X(instantiate, "cuGraphInstantiateWithFlags",                                              \
	  (void **ret, void *graph, unsigned long long flags))                                     \
	X(graph_launch, "cuGraphLaunch", (void *exec, void *stream))                               \
	X(event, "cuEventCreate", (void **ret, unsigned int flags))                                \
	X(event_record, "cuEventRecord", (void *event, void *stream))                              \
	X(event_wait, "cuEventSynchronize", (void *event))                                         \
	X(event_ms, "cuEventElapsedTime", (float *ret, void *from, void *to))                      \
	X(launch, "cuLaunchKernel",                                                                \
	  (void *function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,     \
	   unsigned int by, unsigned int bz, unsigned int shared, void *stream, void **args,       \
	   void **extra))

struct cu {
	void *lib;
#define X(member, symbol, parameters) int(*member) parameters;
	CU_TABLE(X)
#undef X
};

/* Loads libcuda.so.1. Returns 0, or -ENOENT and *ret_missing: the library or a symbol, borrowed. */
int cu_load(struct cu *cu, const char **ret_missing);
/* "CUDA_ERROR_OUT_OF_MEMORY" and so on; never NULL. */
const char *cu_name(const struct cu *cu, int code);

#endif
