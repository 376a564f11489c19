/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "artifact/metadata.h"
#include "tests/cmocka.h"

static struct arena arena;
static struct error err;
static struct metadata got;

static const char *const uuids[] = { "GPU-5a1b0c6e-7d0f-4a62-93a1-0d1e2f3a4b5c" };
static const char *const flags[] = { "--tcp-established", "--file-locks" };
static const struct metadata_process processes[] = {
	{ .pid = 4711, .ns_pid = 1, .name = "python3", .vram_bytes = 3000000000,
	  .gpu_uuids = uuids, .n_gpu_uuids = 1 },
	{ .pid = 4750, .ns_pid = 37, .name = "evil\n\x1b[2J\xff", .vram_bytes = 1,
	  .gpu_uuids = uuids, .n_gpu_uuids = 1 },
};
static const struct metadata_device devices[] = {
	{ .uuid = "GPU-5a1b0c6e-7d0f-4a62-93a1-0d1e2f3a4b5c", .chip = "NVIDIA H100 80GB HBM3",
	  .memory_bytes = 85520809984 },
};
static const struct metadata_phase phases[] = {
	{ "lock", 1200, 30500, 0 },
	{ "vram_save", 31700, 2100000, 3000000000 },
};

static struct metadata sample(void)
{
	struct metadata m = {
		.ref = "trainer-20261123T152201Z-abcd",
		.created_at = "2026-11-23T15:22:01.123456789Z",
		.kybernate_version = "0.1.0",
		.criu_version = "4.1.1",
		.runtime_flags = flags,
		.n_runtime_flags = 2,
		.container = {
			.id = "3f2a", .containerd_namespace = "k8s.io", .name = "trainer",
			.image = "registry.example/trainer:1",
			.image_digest = "sha256:" "ba7816bf8f01cfea414140de5dae2223b00361a396177a9c"
					"b410ff61f20015ad",
			.snapshotter = "overlayfs", .parent_chain_id = "sha256:e3b0c442",
			.runtime = "runc", .runtime_type = "io.containerd.kybernate.v1",
		},
		.pod = { .uid = "0b5f", .name = "trainer-0", .namespace = "ml",
			 .sandbox_id = "9c1d" },
		.gpu = {
			.driver_version = "580.65.06", .group = "g0", .seat = "0",
			.seat_generation = "7", .processes = processes, .n_processes = 2,
			.devices = devices, .n_devices = 1,
		},
		.phases = phases,
		.n_phases = 2,
		.duration_us = 9000000,
		.manifest = { .files = 20, .bytes = 3100000000 },
	};

	memset(&m.manifest.sha256, 0xab, DIGEST_SIZE);
	return m;
}

static int read_it(int (*reader)(struct bytes, struct arena *, struct metadata *, struct error *),
		   const struct buf *b)
{
	arena_done(&arena);
	arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	err = ERROR_NULL;
	return reader(buf_bytes(b), &arena, &got, &err);
}

static int teardown(void **state)
{
	(void)state;
	arena_done(&arena);
	return 0;
}

static void check_common(void)
{
	assert_string_equal(got.created_at, "2026-11-23T15:22:01.123456789Z");
	assert_string_equal(got.criu_version, "4.1.1");
	assert_int_equal(got.n_runtime_flags, 2);
	assert_string_equal(got.runtime_flags[1], "--file-locks");
	assert_string_equal(got.container.image, "registry.example/trainer:1");
	assert_string_equal(got.pod.namespace, "ml");
	assert_string_equal(got.gpu.driver_version, "580.65.06");
	assert_string_equal(got.gpu.seat_generation, "7");
	assert_int_equal(got.gpu.n_processes, 2);
	assert_int_equal(got.gpu.processes[0].pid, 4711);
	assert_string_equal(got.gpu.processes[0].gpu_uuids[0], uuids[0]);
	assert_string_equal(got.gpu.devices[0].chip, "NVIDIA H100 80GB HBM3");
	assert_int_equal(metadata_vram_bytes(&got), 3000000001);
	assert_int_equal(got.manifest.files, 20);
	assert_int_equal(got.manifest.sha256.byte[31], 0xab);
}

static void metadata_goes_there_and_back(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read, &b), 0);
	check_common();
	assert_string_equal(got.ref, m.ref);
	assert_string_equal(got.container.snapshotter, "overlayfs");
	assert_int_equal(got.n_phases, 2);
	assert_string_equal(got.phases[1].name, "vram_save");
	assert_int_equal(got.duration_us, 9000000);
}

static void the_part_that_travels_goes_there_and_back(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	assert_int_equal(metadata_write_image(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read_image, &b), 0);
	check_common();
	/* The name in our store, and what the snapshot was, mean nothing elsewhere. */
	assert_null(got.ref);
	assert_null(got.container.snapshotter);
	assert_int_equal(got.n_phases, 0);
}

static void one_is_not_taken_for_the_other(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	assert_int_equal(metadata_write_image(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read, &b), -EBADMSG);
	assert_string_equal(error_text(&err), "is not a kybernate.io/checkpoint/v1: its schema is "
					      "'kybernate.io/image/v1'");
}

static void a_container_without_gpu_has_metadata_too(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	m.gpu = (struct metadata_gpu){ 0 };
	m.pod = (struct metadata_pod){ 0 };
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read, &b), 0);
	assert_int_equal(got.gpu.n_devices, 0);
	assert_null(got.gpu.driver_version);
	assert_null(got.pod.uid);
}

/* The name of a process is the workload's to choose: no reason to refuse a checkpoint. */
static void a_hostile_process_name_is_made_fit(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read, &b), 0);
	assert_string_equal(got.gpu.processes[1].name, "evil??[2J?");
}

static void not_written(const struct metadata *m, const char *why)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	err = ERROR_NULL;
	assert_int_equal(metadata_write(m, &b, &err), -EINVAL);
	assert_string_equal(error_text(&err), why);
}

static void what_makes_no_sense_is_not_written(void **state)
{
	static const char *const other[] = { "GPU-other" };
	struct metadata_process p = processes[0];
	struct metadata m = sample();

	(void)state;
	m.ref = "../etc";
	not_written(&m, "cannot be written: ref: is not a valid name");
	m = sample();
	m.created_at = "yesterday";
	not_written(&m, "cannot be written: created_at: is not a time in UTC (RFC 3339)");
	m = sample();
	m.container.id = "a/b";
	not_written(&m, "cannot be written: container: id: is not a container id");
	m = sample();
	m.container.containerd_namespace = NULL;
	not_written(&m, "cannot be written: container: containerd_namespace: is not a namespace of "
			"containerd");
	m = sample();
	p.gpu_uuids = other;
	m.gpu.processes = &p;
	m.gpu.n_processes = 1;
	not_written(&m, "cannot be written: gpu: processes: [0]: gpu_uuids: [0]: is none of the "
			"devices");
}

static void times_have_one_form(void **state)
{
	static const char *const wrong[] = {
		"", "2026-11-23", "2026-11-23T15:22:01", "2026-11-23T15:22:01+01:00",
		"2026-11-23 15:22:01Z", "2026-11-23T15:22:01.12Zx", "x026-11-23T15:22:01Z",
	};
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		m.created_at = wrong[i];
		assert_int_equal(metadata_write(&m, &b, &err), -EINVAL);
	}
	m.created_at = "2026-11-23T15:22:01Z";
	assert_int_equal(metadata_write(&m, &b, &err), 0);
}

/* Every flipped bit of the file is noticed: nobody restores by a wrong UUID or version. */
static void any_change_is_told(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();
	size_t unnoticed = 0;

	(void)state;
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	for (size_t i = 0; i < buf_len(&b); i++) {
		uint8_t was = b.mem[i];

		b.mem[i] ^= 0x04;
		if (read_it(metadata_read, &b) == 0)
			unnoticed++;
		b.mem[i] = was;
	}
	assert_int_equal(unnoticed, 0);
}

static void a_file_cut_short_is_told(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	for (size_t n = 0; n + 1 < buf_len(&b); n += 7) {
		arena_done(&arena);
		assert_int_equal(metadata_read(bytes_of(b.mem, n), &arena, &got, &err), -EBADMSG);
	}
}

/* The largest that the bounds allow has to fit the bounds of the text. */
static void the_largest_can_be_written_and_read(void **state)
{
	static struct metadata_process many[METADATA_PROCESSES_MAX];
	static struct metadata_device gpus[METADATA_GPUS_MAX];
	static char uuid[METADATA_GPUS_MAX][41];
	const char *each[METADATA_GPUS_MAX];
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct metadata m = sample();

	(void)state;
	for (int i = 0; i < METADATA_GPUS_MAX; i++) {
		(void)snprintf(uuid[i], sizeof(uuid[i]), "GPU-%08d-7d0f-4a62-93a1-0d1e2f3a4b5c", i);
		gpus[i] = devices[0];
		gpus[i].uuid = each[i] = uuid[i];
	}
	for (int i = 0; i < METADATA_PROCESSES_MAX; i++) {
		many[i] = processes[0];
		many[i].gpu_uuids = each;
		many[i].n_gpu_uuids = METADATA_GPUS_MAX;
	}
	m.gpu.processes = many;
	m.gpu.n_processes = METADATA_PROCESSES_MAX;
	m.gpu.devices = gpus;
	m.gpu.n_devices = METADATA_GPUS_MAX;
	assert_int_equal(metadata_write(&m, &b, &err), 0);
	assert_int_equal(read_it(metadata_read, &b), 0);
	assert_int_equal(got.gpu.n_processes, METADATA_PROCESSES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(metadata_goes_there_and_back),
		cmocka_unit_test(the_part_that_travels_goes_there_and_back),
		cmocka_unit_test(one_is_not_taken_for_the_other),
		cmocka_unit_test(a_container_without_gpu_has_metadata_too),
		cmocka_unit_test(a_hostile_process_name_is_made_fit),
		cmocka_unit_test(what_makes_no_sense_is_not_written),
		cmocka_unit_test(times_have_one_form),
		cmocka_unit_test(any_change_is_told),
		cmocka_unit_test(a_file_cut_short_is_told),
		cmocka_unit_test(the_largest_can_be_written_and_read),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
