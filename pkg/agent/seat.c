/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/seat.h"

#include <errno.h>
#include <stdio.h>

/* The shim's default (shim_settings.h, gpu.device_prefixes); its settings are not the agent's. */
#define DEVICE_PREFIX "/dev/nvidia"

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

int seat_read(const Svc__Container *record, pid_t pid, struct seat *ret, struct error *err)
{
	const char *items[] = { DEVICE_PREFIX };
	const struct setting_list prefixes = { items, 1 };
	const struct bundle *b = &ret->bundle;
	struct bundle_seat seat;
	int r;

	*ret = (struct seat){ 0 };
	if (!record || !record->spec)
		return error_reason(err, REASON_CONTAINERD_FAILED, -EBADMSG,
				    "containerd knows no specification of the container");
	r = bundle_parse(bytes_of(record->spec->value.data, record->spec->value.len), &prefixes,
			 &ret->bundle, err);
	if (r < 0) {
		err->reason = REASON_CONTAINERD_FAILED;
		return r;
	}
	r = bundle_seat(b, &seat, err);
	if (r < 0)
		return r;
	ret->req = (struct operation_request){
		.task_pid = pid,
		.gpu = b->gpu,
		.gpu_group = seat.group,
		.gpu_seat = seat.seat,
		.group_annotation = or_empty(b->annotation[ANNOTATION_GPU_GROUP]),
		.seat_annotation = or_empty(b->annotation[ANNOTATION_GPU_SEAT]),
		.pod_uid = or_empty(b->pod_uid),
		.pod_name = or_empty(b->pod_name),
		.pod_namespace = or_empty(b->pod_namespace),
		.container_name = or_empty(b->container_name),
		.device_paths = b->gpu_devices.items,
		.n_device_paths = b->gpu_devices.n,
	};
	return 0;
}

void seat_done(struct seat *s)
{
	bundle_done(&s->bundle);
}

void seat_describe(const struct seat *s, char *buf, size_t size)
{
	const struct operation_request *req = &s->req;

	if (!req->gpu)
		(void)snprintf(buf, size, "no GPU in the container's specification");
	else if (!*req->gpu_group)
		(void)snprintf(buf, size, "the container names no GPU group and no seat");
	else
		(void)snprintf(buf, size, "group \"%s\", seat \"%s\", %zu GPU devices, %zu GPUs by "
			       "kubelet", req->gpu_group, req->gpu_seat, req->n_device_paths,
			       req->n_pod_gpus);
}
