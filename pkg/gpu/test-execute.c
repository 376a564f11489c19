/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/execute.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/time.h"
#include "gpu/capability.h"
#include "gpu/fake-setup.h"
#include "proc/procfs.h"

static struct fake_file file;
static struct gpu_backend backend;
static union gpu_any_reply any;

static int setup(void **state)
{
	(void)state;
	fake_open(&file);
	backend = (struct gpu_backend){ .libcuda = FAKE_CUDA, .libnvml = FAKE_NVML };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(backend.driver);
	free(backend.nvml);
	fake_close(&file);
	return 0;
}

static const struct gpu_reply *execute(const struct gpu_request *req)
{
	memset(&any, 0, sizeof(any));
	gpu_reply_init(&any.reply, req->head.op, req->head.id);
	gpu_execute(&backend, req, &any.reply);
	/* Whatever comes of it, the agent must be able to read it. */
	assert_int_equal(gpu_reply_parse(bytes_of(&any, gpu_reply_size(req->head.op)),
					 &(union gpu_any_reply){ 0 }),
			 0);
	return &any.reply;
}

static const struct gpu_reply *hello(void)
{
	struct gpu_request req;

	gpu_request_init(&req, GPU_OP_HELLO, 1);
	return execute(&req);
}

static const struct gpu_reply *call(enum gpu_op op, pid_t pid)
{
	struct gpu_request req;

	gpu_request_init(&req, op, 2);
	req.pid = pid;
	if (op == GPU_OP_LOCK)
		req.timeout_ms = 100;
	return execute(&req);
}

static void hello_tells_what_there_is(void **state)
{
	const struct gpu_hello *h = &any.hello.hello;

	(void)state;
	assert_int_equal(hello()->status, GPU_STATUS_OK);
	assert_int_equal(h->worker_pid, getpid());
	assert_int_equal(h->cuda_version, 13000);
	assert_true(h->caps & GPU_CAP_CHECKPOINT);
	assert_int_equal(h->nvml, 1);
	assert_string_equal(h->driver_version, "580.159.04");
	assert_int_equal(h->memory.n_devices, 2);
	assert_int_equal(h->memory.devices[0].flags & (GPU_DEVICE_CUDA | GPU_DEVICE_NVML),
			 GPU_DEVICE_CUDA | GPU_DEVICE_NVML);
	assert_string_equal(h->nvml_text, "");
}

static void without_nvml_less_is_known(void **state)
{
	struct gpu_request req;

	(void)state;
	backend.libnvml = "/nonexistent/libnvidia-ml.so.1";
	assert_int_equal(hello()->status, GPU_STATUS_OK);
	assert_int_equal(any.hello.hello.nvml, 0);
	assert_non_null(strstr(any.hello.hello.nvml_text, "/nonexistent"));
	assert_int_equal(any.hello.hello.memory.n_devices, 2);
	gpu_request_init(&req, GPU_OP_MEMORY, 3);
	assert_int_equal(execute(&req)->status, GPU_STATUS_OK);
	assert_int_equal(any.memory.memory.n_devices, 2);
	assert_true(any.memory.memory.devices[0].free == GPU_BYTES_UNKNOWN);
}

static void memory_is_asked_anew(void **state)
{
	struct gpu_request req;

	(void)state;
	(void)hello();
	file.cuda->free_bytes[0] = 12345;
	gpu_request_init(&req, GPU_OP_MEMORY, 3);
	assert_int_equal(execute(&req)->status, GPU_STATUS_OK);
	assert_int_equal(any.memory.memory.devices[0].free, 12345);
	assert_int_equal(any.memory.memory.n_processes, 2);
	assert_true(any.reply.took_ns > 0);
}

static void the_whole_round(void **state)
{
	pid_t me = getpid();

	(void)state;
	(void)hello();
	(void)fake_add(file.cuda, me);
	assert_int_equal(call(GPU_OP_PROBE, me)->tid, me + 1);
	assert_int_equal(call(GPU_OP_LOCK, me)->status, GPU_STATUS_OK);
	assert_int_equal(call(GPU_OP_CHECKPOINT, me)->status, GPU_STATUS_OK);
	assert_int_equal(call(GPU_OP_STATE, me)->state, CUDA_STATE_CHECKPOINTED);
	assert_int_equal(call(GPU_OP_RESTORE, me)->status, GPU_STATUS_OK);
	assert_int_equal(call(GPU_OP_UNLOCK, me)->status, GPU_STATUS_OK);
	assert_int_equal(call(GPU_OP_UNLOCK, me)->status, GPU_STATUS_DRIVER);
	assert_int_equal(any.reply.code, CUDA_CODE_ILLEGAL_STATE);
	assert_string_equal(any.reply.name, "CUDA_ERROR_ILLEGAL_STATE");
	assert_int_equal(any.reply.gone, 0);
}

/* "No CUDA" is what the driver says with these two codes and with no other. */
static void probing_tells_no_from_an_error(void **state)
{
	pid_t me = getpid();

	(void)state;
	(void)hello();
	assert_int_equal(call(GPU_OP_PROBE, me)->status, GPU_STATUS_OK); /* NOT_INITIALIZED */
	assert_int_equal(any.reply.tid, 0);
	(void)fake_add(file.cuda, me);
	file.cuda->scripts[GPU_OP_PROBE].code = CUDA_CODE_INVALID_VALUE;
	assert_int_equal(call(GPU_OP_PROBE, me)->status, GPU_STATUS_OK);
	assert_int_equal(any.reply.tid, 0);
	for (int code = 2; code < 1000; code++) {
		if (code == CUDA_CODE_NOT_INITIALIZED)
			continue;
		file.cuda->scripts[GPU_OP_PROBE].code = code;
		assert_int_equal(call(GPU_OP_PROBE, me)->status, GPU_STATUS_DRIVER);
		assert_int_equal(any.reply.tid, 0);
	}
	/* of the other calls they are errors */
	file.cuda->scripts[GPU_OP_STATE].code = CUDA_CODE_NOT_INITIALIZED;
	assert_int_equal(call(GPU_OP_STATE, me)->status, GPU_STATUS_DRIVER);
}

static pid_t child_that_exited(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(0);
	return pid;
}

static void a_process_that_is_gone_is_not_asked_for(void **state)
{
	siginfo_t info;
	pid_t pid;

	(void)state;
	(void)hello();
	pid = child_that_exited();
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	(void)fake_add(file.cuda, pid);
	assert_int_equal(call(GPU_OP_LOCK, pid)->status, GPU_STATUS_GONE); /* a zombie */
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(call(GPU_OP_LOCK, pid)->status, GPU_STATUS_GONE);
	assert_int_equal(call(GPU_OP_PROBE, pid)->status, GPU_STATUS_GONE); /* not "no CUDA" */
	assert_int_equal(file.cuda->calls[GPU_OP_LOCK], 0);
}

static void *tell_tid(void *arg)
{
	pid_t *tid = arg;

	__atomic_store_n(tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (__atomic_load_n(tid, __ATOMIC_ACQUIRE))
		(void)usleep(1000);
	return NULL;
}

/* The driver would take it for its process: cuda-checkpoint #41. */
static void the_number_of_a_thread_is_refused(void **state)
{
	pthread_t thread;
	pid_t shared = 0, tid;

	(void)state;
	(void)hello();
	assert_int_equal(pthread_create(&thread, NULL, tell_tid, &shared), 0);
	while (!(tid = __atomic_load_n(&shared, __ATOMIC_ACQUIRE)))
		(void)usleep(1000);
	(void)fake_add(file.cuda, tid);
	assert_int_equal(call(GPU_OP_LOCK, tid)->status, GPU_STATUS_NOT_LEADER);
	__atomic_store_n(&shared, 0, __ATOMIC_RELEASE);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(file.cuda->calls[GPU_OP_LOCK], 0);
}

static void another_process_with_that_number_is_left_alone(void **state)
{
	struct gpu_request req;

	(void)state;
	(void)hello();
	(void)fake_add(file.cuda, getpid());
	gpu_request_init(&req, GPU_OP_STATE, 2);
	req.pid = getpid();
	assert_int_equal(procfs_start_time(getpid(), &req.start_time), 0);
	assert_int_equal(execute(&req)->status, GPU_STATUS_OK);
	req.start_time++;
	assert_int_equal(execute(&req)->status, GPU_STATUS_REUSED);
	assert_int_equal(file.cuda->calls[GPU_OP_STATE], 1);
}

static void a_process_that_dies_of_the_call_is_reported(void **state)
{
	struct fake_process *p;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)usleep(200 * 1000);
		_exit(0);
	}
	(void)hello();
	p = fake_add(file.cuda, pid);
	p->script_op = GPU_OP_LOCK;
	p->script = (struct fake_script){ .code = CUDA_CODE_OPERATING_SYSTEM, .delay_ms = 500 };
	assert_int_equal(call(GPU_OP_LOCK, pid)->status, GPU_STATUS_DRIVER);
	assert_int_equal(any.reply.gone, 1);
	assert_true(any.reply.took_ns >= 400 * NSEC_PER_MSEC);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void pairs_need_a_driver_for_them(void **state)
{
	struct gpu_request req;

	(void)state;
	file.cuda->cuda_version = 12090;
	(void)hello();
	fake_add(file.cuda, getpid())->state = CUDA_STATE_CHECKPOINTED;
	gpu_request_init(&req, GPU_OP_RESTORE, 2);
	req.pid = getpid();
	req.n_pairs = 1;
	assert_int_equal(execute(&req)->status, GPU_STATUS_NO_PAIRS);
	assert_int_equal(file.cuda->calls[GPU_OP_RESTORE], 0);
	req.n_pairs = 0;
	assert_int_equal(execute(&req)->status, GPU_STATUS_OK);
}

static void without_a_driver_every_call_says_so(void **state)
{
	(void)state;
	backend.libcuda = "/nonexistent/libcuda.so.1";
	assert_int_equal(hello()->status, GPU_STATUS_UNAVAILABLE);
	assert_non_null(strstr(any.reply.text, "/nonexistent"));
	assert_int_equal(any.hello.hello.memory.n_devices, 2); /* NVML still knows them */
	assert_int_equal(call(GPU_OP_STATE, getpid())->status, GPU_STATUS_UNAVAILABLE);
	assert_non_null(strstr(any.reply.text, "/nonexistent"));
}

static void with_an_old_driver_every_call_says_so(void **state)
{
	(void)state;
	backend.libcuda = FAKE_CUDA_OLD;
	file.cuda->cuda_version = 12040;
	assert_int_equal(hello()->status, GPU_STATUS_TOO_OLD);
	assert_int_equal(any.hello.hello.cuda_version, 12040);
	assert_int_equal(any.hello.hello.caps, 0);
	assert_int_equal(call(GPU_OP_PROBE, getpid())->status, GPU_STATUS_TOO_OLD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(hello_tells_what_there_is),
		T(without_nvml_less_is_known),
		T(memory_is_asked_anew),
		T(the_whole_round),
		T(probing_tells_no_from_an_error),
		T(a_process_that_is_gone_is_not_asked_for),
		T(the_number_of_a_thread_is_refused),
		T(another_process_with_that_number_is_left_alone),
		T(a_process_that_dies_of_the_call_is_reported),
		T(pairs_need_a_driver_for_them),
		T(without_a_driver_every_call_says_so),
		T(with_an_old_driver_every_call_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
