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

static const struct gpu_issue issues[] = {
	{ "cuda-checkpoint #44", 580, 0,
	  "A restore that runs out of GPU memory is final: later ones return 304, unlock 401.",
	  "Free memory is compared with what was saved before the driver is asked (MEMORY); "
	  "an out-of-memory is reported as VRAM_SHORT with a warning that it may be final." },
	{ "cuda-checkpoint #53", 595, 0,
	  "Killing a restored process hangs the host about 35 s later (595.71.05).",
	  "Not guarded in this layer: suspend the container before it is stopped." },
	{ "cuda-checkpoint #58", 610, 0,
	  "Lock makes some multi-threaded processes die of SIGSEGV (610.57.04).",
	  "Cannot be prevented from outside. The worker looks whether the process still lives "
	  "after every driver error, and the failure says so." },
	{ "cuda-checkpoint #26", 0, 0,
	  "A call on a process in a frozen cgroup does not return.",
	  "Lock before the freeze; and every call has a deadline." },
	{ "cuda-checkpoint #30, #45", 0, 0,
	  "While one rank of a collective is locked, every call on the others hangs, the question "
	  "for the state included.",
	  "The processes of a group are locked at the same time, under one time-out; a thread of "
	  "its own for each call; every call has a deadline." },
	{ "CRIU PR 2547", 0, 0,
	  "Killing the caller in the middle of an operation can leave driver and process out of "
	  "step.",
	  "The driver's own lock time-out comes first, the worker is killed only at a later "
	  "deadline, and then every state is read again before anything else." },
	{ "cuda-checkpoint #41", 0, 0,
	  "The number of a thread is taken for that of its process, with damage.",
	  "The worker refuses what is not a thread-group leader." },
	{ "cuda-checkpoint #18", 550, 575,
	  "A restore needs the same GPUs in the same order.",
	  "Pairs for such a driver are refused before the call." },
	{ "cuda-python PRs 2144, 2145", 0, 0,
	  "The restore arguments have another layout before CUDA 13.0: pairs are words that must "
	  "be zero.",
	  "Both layouts are known; which one is used follows from cuDriverGetVersion()." },
	{ "cuda-python PR 1983", 580, 0,
	  "With CUDA_VISIBLE_DEVICES set in the caller, even the identity mapping is refused as "
	  "INVALID_VALUE; the pairs must name every GPU that the driver recorded.",
	  "The worker's environment is made from nothing." },
	{ "cuda-checkpoint #25", 0, 0,
	  "A restore fails, or kills the process, when the GPU driver was not kept initialised.",
	  "The worker is resident with cuInit() done; persistence mode is reported." },
	{ "cuda-checkpoint #42", 0, 0,
	  "Under MIG a call fails as plain out of memory.",
	  "MIG is reported per GPU (HELLO, MEMORY) so that it can be refused beforehand." },
	{ "ai-dynamo/snapshot #379", 580, 0,
	  "Restore returns NOT_SUPPORTED when /dev/nvidiaN of the new GPU is missing in the "
	  "container.",
	  "The failure's hint says so." },
	{ "CRIU, plugins/cuda/README.md", 0, 0,
	  "A process that calls cuInit() between the listing and the lock answers ILLEGAL_STATE.",
	  "Told apart from other refusals, so that the caller lists again and retries." },
	{ "ai-dynamo/snapshot", 590, 0,
	  "The state can also be asked of processes that have no CUDA of their own, such as "
	  "cuda-checkpoint --launch-job.",
	  "Probing asks for the restore thread instead; any answer but \"none\" is an error." },
	{ "ai-dynamo/dynamo PRs 11304, 13252", 610, 0,
	  "A job with IPC memory wants CUDA_CHECKPOINT_JOB_FILE in the caller's environment and "
	  "its processes one after the other.",
	  "Such a job needs a worker of its own with that variable (struct gpu_worker_config)." },
	{ "NVIDIA/nvcf #437", 0, 0,
	  "Attaching to the driver costs seconds (2.7 s seen) each time a tool is started.",
	  "Paid once, when the worker starts." },
};

static const struct {
	enum gpu_cap cap;
	const char *name, *what;
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

const struct gpu_issue *gpu_issues(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(issues);
	return issues;
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

bool gpu_issue_concerns(const struct gpu_issue *issue, unsigned int branch)
{
	return branch >= issue->first && (issue->last == 0 || branch <= issue->last);
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

static int print_branches(struct buf *out)
{
	int r = buf_append_str(out, "| driver | CUDA |");

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(caps); i++)
		r = buf_printf(out, " %s |", caps[i].what);
	if (r == 0)
		r = buf_append_str(out, " adds | still lacks |\n|---|---|");
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(caps); i++)
		r = buf_append_str(out, "---|");
	if (r == 0)
		r = buf_append_str(out, "---|---|\n");
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(branches); i++) {
		const struct gpu_branch *b = &branches[i];

		r = buf_printf(out, "| %u | %d.%d |", b->branch, b->cuda_version / 1000,
			       b->cuda_version % 1000 / 10);
		for (size_t c = 0; r == 0 && c < ARRAY_SIZE(caps); c++)
			r = buf_append_str(out, b->caps & (uint32_t)caps[c].cap ? " yes |" : " - |");
		if (r == 0)
			r = buf_printf(out, " %s | %s |\n", b->adds, b->lacks);
	}
	return r;
}

static int print_issues(struct buf *out)
{
	int r = buf_append_str(out, "| source | driver | what happens | what we do |\n"
				    "|---|---|---|---|\n");

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(issues); i++) {
		const struct gpu_issue *issue = &issues[i];

		r = buf_printf(out, "| %s | ", issue->source);
		if (r == 0 && issue->first == 0)
			r = buf_append_str(out, "all");
		else if (r == 0 && issue->last)
			r = buf_printf(out, "%u to %u", issue->first, issue->last);
		else if (r == 0)
			r = buf_printf(out, "from %u", issue->first);
		if (r == 0)
			r = buf_printf(out, " | %s | %s |\n", issue->what, issue->guard);
	}
	return r;
}

int gpu_drivers_markdown(struct buf *out)
{
	int r = print_branches(out);

	if (r == 0)
		r = buf_append_str(out, "\n");
	return r < 0 ? r : print_issues(out);
}
