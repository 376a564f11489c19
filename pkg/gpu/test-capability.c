/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/capability.h"

#include "gpu/cuda_abi.h"
#include "tests/cmocka.h"

static uint32_t caps_of(int cuda_version, bool calls, bool complete)
{
	return gpu_capabilities(&(struct gpu_facts){ .cuda_version = cuda_version,
						     .checkpoint_calls = calls,
						     .operation_complete = complete });
}

static void what_is_claimed_follows_from_what_was_found(void **state)
{
	const uint32_t api = GPU_CAP_CHECKPOINT | GPU_CAP_LOCK_TIMEOUT | GPU_CAP_NVML;

	(void)state;
	assert_int_equal(caps_of(12040, false, false), 0);
	assert_int_equal(caps_of(13000, false, false), 0); /* a libcuda without the calls */
	assert_int_equal(caps_of(12080, true, false), api);
	assert_int_equal(caps_of(12090, true, false), api);
	assert_int_equal(caps_of(13000, true, false), api | GPU_CAP_GPU_PAIRS);
	assert_int_equal(caps_of(13020, true, false), api | GPU_CAP_GPU_PAIRS);
	assert_int_equal(caps_of(13030, true, false), api | GPU_CAP_GPU_PAIRS | GPU_CAP_IPC_JOB);
	assert_int_equal(caps_of(13040, true, true), GPU_CAP_ALL);
	assert_int_equal(caps_of(13040, true, false), GPU_CAP_ALL & ~GPU_CAP_CUSTOM_STORAGE);
	assert_int_equal(caps_of(14000, true, true), GPU_CAP_ALL);
	assert_int_equal(caps_of(0, true, false), api); /* the calls are there: they count */
}

static void the_table_is_in_order(void **state)
{
	const struct gpu_branch *b;
	size_t n;

	(void)state;
	b = gpu_branches(&n);
	for (size_t i = 1; i < n; i++) {
		assert_true(b[i].branch > b[i - 1].branch);
		assert_true(b[i].cuda_version > b[i - 1].cuda_version);
		assert_int_equal(b[i].caps & b[i - 1].caps, b[i - 1].caps); /* nothing gets lost */
	}
	assert_ptr_equal(gpu_branch_of_cuda(12030), NULL);
	assert_int_equal(gpu_branch_of_cuda(12080)->branch, 570);
	assert_int_equal(gpu_branch_of_cuda(13005)->branch, 580);
	assert_int_equal(gpu_branch_of_cuda(99990)->branch, 615);
}

static void a_version_tells_its_branch(void **state)
{
	(void)state;
	assert_int_equal(gpu_branch_of_version("580.159.04"), 580);
	assert_int_equal(gpu_branch_of_version("570.86"), 570);
	assert_int_equal(gpu_branch_of_version(""), 0);
	assert_int_equal(gpu_branch_of_version("580"), 0);
	assert_int_equal(gpu_branch_of_version("580."), 0);
	assert_int_equal(gpu_branch_of_version(".5"), 0);
	assert_int_equal(gpu_branch_of_version("x80.1"), 0);
	assert_int_equal(gpu_branch_of_version("99999999999.1"), 0);
}

static void every_capability_has_a_name(void **state)
{
	(void)state;
	for (uint32_t bit = 1; bit & GPU_CAP_ALL; bit <<= 1)
		assert_string_not_equal(gpu_cap_name((enum gpu_cap)bit), "?");
	for (uint32_t bit = 1; bit & GPU_CAP_ALL; bit <<= 1)
		assert_string_not_equal(gpu_cap_title((enum gpu_cap)bit), "?");
	assert_string_equal(gpu_cap_name((enum gpu_cap)(GPU_CAP_ALL + 1)), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_claimed_follows_from_what_was_found),
		cmocka_unit_test(the_table_is_in_order),
		cmocka_unit_test(a_version_tells_its_branch),
		cmocka_unit_test(every_capability_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
