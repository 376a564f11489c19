/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each NVIDIA driver branch offers for checkpoints, in one table: it decides at run time what
 * we use, and docs/drivers.md is printed from it (drivers-doc.c).
 *
 * The branch that counts is that of the libcuda.so.1 in use, told by cuDriverGetVersion(): the
 * kernel module may be older (cuda-compat packages). And a capability is claimed only when the
 * entry points for it were found as well.
 */
#ifndef KYB_GPU_CAPABILITY_H
#define KYB_GPU_CAPABILITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gpu_cap {
	GPU_CAP_CHECKPOINT = 1 << 0,     /* the six cuCheckpointProcess* entry points */
	GPU_CAP_LOCK_TIMEOUT = 1 << 1,   /* lock gives up after a time, the process RUNNING */
	GPU_CAP_NVML = 1 << 2,           /* processes that use NVML themselves can be saved */
	GPU_CAP_GPU_PAIRS = 1 << 3,      /* restore onto other GPUs, named by UUID */
	GPU_CAP_IPC_JOB = 1 << 4,        /* CUDA IPC memory, under a checkpoint job file */
	GPU_CAP_CUSTOM_STORAGE = 1 << 5, /* the caller copies device memory itself */
};
#define GPU_CAP_ALL 0x3f

struct gpu_branch {
	unsigned int branch; /* 570 */
	int cuda_version;    /* of its libcuda: 12080 */
	uint32_t caps;       /* enum gpu_cap */
	const char *adds, *lacks;
};

/* What was found out about the driver in use. */
struct gpu_facts {
	int cuda_version;        /* cuDriverGetVersion() */
	bool checkpoint_calls;   /* all six entry points resolved */
	bool operation_complete; /* cuCheckpointOperationComplete too */
};

/* The table, oldest branch first. */
const struct gpu_branch *gpu_branches(size_t *ret_n);

/* The newest branch whose libcuda is not newer than this one, or NULL before r550. */
const struct gpu_branch *gpu_branch_of_cuda(int cuda_version);
/* 580 for "580.159.04"; 0 when the text is no driver version. */
unsigned int gpu_branch_of_version(const char *driver_version);

/* The capabilities that can be used: enum gpu_cap, 0 for a driver that is too old. */
uint32_t gpu_capabilities(const struct gpu_facts *facts);
/* "checkpoint", "gpu-pairs", ... for one bit, or a person's words for it; "?" for another number.
 * Never NULL. */
const char *gpu_cap_name(enum gpu_cap cap);
const char *gpu_cap_title(enum gpu_cap cap);

#endif
