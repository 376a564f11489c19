/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/issue.h"

#include "base/cleanup.h"

static const struct gpu_issue issues[] = {
	{ "cuda-checkpoint #44; measured", 580, 0,
	  "A restore that runs out of GPU memory is final: the state stays CHECKPOINTED, later "
	  "ones return 304, all other calls 401 (580.95.05, 580.159.04).",
	  "Free memory is compared with what was saved before the driver is asked (MEMORY); "
	  "an out-of-memory is reported as VRAM_SHORT with a warning that it may be final." },
	{ "cuda-checkpoint #53", 595, 0,
	  "Killing a restored process hangs the host about 35 s later (595.71.05).",
	  "Not guarded in this layer: suspend the container before it is stopped." },
	{ "cuda-checkpoint #58", 610, 0,
	  "Lock makes some multi-threaded processes die of SIGSEGV (610.57.04).",
	  "Cannot be prevented from outside. The worker looks whether the process still lives "
	  "after every driver error, and the failure says so." },
	{ "cuda-checkpoint #26; measured", 0, 0,
	  "Lock, checkpoint and the question for the state do not return while the process is "
	  "frozen or stopped; the lock's own time-out does not count then (580.159.04).",
	  "Lock before the freeze; and every call has a deadline." },
	{ "measured", 0, 0,
	  "While a lock waits, the question for the state waits with it (580.159.04).",
	  "Calls for one process are made one after the other; one that is late only because it "
	  "waits for its turn does not count as a hang." },
	{ "measured", 0, 0,
	  "Asked about a process that is dead, every call answers OPERATING_SYSTEM, the first one "
	  "too (580.159.04).",
	  "The kernel is asked first, and after every error again: a process that is gone is "
	  "reported as gone." },
	{ "measured", 0, 0,
	  "With managed memory the lock succeeds and the checkpoint is refused as NOT_SUPPORTED; "
	  "the process stays LOCKED and runs on after an unlock (580.159.04).",
	  "Reported with the likely cause; undoing it is an unlock." },
	{ "cuda-checkpoint #30, #45", 0, 0,
	  "While one rank of a collective is locked, every call on the others hangs, the question "
	  "for the state included.",
	  "The processes of a group are locked at the same time, under one time-out; a thread of "
	  "its own for each call; every call has a deadline." },
	{ "CRIU PR 2547; measured", 0, 0,
	  "Killing the caller in the middle of an operation can leave driver and process out of "
	  "step. With 580.159.04 a caller killed while it waits for a lock leaves the process "
	  "RUNNING and fit for the next one.",
	  "The driver's own lock time-out comes first, the worker is killed only at a later "
	  "deadline, and then every state is read again before anything else." },
	{ "cuda-checkpoint #41; measured", 0, 0,
	  "The number of a thread is taken for that of its process, by every call, with damage "
	  "(580.159.04).",
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
	  "A job with IPC memory wants its processes one after the other, and its file as it was "
	  "after the checkpoint. Dynamo's helper also has CUDA_CHECKPOINT_JOB_FILE in its own "
	  "environment; a test of CRIU's plugin does without.",
	  "Found by the processes' environment, taken one after the other, the file kept in the "
	  "image. The worker's environment stays empty; not tried on such a driver yet." },
	{ "NVIDIA/nvcf #437", 0, 0,
	  "Attaching to the driver costs seconds (2.7 s seen) each time a tool is started.",
	  "Paid once, when the worker starts." },
};

const struct gpu_issue *gpu_issues(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(issues);
	return issues;
}

bool gpu_issue_concerns(const struct gpu_issue *issue, unsigned int branch)
{
	return branch >= issue->first && (issue->last == 0 || branch <= issue->last);
}
