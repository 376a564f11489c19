/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/metadata.h"

#include <errno.h>
#include <string.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "base/cleanup.h"
#include "base/path.h"

#define WORD_MAX       128 /* versions, names of phases, ids of ours */
#define TEXT_MAX       512 /* names that others gave */
#define PROCESS_GPUS   METADATA_GPUS_MAX
#define MOUNT_TEXT     4095
#define PID_LIMIT      ((uint64_t)1 << 31)


#define SHAPE(type, fields, check) { sizeof(type), fields, ARRAY_SIZE(fields), check }

static const struct doc_field container_fields[] = {
	DOC_FIELD(struct metadata_container, id, DOC_TEXT, ID_MAX),
	DOC_FIELD(struct metadata_container, containerd_namespace, DOC_TEXT, ID_MAX),
	DOC_FIELD(struct metadata_container, name, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_container, image, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_container, image_digest, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_container, runtime, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_container, runtime_type, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL),
	/* From here on: metadata.json only. */
	DOC_FIELD(struct metadata_container, snapshotter, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_container, parent_chain_id, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL),
};
#define CONTAINER_FIELDS_IMAGE 7

static int check_container(const void *object, struct error *err)
{
	const struct metadata_container *c = object;

	if (!c->id || !id_valid(c->id))
		return fail_corrupt(err, "id: is not a container id");
	if (!c->containerd_namespace || !id_valid(c->containerd_namespace))
		return fail_corrupt(err, "containerd_namespace: is not a namespace of containerd");
	return 0;
}

static const struct doc_shape container_shape =
	SHAPE(struct metadata_container, container_fields, check_container);
static const struct doc_shape container_image_shape = {
	sizeof(struct metadata_container), container_fields, CONTAINER_FIELDS_IMAGE,
	check_container,
};

static const struct doc_field pod_fields[] = {
	DOC_FIELD(struct metadata_pod, uid, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_pod, name, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_pod, namespace, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_pod, sandbox_id, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
};
static const struct doc_shape pod_shape = SHAPE(struct metadata_pod, pod_fields, NULL);

static const struct doc_field process_fields[] = {
	DOC_FIELD(struct metadata_process, pid, DOC_NUMBER, PID_LIMIT),
	DOC_FIELD(struct metadata_process, ns_pid, DOC_NUMBER, PID_LIMIT),
	/* The workload chooses it, and may choose anything. */
	DOC_FIELD(struct metadata_process, name, DOC_TEXT, WORD_MAX,
		  .flags = DOC_OPTIONAL | DOC_FOREIGN),
	DOC_FIELD(struct metadata_process, vram_bytes, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_ARRAY(struct metadata_process, gpu_uuids, DOC_TEXTS, PROCESS_GPUS,
		  .text_max = WORD_MAX),
	DOC_FIELD(struct metadata_process, job, DOC_NUMBER, METADATA_PROCESSES_MAX,
		  .flags = DOC_OPTIONAL),
};
static const struct doc_shape process_shape =
	SHAPE(struct metadata_process, process_fields, NULL);

static const struct doc_field device_fields[] = {
	DOC_FIELD(struct metadata_device, uuid, DOC_TEXT, WORD_MAX),
	DOC_FIELD(struct metadata_device, chip, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL | DOC_FOREIGN),
	DOC_FIELD(struct metadata_device, memory_bytes, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct metadata_device, node, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
};
static const struct doc_shape device_shape = SHAPE(struct metadata_device, device_fields, NULL);

static const struct doc_field gpu_fields[] = {
	DOC_FIELD(struct metadata_gpu, driver_version, DOC_TEXT, WORD_MAX,
		  .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_gpu, group, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_gpu, seat, DOC_TEXT, TEXT_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct metadata_gpu, seat_generation, DOC_TEXT, TEXT_MAX,
		  .flags = DOC_OPTIONAL),
	DOC_ARRAY(struct metadata_gpu, processes, DOC_OBJECTS, METADATA_PROCESSES_MAX,
		  .shape = &process_shape),
	DOC_ARRAY(struct metadata_gpu, devices, DOC_OBJECTS, METADATA_GPUS_MAX,
		  .shape = &device_shape),
};

static bool has_device(const struct metadata_gpu *g, const char *uuid)
{
	for (size_t i = 0; i < g->n_devices; i++)
		if (g->devices[i].uuid && uuid && strcmp(g->devices[i].uuid, uuid) == 0)
			return true;
	return false;
}

/* A restore maps old devices to new ones, so that what a process uses has to be among them. */
static int check_gpu(const void *object, struct error *err)
{
	const struct metadata_gpu *g = object;

	for (size_t i = 0; i < g->n_processes; i++)
		for (size_t k = 0; k < g->processes[i].n_gpu_uuids; k++)
			if (!has_device(g, g->processes[i].gpu_uuids[k]))
				return fail_corrupt(err,
						    "processes: [%zu]: gpu_uuids: [%zu]: is none "
						    "of the devices", i, k);
	return 0;
}

static const struct doc_shape gpu_shape = SHAPE(struct metadata_gpu, gpu_fields, check_gpu);

static const struct doc_field mount_fields[] = {
	DOC_FIELD(struct mount_record, destination, DOC_TEXT, MOUNT_TEXT),
	DOC_FIELD(struct mount_record, kind, DOC_TEXT, WORD_MAX),
	DOC_FIELD(struct mount_record, type, DOC_TEXT, WORD_MAX),
	DOC_FIELD(struct mount_record, root, DOC_TEXT, MOUNT_TEXT),
	DOC_FIELD(struct mount_record, source, DOC_TEXT, MOUNT_TEXT, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct mount_record, size, DOC_NUMBER, DOC_NUMBER_MAX, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct mount_record, external, DOC_FLAG, 0, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct mount_record, configured, DOC_FLAG, 0, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct mount_record, in_root, DOC_FLAG, 0, .flags = DOC_OPTIONAL),
};
static const struct doc_shape mount_shape = SHAPE(struct mount_record, mount_fields, NULL);

static const struct doc_field phase_fields[] = {
	DOC_FIELD(struct metadata_phase, name, DOC_TEXT, WORD_MAX),
	DOC_FIELD(struct metadata_phase, start_us, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct metadata_phase, duration_us, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct metadata_phase, bytes, DOC_NUMBER, DOC_NUMBER_MAX),
};
static const struct doc_shape phase_shape = SHAPE(struct metadata_phase, phase_fields, NULL);

static const struct doc_field manifest_fields[] = {
	DOC_FIELD(struct metadata_manifest, sha256, DOC_DIGEST, 0),
	DOC_FIELD(struct metadata_manifest, files, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct metadata_manifest, bytes, DOC_NUMBER, DOC_NUMBER_MAX),
};
static const struct doc_shape manifest_shape =
	SHAPE(struct metadata_manifest, manifest_fields, NULL);

/* What both documents have; the container's is the part that travels, or all of it. */
#define COMMON_FIELDS(container_is)                                                                \
	DOC_FIELD(struct metadata, created_at, DOC_TEXT, WORD_MAX),                                \
	DOC_FIELD(struct metadata, kybernate_version, DOC_TEXT, WORD_MAX),                         \
	DOC_FIELD(struct metadata, criu_version, DOC_TEXT, WORD_MAX, .flags = DOC_OPTIONAL),       \
	DOC_ARRAY(struct metadata, runtime_flags, DOC_TEXTS, METADATA_FLAGS_MAX,                   \
		  .text_max = TEXT_MAX),                                                           \
	DOC_FIELD(struct metadata, exited, DOC_FLAG, 0),                                           \
	DOC_FIELD(struct metadata, container, DOC_OBJECT, 0, .shape = (container_is)),             \
	DOC_FIELD(struct metadata, pod, DOC_OBJECT, 0, .shape = &pod_shape),                       \
	DOC_FIELD(struct metadata, gpu, DOC_OBJECT, 0, .shape = &gpu_shape),                       \
	DOC_ARRAY(struct metadata, mounts, DOC_OBJECTS, MOUNT_RECORDS_MAX, .flags = DOC_OPTIONAL,  \
		  .shape = &mount_shape),                                                          \
	DOC_FIELD(struct metadata, manifest, DOC_OBJECT, 0, .shape = &manifest_shape)

static const struct doc_field metadata_fields[] = {
	DOC_FIELD(struct metadata, ref, DOC_TEXT, REF_MAX),
	COMMON_FIELDS(&container_shape),
	DOC_ARRAY(struct metadata, phases, DOC_OBJECTS, METADATA_PHASES_MAX,
		  .shape = &phase_shape),
	DOC_FIELD(struct metadata, duration_us, DOC_NUMBER, DOC_NUMBER_MAX),
};

static const struct doc_field image_fields[] = {
	COMMON_FIELDS(&container_image_shape),
};

/* "2026-11-23T15:22:01.123456789Z"; the fraction may be missing. */
static bool is_timestamp(const char *s)
{
	static const char form[] = "0000-00-00T00:00:00";

	for (size_t i = 0; form[i]; i++) {
		bool digit = s[i] >= '0' && s[i] <= '9';

		if (form[i] == '0' ? !digit : s[i] != form[i])
			return false;
	}
	s += sizeof(form) - 1;
	if (*s == '.')
		s += 1 + strspn(s + 1, "0123456789");
	return strcmp(s, "Z") == 0;
}

static int check_image(const void *object, struct error *err)
{
	const struct metadata *m = object;

	if (!m->created_at || !is_timestamp(m->created_at))
		return fail_corrupt(err, "created_at: is not a time in UTC (RFC 3339)");
	return 0;
}

static int check_metadata(const void *object, struct error *err)
{
	const struct metadata *m = object;

	if (!m->ref || !ref_valid(m->ref))
		return fail_corrupt(err, "ref: is not a valid name");
	return check_image(object, err);
}

static const struct doc_shape metadata_shape =
	SHAPE(struct metadata, metadata_fields, check_metadata);
static const struct doc_shape image_shape = SHAPE(struct metadata, image_fields, check_image);

/* Every process with every GPU, each of these with its members, and room for the rest. */
#define VALUES_MAX (METADATA_PROCESSES_MAX * (PROCESS_GPUS + 8) + MOUNT_RECORDS_MAX * 10 + 4096)

static const struct doc_format metadata_format = {
	.family = "kybernate.io/checkpoint/v",
	.version = 1,
	.shape = &metadata_shape,
	.sealed = true,
	.text_max = METADATA_TEXT_MAX,
	.values_max = VALUES_MAX,
};

static const struct doc_format image_format = {
	.family = "kybernate.io/image/v",
	.version = 1,
	.shape = &image_shape,
	.sealed = true,
	.text_max = METADATA_TEXT_MAX,
	.values_max = VALUES_MAX,
};

int metadata_read(struct bytes text, struct arena *arena, struct metadata *ret,
		  struct error *err)
{
	struct metadata m;
	int r = doc_read(&metadata_format, text, &m, arena, err);

	if (r == 0)
		*ret = m;
	return r;
}

int metadata_write(const struct metadata *m, struct buf *out, struct error *err)
{
	return doc_write(&metadata_format, m, out, err);
}

int metadata_read_image(struct bytes text, struct arena *arena, struct metadata *ret,
			struct error *err)
{
	struct metadata m;
	int r = doc_read(&image_format, text, &m, arena, err);

	if (r == 0)
		*ret = m;
	return r;
}

int metadata_write_image(const struct metadata *m, struct buf *out, struct error *err)
{
	return doc_write(&image_format, m, out, err);
}

uint64_t metadata_vram_bytes(const struct metadata *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->gpu.n_processes; i++)
		if (__builtin_add_overflow(sum, m->gpu.processes[i].vram_bytes, &sum))
			return UINT64_MAX;
	return sum;
}
