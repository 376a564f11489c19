/* SPDX-License-Identifier: Apache-2.0 */
/* Compares what cuda_abi.h restates with the real cuda.h; built where there is one. */
#include "gpu/cuda_abi.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <cuda.h>
#pragma GCC diagnostic pop

#include "tests/cmocka.h"

#define SAME(ours, theirs) assert_int_equal((int)(ours), (int)(theirs))
#define SAME_SIZE(ours, theirs) assert_int_equal(sizeof(struct ours), sizeof(theirs))
#define SAME_OFFSET(ours, a, theirs, b)                                                            \
	assert_int_equal(offsetof(struct ours, a), offsetof(theirs, b))

static void codes_are_those_of_the_driver(void **state)
{
	(void)state;
	SAME(CUDA_CODE_SUCCESS, CUDA_SUCCESS);
	SAME(CUDA_CODE_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
	SAME(CUDA_CODE_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
	SAME(CUDA_CODE_NOT_INITIALIZED, CUDA_ERROR_NOT_INITIALIZED);
	SAME(CUDA_CODE_DEINITIALIZED, CUDA_ERROR_DEINITIALIZED);
	SAME(CUDA_CODE_STUB_LIBRARY, CUDA_ERROR_STUB_LIBRARY);
#if CUDA_VERSION >= 13000
	SAME(CUDA_CODE_NEWER_DRIVER, CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER);
#endif
	SAME(CUDA_CODE_DEVICE_UNAVAILABLE, CUDA_ERROR_DEVICE_UNAVAILABLE);
	SAME(CUDA_CODE_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
	SAME(CUDA_CODE_OPERATING_SYSTEM, CUDA_ERROR_OPERATING_SYSTEM);
	SAME(CUDA_CODE_ILLEGAL_STATE, CUDA_ERROR_ILLEGAL_STATE);
	SAME(CUDA_CODE_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
	SAME(CUDA_CODE_NOT_READY, CUDA_ERROR_NOT_READY);
	SAME(CUDA_CODE_NOT_PERMITTED, CUDA_ERROR_NOT_PERMITTED);
	SAME(CUDA_CODE_NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED);
	SAME(CUDA_CODE_SYSTEM_NOT_READY, CUDA_ERROR_SYSTEM_NOT_READY);
	SAME(CUDA_CODE_DRIVER_MISMATCH, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
	SAME(CUDA_CODE_COMPAT_NOT_SUPPORTED, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE);
	SAME(CUDA_CODE_UNKNOWN, CUDA_ERROR_UNKNOWN);
	SAME(CUDA_PROC_ADDRESS_FOUND, CU_GET_PROC_ADDRESS_SUCCESS);
	SAME(CUDA_DEVICE_PCI_BUS_ID, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
}

static void layouts_are_those_of_the_driver(void **state)
{
	(void)state;
	SAME_SIZE(cuda_uuid, CUuuid);
#if CUDA_VERSION >= 12080
	SAME(CUDA_STATE_RUNNING, CU_PROCESS_STATE_RUNNING);
	SAME(CUDA_STATE_LOCKED, CU_PROCESS_STATE_LOCKED);
	SAME(CUDA_STATE_CHECKPOINTED, CU_PROCESS_STATE_CHECKPOINTED);
	SAME(CUDA_STATE_FAILED, CU_PROCESS_STATE_FAILED);
	SAME_SIZE(cuda_lock_args, CUcheckpointLockArgs);
	SAME_OFFSET(cuda_lock_args, timeout_ms, CUcheckpointLockArgs, timeoutMs);
	SAME_OFFSET(cuda_lock_args, reserved0, CUcheckpointLockArgs, reserved0);
	SAME_OFFSET(cuda_lock_args, reserved1, CUcheckpointLockArgs, reserved1);
	SAME_SIZE(cuda_plain_args, CUcheckpointCheckpointArgs);
	SAME_SIZE(cuda_plain_args, CUcheckpointUnlockArgs);
	SAME_SIZE(cuda_restore_args, CUcheckpointRestoreArgs);
#endif
#if CUDA_VERSION >= 13000
	SAME_SIZE(cuda_gpu_pair, CUcheckpointGpuPair);
	SAME_OFFSET(cuda_gpu_pair, old_gpu, CUcheckpointGpuPair, oldUuid);
	SAME_OFFSET(cuda_gpu_pair, new_gpu, CUcheckpointGpuPair, newUuid);
	SAME_OFFSET(cuda_restore_args, pairs, CUcheckpointRestoreArgs, gpuPairs);
	SAME_OFFSET(cuda_restore_args, n_pairs, CUcheckpointRestoreArgs, gpuPairsCount);
	SAME_OFFSET(cuda_restore_args, reserved, CUcheckpointRestoreArgs, reserved);
#endif
#if CUDA_VERSION >= 13040
	SAME(CUDA_STATE_CHECKPOINTING, CU_PROCESS_STATE_CHECKPOINTING);
	SAME(CUDA_STATE_RESTORING, CU_PROCESS_STATE_RESTORING);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_are_those_of_the_driver),
		cmocka_unit_test(layouts_are_those_of_the_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
