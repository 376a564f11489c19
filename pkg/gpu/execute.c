/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/execute.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/time.h"
#include "gpu/capability.h"
#include "proc/procfs.h"

/* The kernel module says its version here also where there is no NVML. */
#define MODULE_VERSION "/sys/module/nvidia/version"

static void set_status(struct gpu_reply *reply, enum gpu_status status, const char *text)
{
	reply->status = status;
	GPU_TEXT_SET(reply->text, text);
}

/* The process has exited: its threads are gone, only its exit status may still be waiting. */
static bool exited(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/*
 * Makes sure that the number means what the agent means. A thread's number must not pass: the
 * driver would take it for its process (cuda-checkpoint #41). The descriptor does not keep the
 * number from being used again, but says afterwards whether the process still lives.
 */
static int open_target(const struct gpu_request *req, struct gpu_reply *reply)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, req->pid, 0);
	uint64_t start;
	int r = 0;

	if (pidfd < 0) {
		if (errno == ESRCH)
			set_status(reply, GPU_STATUS_GONE, "");
		else if (errno == EINVAL || errno == ENOENT) /* ENOENT: newer kernels */
			set_status(reply, GPU_STATUS_NOT_LEADER, "");
		else
			set_status(reply, GPU_STATUS_FAILED, strerror(errno));
		return -1;
	}
	if (exited(pidfd)) {
		set_status(reply, GPU_STATUS_GONE, "");
		return -1;
	}
	if (req->start_time)
		r = procfs_start_time(req->pid, &start);
	if (r < 0 || (req->start_time && start != req->start_time)) {
		if (r < 0 && r != -ESRCH)
			set_status(reply, GPU_STATUS_FAILED, strerror(-r));
		else
			set_status(reply, r < 0 ? GPU_STATUS_GONE : GPU_STATUS_REUSED, "");
		return -1;
	}
	return TAKE_FD(pidfd);
}

static int call_driver(const struct driver *d, const struct gpu_request *req,
		       struct gpu_reply *reply)
{
	unsigned int state = 0;
	int tid = 0, code = CUDA_CODE_NOT_SUPPORTED;

	switch (req->head.op) {
	case GPU_OP_PROBE:
		code = driver_restore_thread(d, req->pid, &tid);
		/* How the driver says that this process has no CUDA; cuInit() was ours to call
		 * and has been. All else is an error and no answer. */
		if (code == CUDA_CODE_INVALID_VALUE || code == CUDA_CODE_NOT_INITIALIZED)
			code = CUDA_CODE_SUCCESS;
		reply->tid = tid > 0 ? tid : 0;
		break;
	case GPU_OP_STATE:
		code = driver_state(d, req->pid, &state);
		reply->state = state;
		break;
	case GPU_OP_LOCK:
		code = driver_lock(d, req->pid, req->timeout_ms);
		break;
	case GPU_OP_CHECKPOINT:
		code = driver_checkpoint(d, req->pid);
		break;
	case GPU_OP_RESTORE:
		code = driver_restore(d, req->pid, req->pairs, req->n_pairs);
		break;
	case GPU_OP_UNLOCK:
		code = driver_unlock(d, req->pid);
		break;
	default:
		break;
	}
	return code;
}

static void execute_call(const struct gpu_backend *b, const struct gpu_request *req,
			 struct gpu_reply *reply)
{
	_cleanup_close_ int pidfd = -1;
	nsec_t start;

	if (b->why.code) {
		set_status(reply,
			   b->why.reason == REASON_DRIVER_TOO_OLD ? GPU_STATUS_TOO_OLD
								  : GPU_STATUS_UNAVAILABLE,
			   error_text(&b->why));
		return;
	}
	if (req->n_pairs && !(driver_caps(b->driver) & GPU_CAP_GPU_PAIRS)) {
		reply->status = GPU_STATUS_NO_PAIRS;
		return;
	}
	pidfd = open_target(req, reply);
	if (pidfd < 0)
		return;
	start = time_now();
	reply->code = call_driver(b->driver, req, reply);
	reply->took_ns = time_now() - start;
	if (reply->code == CUDA_CODE_SUCCESS)
		return;
	reply->status = GPU_STATUS_DRIVER;
	reply->gone = exited(pidfd);
	GPU_TEXT_SET(reply->name, driver_error_name(b->driver, reply->code));
}

static void open_driver(struct gpu_backend *b)
{
	if (driver_open(b->libcuda, &b->driver, &b->why) < 0)
		return;
	/* The list is for people and for the pairs of a restore; CUDA without a device is an
	 * error of cuInit() already. */
	(void)driver_devices(b->driver, &b->devices);
	(void)driver_usable(b->driver, &b->why);
}

static void execute_hello(struct gpu_backend *b, struct gpu_reply *reply, struct gpu_hello *hello)
{
	struct error err = ERROR_NULL;
	nsec_t start = time_now();
	char version[sizeof(hello->driver_version)];

	open_driver(b);
	if (nvml_open(b->libnvml, &b->nvml, &err) < 0)
		GPU_TEXT_SET(hello->nvml_text, error_text(&err));
	hello->worker_pid = getpid();
	hello->nvml = b->nvml != NULL;
	hello->open_ns = time_now() - start;
	if (b->nvml && nvml_driver_version(b->nvml)[0])
		GPU_TEXT_SET(hello->driver_version, nvml_driver_version(b->nvml));
	else if (file_read_line(AT_FDCWD, MODULE_VERSION, version, sizeof(version)) == 0)
		GPU_TEXT_SET(hello->driver_version, version);
	if (b->driver) {
		hello->cuda_version = driver_cuda_version(b->driver);
		hello->caps = driver_caps(b->driver);
		GPU_TEXT_SET(hello->library, driver_library(b->driver));
	}
	hello->memory = b->devices;
	if (b->nvml)
		nvml_fill(b->nvml, &hello->memory);
	if (b->why.code)
		set_status(reply,
			   b->why.reason == REASON_DRIVER_TOO_OLD ? GPU_STATUS_TOO_OLD
								  : GPU_STATUS_UNAVAILABLE,
			   error_text(&b->why));
}

void gpu_execute(struct gpu_backend *b, const struct gpu_request *req, struct gpu_reply *reply)
{
	if (req->head.op == GPU_OP_HELLO) {
		struct gpu_hello_reply *all = container_of(reply, struct gpu_hello_reply, reply);

		execute_hello(b, reply, &all->hello);
	} else if (req->head.op == GPU_OP_MEMORY) {
		struct gpu_memory_reply *all = container_of(reply, struct gpu_memory_reply, reply);

		nsec_t start = time_now();

		all->memory = b->devices;
		if (b->nvml)
			nvml_fill(b->nvml, &all->memory);
		reply->took_ns = time_now() - start;
	} else {
		execute_call(b, req, reply);
	}
}
