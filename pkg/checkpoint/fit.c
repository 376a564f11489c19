/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/fit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gpu/capability.h"
#include "gpu/uuid.h"

/* A description need not tell everything. */
static const char *or_unknown(const char *s)
{
	return s ? s : "?";
}

/* --- GPUs ----------------------------------------------------------------------------------- */

static const struct gpu_device *find_device(const struct gpu_memory *mem,
					    const struct cuda_uuid *uuid)
{
	for (uint32_t i = 0; i < mem->n_devices; i++)
		if (memcmp(&mem->devices[i].uuid, uuid, sizeof(*uuid)) == 0)
			return &mem->devices[i];
	return NULL;
}

static const struct gpu_device *find_named(const struct gpu_memory *mem, const char *uuid)
{
	struct cuda_uuid want;

	return gpu_uuid_parse(uuid, &want) < 0 ? NULL : find_device(mem, &want);
}

/* Of the container's device nodes: those that are one GPU's. */
static bool has_nodes(const struct fit_scope *scope)
{
	for (size_t i = 0; i < scope->n_device_paths; i++)
		if (preflight_is_gpu(scope->device_paths[i]))
			return true;
	return false;
}

/* The driver opens the node of the GPU it restores onto, inside of the container. */
static bool has_node(const struct fit_scope *scope, const struct gpu_device *dev)
{
	char node[64];

	if (dev->minor == GPU_NUMBER_UNKNOWN || !has_nodes(scope))
		return true;
	(void)snprintf(node, sizeof(node), GPU_NODE "%d", dev->minor);
	for (size_t i = 0; i < scope->n_device_paths; i++)
		if (strcmp(scope->device_paths[i], node) == 0)
			return true;
	return false;
}

static bool given(const struct fit_scope *scope, const char *uuid)
{
	for (size_t i = 0; i < scope->n_pod_gpus; i++)
		if (strcasecmp(scope->pod_gpus[i], uuid) == 0)
			return true;
	return scope->n_pod_gpus == 0;
}

/* May the new container use this GPU? Decided by its group, where the node has a table, by its
 * device nodes, where it has any, and by what kubelet says. */
static bool allowed(const struct fit_scope *scope, const struct gpu_device *dev)
{
	const struct node *node = scope->node;
	char text[GPU_UUID_TEXT_MAX];

	if (!has_node(scope, dev))
		return false;
	(void)gpu_uuid_format(&dev->uuid, text);
	if (!given(scope, text))
		return false;
	for (size_t i = 0; i < node->n_groups; i++) {
		const struct seat_group *g = &node->groups[i];

		if (strcmp(g->name, scope->gpu_group) != 0)
			continue;
		for (size_t k = 0; k < g->n_gpu_uuids; k++)
			if (strcasecmp(g->gpu_uuids[k], text) == 0)
				return true;
		return false;
	}
	return true;
}

/* One whose chip is not known, which a description need not tell, goes nowhere but to itself. */
static bool same_chip(const struct gpu_device *dev, const char *chip)
{
	return chip && strcmp(dev->name, chip) == 0;
}

/* The one with the most memory free of those that nobody has taken. */
static const struct gpu_device *best_free(const struct fit_scope *scope,
					  const struct gpu_memory *mem, const char *chip,
					  const bool *taken)
{
	const struct gpu_device *best = NULL;

	for (uint32_t k = 0; k < mem->n_devices; k++) {
		const struct gpu_device *dev = &mem->devices[k];

		if (taken[k] || !allowed(scope, dev) || !same_chip(dev, chip))
			continue;
		if (!best || (dev->free != GPU_BYTES_UNKNOWN && dev->free > best->free))
			best = dev;
	}
	return best;
}

int fit_map(const struct metadata_gpu *gpu, const struct gpu_memory *mem,
	    const struct fit_scope *scope, const struct gpu_device **ret_target, bool *ret_moved,
	    struct error *err)
{
	bool taken[GPU_DEVICES_MAX] = { false };

	*ret_moved = false;
	for (size_t i = 0; i < gpu->n_devices; i++) {
		const struct gpu_device *dev = find_named(mem, gpu->devices[i].uuid);

		ret_target[i] = dev && allowed(scope, dev) ? dev : NULL;
		if (ret_target[i])
			taken[dev - mem->devices] = true;
	}
	for (size_t i = 0; i < gpu->n_devices; i++) {
		if (ret_target[i])
			continue;
		ret_target[i] = best_free(scope, mem, gpu->devices[i].chip, taken);
		if (!ret_target[i])
			return error_reason(err, REASON_GPU_MISMATCH, -ENODEV,
					    "no GPU here for %s (%s) of the checkpoint",
					    gpu->devices[i].uuid, or_unknown(gpu->devices[i].chip));
		taken[ret_target[i] - mem->devices] = true;
		*ret_moved = true;
	}
	return 0;
}

static int map_gpus(struct operation *op, const struct gpu_device **ret_target, struct error *err)
{
	const struct metadata_gpu *gpu = &op->metadata.gpu;
	const struct fit_scope scope = { .node = op->node,
					 .gpu_group = op->req.gpu_group,
					 .device_paths = op->req.device_paths,
					 .n_device_paths = op->req.n_device_paths,
					 .pod_gpus = op->req.pod_gpus,
					 .n_pod_gpus = op->req.n_pod_gpus };
	bool moved;
	int r = fit_map(gpu, &op->memory, &scope, ret_target, &moved, err);

	if (r < 0 || !moved)
		return r;
	for (size_t i = 0; i < gpu->n_devices; i++) {
		(void)gpu_uuid_parse(gpu->devices[i].uuid, &op->pairs[i].old_gpu);
		op->pairs[i].new_gpu = ret_target[i]->uuid;
	}
	op->n_pairs = (uint32_t)gpu->n_devices; /* all of them, moved or not */
	return 0;
}

/* GPU memory that the checkpoint needs on its i-th GPU: what is known, shared out evenly over the
 * GPUs of a process. */
static uint64_t needed_on(const struct metadata_gpu *gpu, size_t i)
{
	uint64_t sum = 0;

	for (size_t p = 0; p < gpu->n_processes; p++) {
		const struct metadata_process *proc = &gpu->processes[p];

		for (size_t k = 0; k < proc->n_gpu_uuids; k++)
			if (strcmp(proc->gpu_uuids[k], gpu->devices[i].uuid) == 0)
				sum += proc->vram_bytes / proc->n_gpu_uuids;
	}
	return sum;
}

static int check_room(const struct gpu_device *dev, uint64_t need, struct error *err)
{
	char uuid[GPU_UUID_TEXT_MAX];

	if (dev->free == GPU_BYTES_UNKNOWN || need <= dev->free)
		return 0;
	return error_reason(err, REASON_VRAM_SHORT, -ENOMEM,
			    "%s has %" PRIu64 " MiB of GPU memory free, not promised to "
			    "others, %" PRIu64 " MiB are needed to bring it back",
			    gpu_uuid_format(&dev->uuid, uuid), dev->free >> 20, need >> 20);
}

/* NVML counts as free what others are promised: neither is there room for it, nor is a GPU chosen
 * because of it. */
static void take_off_promised(struct operation *op)
{
	for (uint32_t i = 0; i < op->memory.n_devices; i++) {
		struct gpu_device *dev = &op->memory.devices[i];
		uint64_t taken = gpu_promised(&op->node->returning, &op->promise, &dev->uuid);

		if (dev->free != GPU_BYTES_UNKNOWN)
			dev->free -= taken < dev->free ? taken : dev->free;
	}
}

static int check_memory(struct operation *op, const struct gpu_device *const *target,
			struct error *err)
{
	const struct metadata_gpu *gpu = &op->metadata.gpu;

	gpu_promise_clear(&op->promise);
	for (size_t i = 0; i < gpu->n_devices; i++) {
		uint64_t need = needed_on(gpu, i);
		int r = check_room(target[i], need, err);

		if (r < 0)
			return r;
		gpu_promise_add(&op->promise, &target[i]->uuid, need);
	}
	return 0;
}

static int check_driver(const struct operation *op, const struct gpu_hello *hello,
			struct error *err)
{
	const char *then = op->metadata.gpu.driver_version;

	/* Files of the driver are mapped into the process under names that hold its version. */
	if (!then || !hello->driver_version[0] || strcmp(then, hello->driver_version) == 0)
		return 0;
	return error_reason(err, REASON_DRIVER_MISMATCH, -EINVAL,
			    "the checkpoint was made under driver %s, this node has %s", then,
			    hello->driver_version);
}

int fit_check(struct operation *op, struct error *err)
{
	const struct gpu_device *target[GPU_DEVICES_MAX];
	const struct gpu_hello *hello;
	int r;

	if (op->metadata.gpu.n_processes == 0)
		return 0;
	r = gpu_worker_usable(op->node->worker, err);
	if (r < 0)
		return r;
	hello = gpu_worker_info(op->node->worker);
	r = check_driver(op, hello, err);
	take_off_promised(op);
	if (r == 0)
		r = map_gpus(op, target, err);
	if (r == 0 && op->n_pairs && !(hello->caps & GPU_CAP_GPU_PAIRS))
		r = error_reason(err, REASON_GPU_MISMATCH, -EOPNOTSUPP,
				 "the checkpoint's GPUs are not those of this seat, and this driver "
				 "cannot map GPUs (from branch 580 on)");
	if (r == 0)
		r = check_memory(op, target, err);
	return r;
}

/* --- a container that is held ----------------------------------------------------------------- */

/* As needed_on(). */
static uint64_t held_on(const struct gpu_group *g, uint32_t device)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);

		if (!m->gone && (m->devices & (1U << device)) && m->vram_bytes != GPU_BYTES_UNKNOWN)
			sum += m->vram_bytes / (uint64_t)__builtin_popcount(m->devices);
	}
	return sum;
}

int fit_held(struct operation *op, struct error *err)
{
	const struct gpu_memory *was = gpu_group_memory(op->group);

	take_off_promised(op);
	for (uint32_t i = 0; i < was->n_devices; i++) {
		const struct gpu_device *dev = find_device(&op->memory, &was->devices[i].uuid);
		uint64_t need = held_on(op->group, i);
		char uuid[GPU_UUID_TEXT_MAX];
		int r;

		if (!need)
			continue;
		if (!dev)
			return error_reason(err, REASON_GPU_MISMATCH, -ENODEV,
					    "%s, whose memory the container held, is not there",
					    gpu_uuid_format(&was->devices[i].uuid, uuid));
		r = check_room(dev, need, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- processes ------------------------------------------------------------------------------ */

static const struct gpu_member *find_member(const struct gpu_group *g, uint64_t ns_pid)
{
	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);

		if (!m->gone && (uint64_t)m->ns_pid == ns_pid)
			return m;
	}
	return NULL;
}

int fit_processes(const struct operation *op, struct error *err)
{
	const struct metadata_gpu *gpu = &op->metadata.gpu;

	for (size_t i = 0; i < gpu->n_processes; i++) {
		const struct gpu_member *m = find_member(op->group, gpu->processes[i].ns_pid);

		if (!m)
			return error_reason(err, REASON_CUDA_STATE_WRONG, -ESRCH,
					    "process %" PRIu64 " (%s) of the checkpoint is not a CUDA "
					    "process after the restore",
					    gpu->processes[i].ns_pid, or_unknown(gpu->processes[i].name));
		if (m->state != CUDA_STATE_CHECKPOINTED)
			return error_reason(err, REASON_CUDA_STATE_WRONG, -EPROTO,
					    "process %d (%s) is %s after CRIU's restore, it should be "
					    "CHECKPOINTED",
					    m->pid, m->name, gpu_state_name(m->state));
	}
	if (gpu_group_size(op->group) != gpu->n_processes)
		return error_reason(err, REASON_CUDA_STATE_WRONG, -EPROTO,
				    "%zu CUDA processes after the restore, the checkpoint has %zu",
				    gpu_group_size(op->group), gpu->n_processes);
	return 0;
}

/* --- where they are ------------------------------------------------------------------------- */

/* Was this GPU of before one that the process used, and is dev where that one was to go? */
static bool expected_here(const struct operation *op, const struct metadata_process *p,
			  const struct gpu_device *dev)
{
	for (size_t k = 0; k < p->n_gpu_uuids; k++) {
		struct cuda_uuid uuid;

		if (gpu_uuid_parse(p->gpu_uuids[k], &uuid) < 0)
			continue;
		for (uint32_t i = 0; i < op->n_pairs; i++) {
			if (memcmp(&op->pairs[i].old_gpu, &uuid, sizeof(uuid)) == 0) {
				uuid = op->pairs[i].new_gpu;
				break;
			}
		}
		if (memcmp(&dev->uuid, &uuid, sizeof(uuid)) == 0)
			return true;
	}
	return false;
}

static const struct metadata_process *described(const struct operation *op,
						const struct gpu_member *m)
{
	for (size_t i = 0; i < op->metadata.gpu.n_processes; i++)
		if (op->metadata.gpu.processes[i].ns_pid == (uint64_t)m->ns_pid)
			return &op->metadata.gpu.processes[i];
	return NULL;
}

static bool in_place(const struct operation *op, const struct gpu_member *m,
		     const struct gpu_device *dev)
{
	const struct gpu_memory *was = gpu_group_memory(op->group);
	const struct metadata_process *p = described(op, m);

	if (p)
		return p->n_gpu_uuids == 0 || expected_here(op, p, dev);
	if (!m->devices)
		return true; /* not known where it was */
	for (uint32_t i = 0; i < was->n_devices; i++)
		if ((m->devices & (1U << i)) &&
		    memcmp(&was->devices[i].uuid, &dev->uuid, sizeof(dev->uuid)) == 0)
			return true;
	return false;
}

int fit_placed(const struct operation *op, struct error *err)
{
	for (uint32_t i = 0; i < op->memory.n_processes; i++) {
		const struct gpu_process *now = &op->memory.processes[i];
		const struct gpu_device *dev = &op->memory.devices[now->device];
		char uuid[GPU_UUID_TEXT_MAX];

		for (size_t k = 0; k < gpu_group_size(op->group); k++) {
			const struct gpu_member *m = gpu_group_member(op->group, k);

			if (m->gone || m->pid != now->pid || in_place(op, m, dev))
				continue;
			return error_reason(err, REASON_CUDA_STATE_WRONG, -EPROTO,
					    "process %d (%s) was restored onto %s, which is not the "
					    "GPU it was to be on",
					    m->pid, m->name, gpu_uuid_format(&dev->uuid, uuid));
		}
	}
	return 0;
}

/* NVML may still count a little of what has just been freed. */
int fit_freed(const struct operation *op, struct error *err)
{
	for (size_t k = 0; k < gpu_group_size(op->group); k++) {
		const struct gpu_member *m = gpu_group_member(op->group, k);
		uint64_t left = 0;

		if (m->gone || m->vram_bytes == GPU_BYTES_UNKNOWN)
			continue;
		for (uint32_t i = 0; i < op->memory.n_processes; i++)
			if (op->memory.processes[i].pid == m->pid &&
			    op->memory.processes[i].bytes != GPU_BYTES_UNKNOWN)
				left += op->memory.processes[i].bytes;
		if (left > m->vram_bytes / 2)
			return error_reason(err, REASON_CUDA_STATE_WRONG, -EPROTO,
					    "process %d (%s) still has %" PRIu64 " MiB of GPU memory "
					    "although the driver says that it is checkpointed",
					    m->pid, m->name, left >> 20);
	}
	return 0;
}
