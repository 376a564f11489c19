/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cmocka.h"

static int parse_request(const struct gpu_request *req, size_t n)
{
	struct gpu_request ret;

	return gpu_request_parse(bytes_of(req, n), &ret);
}

static struct gpu_request good_request(enum gpu_op op)
{
	struct gpu_request req;

	gpu_request_init(&req, op, 42);
	if (gpu_op_has_pid(op))
		req.pid = 4711;
	if (op == GPU_OP_LOCK)
		req.timeout_ms = 1000;
	if (op == GPU_OP_CANCEL)
		req.target = 41;
	return req;
}

static void every_request_can_be_read(void **state)
{
	(void)state;
	for (unsigned int op = GPU_OP_HELLO; op <= GPU_OP_LAST; op++) {
		struct gpu_request req = good_request(op), ret;

		assert_int_equal(gpu_request_parse(bytes_of(&req, sizeof(req)), &ret), 0);
		assert_memory_equal(&req, &ret, sizeof(req));
		assert_string_not_equal(gpu_op_name(op), "?");
	}
	assert_string_equal(gpu_op_name(0), "?");
	assert_string_equal(gpu_op_name(GPU_OP_LAST + 1), "?");
	assert_string_equal(gpu_state_name(CUDA_STATE_RESTORING), "RESTORING");
	assert_string_equal(gpu_state_name(6), "?");
}

/* Spoils a good request in one place. */
#define BAD_REQUEST(op, change)                                                                    \
	do {                                                                                       \
		struct gpu_request req = good_request(op);                                         \
		assert_int_equal(parse_request(&req, sizeof(req)), 0);                             \
		change;                                                                            \
		assert_int_equal(parse_request(&req, sizeof(req)), -EBADMSG);                      \
	} while (0)

static void a_request_that_is_wrong_is_refused(void **state)
{
	struct gpu_request good = good_request(GPU_OP_STATE);

	(void)state;
	assert_int_equal(parse_request(&good, 0), -EBADMSG);
	assert_int_equal(parse_request(&good, sizeof(good.head) - 1), -EBADMSG);
	assert_int_equal(parse_request(&good, sizeof(good) - 1), -EBADMSG);
	BAD_REQUEST(GPU_OP_STATE, req.head.magic++);
	BAD_REQUEST(GPU_OP_STATE, req.head.op = 0);
	BAD_REQUEST(GPU_OP_STATE, req.head.op = GPU_OP_LAST + 1);
	BAD_REQUEST(GPU_OP_STATE, req.pid = 0);
	BAD_REQUEST(GPU_OP_STATE, req.pid = -1);
	BAD_REQUEST(GPU_OP_STATE, req.timeout_ms = 1);
	BAD_REQUEST(GPU_OP_STATE, req.target = 1);
	BAD_REQUEST(GPU_OP_STATE, req.n_pairs = 1);
	BAD_REQUEST(GPU_OP_STATE, req.reserved = 1);
	BAD_REQUEST(GPU_OP_LOCK, req.timeout_ms = 0);
	BAD_REQUEST(GPU_OP_RESTORE, req.n_pairs = GPU_DEVICES_MAX + 1);
	BAD_REQUEST(GPU_OP_RESTORE, req.pairs[0].old_gpu.bytes[0] = 1);
	BAD_REQUEST(GPU_OP_MEMORY, req.pid = 1);
	BAD_REQUEST(GPU_OP_MEMORY, req.start_time = 1);
}

static union gpu_any_reply good_reply(unsigned int op)
{
	union gpu_any_reply any;

	memset(&any, 0, sizeof(any));
	gpu_reply_init(&any.reply, op, 42);
	GPU_TEXT_SET(any.reply.text, "all is well");
	if (op == GPU_OP_HELLO)
		any.hello.hello.memory.n_devices = 1;
	if (op == GPU_OP_MEMORY) {
		any.memory.memory.n_devices = 2;
		any.memory.memory.n_processes = 1;
		any.memory.memory.processes[0] = (struct gpu_process){ .pid = 1, .device = 1 };
	}
	return any;
}

static int parse_reply(const union gpu_any_reply *any, size_t n)
{
	static union gpu_any_reply ret;

	return gpu_reply_parse(bytes_of(any, n), &ret);
}

static void every_reply_can_be_read(void **state)
{
	static union gpu_any_reply ret;

	(void)state;
	for (unsigned int op = GPU_OP_HELLO; op < GPU_OP_CANCEL; op++) {
		union gpu_any_reply any = good_reply(op);
		size_t n = gpu_reply_size(op);

		assert_int_equal(gpu_reply_parse(bytes_of(&any, n), &ret), 0);
		assert_memory_equal(&any, &ret, n);
		assert_int_equal(parse_reply(&any, n - 1), -EBADMSG);
	}
}

#define BAD_REPLY(op, change)                                                                      \
	do {                                                                                       \
		union gpu_any_reply any = good_reply(op);                                          \
		assert_int_equal(parse_reply(&any, gpu_reply_size(op)), 0);                        \
		change;                                                                            \
		assert_int_equal(parse_reply(&any, gpu_reply_size(op)), -EBADMSG);                 \
	} while (0)

static void a_reply_that_is_wrong_is_refused(void **state)
{
	(void)state;
	BAD_REPLY(GPU_OP_LOCK, any.head.op = GPU_OP_CANCEL);
	BAD_REPLY(GPU_OP_LOCK, any.reply.status = GPU_STATUS_LAST + 1);
	BAD_REPLY(GPU_OP_LOCK, any.reply.reserved = 1);
	BAD_REPLY(GPU_OP_LOCK, any.reply.gone = 2);
	BAD_REPLY(GPU_OP_LOCK, any.reply.tid = -1);
	BAD_REPLY(GPU_OP_LOCK, memset(any.reply.text, 'x', sizeof(any.reply.text)));
	BAD_REPLY(GPU_OP_LOCK, any.reply.name[GPU_NAME_MAX - 1] = 'x'); /* behind the end */
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.n_devices = GPU_DEVICES_MAX + 1);
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.n_devices = 1); /* the process is on GPU 1 */
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.n_processes = GPU_PROCESSES_MAX + 1);
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.n_processes = 2); /* the second has no pid */
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.n_processes = 0); /* then none may be there */
	BAD_REPLY(GPU_OP_MEMORY, any.memory.memory.devices[0].flags = 1U << 31);
	BAD_REPLY(GPU_OP_HELLO, any.hello.hello.nvml = 2);
	BAD_REPLY(GPU_OP_HELLO, memset(any.hello.hello.library, 'x', 256));
	BAD_REPLY(GPU_OP_HELLO, any.hello.hello.memory.devices[31].total = 1);
}

static void another_version_is_told_apart(void **state)
{
	struct gpu_request req = good_request(GPU_OP_HELLO), ret = { 0 };
	union gpu_any_reply any = good_reply(GPU_OP_LOCK), got;

	(void)state;
	req.head.version = 7;
	/* of whatever size that version has */
	assert_int_equal(gpu_request_parse(bytes_of(&req, 100), &ret), -EPROTONOSUPPORT);
	assert_int_equal(ret.head.version, 7);
	assert_int_equal(ret.head.id, 42);
	any.head.version = 7;
	assert_int_equal(gpu_reply_parse(bytes_of(&any, 20), &got), -EPROTONOSUPPORT);
	assert_int_equal(got.head.version, 7);
}

static void texts_are_cut_and_clean(void **state)
{
	char text[8];

	(void)state;
	GPU_TEXT_SET(text, "a\nb\x7f" "c");
	assert_string_equal(text, "a?b?c");
	GPU_TEXT_SET(text, "0123456789");
	assert_string_equal(text, "0123456");
	GPU_TEXT_SET(text, "");
	assert_memory_equal(text, "\0\0\0\0\0\0\0\0", 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_request_can_be_read),
		cmocka_unit_test(a_request_that_is_wrong_is_refused),
		cmocka_unit_test(every_reply_can_be_read),
		cmocka_unit_test(a_reply_that_is_wrong_is_refused),
		cmocka_unit_test(another_version_is_told_apart),
		cmocka_unit_test(texts_are_cut_and_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
