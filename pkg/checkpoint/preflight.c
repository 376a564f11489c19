/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is checked before anything is touched. A check that fails says what was found, and changes
 * nothing.
 */
#include "checkpoint/operation.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "gpu/uuid.h"

static bool has(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], s) == 0)
			return true;
	return false;
}

static bool has_gpu(const char *const *list, size_t n, const char *uuid)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(list[i], uuid) == 0)
			return true;
	return false;
}

/* The environment may shorten a UUID, as nvidia-container-toolkit takes it. */
static bool begins_a_gpu(const char *const *list, size_t n, const char *start)
{
	for (size_t i = 0; i < n; i++)
		if (strncasecmp(list[i], start, strlen(start)) == 0)
			return true;
	return false;
}

static const struct seat_group *find_group(const struct node *node, const char *name)
{
	for (size_t i = 0; i < node->n_groups; i++)
		if (strcmp(node->groups[i].name, name) == 0)
			return &node->groups[i];
	return NULL;
}

/* Environment and annotation name the same thing in two places; a pod that lies in one is out. */
static int agree(const char *what, const char *env, const char *annotation, struct error *err)
{
	if (!*annotation || strcmp(env, annotation) == 0)
		return 0;
	return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
			    "%s is \"%s\" in the environment and \"%s\" in the annotation", what, env,
			    annotation);
}

bool preflight_is_gpu(const char *path)
{
	size_t n = strlen(path);

	return n > 0 && path[n - 1] >= '0' && path[n - 1] <= '9' && !strstr(path, "/nvidia-");
}

int preflight_seat(const struct node *node, const struct operation_request *req,
		   struct error *err)
{
	const struct seat_group *group;
	int r;

	r = agree("the GPU group", req->gpu_group, req->group_annotation, err);
	if (r == 0)
		r = agree("the GPU seat", req->gpu_seat, req->seat_annotation, err);
	if (r < 0)
		return r;
	if (*req->gpu_seat && !*req->gpu_group)
		return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
				    "seat \"%s\" is named without its group", req->gpu_seat);
	/* A node without a table has no device plugin that deals out seats. */
	if (!*req->gpu_group || node->n_groups == 0)
		return 0;
	group = find_group(node, req->gpu_group);
	if (!group)
		return error_reason(err, REASON_SEAT_MISMATCH, -ENOENT,
				    "this node has no GPU group \"%s\"", req->gpu_group);
	if (*req->gpu_seat && !has(group->seats, group->n_seats, req->gpu_seat))
		return error_reason(err, REASON_SEAT_MISMATCH, -ENOENT,
				    "GPU group \"%s\" has no seat \"%s\"", group->name,
				    req->gpu_seat);
	for (size_t i = 0; i < req->n_device_paths && group->n_device_paths; i++)
		if (preflight_is_gpu(req->device_paths[i]) &&
		    !has(group->device_paths, group->n_device_paths, req->device_paths[i]))
			return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
					    "the container has %s, which is not of GPU group \"%s\"",
					    req->device_paths[i], group->name);
	/* By number or "all" it names what the driver numbers, which the devices above tell better. */
	for (size_t i = 0; i < req->n_visible_devices && group->n_gpu_uuids; i++)
		if (strncasecmp(req->visible_devices[i], "GPU-", 4) == 0 &&
		    !begins_a_gpu(group->gpu_uuids, group->n_gpu_uuids, req->visible_devices[i]))
			return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
					    "NVIDIA_VISIBLE_DEVICES names %.64s, which is not of GPU "
					    "group \"%s\"",
					    req->visible_devices[i], group->name);
	for (size_t i = 0; i < req->n_pod_gpus && group->n_gpu_uuids; i++)
		if (!has_gpu(group->gpu_uuids, group->n_gpu_uuids, req->pod_gpus[i]))
			return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
					    "kubelet has given %s to the pod, which is not of GPU group "
					    "\"%s\"",
					    req->pod_gpus[i], group->name);
	return 0;
}

int preflight_gpus(const struct node *node, const struct operation_request *req,
		   const struct gpu_group *group, struct error *err)
{
	const struct seat_group *seats = *req->gpu_group ? find_group(node, req->gpu_group) : NULL;
	const struct gpu_memory *memory = gpu_group_memory(group);

	for (size_t i = 0; i < gpu_group_size(group); i++) {
		const struct gpu_member *m = gpu_group_member(group, i);

		for (uint32_t k = 0; k < memory->n_devices; k++) {
			char uuid[GPU_UUID_TEXT_MAX];

			if (!(m->devices & (1U << k)))
				continue;
			(void)gpu_uuid_format(&memory->devices[k].uuid, uuid);
			if (seats && seats->n_gpu_uuids &&
			    !has_gpu(seats->gpu_uuids, seats->n_gpu_uuids, uuid))
				return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
						    "process %d (%s) uses %s, which is not of GPU group "
						    "\"%s\"",
						    m->pid, m->name, uuid, seats->name);
			if (req->n_pod_gpus && !has_gpu(req->pod_gpus, req->n_pod_gpus, uuid))
				return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
						    "process %d (%s) uses %s, which kubelet has not given "
						    "to its pod",
						    m->pid, m->name, uuid);
		}
	}
	return 0;
}

/*
 * kubelet puts the pod's uid into the cgroup's path, with '-' or, under systemd, '_'. Where the
 * path names no pod at all (ctr, a test), there is nothing to compare.
 */
int preflight_pod(const struct operation_request *req, const struct cgroup *cg, struct error *err)
{
	char path[PATH_MAX], uid[128];
	size_t n;
	int r;

	if (!*req->pod_uid)
		return 0;
	r = cgroup_path(cg, cg->host->mode == CGROUP_V1 ? CGROUP_MEMORY : CGROUP_BLKIO, path,
			sizeof(path));
	if (r < 0)
		return error_reason(err, REASON_POD_MISMATCH, r,
				    "the container's cgroup cannot be found");
	n = strlen(req->pod_uid);
	if (n >= sizeof(uid))
		return error_reason(err, REASON_POD_MISMATCH, -EINVAL, "the pod uid is too long");
	memcpy(uid, req->pod_uid, n + 1);
	if (!strstr(path, "kubepods"))
		return 0;
	if (strstr(path, uid))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (uid[i] == '-')
			uid[i] = '_';
	if (strstr(path, uid))
		return 0;
	return error_reason(err, REASON_POD_MISMATCH, -EINVAL,
			    "process %d is in cgroup %s, which is not of pod %s", req->task_pid, path,
			    req->pod_uid);
}

static void worker_back(struct gpu_call *call)
{
	struct operation *op = container_of(call, struct operation, memory_call);
	struct error err = ERROR_NULL;
	int r = op->flow.canceled ? -ECANCELED : gpu_worker_usable(op->node->worker, &err);

	if (r == 0)
		r = op->go_on(op, &err);
	if (r != FLOW_WAIT)
		flow_resume(&op->flow, r, &err);
}

nsec_t preflight_worker_deadline(const struct operation *op)
{
	return time_add(time_now(), operation_step_left(op) / 2);
}

int preflight_driver(struct operation *op, int (*go_on)(struct operation *op, struct error *err),
		     struct error *err)
{
	struct gpu_worker *worker = op->node->worker;
	struct error why = ERROR_NULL;
	int r = op->req.gpu ? gpu_worker_usable(worker, &why) : 0;

	if (r == 0)
		return go_on(op, err);
	if (r != -EAGAIN) {
		*err = why;
		return r;
	}
	log_info("waits for the CUDA worker", F_STR("id", op->req.container_id), F_ERR(&why));
	op->go_on = go_on;
	gpu_worker_memory(worker, &op->memory_call, &op->memory, preflight_worker_deadline(op),
			  worker_back);
	return FLOW_WAIT;
}
