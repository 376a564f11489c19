/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small part of the CUDA driver's ABI that we use, restated: nothing of NVIDIA's is needed to
 * build. test-cuda-abi.c compares every number and every offset with cuda.h where a build machine
 * has one.
 *
 * Sources: cuda.h of CUDA 12.8 (first with the checkpoint calls) and 13.0 (gpuPairs), NVIDIA's
 * "CUDA Checkpointing" pages of 12.8, 13.0 and the 13.4 preview; cuda-python PRs 2144 and 2145
 * for what changed between them.
 */
#ifndef KYB_GPU_CUDA_ABI_H
#define KYB_GPU_CUDA_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* CUresult: those the checkpoint calls and the initialisation are known to return. */
enum cuda_code {
	CUDA_CODE_SUCCESS = 0,
	CUDA_CODE_INVALID_VALUE = 1,
	CUDA_CODE_OUT_OF_MEMORY = 2,
	CUDA_CODE_NOT_INITIALIZED = 3,
	CUDA_CODE_DEINITIALIZED = 4,
	CUDA_CODE_STUB_LIBRARY = 34,
	CUDA_CODE_NEWER_DRIVER = 36, /* CALL_REQUIRES_NEWER_DRIVER */
	CUDA_CODE_DEVICE_UNAVAILABLE = 46,
	CUDA_CODE_NO_DEVICE = 100,
	CUDA_CODE_OPERATING_SYSTEM = 304,
	CUDA_CODE_ILLEGAL_STATE = 401,
	CUDA_CODE_NOT_FOUND = 500,
	CUDA_CODE_NOT_READY = 600,
	CUDA_CODE_NOT_PERMITTED = 800,
	CUDA_CODE_NOT_SUPPORTED = 801,
	CUDA_CODE_SYSTEM_NOT_READY = 802,
	CUDA_CODE_DRIVER_MISMATCH = 803, /* SYSTEM_DRIVER_MISMATCH */
	CUDA_CODE_COMPAT_NOT_SUPPORTED = 804,
	CUDA_CODE_UNKNOWN = 999,
};

/* CUprocessState. 4 and 5 came with CUDA 13.4 and are seen only with CustomStorage. */
enum cuda_state {
	CUDA_STATE_RUNNING = 0,
	CUDA_STATE_LOCKED = 1,
	CUDA_STATE_CHECKPOINTED = 2,
	CUDA_STATE_FAILED = 3,
	CUDA_STATE_CHECKPOINTING = 4,
	CUDA_STATE_RESTORING = 5,
};

/* What cuDriverGetVersion() says: 1000 * major + 10 * minor. */
#define CUDA_VERSION_CHECKPOINT     12080
#define CUDA_VERSION_GPU_PAIRS      13000
#define CUDA_VERSION_IPC_JOB        13030
#define CUDA_VERSION_CUSTOM_STORAGE 13040

/* CUdriverProcAddressQueryResult */
#define CUDA_PROC_ADDRESS_FOUND 0

#define CUDA_DEVICE_PCI_BUS_ID 33 /* CU_DEVICE_ATTRIBUTE_PCI_BUS_ID */

struct cuda_uuid {
	uint8_t bytes[16];
};

/* CUcheckpointLockArgs. timeout_ms 0 would wait for ever: we never pass it. */
struct cuda_lock_args {
	uint32_t timeout_ms;
	uint32_t reserved0;
	uint64_t reserved1[7];
};

/*
 * CUcheckpointCheckpointArgs, CUcheckpointUnlockArgs, and CUcheckpointRestoreArgs as CUDA 12.8
 * and 12.9 have it: nothing but reserved words, which must be zero.
 */
struct cuda_plain_args {
	uint64_t reserved[8];
};

/* CUcheckpointGpuPair */
struct cuda_gpu_pair {
	struct cuda_uuid old_gpu, new_gpu;
};

/*
 * CUcheckpointRestoreArgs from CUDA 13.0 on. 13.3 folds reserved1 into reserved; the bytes are the
 * same. A driver before r580 takes the first two members for reserved words that are not zero.
 */
struct cuda_restore_args {
	const struct cuda_gpu_pair *pairs;
	uint32_t n_pairs;
	uint8_t reserved[44];
	uint64_t reserved1;
};

static_assert(sizeof(struct cuda_uuid) == 16, "CUuuid");
static_assert(sizeof(struct cuda_gpu_pair) == 32, "CUcheckpointGpuPair");
static_assert(sizeof(struct cuda_lock_args) == 64, "CUcheckpointLockArgs");
static_assert(sizeof(struct cuda_plain_args) == 64, "CUcheckpointCheckpointArgs and Unlock");
static_assert(sizeof(struct cuda_restore_args) == 64, "CUcheckpointRestoreArgs");
static_assert(offsetof(struct cuda_lock_args, reserved1) == 8, "CUcheckpointLockArgs.reserved1");
static_assert(offsetof(struct cuda_restore_args, n_pairs) == 8, "gpuPairsCount");
static_assert(offsetof(struct cuda_restore_args, reserved1) == 56, "CUcheckpointRestoreArgs");

#endif
