/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is checked before anything is touched. A check that fails says what was found, and changes
 * nothing.
 */
#include "checkpoint/operation.h"

#include <errno.h>
#include <string.h>

static bool has(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], s) == 0)
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

/* Control devices such as /dev/nvidiactl, /dev/nvidia-uvm, /dev/nvidia-fs0 and
 * /dev/nvidia-nvswitch0 are everybody's: those with a number behind a known GPU prefix are one
 * group's. */
static bool is_numbered(const char *path)
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
		if (is_numbered(req->device_paths[i]) &&
		    !has(group->device_paths, group->n_device_paths, req->device_paths[i]))
			return error_reason(err, REASON_SEAT_MISMATCH, -EINVAL,
					    "the container has %s, which is not of GPU group \"%s\"",
					    req->device_paths[i], group->name);
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

int preflight_driver(const struct node *node, const struct operation_request *req,
		     struct error *err)
{
	return req->gpu ? gpu_worker_usable(node->worker, err) : 0;
}
