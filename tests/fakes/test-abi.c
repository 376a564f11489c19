/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the ABI restated in driver/cuda_abi.h that of cuda.h? Mostly answered by the compiler; built
 * where CUDA's headers are installed.
 */
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define FCU_TYPES_ONLY
#include "driver/cuda_abi.h"
#include "driver/errors.h"
#include "proto/fg_proto.h"
#include "tests/cmocka.h"

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #theirs)
#define SAME_PLACE(ours, a, theirs, b)                                                             \
	_Static_assert(offsetof(ours, a) == offsetof(theirs, b), #theirs "." #b)
#define SAME_NUMBER(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)

SAME_SIZE(struct fcu_uuid, CUuuid);
SAME_SIZE(struct fcu_lock_args, CUcheckpointLockArgs);
SAME_PLACE(struct fcu_lock_args, timeout_ms, CUcheckpointLockArgs, timeoutMs);
SAME_PLACE(struct fcu_lock_args, reserved0, CUcheckpointLockArgs, reserved0);
SAME_SIZE(struct fcu_plain_args, CUcheckpointCheckpointArgs);
SAME_SIZE(struct fcu_plain_args, CUcheckpointUnlockArgs);
SAME_SIZE(fcu_result, CUresult);
SAME_SIZE(fcu_device, CUdevice);
SAME_SIZE(int, CUprocessState);
SAME_SIZE(struct fcu_restore_args, CUcheckpointRestoreArgs);
#if CUDA_VERSION >= 13000
SAME_SIZE(struct fcu_gpu_pair, CUcheckpointGpuPair);
SAME_PLACE(struct fcu_gpu_pair, old_uuid, CUcheckpointGpuPair, oldUuid);
SAME_PLACE(struct fcu_gpu_pair, new_uuid, CUcheckpointGpuPair, newUuid);
SAME_PLACE(struct fcu_restore_args, pairs, CUcheckpointRestoreArgs, gpuPairs);
SAME_PLACE(struct fcu_restore_args, n_pairs, CUcheckpointRestoreArgs, gpuPairsCount);
SAME_PLACE(struct fcu_restore_args, reserved, CUcheckpointRestoreArgs, reserved);
#endif

SAME_NUMBER(FG_RUNNING, CU_PROCESS_STATE_RUNNING);
SAME_NUMBER(FG_LOCKED, CU_PROCESS_STATE_LOCKED);
SAME_NUMBER(FG_CHECKPOINTED, CU_PROCESS_STATE_CHECKPOINTED);
SAME_NUMBER(FG_FAILED, CU_PROCESS_STATE_FAILED);

SAME_NUMBER(FG_SUCCESS, CUDA_SUCCESS);
SAME_NUMBER(FG_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
SAME_NUMBER(FG_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME_NUMBER(FG_NOT_INITIALIZED, CUDA_ERROR_NOT_INITIALIZED);
SAME_NUMBER(FG_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
SAME_NUMBER(FG_INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE);
SAME_NUMBER(FG_OPERATING_SYSTEM, CUDA_ERROR_OPERATING_SYSTEM);
SAME_NUMBER(FG_ILLEGAL_STATE, CUDA_ERROR_ILLEGAL_STATE);
SAME_NUMBER(FG_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
SAME_NUMBER(FG_NOT_READY, CUDA_ERROR_NOT_READY);
SAME_NUMBER(FG_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME_NUMBER(FG_NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED);
SAME_NUMBER(FG_UNKNOWN, CUDA_ERROR_UNKNOWN);

/* The symbol that a program compiled with cuda.h asks for: after its macros. */
#define SYMBOL_(name) #name
#define SYMBOL(name)  SYMBOL_(name)

static void the_library_has_the_symbols(void **state)
{
	static const char *const symbols[] = {
		SYMBOL(cuInit), SYMBOL(cuDriverGetVersion), SYMBOL(cuGetErrorName),
		SYMBOL(cuGetErrorString), SYMBOL(cuDeviceGetCount), SYMBOL(cuDeviceGet),
		SYMBOL(cuDeviceGetName), SYMBOL(cuDeviceGetUuid), SYMBOL(cuDeviceTotalMem),
		SYMBOL(cuGetProcAddress), SYMBOL(cuCheckpointProcessGetRestoreThreadId),
		SYMBOL(cuCheckpointProcessGetState), SYMBOL(cuCheckpointProcessLock),
		SYMBOL(cuCheckpointProcessCheckpoint), SYMBOL(cuCheckpointProcessRestore),
		SYMBOL(cuCheckpointProcessUnlock),
		/* The application's side. */
		SYMBOL(cuDevicePrimaryCtxRetain), SYMBOL(cuCtxSetCurrent),
		SYMBOL(cuCtxSynchronize), SYMBOL(cuModuleLoadData), SYMBOL(cuModuleGetFunction),
		SYMBOL(cuMemAlloc), SYMBOL(cuMemAllocManaged), SYMBOL(cuMemFree),
		SYMBOL(cuMemHostAlloc), SYMBOL(cuMemFreeHost), SYMBOL(cuMemsetD32),
		SYMBOL(cuMemsetD32Async), SYMBOL(cuMemcpyDtoH), SYMBOL(cuMemcpyDtoHAsync),
		SYMBOL(cuMemcpyHtoDAsync), SYMBOL(cuLaunchKernel), SYMBOL(cuStreamCreate),
		SYMBOL(cuStreamSynchronize), SYMBOL(cuStreamBeginCapture),
		SYMBOL(cuStreamEndCapture), SYMBOL(cuGraphInstantiateWithFlags),
		SYMBOL(cuGraphLaunch), SYMBOL(cuEventCreate), SYMBOL(cuEventRecord),
		SYMBOL(cuEventSynchronize),
	};
	void *lib = dlopen(FAKEGPU_LIBCUDA, RTLD_NOW);

	(void)state;
	assert_non_null(lib);
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		assert_non_null(dlsym(lib, symbols[i]));
	}
}

static void errors_have_their_names(void **state)
{
#define NAMED(code) assert_true(cuda_error_name(code) && strcmp(cuda_error_name(code), #code) == 0)
	(void)state;
	NAMED(CUDA_SUCCESS);
	NAMED(CUDA_ERROR_INVALID_VALUE);
	NAMED(CUDA_ERROR_NO_DEVICE);
	NAMED(CUDA_ERROR_OPERATING_SYSTEM);
	NAMED(CUDA_ERROR_ILLEGAL_STATE);
	NAMED(CUDA_ERROR_NOT_READY);
	NAMED(CUDA_ERROR_NOT_SUPPORTED);
	NAMED(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
	NAMED(CUDA_ERROR_UNKNOWN);
	assert_null(cuda_error_name(-1));
	assert_non_null(cuda_error_text(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_library_has_the_symbols),
		cmocka_unit_test(errors_have_their_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
