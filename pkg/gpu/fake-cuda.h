/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted libcuda.so.1 and libnvidia-ml.so.1 for unit tests: no GPU, no memory, just the
 * checkpoint calls' state machine, and whatever answer, delay, hang or crash a test orders. (The
 * emulated GPU in tests/fakes is another thing: it holds VRAM and serves real workloads.) A pid
 * that is not in the table has no CUDA: NOT_INITIALIZED, as a driver of branch 580 says.
 *
 * Test and library share this struct through a file mapped by both; its path travels in the
 * environment variable FAKE_CUDA_ENV. The test writes before a call and reads after it.
 */
#ifndef KYB_GPU_FAKE_CUDA_H
#define KYB_GPU_FAKE_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu/protocol.h"

#define FAKE_CUDA_ENV       "KYB_FAKE_CUDA"
#define FAKE_BY_VERSION_ENV "KYB_FAKE_CUDA_BY_VERSION" /* cuGetProcAddress_v2() knows calls */
#define FAKE_PROCESSES_MAX  1024
#define FAKE_GPUS_MAX       4
#define FAKE_INIT           0 /* cuInit() among the scripts, which enum gpu_op numbers */

struct fake_script {
	int32_t code;      /* answer instead of doing it; -1 = do it */
	uint32_t delay_ms; /* first */
	uint32_t hang;     /* until it is set to 0 */
	uint32_t crash;    /* SIGSEGV */
};

struct fake_process {
	int32_t pid; /* 0 = free */
	uint32_t state;
	uint32_t script_op; /* this call of this process only; 0 = none */
	struct fake_script script;
	uint32_t inside; /* calls under way: never more than one */
};

struct fake_cuda {
	int32_t cuda_version;
	uint32_t n_gpus;
	struct cuda_uuid gpus[FAKE_GPUS_MAX];
	uint64_t free_bytes[FAKE_GPUS_MAX];
	uint32_t mig;           /* bit i: GPU i */
	uint32_t nvml_code;     /* of nvmlInit_v2() */
	struct fake_script scripts[GPU_OP_LAST + 1];
	struct fake_process processes[FAKE_PROCESSES_MAX];
	/* what has been seen */
	uint32_t calls[GPU_OP_LAST + 1];
	uint32_t inside, most_inside; /* calls under way, of all processes */
	uint32_t overlaps;            /* two calls for one process at a time */
	uint32_t bad_args;            /* reserved words that were not zero */
	uint32_t last_timeout_ms;
	uint32_t n_pairs;
	struct cuda_gpu_pair pairs[GPU_DEVICES_MAX];
};

#endif
