/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a checkpoint fit here? Its description may come from anywhere, and tell as little as the
 * format allows.
 */
#include "checkpoint/fit.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "checkpoint/fake-worker.h"
#include "gpu/uuid.h"

#define GPUS  4
#define CHIP  "NVIDIA H100"
#define OTHER "NVIDIA L4"

static const char *const uuids[] = {
	"GPU-00000000-0000-0000-0000-000000000000", "GPU-00000000-0000-0000-0000-000000000001",
	"GPU-00000000-0000-0000-0000-000000000002", "GPU-00000000-0000-0000-0000-000000000003",
	"GPU-00000000-0000-0000-0000-000000000004", "GPU-00000000-0000-0000-0000-000000000005",
};

static struct operation op;
static struct node node;
static struct fake_worker worker;

/* GPUs 0 to 3 of CHIP, but for 3; with 100 MiB free each. */
static int setup(void **state)
{
	(void)state;
	op = (struct operation){ .node = &node };
	gpu_promise_init(&op.promise);
	node = (struct node){ .worker = fake_worker_of(&worker) };
	list_init(&node.returning);
	op.req.gpu_group = "";
	op.memory.n_devices = GPUS;
	for (int i = 0; i < GPUS; i++) {
		struct gpu_device *dev = &op.memory.devices[i];

		gpu_device_init(dev);
		assert_int_equal(gpu_uuid_parse(uuids[i], &dev->uuid), 0);
		GPU_TEXT_SET(dev->name, i == 3 ? OTHER : CHIP);
		dev->free = 100 << 20;
	}
	return 0;
}

/* A checkpoint of one process on these GPUs; -1 ends the list. */
static int check(const int *gpus, const char *chip, uint64_t vram, struct error *err)
{
	static struct metadata_device devices[GPUS];
	static const char *used[GPUS];
	static struct metadata_process process;
	size_t n = 0;

	for (; gpus[n] >= 0; n++) {
		devices[n] = (struct metadata_device){ .uuid = uuids[gpus[n]], .chip = chip };
		used[n] = uuids[gpus[n]];
	}
	process = (struct metadata_process){ .pid = 1, .ns_pid = 1, .vram_bytes = vram,
					     .gpu_uuids = used, .n_gpu_uuids = n };
	op.metadata.gpu = (struct metadata_gpu){ .processes = &process, .n_processes = 1,
						 .devices = devices, .n_devices = n };
	op.n_pairs = 0;
	*err = ERROR_NULL;
	return fit_check(&op, err);
}

static void goes_to(unsigned int i, int old_gpu, int new_gpu)
{
	char text[GPU_UUID_TEXT_MAX];

	assert_true(op.n_pairs > i);
	assert_string_equal(gpu_uuid_format(&op.pairs[i].old_gpu, text), uuids[old_gpu]);
	assert_string_equal(gpu_uuid_format(&op.pairs[i].new_gpu, text), uuids[new_gpu]);
}

static void its_own_gpus_need_no_map(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(check((int[]){ 0, 2, -1 }, CHIP, 0, &err), 0);
	assert_int_equal(op.n_pairs, 0);
	/* Whatever they are called. */
	assert_int_equal(check((int[]){ 1, -1 }, NULL, 0, &err), 0);
	assert_int_equal(op.n_pairs, 0);
}

static void others_of_the_same_chip_will_do(void **state)
{
	struct error err;

	(void)state;
	/* All are named, moved or not, and none is used twice. */
	assert_int_equal(check((int[]){ 4, 1, 5, -1 }, CHIP, 0, &err), 0);
	assert_int_equal(op.n_pairs, 3);
	goes_to(0, 4, 0);
	goes_to(1, 1, 1);
	goes_to(2, 5, 2);
}

static void another_chip_will_not(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(check((int[]){ 4, -1 }, "NVIDIA A100", 0, &err), -ENODEV);
	assert_int_equal(err.reason, REASON_GPU_MISMATCH);
	assert_int_equal(check((int[]){ 0, 1, 2, 4, -1 }, CHIP, 0, &err), -ENODEV); /* one short */
	/* A description without a name for it: nobody can say what fits. */
	assert_int_equal(check((int[]){ 4, -1 }, NULL, 0, &err), -ENODEV);
	assert_int_equal(err.reason, REASON_GPU_MISMATCH);
}

static void only_those_of_the_group_count(void **state)
{
	const char *const own[] = { uuids[2] };
	struct seat_group group = { .name = "g0", .gpu_uuids = own, .n_gpu_uuids = 1 };
	struct error err;

	(void)state;
	node.groups = &group;
	node.n_groups = 1;
	op.req.gpu_group = "g0";
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, 0, &err), 0); /* its own is another's now */
	goes_to(0, 0, 2);
	assert_int_equal(check((int[]){ 0, 1, -1 }, CHIP, 0, &err), -ENODEV);
}

static void there_must_be_room(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, 100 << 20, &err), 0);
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, (100 << 20) + 1, &err), -ENOMEM);
	assert_int_equal(err.reason, REASON_VRAM_SHORT);
	assert_int_equal(check((int[]){ 0, 1, -1 }, CHIP, 200 << 20, &err), 0); /* shared out */
	assert_int_equal(check((int[]){ 4, -1 }, CHIP, 1000 << 20, &err), -ENOMEM); /* where it goes */
	op.memory.devices[0].free = GPU_BYTES_UNKNOWN;
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, 1000 << 20, &err), 0);
}

/* NVML says that it is free, but somebody is about to get it. */
static void what_others_were_promised_is_not_free(void **state)
{
	struct gpu_promise other;
	struct error err;

	gpu_promise_init(&other);
	gpu_promise_add(&other, &op.memory.devices[0].uuid, 40 << 20);
	list_append(&node.returning, &other.node);
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, 60 << 20, &err), 0);
	(void)setup(state);
	list_append(&node.returning, &other.node);
	assert_int_equal(check((int[]){ 0, -1 }, CHIP, (60 << 20) + 1, &err), -ENOMEM);
	assert_int_equal(err.reason, REASON_VRAM_SHORT);
	(void)setup(state);
	list_append(&node.returning, &other.node);
	assert_int_equal(check((int[]){ 4, -1 }, CHIP, 70 << 20, &err), 0);
	goes_to(0, 4, 1); /* where there is room */
	(void)setup(state);
	gpu_promise_add(&other, &op.memory.devices[1].uuid, UINT64_MAX);
	list_append(&node.returning, &other.node);
	assert_int_equal(check((int[]){ 1, -1 }, CHIP, 1, &err), -ENOMEM);
	assert_int_equal(check((int[]){ 2, -1 }, CHIP, 100 << 20, &err), 0);
}

static void what_is_needed_is_counted_where_it_goes(void **state)
{
	struct list promises;
	struct error err;

	(void)state;
	list_init(&promises);
	assert_int_equal(check((int[]){ 4, 1, -1 }, CHIP, 100 << 20, &err), 0);
	list_append(&promises, &op.promise.node);
	assert_int_equal(op.promise.n, 2);
	for (int i = 0; i < 2; i++)
		assert_int_equal(gpu_promised(&promises, NULL, &op.memory.devices[i].uuid), 50 << 20);
	assert_int_equal(gpu_promised(&promises, NULL, &op.memory.devices[2].uuid), 0);
	assert_int_equal(gpu_promised(&promises, &op.promise, &op.memory.devices[0].uuid), 0);
}

static void the_driver_must_be_the_same(void **state)
{
	static const struct metadata_process process = { .pid = 1, .ns_pid = 1 };
	struct error err = ERROR_NULL;

	(void)state;
	op.metadata.gpu = (struct metadata_gpu){ .processes = &process, .n_processes = 1,
						 .driver_version = "570.1" };
	assert_int_equal(fit_check(&op, &err), -EINVAL);
	assert_int_equal(err.reason, REASON_DRIVER_MISMATCH);
	op.metadata.gpu.driver_version = FAKE_DRIVER_VERSION;
	assert_int_equal(fit_check(&op, &err), 0);
	op.metadata.gpu.driver_version = NULL; /* not told */
	assert_int_equal(fit_check(&op, &err), 0);
	op.metadata.gpu.n_processes = 0; /* nothing of CUDA in it: nothing to fit */
	op.metadata.gpu.driver_version = "1.0";
	assert_int_equal(fit_check(&op, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup(fn, setup)
		T(its_own_gpus_need_no_map),
		T(others_of_the_same_chip_will_do),
		T(another_chip_will_not),
		T(only_those_of_the_group_count),
		T(there_must_be_room),
		T(what_others_were_promised_is_not_free),
		T(what_is_needed_is_counted_where_it_goes),
		T(the_driver_must_be_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
