/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/uuid.h"

#include <errno.h>
#include <string.h>

#include "tests/cmocka.h"

static const struct cuda_uuid example = { { 0x92, 0x01, 0x03, 0x17, 0xbe, 0x8d, 0x9d, 0x3a, 0x4a,
					    0x0b, 0x4d, 0xf1, 0x09, 0xef, 0xab, 0xcd } };
#define EXAMPLE "GPU-92010317-be8d-9d3a-4a0b-4df109efabcd"

static void formats_as_nvidia_smi_does(void **state)
{
	char buf[GPU_UUID_TEXT_MAX];

	(void)state;
	assert_string_equal(gpu_uuid_format(&example, buf), EXAMPLE);
	assert_int_equal(strlen(buf), GPU_UUID_TEXT_MAX - 1);
}

static void reads_what_it_writes(void **state)
{
	struct cuda_uuid uuid = { { 0 } };

	(void)state;
	assert_int_equal(gpu_uuid_parse(EXAMPLE, &uuid), 0);
	assert_memory_equal(&uuid, &example, sizeof(uuid));
	assert_int_equal(gpu_uuid_parse("MIG-92010317-BE8D-9D3A-4A0B-4DF109EFABCD", &uuid), 0);
	assert_memory_equal(&uuid, &example, sizeof(uuid));
}

static void refuses_everything_else(void **state)
{
	static const char *const bad[] = {
		"",
		"GPU-",
		"92010317-be8d-9d3a-4a0b-4df109efabcd",
		"GPU-92010317be8d9d3a4a0b4df109efabcd",
		"GPU-92010317-be8d-9d3a-4a0b-4df109efabc",
		"GPU-92010317-be8d-9d3a-4a0b-4df109efabcde",
		"GPU-92010317-be8d-9d3a-4a0b-4df109efabcg",
		"GPU-92010317-be8d-9d3a-4a0b 4df109efabcd",
		"GPU-9",
		/* MIG instances before r470 had names that are no UUIDs */
		"MIG-GPU-92010317-be8d-9d3a-4a0b-4df109efabcd/1/0",
	};
	struct cuda_uuid uuid;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(gpu_uuid_parse(bad[i], &uuid), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_as_nvidia_smi_does),
		cmocka_unit_test(reads_what_it_writes),
		cmocka_unit_test(refuses_everything_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
