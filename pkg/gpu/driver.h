/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NVIDIA driver's user-space library behind one small interface. It is loaded at run time and
 * never linked; entry points are asked for by name and version. Only kybernate-cuda-worker
 * contains this code.
 *
 * Every function may block for as long as the driver pleases, and may be called from several
 * threads at once, save driver_open(). The library is never unloaded: it has threads of its own.
 */
#ifndef KYB_GPU_DRIVER_H
#define KYB_GPU_DRIVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "gpu/protocol.h"

#define DRIVER_LIBRARY "libcuda.so.1"

struct driver;

/*
 * Loads the library (a path, or a name for the loader; NULL = DRIVER_LIBRARY), calls cuInit() and
 * asks for what never changes. This takes seconds where the driver is not kept initialised.
 * Returns 0, or negative with reason DRIVER_UNAVAILABLE: it cannot be loaded or initialised, or is
 * no CUDA driver. A driver without the checkpoint API opens all right, see driver_usable().
 */
int driver_open(const char *library, struct driver **ret, struct error *err);

/* 0, or -EOPNOTSUPP with reason DRIVER_TOO_OLD when the checkpoint calls are not there. */
int driver_usable(const struct driver *d, struct error *err);

/* cuDriverGetVersion(); enum gpu_cap; the file that was loaded, symlinks resolved. */
int driver_cuda_version(const struct driver *d);
uint32_t driver_caps(const struct driver *d);
const char *driver_library(const struct driver *d);

/*
 * Puts the devices the driver lists into m, with index, UUID and name; other members unknown.
 * GPUs past GPU_DEVICES_MAX are left out. Returns a CUresult.
 */
int driver_devices(const struct driver *d, struct gpu_memory *m);

/*
 * The checkpoint calls; only for a usable driver. All return a CUresult, 0 for success, and set
 * their ret_ argument on success only. Semantics: docs/drivers.md. timeout_ms is at least 1.
 */
int driver_restore_thread(const struct driver *d, pid_t pid, int *ret_tid);
int driver_state(const struct driver *d, pid_t pid, unsigned int *ret_state);
int driver_lock(const struct driver *d, pid_t pid, uint32_t timeout_ms);
int driver_checkpoint(const struct driver *d, pid_t pid);
/* With n_pairs > 0 only where driver_caps() has GPU_CAP_GPU_PAIRS. */
int driver_restore(const struct driver *d, pid_t pid, const struct cuda_gpu_pair *pairs,
		   uint32_t n_pairs);
int driver_unlock(const struct driver *d, pid_t pid);

/* "CUDA_ERROR_NOT_READY": the driver's own name, or "CUDA_ERROR_?" when it has none. */
const char *driver_error_name(const struct driver *d, int code);

#endif
