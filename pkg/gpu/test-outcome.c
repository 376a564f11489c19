/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/outcome.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/time.h"
#include "tests/cmocka.h"

static const int codes[] = {
	CUDA_CODE_INVALID_VALUE,     CUDA_CODE_OUT_OF_MEMORY,
	CUDA_CODE_NOT_INITIALIZED,   CUDA_CODE_DEINITIALIZED,
	CUDA_CODE_STUB_LIBRARY,	     CUDA_CODE_NEWER_DRIVER,
	CUDA_CODE_DEVICE_UNAVAILABLE, CUDA_CODE_NO_DEVICE,
	CUDA_CODE_OPERATING_SYSTEM,  CUDA_CODE_ILLEGAL_STATE,
	CUDA_CODE_NOT_FOUND,	     CUDA_CODE_NOT_READY,
	CUDA_CODE_NOT_PERMITTED,     CUDA_CODE_NOT_SUPPORTED,
	CUDA_CODE_SYSTEM_NOT_READY,  CUDA_CODE_DRIVER_MISMATCH,
	CUDA_CODE_COMPAT_NOT_SUPPORTED, CUDA_CODE_UNKNOWN,
	12345,
};

static struct gpu_reply refusal(unsigned int op, int code)
{
	struct gpu_reply reply;

	gpu_reply_init(&reply, op, 1);
	reply.status = GPU_STATUS_DRIVER;
	reply.code = code;
	reply.took_ns = 5003 * NSEC_PER_MSEC;
	GPU_TEXT_SET(reply.name, "CUDA_ERROR_SO_AND_SO");
	return reply;
}

/* Whatever a call answers: it fails, with a reason, and the text names all there is to know. */
static void every_call_and_every_code(void **state)
{
	(void)state;
	for (unsigned int op = GPU_OP_PROBE; op <= GPU_OP_UNLOCK; op++) {
		for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
			struct gpu_reply reply = refusal(op, codes[i]);
			struct error err = ERROR_NULL;
			char number[16];
			int r = gpu_outcome(4711, &reply, &err);

			assert_true(r < 0);
			assert_int_equal(r, err.code);
			assert_int_not_equal(err.reason, REASON_NONE);
			assert_non_null(strstr(err.text, "process 4711: "));
			assert_non_null(strstr(err.text, gpu_op_call(op)));
			assert_non_null(strstr(err.text, "CUDA_ERROR_SO_AND_SO"));
			(void)snprintf(number, sizeof(number), "(%d)", codes[i]);
			assert_non_null(strstr(err.text, number));
			assert_non_null(strstr(err.text, "after 5003 ms"));
		}
	}
}

static void expect(unsigned int op, int code, int want, enum reason reason)
{
	struct gpu_reply reply = refusal(op, code);
	struct error err = ERROR_NULL;

	assert_int_equal(gpu_outcome(1, &reply, &err), want);
	assert_string_equal(reason_name(err.reason), reason_name(reason));
}

static void known_causes_are_told_apart(void **state)
{
	(void)state;
	expect(GPU_OP_LOCK, CUDA_CODE_NOT_READY, -ETIMEDOUT, REASON_LOCK_TIMEOUT);
	expect(GPU_OP_UNLOCK, CUDA_CODE_NOT_READY, -EIO, REASON_CUDA_RESTORE_FAILED);
	expect(GPU_OP_RESTORE, CUDA_CODE_OUT_OF_MEMORY, -ENOMEM, REASON_VRAM_SHORT);
	expect(GPU_OP_CHECKPOINT, CUDA_CODE_OUT_OF_MEMORY, -ENOMEM, REASON_CUDA_SAVE_FAILED);
	expect(GPU_OP_LOCK, CUDA_CODE_ILLEGAL_STATE, -EBUSY, REASON_CUDA_LOCK_FAILED);
	expect(GPU_OP_LOCK, CUDA_CODE_NOT_SUPPORTED, -EOPNOTSUPP, REASON_CUDA_LOCK_FAILED);
	expect(GPU_OP_LOCK, CUDA_CODE_INVALID_VALUE, -ENXIO, REASON_CUDA_LOCK_FAILED);
	expect(GPU_OP_RESTORE, CUDA_CODE_INVALID_VALUE, -EINVAL, REASON_CUDA_RESTORE_FAILED);
	expect(GPU_OP_CHECKPOINT, CUDA_CODE_UNKNOWN, -EIO, REASON_CUDA_SAVE_FAILED);
	expect(GPU_OP_RESTORE, CUDA_CODE_OPERATING_SYSTEM, -EIO, REASON_CUDA_RESTORE_FAILED);
	expect(GPU_OP_PROBE, CUDA_CODE_OPERATING_SYSTEM, -EIO, REASON_CUDA_QUERY_FAILED);
	expect(GPU_OP_STATE, CUDA_CODE_DRIVER_MISMATCH, -ENODEV, REASON_DRIVER_UNAVAILABLE);
	expect(GPU_OP_STATE, CUDA_CODE_NEWER_DRIVER, -EOPNOTSUPP, REASON_DRIVER_TOO_OLD);
}

static void a_process_that_died_of_it_is_said_to(void **state)
{
	struct gpu_reply reply = refusal(GPU_OP_LOCK, CUDA_CODE_OPERATING_SYSTEM);
	struct error err = ERROR_NULL;

	(void)state;
	reply.gone = 1;
	assert_int_equal(gpu_outcome(1, &reply, &err), -ESRCH);
	assert_int_equal(err.reason, REASON_CUDA_LOCK_FAILED);
	assert_non_null(strstr(err.text, "has exited"));
}

static void states_are_judged(void **state)
{
	struct gpu_reply reply;
	struct error err = ERROR_NULL;

	(void)state;
	gpu_reply_init(&reply, GPU_OP_STATE, 1);
	for (unsigned int s = CUDA_STATE_RUNNING; s <= CUDA_STATE_CHECKPOINTED; s++) {
		reply.state = s;
		assert_int_equal(gpu_outcome(1, &reply, &err), 0);
	}
	assert_int_equal(err.code, 0);
	reply.state = CUDA_STATE_FAILED;
	assert_int_equal(gpu_outcome(1, &reply, &err), -ENOTRECOVERABLE);
	assert_int_equal(err.reason, REASON_CUDA_STATE_LOST);
	reply.state = CUDA_STATE_CHECKPOINTING;
	assert_int_equal(gpu_outcome(1, &reply, &err), -EPROTO);
	assert_int_equal(err.reason, REASON_CUDA_STATE_WRONG);
	assert_non_null(strstr(err.text, "CHECKPOINTING (4)"));
	reply.state = 77;
	assert_int_equal(gpu_outcome(1, &reply, &err), -EPROTO);
	reply.head.op = GPU_OP_LOCK; /* only STATE tells one */
	assert_int_equal(gpu_outcome(1, &reply, &err), 0);
}

static void every_status_of_the_worker(void **state)
{
	static const struct {
		enum gpu_status status;
		int r;
		enum reason reason;
	} want[] = {
		{ GPU_STATUS_GONE, -ESRCH, REASON_CUDA_LOCK_FAILED },
		{ GPU_STATUS_NOT_LEADER, -EINVAL, REASON_CUDA_LOCK_FAILED },
		{ GPU_STATUS_REUSED, -ESRCH, REASON_CUDA_LOCK_FAILED },
		{ GPU_STATUS_UNAVAILABLE, -ENODEV, REASON_DRIVER_UNAVAILABLE },
		{ GPU_STATUS_TOO_OLD, -EOPNOTSUPP, REASON_DRIVER_TOO_OLD },
		{ GPU_STATUS_NO_PAIRS, -EOPNOTSUPP, REASON_GPU_MISMATCH },
		{ GPU_STATUS_CANCELED, -ECANCELED, REASON_CANCELED },
		{ GPU_STATUS_BUSY, -EAGAIN, REASON_WORKER_FAILED },
		{ GPU_STATUS_VERSION, -EPROTONOSUPPORT, REASON_WORKER_FAILED },
		{ GPU_STATUS_FAILED, -EIO, REASON_WORKER_FAILED },
	};

	(void)state;
	assert_int_equal(ARRAY_SIZE(want), GPU_STATUS_LAST - GPU_STATUS_DRIVER);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		struct error err = ERROR_NULL;
		struct gpu_reply reply;

		gpu_reply_init(&reply, GPU_OP_LOCK, 1);
		reply.status = want[i].status;
		GPU_TEXT_SET(reply.text, "so it is");
		assert_int_equal(gpu_outcome(4711, &reply, &err), want[i].r);
		assert_int_equal(err.reason, want[i].reason);
		assert_true(err.text[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call_and_every_code),
		cmocka_unit_test(known_causes_are_told_apart),
		cmocka_unit_test(a_process_that_died_of_it_is_said_to),
		cmocka_unit_test(states_are_judged),
		cmocka_unit_test(every_status_of_the_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
