/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/driver.h"

#include <errno.h>
#include <string.h>

#include "gpu/capability.h"
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

static struct driver *open_ok(const char *library)
{
	struct error err = ERROR_NULL;
	struct driver *d = NULL;

	if (driver_open(library, &d, &err) < 0)
		fail_msg("%s", err.text);
	return d;
}

static void a_new_driver_has_it_all(void **state)
{
	struct driver *d = open_ok(FAKE_CUDA);
	struct gpu_memory m = { 0 };

	(void)state;
	assert_int_equal(driver_cuda_version(d), 13000);
	assert_int_equal(driver_usable(d, NULL), 0);
	assert_true(driver_caps(d) & GPU_CAP_GPU_PAIRS);
	assert_non_null(strstr(driver_library(d), "fakecuda"));
	assert_int_equal(driver_library(d)[0], '/');
	assert_int_equal(driver_devices(d, &m), 0);
	assert_int_equal(m.n_devices, 2);
	assert_int_equal(m.devices[1].cuda_index, 1);
	assert_int_equal(m.devices[1].uuid.bytes[0], 0xa1);
	assert_string_equal(m.devices[1].name, "Fake GPU 1");
	assert_int_equal(m.devices[1].flags, GPU_DEVICE_CUDA);
	assert_true(m.devices[1].free == GPU_BYTES_UNKNOWN);
	assert_string_equal(driver_error_name(d, 600), "CUDA_ERROR_NOT_READY");
	assert_string_equal(driver_error_name(d, 77777), "CUDA_ERROR_?");
	free(d);
}

static void the_calls_arrive_as_they_are_meant(void **state)
{
	struct driver *d = open_ok(FAKE_CUDA);
	struct cuda_gpu_pair pairs[2];
	unsigned int s = 99;
	int tid = 0;

	(void)state;
	memset(pairs, 0x11, sizeof(pairs));
	(void)fake_add(file.cuda, 10);
	assert_int_equal(driver_restore_thread(d, 10, &tid), 0);
	assert_int_equal(tid, 11);
	assert_int_equal(driver_restore_thread(d, 11, &tid), CUDA_CODE_NOT_INITIALIZED);
	assert_int_equal(driver_state(d, 11, &s), CUDA_CODE_NOT_INITIALIZED);
	assert_int_equal(s, 99); /* set on success only */
	assert_int_equal(driver_state(d, 10, &s), 0);
	assert_int_equal(s, CUDA_STATE_RUNNING);
	assert_int_equal(driver_unlock(d, 10), CUDA_CODE_ILLEGAL_STATE);
	assert_int_equal(driver_lock(d, 10, 1234), 0);
	assert_int_equal(file.cuda->last_timeout_ms, 1234);
	assert_int_equal(driver_checkpoint(d, 10), 0);
	assert_int_equal(driver_restore(d, 10, pairs, 2), 0);
	assert_int_equal(file.cuda->n_pairs, 2);
	assert_memory_equal(file.cuda->pairs, pairs, sizeof(pairs));
	assert_int_equal(driver_checkpoint(d, 10), 0);
	assert_int_equal(driver_restore(d, 10, NULL, 0), 0);
	assert_int_equal(file.cuda->n_pairs, 0);
	assert_int_equal(driver_unlock(d, 10), 0);
	assert_int_equal(file.cuda->bad_args, 0);
	free(d);
}

/* CUDA 12.8: the restore arguments are reserved words only. */
static void the_older_layout_has_no_pairs(void **state)
{
	struct driver *d;

	(void)state;
	file.cuda->cuda_version = 12080;
	d = open_ok(FAKE_CUDA);
	assert_int_equal(driver_usable(d, NULL), 0);
	assert_false(driver_caps(d) & GPU_CAP_GPU_PAIRS);
	fake_add(file.cuda, 10)->state = CUDA_STATE_CHECKPOINTED;
	assert_int_equal(driver_restore(d, 10, NULL, 0), 0);
	assert_int_equal(file.cuda->bad_args, 0);
	free(d);
}

static void entry_points_may_come_by_version(void **state)
{
	struct driver *d;
	unsigned int s;

	(void)state;
	assert_int_equal(setenv(FAKE_BY_VERSION_ENV, "1", 1), 0);
	d = open_ok(FAKE_CUDA);
	(void)fake_add(file.cuda, 10);
	assert_int_equal(driver_usable(d, NULL), 0);
	assert_int_equal(driver_state(d, 10, &s), 0);
	assert_int_equal(unsetenv(FAKE_BY_VERSION_ENV), 0);
	free(d);
}

static void an_old_driver_opens_and_is_too_old(void **state)
{
	struct error err = ERROR_NULL;
	struct driver *d;

	(void)state;
	file.cuda->cuda_version = 12040;
	d = open_ok(FAKE_CUDA_OLD);
	assert_int_equal(driver_caps(d), 0);
	assert_int_equal(driver_usable(d, &err), -EOPNOTSUPP);
	assert_int_equal(err.reason, REASON_DRIVER_TOO_OLD);
	assert_non_null(strstr(err.text, "CUDA 12.4"));
	assert_non_null(strstr(err.text, "570"));
	free(d);
}

static void expect_unavailable(const char *library, const char *word)
{
	struct error err = ERROR_NULL;
	struct driver *d = NULL;

	assert_true(driver_open(library, &d, &err) < 0);
	assert_null(d);
	assert_int_equal(err.reason, REASON_DRIVER_UNAVAILABLE);
	if (!strstr(err.text, word))
		fail_msg("'%s' is not in: %s", word, err.text);
}

static void no_driver_is_said_so(void **state)
{
	(void)state;
	expect_unavailable("/nonexistent/libcuda.so.1", "/nonexistent/libcuda.so.1");
	expect_unavailable(FAKE_NVML, "no CUDA driver"); /* a library, but another one */
	file.cuda->scripts[FAKE_INIT].code = CUDA_CODE_NO_DEVICE;
	expect_unavailable(FAKE_CUDA, "CUDA_ERROR_NO_DEVICE (100)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_new_driver_has_it_all),
		T(the_calls_arrive_as_they_are_meant),
		T(the_older_layout_has_no_pairs),
		T(entry_points_may_come_by_version),
		T(an_old_driver_opens_and_is_too_old),
		T(no_driver_is_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
