/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/capability.h"

#include <ctype.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "gpu/cuda_abi.h"

#define API  (GPU_CAP_CHECKPOINT | GPU_CAP_LOCK_TIMEOUT | GPU_CAP_NVML)
#define BRANCH_MAX 100000 /* more is no branch number */

/*
 * CUDA versions up to 13.1 are those of NVIDIA's release notes; of 595 and 610 they follow from
 * the order of the releases, of 615 from the 13.4 preview.
 */
static const struct gpu_branch branches[] = {
	{ 550, 12040, 0, "`cuda-checkpoint --toggle`, the first there was",
	  "the driver API; NVML, UVM, IPC, migration; an error can leave the process unusable" },
	{ 555, 12050, 0, "the tool's `--action` and `--get-restore-tid`, which CRIU's plugin uses",
	  "the driver API; processes that use NVML keep `/dev/nvidiactl` open" },
	{ 560, 12060, 0, "nothing for checkpoints", "as 555" },
	{ 565, 12070, 0, "nothing for checkpoints", "as 555" },
	{ 570, 12080, API, "the driver API, a lock time-out, processes that use NVML (PyTorch)",
	  "other GPUs at a restore: the same GPUs in the same order; UVM, IPC, MPS, MIG" },
	{ 575, 12090, API, "nothing for checkpoints", "as 570" },
	{ 580, 13000, API | GPU_CAP_GPU_PAIRS, "restore onto other GPUs: `gpuPairs`",
	  "UVM, IPC, MPS, MIG" },
	{ 590, 13010, API | GPU_CAP_GPU_PAIRS,
	  "what NVIDIA's own agent asks for with several GPUs; the tool's `--launch-job`",
	  "UVM, IPC, MPS, MIG" },
	{ 595, 13020, API | GPU_CAP_GPU_PAIRS, "nothing we use", "UVM, IPC, MPS, MIG" },
	{ 610, 13030, API | GPU_CAP_GPU_PAIRS | GPU_CAP_IPC_JOB,
	  "CUDA's legacy IPC memory, for processes started under a checkpoint job file",
	  "imported VMM handles (fabric, fd) and NVLS multicast; UVM, MPS, MIG" },
	{ 615, 13040, GPU_CAP_ALL,
	  "CustomStorage: the caller copies device memory itself, nothing passes through host RAM",
	  "no way back once it has begun; UVM, MPS, MIG" },
};

static const struct {
	enum gpu_cap cap;
	const char *name, *title;
} caps[] = {
	{ GPU_CAP_CHECKPOINT, "checkpoint", "checkpoint API" },
	{ GPU_CAP_LOCK_TIMEOUT, "lock-timeout", "lock time-out" },
	{ GPU_CAP_NVML, "nvml", "NVML users" },
	{ GPU_CAP_GPU_PAIRS, "gpu-pairs", "gpuPairs" },
	{ GPU_CAP_IPC_JOB, "ipc-job", "IPC job files" },
	{ GPU_CAP_CUSTOM_STORAGE, "custom-storage", "CustomStorage" },
};

const struct gpu_branch *gpu_branches(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(branches);
	return branches;
}

const struct gpu_branch *gpu_branch_of_cuda(int cuda_version)
{
	const struct gpu_branch *best = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(branches); i++)
		if (branches[i].cuda_version <= cuda_version)
			best = &branches[i];
	return best;
}

unsigned int gpu_branch_of_version(const char *driver_version)
{
	size_t n = strcspn(driver_version, ".");
	uint64_t v;

	if (driver_version[n] != '.' || !isdigit((unsigned char)driver_version[n + 1]))
		return 0;
	return num_parse_n(driver_version, n, BRANCH_MAX, &v) < 0 ? 0 : (unsigned int)v;
}

uint32_t gpu_capabilities(const struct gpu_facts *facts)
{
	const struct gpu_branch *b = gpu_branch_of_cuda(facts->cuda_version);
	uint32_t have = b ? b->caps : 0;

	if (!facts->checkpoint_calls)
		return 0;
	have |= API; /* the calls are there, whatever number the version has */
	if (!facts->operation_complete)
		have &= ~(uint32_t)GPU_CAP_CUSTOM_STORAGE;
	return have;
}

const char *gpu_cap_name(enum gpu_cap cap)
{
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		if (caps[i].cap == cap)
			return caps[i].name;
	return "?";
}

const char *gpu_cap_title(enum gpu_cap cap)
{
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		if (caps[i].cap == cap)
			return caps[i].title;
	return "?";
}
