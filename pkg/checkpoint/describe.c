/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/describe.h"

#include <errno.h>
#include <string.h>

#include "gpu/uuid.h"

/* What is not known is left out: the description takes no empty text. */
static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

static const char *uuid_text(const struct gpu_device *dev, struct arena *mem)
{
	char buf[GPU_UUID_TEXT_MAX];

	return arena_strdup(mem, gpu_uuid_format(&dev->uuid, buf));
}

static int describe_process(const struct operation *op, const struct gpu_member *m,
			    struct arena *mem, struct metadata_process *ret)
{
	const struct gpu_memory *memory = gpu_group_memory(op->group);
	const char **uuids = arena_alloc(mem, GPU_DEVICES_MAX * sizeof(*uuids));
	size_t n = 0;

	if (!uuids)
		return -ENOMEM;
	for (uint32_t i = 0; i < memory->n_devices; i++) {
		if (!(m->devices & (1U << i)))
			continue;
		uuids[n] = uuid_text(&memory->devices[i], mem);
		if (!uuids[n++])
			return -ENOMEM;
	}
	*ret = (struct metadata_process){
		.pid = (uint64_t)m->pid,
		.ns_pid = (uint64_t)(m->ns_pid ? m->ns_pid : m->pid),
		.name = or_null(m->name), /* a process may call itself "" */
		.vram_bytes = m->vram_bytes == GPU_BYTES_UNKNOWN ? 0 : m->vram_bytes,
		.gpu_uuids = uuids,
		.n_gpu_uuids = n,
		.job = m->job,
	};
	return 0;
}

static int describe_gpu(const struct operation *op, struct arena *mem, struct metadata_gpu *ret)
{
	const struct gpu_hello *hello = gpu_worker_info(op->node->worker);
	size_t n = op->group ? gpu_group_size(op->group) : 0;
	const struct gpu_memory *memory = op->group ? gpu_group_memory(op->group) : NULL;
	struct metadata_process *processes = arena_alloc(mem, (n + 1) * sizeof(*processes));
	struct metadata_device *devices = arena_alloc(mem, GPU_DEVICES_MAX * sizeof(*devices));
	uint32_t used = 0;

	if (!processes || !devices)
		return -ENOMEM;
	ret->group = or_null(op->req.gpu_group);
	ret->seat = or_null(op->req.gpu_seat);
	ret->seat_generation = or_null(op->req.seat_generation);
	ret->processes = processes;
	ret->devices = devices;
	if (!n)
		return 0;
	ret->driver_version = hello ? or_null(hello->driver_version) : NULL; /* stays as long */
	for (size_t i = 0; i < n; i++) {
		const struct gpu_member *m = gpu_group_member(op->group, i);
		int r;

		if (m->gone || m->apart)
			continue;
		r = describe_process(op, m, mem, &processes[ret->n_processes++]);
		if (r < 0)
			return r;
		used |= m->devices;
	}
	for (uint32_t i = 0; i < memory->n_devices; i++) {
		const struct gpu_device *dev = &memory->devices[i];
		struct metadata_device *d = &devices[ret->n_devices];

		if (!(used & (1U << i)))
			continue;
		d->uuid = uuid_text(dev, mem);
		d->chip = or_null(dev->name);
		d->memory_bytes = dev->total == GPU_BYTES_UNKNOWN ? 0 : dev->total;
		if (dev->minor != GPU_NUMBER_UNKNOWN)
			d->node = arena_printf(mem, GPU_NODE "%d", dev->minor);
		if (!d->uuid || (dev->minor != GPU_NUMBER_UNKNOWN && !d->node))
			return -ENOMEM;
		ret->n_devices++;
	}
	return 0;
}

static int describe_phases(const struct operation *op, struct arena *mem, struct metadata *m)
{
	struct metadata_phase *p = arena_alloc(mem, (op->n_times + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < op->n_times; i++)
		p[i] = (struct metadata_phase){ .name = phase_name(op->times[i].phase),
						.start_us = op->times[i].start / NSEC_PER_USEC,
						.duration_us =
							op->times[i].duration / NSEC_PER_USEC,
						.bytes = op->times[i].bytes };
	m->phases = p;
	m->n_phases = op->n_times;
	m->duration_us = (time_now() - op->begun) / NSEC_PER_USEC;
	return 0;
}

int describe_checkpoint(const struct operation *op, struct arena *mem, struct metadata *ret)
{
	const struct operation_request *req = &op->req;
	char *stamp = arena_alloc(mem, TIME_RFC3339_MAX);
	int r;

	if (!stamp)
		return -ENOMEM;
	*ret = (struct metadata){
		.ref = or_null(req->ref),
		.created_at = time_rfc3339(time_wall(), stamp),
		.kybernate_version = KYB_VERSION,
		.runtime_flags = req->runtime_flags,
		.n_runtime_flags = req->n_runtime_flags,
		.exited = req->exit,
		.mounts = req->mounts.items,
		.n_mounts = req->mounts.n,
		.container = { .id = req->container_id,
			       .containerd_namespace = or_null(req->ns),
			       .name = or_null(req->container_name),
			       .image = or_null(req->image),
			       .image_digest = or_null(req->image_digest),
			       .snapshotter = or_null(req->snapshotter),
			       .parent_chain_id = or_null(req->parent_chain_id),
			       .runtime = or_null(req->runtime),
			       .runtime_type = or_null(req->runtime_type) },
		.pod = { .uid = or_null(req->pod_uid),
			 .name = or_null(req->pod_name),
			 .namespace = or_null(req->pod_namespace),
			 .sandbox_id = or_null(req->sandbox_id) },
	};
	r = describe_gpu(op, mem, &ret->gpu);
	return r < 0 ? r : describe_phases(op, mem, ret);
}
