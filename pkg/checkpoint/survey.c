/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/fd.h"
#include "cgroup/room.h"
#include "checkpoint/jobfile.h"
#include "gpu/capability.h"
#include "proc/procfs.h"

#define MEMINFO_MAX ((size_t)64 << 10)

/* --- what processes hold -------------------------------------------------------------------- */

static bool starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/*
 * The driver closes the /dev/nvidia* of a CUDA process when it checkpoints it, but not those of
 * a process that has no CUDA of its own: a child that was forked, one that only uses NVML. Neither
 * CRIU nor the driver knows what to do with GPUDirect Storage and verbs (CRIU, plugins/cuda/README).
 */
enum reason survey_target(const char *target, bool cuda)
{
	static const char *const always[] = { "/dev/nvidia-fs", "/dev/infiniband/", "/dev/gdrdrv",
					      "/dev/kfd" };

	if (strcmp(target, "anon_inode:[io_uring]") == 0)
		return REASON_IO_URING;
	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		if (starts(target, always[i]))
			return REASON_LEFTOVER_DEVICE_FD;
	return starts(target, "/dev/nvidia") && !cuda ? REASON_LEFTOVER_DEVICE_FD : REASON_NONE;
}

struct holder {
	pid_t pid;
	bool cuda;
	struct error *err;
};

static int look_at_fd(void *arg, int fd, const char *target)
{
	const struct holder *h = arg;
	enum reason reason = survey_target(target, h->cuda);
	char name[16];

	if (reason == REASON_NONE)
		return 0;
	if (procfs_name(h->pid, name, sizeof(name)) < 0)
		name[0] = 0;
	return error_reason(h->err, reason, -EBUSY, "process %d (%s) holds %.120s (descriptor %d)",
			    h->pid, name, target, fd);
}

static const struct gpu_member *find_member(const struct gpu_group *g, pid_t pid)
{
	for (size_t i = 0; g && i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);

		if (!m->gone && m->pid == pid)
			return m;
	}
	return NULL;
}

static int check_processes(const struct survey *s, char *found, size_t size, struct error *err)
{
	struct cgroup_pids pids;
	size_t n_cuda = s->group ? gpu_group_size(s->group) : 0, n;
	int r = cgroup_pids(s->cgroup, &pids, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < pids.n; i++) {
		struct holder h = { .pid = pids.pid[i],
				    .cuda = find_member(s->group, pids.pid[i]) != NULL,
				    .err = err };

		r = procfs_each_fd(h.pid, look_at_fd, &h);
		if (r == -ESRCH)
			r = 0;
		else if (r < 0 && (!err || !err->code))
			(void)error_sys(err, r, "look at the descriptors of process %d", h.pid);
	}
	n = pids.n;
	cgroup_pids_free(&pids);
	(void)snprintf(found, size, "%zu processes, %zu of them with CUDA", n, n_cuda);
	return r;
}

/* What the driver should have closed; GPUDirect Storage is not its own. */
static int look_at_gpu_fd(void *arg, int fd, const char *target)
{
	bool gpu = starts(target, "/dev/nvidia") && !starts(target, "/dev/nvidia-fs");

	return gpu ? look_at_fd(arg, fd, target) : 0;
}

int survey_released(const struct gpu_group *group, struct error *err)
{
	for (size_t i = 0; i < gpu_group_size(group); i++) {
		const struct gpu_member *m = gpu_group_member(group, i);
		struct holder h = { .pid = m->pid, .cuda = false, .err = err };
		int r;

		if (m->gone)
			continue;
		r = procfs_each_fd(m->pid, look_at_gpu_fd, &h);
		if (r == 0)
			r = procfs_maps_file(m->pid, "/dev/nvidia");
		if (r > 0)
			return error_reason(err, REASON_LEFTOVER_DEVICE_FD, -EBUSY,
					    "process %d (%s) has GPU memory mapped although the driver "
					    "says that it is checkpointed",
					    m->pid, m->name);
		if (r < 0 && r != -ESRCH)
			return err->code ? r
					 : error_sys(err, r, "look at what process %d holds", m->pid);
	}
	return 0;
}

/* --- memory --------------------------------------------------------------------------------- */

static uint64_t vram_of(const struct survey *s)
{
	return s->group ? gpu_group_vram_bytes(s->group) : 0;
}

static int check_limit(const struct survey *s, char *found, size_t size, struct error *err)
{
	struct cgroup_room room;
	uint64_t vram = vram_of(s);
	int r = cgroup_room(s->cgroup, &room);

	if (r < 0)
		return error_reason(err, REASON_CONTAINER_MISSING, r, "the container's cgroup is gone");
	if (room.room == CGROUP_NO_LIMIT) {
		(void)snprintf(found, size, "no limit, %" PRIu64 " MiB of GPU memory", vram >> 20);
		return 0;
	}
	(void)snprintf(found, size, "%" PRIu64 " MiB of %" PRIu64 " MiB free, %" PRIu64
				    " MiB of GPU memory", room.room >> 20, room.limit >> 20, vram >> 20);
	if (vram <= room.room)
		return 0;
	return error_reason(err, REASON_MEM_LIMIT, -ENOMEM,
			    "the GPU memory of %" PRIu64 " MiB does not fit into the memory limit of "
			    "%" PRIu64 " MiB, of which %" PRIu64 " MiB are free (cgroup %s)",
			    vram >> 20, room.limit >> 20, room.room >> 20, room.path);
}

/* What the kernel gives out without swapping. */
static int host_available(uint64_t *ret)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(MEMINFO_MAX);
	int r = file_read(AT_FDCWD, "/proc/meminfo", &text);
	const char *at;
	uint64_t kib;

	if (r < 0)
		return r;
	at = strstr(buf_str(&text), "MemAvailable:");
	if (!at || sscanf(at, "MemAvailable: %" SCNu64, &kib) != 1)
		return -ENODATA;
	*ret = kib << 10;
	return 0;
}

static int check_host(const struct survey *s, char *found, size_t size, struct error *err)
{
	uint64_t vram = vram_of(s), available;
	int r = host_available(&available);

	if (r < 0)
		return error_sys(err, r, "read /proc/meminfo");
	(void)snprintf(found, size, "%" PRIu64 " MiB available on the node, %" PRIu64
				    " MiB of GPU memory", available >> 20, vram >> 20);
	if (vram <= available)
		return 0;
	return error_reason(err, REASON_MEM_LIMIT, -ENOMEM,
			    "the GPU memory of %" PRIu64 " MiB does not fit into the node's memory, of "
			    "which %" PRIu64 " MiB are available",
			    vram >> 20, available >> 20);
}

/* --- the images ----------------------------------------------------------------------------- */

uint64_t survey_promised(const struct node *node, const struct operation *op)
{
	const struct operation *other;
	uint64_t sum = 0;

	list_for_each(other, &node->operations, node_link) {
		uint64_t there;

		if (other == op || other->work.fd < 0 || other->criu_done || !other->image_size)
			continue;
		there = operation_image_bytes(other);
		sum += there < other->image_size ? other->image_size - there : 0;
	}
	return sum;
}

/* The images': its room, and whose. */
struct room {
	uint64_t bytes;
	char whose[256];
};

static int find_room(const struct survey *s, struct room *ret, struct error *err)
{
	struct store_space space;
	struct statvfs v;
	int r;

	if (!s->image_path) {
		r = store_space(s->store, &space, err);
		if (r < 0)
			return r;
		ret->bytes = space.free_bytes > s->promised ? space.free_bytes - s->promised : 0;
		(void)snprintf(ret->whose, sizeof(ret->whose), "%.200s%s", store_path(s->store),
			       space.limited ? " (limits.store_size)" : "");
		return 0;
	}
	(void)snprintf(ret->whose, sizeof(ret->whose), "%.200s", s->image_path);
	if (statvfs(s->image_path, &v) < 0)
		return error_reason(err, REASON_STORE_FAILED, -errno, "%.200s: %s", s->image_path,
				    strerror(errno));
	ret->bytes = (uint64_t)v.f_bavail * v.f_frsize;
	return 0;
}

/* An image is what the processes hold and files do not back, and their GPU memory. */
static uint64_t image_size(const struct survey *s)
{
	struct cgroup_room room;
	uint64_t size = vram_of(s);

	if (cgroup_room(s->cgroup, &room) == 0)
		size += room.resident;
	return size;
}

static int check_store(const struct survey *s, char *found, size_t size, struct error *err)
{
	uint64_t need = image_size(s);
	struct room room;
	int r = find_room(s, &room, err);

	if (r < 0)
		return r;
	(void)snprintf(found, size, "%" PRIu64 " MiB free in %s, the image takes about %" PRIu64
				    " MiB", room.bytes >> 20, room.whose, need >> 20);
	if (need <= room.bytes)
		return 0;
	return error_reason(err, REASON_STORE_FULL, -ENOSPC,
			    "%s has %" PRIu64 " MiB free, the image takes about %" PRIu64 " MiB",
			    room.whose, room.bytes >> 20, need >> 20);
}

/* --- checkpoint jobs ------------------------------------------------------------------------ */

static int check_jobs(const struct survey *s, char *found, size_t size, struct error *err)
{
	const struct gpu_hello *hello = s->worker ? gpu_worker_info(s->worker) : NULL;
	size_t n = 0;

	for (size_t i = 0; s->group && i < gpu_group_size(s->group); i++) {
		const struct gpu_member *m = gpu_group_member(s->group, i);

		if (m->gone || !m->job)
			continue;
		n++;
		if (!hello || !(hello->caps & GPU_CAP_IPC_JOB))
			return error_reason(err, REASON_DRIVER_TOO_OLD, -EOPNOTSUPP,
					    "process %d (%s) was started under a checkpoint job, which "
					    "drivers can save from branch 610 on; here is %s",
					    m->pid, m->name,
					    hello ? hello->driver_version : "none that is known");
	}
	(void)snprintf(found, size, "%zu processes under a checkpoint job", n);
	return n ? jobfile_check(s->group, err) : 0;
}

/* --- all ------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	int (*check)(const struct survey *s, char *found, size_t size, struct error *err);
} checks[] = {
	[SURVEY_PROCESSES] = { "descriptors", check_processes },
	[SURVEY_LIMIT] = { "memory limit", check_limit },
	[SURVEY_HOST] = { "host memory", check_host },
	[SURVEY_STORE] = { "room for images", check_store },
	[SURVEY_JOBS] = { "checkpoint jobs", check_jobs },
};

const char *survey_name(enum survey_check check)
{
	return checks[check].name;
}

int survey_one(const struct survey *s, enum survey_check check, char *found, size_t found_size,
	       struct error *err)
{
	found[0] = 0;
	return checks[check].check(s, found, found_size, err);
}

/* --- of an operation ------------------------------------------------------------------------ */

static int check_operation(struct operation *op, struct error *err)
{
	const struct survey s = { .cgroup = &op->cgroup,
				  .group = op->group,
				  .image_path = *op->req.ref ? NULL : op->req.image_path,
				  .store = op->node->store,
				  .promised = survey_promised(op->node, op),
				  .worker = op->node->worker };
	bool dump = op->req.kind == OPERATION_CHECKPOINT;
	char found[512];
	int r = op->group ? preflight_gpus(op->node, &op->req, op->group, err) : 0;

	for (unsigned int i = 0; r == 0 && i < SURVEY_COUNT; i++)
		if (dump || i == SURVEY_LIMIT || i == SURVEY_HOST || i == SURVEY_JOBS)
			r = survey_one(&s, (enum survey_check)i, found, sizeof(found), err);
	if (r == 0 && dump)
		op->image_size = image_size(&s); /* the room is ours now */
	return r;
}

/* Who cannot be asked now is asked again by the lock, which has more patience. */
static void surveyed(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	struct error mine = ERROR_NULL;

	(void)r;
	(void)err;
	r = op->flow.canceled ? -ECANCELED : check_operation(op, &mine);
	flow_resume(&op->flow, r, &mine);
}

int survey_operation(struct operation *op, struct error *err)
{
	if (!op->group)
		return check_operation(op, err);
	gpu_group_survey(op->group, operation_step_deadline(op), surveyed, op);
	return FLOW_WAIT;
}
