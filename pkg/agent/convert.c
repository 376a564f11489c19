/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/path.h"
#include "gpu/uuid.h"
#include "rpc/pb.h"

/* --- requests ------------------------------------------------------------------------------- */

static int take_context(const Kybernate__Agent__V1__Context *x, struct operation_request *ret,
			struct error *err)
{
	if (!x)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "the first request of a stream carries the context (field 6)");
	ret->ns = x->containerd_namespace;
	ret->task_pid = (pid_t)x->task_pid;
	ret->shim_pid = (pid_t)x->shim_pid;
	ret->bundle = x->bundle;
	ret->pod_name = x->pod_name;
	ret->pod_namespace = x->pod_namespace;
	ret->sandbox_id = x->sandbox_id;
	ret->container_name = x->container_name;
	ret->seat_generation = x->seat_generation;
	ret->group_annotation = x->group_annotation;
	ret->seat_annotation = x->seat_annotation;
	ret->runtime = x->runtime;
	ret->gpu = x->gpu;
	ret->device_paths = (const char *const *)x->device_paths;
	ret->n_device_paths = x->n_device_paths;
	ret->visible_devices = (const char *const *)x->visible_devices;
	ret->n_visible_devices = x->n_visible_devices;
	return 0;
}

static int check_names(const struct operation_request *req, struct error *err)
{
	if (!id_valid(req->container_id))
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "\"%.80s\" is no container id", req->container_id);
	if (!id_valid(req->ns))
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "\"%.80s\" is no containerd namespace", req->ns);
	if (*req->ref && !ref_valid(req->ref))
		return error_reason(err, REASON_REF_INVALID, -EINVAL,
				    "\"%.160s\" is no name for a checkpoint", req->ref);
	return 0;
}

static int check_task(const struct operation_request *req, struct error *err)
{
	if (req->task_pid > 0)
		return 0;
	return error_reason(err, REASON_CONTAINER_MISSING, -ESRCH, "container %s has no process",
			    req->container_id);
}

/* --- what a suspended container holds ------------------------------------------------------- */

static int take_member(const Kybernate__Agent__V1__GpuProcess *p, const struct gpu_memory *memory,
		       struct gpu_member *ret)
{
	*ret = (struct gpu_member){ .pid = (pid_t)p->pid,
				    .start_time = p->start_time,
				    .vram_bytes = p->vram_bytes };
	for (size_t i = 0; i < p->n_gpu_uuids; i++) {
		struct cuda_uuid uuid;
		uint32_t k = 0;

		if (gpu_uuid_parse(p->gpu_uuids[i], &uuid) < 0)
			return -EBADMSG;
		while (k < memory->n_devices &&
		       memcmp(&memory->devices[k].uuid, &uuid, sizeof(uuid)) != 0)
			k++;
		if (k == memory->n_devices)
			return -EBADMSG;
		ret->devices |= 1U << k;
	}
	return ret->pid > 0 && ret->start_time ? 0 : -EBADMSG;
}

static int fill_held(const Kybernate__Agent__V1__Held *m, struct gpu_memory *memory,
		     struct gpu_member *members)
{
	for (size_t i = 0; i < m->n_devices; i++) {
		struct gpu_device *dev = &memory->devices[i];

		gpu_device_init(dev);
		if (gpu_uuid_parse(m->devices[i]->uuid, &dev->uuid) < 0)
			return -EBADMSG;
		GPU_TEXT_SET(dev->name, m->devices[i]->chip);
		dev->total = m->devices[i]->memory_bytes;
	}
	memory->n_devices = (uint32_t)m->n_devices;
	for (size_t i = 0; i < m->n_processes; i++)
		if (take_member(m->processes[i], memory, &members[i]) < 0)
			return -EBADMSG;
	return 0;
}

static int take_held(const ProtobufCBinaryData *packed, struct arena *mem,
		     const struct gpu_held **ret, struct error *err)
{
	const Kybernate__Agent__V1__Held *m;
	struct gpu_held *held = arena_alloc(mem, sizeof(*held));
	struct gpu_memory *memory = arena_alloc(mem, sizeof(*memory));
	struct gpu_member *members = NULL;

	if (!packed->len)
		return 0;
	m = pb_unpack(&kybernate__agent__v1__held__descriptor, bytes_of(packed->data, packed->len),
		      mem);
	if (m && m->n_processes <= GPU_GROUP_MAX)
		members = arena_alloc(mem, (m->n_processes + 1) * sizeof(*members));
	if (!held || !memory || !members || m->n_devices > GPU_DEVICES_MAX ||
	    fill_held(m, memory, members) < 0)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EBADMSG,
				 "what the container holds cannot be decoded");
	*held = (struct gpu_held){ members, m->n_processes, memory };
	*ret = held;
	return 0;
}

static int put_device(const struct gpu_device *dev, struct arena *mem,
		      Kybernate__Agent__V1__GpuDevice *ret)
{
	char uuid[GPU_UUID_TEXT_MAX];

	kybernate__agent__v1__gpu_device__init(ret);
	ret->uuid = arena_strdup(mem, gpu_uuid_format(&dev->uuid, uuid));
	ret->chip = (char *)dev->name;
	ret->memory_bytes = dev->total == GPU_BYTES_UNKNOWN ? 0 : dev->total;
	return ret->uuid ? 0 : -ENOMEM;
}

static int put_member(const struct gpu_member *p, Kybernate__Agent__V1__GpuDevice **devices,
		      size_t n, struct arena *mem, Kybernate__Agent__V1__GpuProcess *ret)
{
	kybernate__agent__v1__gpu_process__init(ret);
	ret->gpu_uuids = arena_alloc(mem, (n + 1) * sizeof(*ret->gpu_uuids));
	if (!ret->gpu_uuids)
		return -ENOMEM;
	ret->pid = (uint32_t)p->pid;
	ret->ns_pid = (uint32_t)p->ns_pid;
	ret->start_time = p->start_time;
	ret->name = (char *)p->name;
	ret->vram_bytes = p->vram_bytes == GPU_BYTES_UNKNOWN ? 0 : p->vram_bytes;
	for (size_t i = 0; i < n; i++)
		if (p->devices & (1U << i))
			ret->gpu_uuids[ret->n_gpu_uuids++] = devices[i]->uuid;
	return 0;
}

int convert_make_held(const struct operation *op, struct arena *mem, ProtobufCBinaryData *ret)
{
	const struct gpu_memory *memory = gpu_group_memory(op->group);
	size_t n = gpu_group_size(op->group), n_devices = memory->n_devices;
	Kybernate__Agent__V1__GpuProcess *members = arena_alloc(mem, (n + 1) * sizeof(*members));
	Kybernate__Agent__V1__GpuDevice *devices = arena_alloc(mem, (n_devices + 1) * sizeof(*devices));
	Kybernate__Agent__V1__Held m = KYBERNATE__AGENT__V1__HELD__INIT;

	m.processes = arena_alloc(mem, (n + 1) * sizeof(*m.processes));
	m.devices = arena_alloc(mem, (n_devices + 1) * sizeof(*m.devices));
	if (!members || !devices || !m.processes || !m.devices)
		return -ENOMEM;
	for (size_t i = 0; i < n_devices; i++) {
		m.devices[i] = &devices[i];
		if (put_device(&memory->devices[i], mem, m.devices[i]) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		const struct gpu_member *p = gpu_group_member(op->group, i);

		if (p->gone)
			continue;
		m.processes[m.n_processes] = &members[i];
		if (put_member(p, m.devices, n_devices, mem, m.processes[m.n_processes++]) < 0)
			return -ENOMEM;
	}
	m.n_devices = n_devices;
	ret->data = pb_pack_arena(&m.base, mem, &ret->len);
	return ret->data ? 0 : -ENOMEM;
}

/* --- mounts --------------------------------------------------------------------------------- */

static int take_mounts(const Kybernate__Agent__V1__CheckpointOptions *o, struct arena *mem,
		       struct mount_records *ret, struct error *err)
{
	if (o->n_mounts > MOUNT_RECORDS_MAX)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -E2BIG, "more than %d mounts",
				 MOUNT_RECORDS_MAX);
	*ret = (struct mount_records){ .items = arena_alloc(mem, (o->n_mounts + 1) *
								      sizeof(*ret->items)) };
	if (!ret->items)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < o->n_mounts; i++) {
		const Kybernate__Agent__V1__Mount *m = o->mounts[i];

		if (!*m->destination || !*m->kind || !*m->type || !*m->root)
			return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
					 "a mount without destination, kind, type or root");
		ret->items[ret->n++] = (struct mount_record){
			.destination = m->destination,
			.kind = m->kind,
			.type = m->type,
			.root = m->root,
			.source = *m->source ? m->source : NULL,
			.size = m->size,
			.external = m->external,
			.configured = m->configured,
			.in_root = m->in_root,
		};
	}
	return 0;
}

size_t convert_mounts(const struct mount_record *mounts, size_t n, struct arena *mem,
		      Kybernate__Agent__V1__Mount ***ret)
{
	Kybernate__Agent__V1__Mount *m = arena_alloc(mem, (n + 1) * sizeof(*m));

	*ret = arena_alloc(mem, (n + 1) * sizeof(**ret));
	if (!m || !*ret) {
		*ret = NULL;
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		const struct mount_record *r = &mounts[i];

		kybernate__agent__v1__mount__init(&m[i]);
		m[i].destination = (char *)r->destination;
		m[i].kind = (char *)r->kind;
		m[i].type = (char *)r->type;
		m[i].root = (char *)r->root;
		m[i].source = (char *)(r->source ? r->source : "");
		m[i].size = r->size;
		m[i].external = r->external;
		m[i].configured = r->configured;
		m[i].in_root = r->in_root;
		(*ret)[i] = &m[i];
	}
	return n;
}

int convert_checkpoint_request(const Kybernate__Agent__V1__CheckpointRequest *m,
			       struct operation_request *ret, struct arena *mem,
			       struct error *err)
{
	struct operation_request req = { .kind = OPERATION_CHECKPOINT,
					 .container_id = m->container_id,
					 .pod_uid = m->pod_uid,
					 .gpu_group = m->gpu_group,
					 .gpu_seat = m->gpu_seat,
					 .timeout_ms = m->timeout_ms };
	const Kybernate__Agent__V1__CheckpointOptions *o = m->options;
	int r = take_context(m->context, &req, err);

	if (r == 0 && !o)
		r = error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
			      "the first request of a checkpoint carries options (field 7)");
	if (r < 0)
		return r;
	req.exit = o->exit;
	req.paused = o->paused;
	req.image_path = o->image_path;
	req.work_path = o->work_path;
	req.ref = o->checkpoint_ref;
	req.runtime_flags = (const char *const *)o->runtime_flags;
	req.n_runtime_flags = o->n_runtime_flags;
	req.resume = m->resume;
	req.resume_order = (enum order)m->resume_order;
	r = check_names(&req, err);
	if (r == 0)
		r = check_task(&req, err);
	if (r == 0)
		r = take_held(&o->held, mem, &req.held, err);
	if (r == 0)
		r = take_mounts(o, mem, &req.mounts, err);
	if (r == 0)
		*ret = req;
	return r;
}

int convert_suspend_request(const Kybernate__Agent__V1__SuspendRequest *m,
			    struct operation_request *ret, struct arena *mem, struct error *err)
{
	struct operation_request req = { .kind = m->resume ? OPERATION_RESUME : OPERATION_SUSPEND,
					 .container_id = m->container_id,
					 .pod_uid = m->pod_uid,
					 .gpu_group = m->gpu_group,
					 .gpu_seat = m->gpu_seat,
					 .ref = "",
					 .timeout_ms = m->timeout_ms };
	int r = take_context(m->context, &req, err);

	if (r == 0)
		r = check_names(&req, err);
	if (r == 0)
		r = check_task(&req, err);
	if (r == 0)
		r = take_held(&m->held, mem, &req.held, err);
	if (r == 0)
		*ret = req;
	return r;
}

int convert_restore_request(const Kybernate__Agent__V1__RestoreRequest *m,
			    struct operation_request *ret, struct error *err)
{
	struct operation_request req = { .kind = m->stage ? OPERATION_PREPARE : OPERATION_RESTORE,
					 .container_id = m->container_id,
					 .pod_uid = m->pod_uid,
					 .gpu_group = m->gpu_group,
					 .gpu_seat = m->gpu_seat,
					 .ref = m->checkpoint_ref,
					 .image_path = m->image_path,
					 .timeout_ms = m->timeout_ms };
	int r = take_context(m->context, &req, err);

	if (r == 0)
		r = check_names(&req, err);
	if (r == 0)
		*ret = req;
	return r;
}

int convert_order_result(const pb_order_result *m, struct operation *op, struct error *err)
{
	const pb_error *e = m->error;

	if (m->ok)
		return 0;
	if (!e)
		return error_reason(err, REASON_RUNTIME_FAILED, -EREMOTEIO,
				    "the shim failed without saying why");
	for (size_t i = 0; i < e->n_detail; i++)
		operation_add_detail(op, e->detail[i]);
	return error_reason(err, e->reason ? (enum reason)e->reason : REASON_RUNTIME_FAILED,
			    -EREMOTEIO, "%s", e->message);
}

/* --- answers -------------------------------------------------------------------------------- */

pb_error *convert_error(const struct error *err, enum phase phase, const struct operation *op,
			pb_error *buf)
{
	kybernate__agent__v1__error__init(buf);
	buf->reason = (Kybernate__Agent__V1__Reason)err->reason;
	buf->phase = (Kybernate__Agent__V1__Phase)phase;
	buf->message = (char *)error_text(err);
	buf->transient = reason_is_transient(err->reason);
	if (op) {
		buf->detail = (char **)op->detail;
		buf->n_detail = op->n_detail;
	}
	return buf;
}

pb_progress *convert_progress(const struct operation *op, pb_progress *buf)
{
	kybernate__agent__v1__progress__init(buf);
	buf->bytes_done = op->bytes_done;
	buf->bytes_total = op->bytes_total;
	buf->processes = op->group ? (uint32_t)gpu_group_size(op->group) : 0;
	buf->elapsed_ms = (time_now() - op->begun) / NSEC_PER_MSEC;
	return buf;
}

size_t convert_timeline(const struct operation *op, struct arena *mem, pb_phase_time ***ret)
{
	pb_phase_time **list = arena_alloc(mem, (op->n_times + 1) * sizeof(*list));
	pb_phase_time *all = arena_alloc(mem, (op->n_times + 1) * sizeof(*all));

	*ret = list;
	if (!list || !all)
		return 0;
	for (size_t i = 0; i < op->n_times; i++) {
		const struct phase_time *t = &op->times[i];

		kybernate__agent__v1__phase_time__init(&all[i]);
		all[i].phase = (Kybernate__Agent__V1__Phase)t->phase;
		all[i].start_us = t->start / NSEC_PER_USEC;
		all[i].duration_us = t->duration / NSEC_PER_USEC;
		all[i].bytes = t->bytes;
		all[i].undo = t->undo;
		list[i] = &all[i];
	}
	return op->n_times;
}

static char *text(const char *s)
{
	return (char *)(s ? s : "");
}

static int fill_processes(const struct metadata *m, struct arena *mem, pb_checkpoint_info *info)
{
	size_t n = m->gpu.n_processes;
	Kybernate__Agent__V1__GpuProcess *all = arena_alloc(mem, (n + 1) * sizeof(*all));

	info->processes = arena_alloc(mem, (n + 1) * sizeof(*info->processes));
	if (!all || !info->processes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct metadata_process *p = &m->gpu.processes[i];

		kybernate__agent__v1__gpu_process__init(&all[i]);
		all[i].pid = (uint32_t)p->pid;
		all[i].ns_pid = (uint32_t)p->ns_pid;
		all[i].name = text(p->name);
		all[i].vram_bytes = p->vram_bytes;
		all[i].gpu_uuids = (char **)p->gpu_uuids;
		all[i].n_gpu_uuids = p->n_gpu_uuids;
		info->processes[i] = &all[i];
	}
	info->n_processes = n;
	return 0;
}

pb_checkpoint_info *convert_checkpoint_info(const struct metadata *m, struct arena *mem)
{
	pb_checkpoint_info *info = arena_alloc(mem, sizeof(*info));

	if (!info)
		return NULL;
	kybernate__agent__v1__checkpoint_info__init(info);
	info->checkpoint_ref = text(m->ref);
	info->container_id = text(m->container.id);
	info->containerd_namespace = text(m->container.containerd_namespace);
	info->pod_uid = text(m->pod.uid);
	info->pod_name = text(m->pod.name);
	info->pod_namespace = text(m->pod.namespace);
	info->image = text(m->container.image);
	info->created_at = text(m->created_at);
	info->size_bytes = m->manifest.bytes;
	info->vram_bytes = metadata_vram_bytes(m);
	info->driver_version = text(m->gpu.driver_version);
	info->gpu_group = text(m->gpu.group);
	info->gpu_seat = text(m->gpu.seat);
	info->files = (uint32_t)m->manifest.files;
	info->runtime = text(m->container.runtime);
	info->container_name = text(m->container.name);
	return fill_processes(m, mem, info) < 0 ? NULL : info;
}
