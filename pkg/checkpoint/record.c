/* SPDX-License-Identifier: Apache-2.0 */
/* An operation as a record of the journal. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "checkpoint/operation.h"
#include "gpu/uuid.h"

#define MEMORY_MAX ((size_t)1 << 20)

/* Nothing of a restore is worth keeping: what is half restored is ended, the checkpoint stays. */
static const char *const kinds[] = { [OPERATION_CHECKPOINT] = "checkpoint",
				     [OPERATION_SUSPEND] = "suspend",
				     [OPERATION_RESUME] = "resume" };

static const char *or_null(const char *s)
{
	return s && *s ? s : NULL;
}

/*
 * Where the container's processes are, once and for all: the init may be gone when it is needed,
 * and with it the file that says so.
 */
static int read_cgroups(struct operation *op, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT((size_t)64 << 10);
	char path[64], *line, *next;
	int r;

	if (op->cgroup_lines || op->req.task_pid <= 0)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/cgroup", op->req.task_pid);
	r = file_read(AT_FDCWD, path, &text);
	if (r == -ENOENT || r == -ESRCH)
		return 0; /* there is nothing to bring back; preflight says so */
	if (r < 0)
		return error_sys(err, r, "%s", path);
	op->cgroup_lines = arena_alloc(&op->mem, JOURNAL_CGROUPS_MAX * sizeof(*op->cgroup_lines));
	line = arena_strdup(&op->mem, buf_str(&text));
	if (!op->cgroup_lines || !line)
		return error_set(err, -ENOMEM, "out of memory");
	for (; *line && op->n_cgroup_lines < JOURNAL_CGROUPS_MAX; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = 0;
		if (*line)
			op->cgroup_lines[op->n_cgroup_lines++] = line;
	}
	return 0;
}

static int add_devices(const struct gpu_memory *memory, struct arena *mem,
		       struct journal_record *rec)
{
	struct journal_device *d = arena_alloc(mem, (memory->n_devices + 1) * sizeof(*d));
	char uuid[GPU_UUID_TEXT_MAX];

	if (!d)
		return -ENOMEM;
	for (uint32_t i = 0; i < memory->n_devices; i++) {
		const struct gpu_device *from = &memory->devices[i];

		d[i] = (struct journal_device){
			.uuid = arena_strdup(mem, gpu_uuid_format(&from->uuid, uuid)),
			.chip = or_null(from->name),
			.memory_bytes = from->total == GPU_BYTES_UNKNOWN ? 0 : from->total,
		};
		if (!d[i].uuid)
			return -ENOMEM;
	}
	rec->devices = d;
	rec->n_devices = memory->n_devices;
	return 0;
}

static int add_group(const struct gpu_group *g, struct arena *mem, struct journal_record *rec)
{
	size_t n = gpu_group_size(g);
	struct journal_process *p = arena_alloc(mem, (n + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct gpu_member *m = gpu_group_member(g, i);

		if (m->gone)
			continue;
		p[rec->n_processes++] = (struct journal_process){
			.pid = (uint64_t)m->pid,
			.start_time = m->start_time,
			.ns_pid = (uint64_t)m->ns_pid,
			.vram_bytes = m->vram_bytes == GPU_BYTES_UNKNOWN ? 0 : m->vram_bytes,
			.devices = m->devices,
			.job = m->job,
			.apart = m->apart,
		};
	}
	rec->processes = p;
	return add_devices(gpu_group_memory(g), mem, rec);
}

static bool concerned(const struct operation *op)
{
	return journal_kept(&op->node->journal) && op->req.kind < ARRAY_SIZE(kinds) && kinds[op->req.kind];
}

int record_write(struct operation *op, const char *phase, struct error *err)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	struct journal_record rec = {
		.phase = phase,
		.ns = op->req.ns,
		.container_id = op->req.container_id,
		.pod_uid = or_null(op->req.pod_uid),
		.ref = or_null(op->req.ref),
		.task_pid = (uint64_t)op->req.task_pid,
		.task_start = op->task_start,
		.shim_pid = (uint64_t)op->req.shim_pid,
		.shim_start = op->shim_start,
		.exit = op->req.exit,
		.paused = op->req.paused,
		.gpu = op->req.gpu,
		.held = op->req.held || op->revived_held,
		.undoing = op->undoing,
		.dumping = op->dumping,
		.criu_done = op->criu_done,
		.settled = op->settled,
		.sealed = op->sealed,
		.degraded = op->status == OPERATION_DEGRADED,
	};
	int r;

	/* Whose group has been given away stays on record as it was then. */
	if (!concerned(op) || (op->status == OPERATION_DEGRADED && !op->group))
		return 0;
	rec.kind = kinds[op->req.kind];
	r = read_cgroups(op, err);
	if (r < 0)
		return r;
	rec.cgroups = op->cgroup_lines;
	rec.n_cgroups = op->n_cgroup_lines;
	if (op->group && add_group(op->group, &mem, &rec) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return journal_write(&op->node->journal, &rec, err);
}

void record_remove(struct operation *op)
{
	struct error err = ERROR_NULL;

	/* One that is degraded is removed when its GPU memory is back: degraded.c. */
	if (!concerned(op) || (op->status == OPERATION_DEGRADED && !op->group))
		return;
	if (journal_remove(&op->node->journal, op->req.ns, op->req.container_id, &err) < 0)
		log_warning("the journal keeps an operation that is over",
			    F_STR("id", op->req.container_id), F_ERR(&err));
}
