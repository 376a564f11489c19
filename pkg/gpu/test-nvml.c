/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/nvml.h"

#include <string.h>

#include "gpu/fake-setup.h"

static struct fake_file file;

static int setup(void **state)
{
	(void)state;
	fake_open(&file);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_close(&file);
	return 0;
}

static struct nvml *open_ok(void)
{
	struct error err = ERROR_NULL;
	struct nvml *nvml = NULL;

	if (nvml_open(FAKE_NVML, &nvml, &err) < 0)
		fail_msg("%s", err.text);
	return nvml;
}

/* NVML numbers its GPUs otherwise than CUDA does: the UUID is what counts. */
static void figures_go_to_the_device_with_that_uuid(void **state)
{
	struct gpu_memory m = { .n_devices = 1 };
	struct nvml *nvml = open_ok();

	(void)state;
	gpu_device_init(&m.devices[0]);
	m.devices[0].uuid = file.cuda->gpus[0];
	m.devices[0].cuda_index = 0;
	GPU_TEXT_SET(m.devices[0].name, "as CUDA names it");
	file.cuda->mig = 2; /* GPU 1 */
	nvml_fill(nvml, &m);
	assert_string_equal(nvml_driver_version(nvml), "580.159.04");
	assert_int_equal(m.n_devices, 2);
	assert_int_equal(m.devices[0].cuda_index, 0);
	assert_int_equal(m.devices[0].nvml_index, 1);
	assert_int_equal(m.devices[0].minor, 10);
	assert_string_equal(m.devices[0].name, "as CUDA names it");
	assert_true(m.devices[0].free == 70ULL << 30);
	assert_true(m.devices[0].total == 80ULL << 30);
	assert_int_equal(m.devices[0].flags, GPU_DEVICE_NVML | GPU_DEVICE_MIG_KNOWN);
	/* the other one is known to NVML alone */
	assert_int_equal(m.devices[1].cuda_index, GPU_NUMBER_UNKNOWN);
	assert_int_equal(m.devices[1].uuid.bytes[0], 0xa1);
	assert_int_equal(m.devices[1].flags,
			 GPU_DEVICE_NVML | GPU_DEVICE_MIG_KNOWN | GPU_DEVICE_MIG);
	assert_int_equal(m.n_processes, 2);
	assert_int_equal(m.processes[0].pid, 1001); /* NVML's first is GPU 1 */
	assert_int_equal(m.processes[0].device, 1);
	assert_true(m.processes[0].bytes == 1ULL << 30);
	free(nvml);
}

static void full_lists_are_no_harm(void **state)
{
	struct gpu_memory m = { .n_devices = GPU_DEVICES_MAX, .n_processes = GPU_PROCESSES_MAX };
	struct nvml *nvml = open_ok();

	(void)state;
	for (int i = 0; i < GPU_DEVICES_MAX; i++) {
		gpu_device_init(&m.devices[i]);
		m.devices[i].uuid.bytes[15] = (uint8_t)i;
	}
	m.devices[3].uuid = file.cuda->gpus[1];
	nvml_fill(nvml, &m);
	assert_int_equal(m.n_devices, GPU_DEVICES_MAX);
	assert_int_equal(m.n_processes, GPU_PROCESSES_MAX);
	assert_true(m.devices[3].flags & GPU_DEVICE_PROCESSES_CUT);
	free(nvml);
}

static void no_library_is_said_so(void **state)
{
	struct error err = ERROR_NULL;
	struct nvml *nvml = NULL;

	(void)state;
	assert_true(nvml_open("/nonexistent/libnvidia-ml.so.1", &nvml, &err) < 0);
	assert_non_null(strstr(err.text, "/nonexistent"));
	assert_true(nvml_open(FAKE_CUDA, &nvml, &err) < 0);
	assert_non_null(strstr(err.text, "nvmlInit_v2"));
	file.cuda->nvml_code = 9;
	assert_true(nvml_open(FAKE_NVML, &nvml, &err) < 0);
	assert_non_null(strstr(err.text, "Driver Not Loaded (9)"));
	assert_null(nvml);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(figures_go_to_the_device_with_that_uuid),
		T(full_lists_are_no_harm),
		T(no_library_is_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
