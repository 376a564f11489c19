/* SPDX-License-Identifier: Apache-2.0 */
/* Which processes a group has, and what GPU memory they hold. What is done to them: group.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/group-private.h"
#include "checkpoint/jobfile.h"
#include "gpu/uuid.h"
#include "proc/procfs.h"

/* --- members -------------------------------------------------------------------------------- */

struct member *group_find(const struct gpu_group *g, pid_t pid, uint64_t start_time)
{
	struct member *m;

	list_for_each(m, &g->members, node)
		if (m->pub.pid == pid && m->pub.start_time == start_time)
			return m;
	return NULL;
}

/* By their numbers in the container. */
static void insert(struct gpu_group *g, struct member *m)
{
	struct member *other;

	list_for_each(other, &g->members, node) {
		if (other->pub.ns_pid <= m->pub.ns_pid)
			continue;
		list_append(&other->node, &m->node); /* before it */
		return;
	}
	list_append(&g->members, &m->node);
}

int gpu_group_add(struct gpu_group *g, pid_t pid, uint64_t start_time)
{
	struct member *m;
	int r;

	if (group_find(g, pid, start_time))
		return 0;
	if (g->n >= GPU_GROUP_MAX)
		return -E2BIG;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->g = g;
	m->pub = (struct gpu_member){ .pid = pid,
				      .start_time = start_time,
				      .vram_bytes = GPU_BYTES_UNKNOWN };
	/* For people only; a process that leaves meanwhile is found out by the next call. */
	(void)procfs_name(pid, m->pub.name, sizeof(m->pub.name));
	(void)procfs_ns_pid(pid, &m->pub.ns_pid);
	r = jobfile_named(pid, start_time);
	m->pub.job = r > 0;
	insert(g, m);
	g->n++;
	return r < 0 && r != -ESRCH ? r : 0;
}

int gpu_group_know(struct gpu_group *g, const struct gpu_member *m)
{
	int r = gpu_group_add(g, m->pid, m->start_time);
	struct member *known = r == 0 ? group_find(g, m->pid, m->start_time) : NULL;

	if (!known)
		return r;
	known->pub.ns_pid = m->ns_pid ? m->ns_pid : known->pub.ns_pid;
	known->pub.vram_bytes = m->vram_bytes;
	known->pub.devices = m->devices;
	known->pub.job = m->job ? m->job : known->pub.job;
	known->pub.apart = m->apart;
	return 0;
}

void gpu_group_set_memory(struct gpu_group *g, const struct gpu_memory *memory)
{
	g->memory = *memory;
}

int gpu_group_adopt(struct gpu_group *g, const struct gpu_held *held)
{
	g->memory = *held->memory;
	for (size_t i = 0; i < held->n_members; i++) {
		const struct gpu_member *was = &held->members[i];
		struct member *m;
		int r = gpu_group_add(g, was->pid, was->start_time);

		if (r < 0)
			return r;
		m = group_find(g, was->pid, was->start_time);
		m->pub.state = CUDA_STATE_CHECKPOINTED;
		m->pub.vram_bytes = was->vram_bytes;
		m->pub.devices = was->devices;
	}
	return 0;
}

void gpu_group_set_job(struct gpu_group *g, size_t i, unsigned int job)
{
	struct member *m;

	list_for_each(m, &g->members, node)
		if (i-- == 0) {
			m->pub.job = job;
			return;
		}
}

size_t gpu_group_size(const struct gpu_group *g)
{
	return g->n;
}

const struct gpu_member *gpu_group_member(const struct gpu_group *g, size_t i)
{
	const struct member *m;

	list_for_each(m, &g->members, node)
		if (i-- == 0)
			return &m->pub;
	return NULL;
}

const struct gpu_memory *gpu_group_memory(const struct gpu_group *g)
{
	return &g->memory;
}

uint64_t gpu_group_vram_bytes(const struct gpu_group *g)
{
	const struct member *m;
	uint64_t sum = 0;

	list_for_each(m, &g->members, node)
		if (m->pub.vram_bytes != GPU_BYTES_UNKNOWN)
			sum += m->pub.vram_bytes;
	return sum;
}

/* --- discovery ------------------------------------------------------------------------------ */

void group_forget_candidates(struct gpu_group *g)
{
	struct candidate *c;

	while ((c = list_first(&g->candidates, struct candidate, node))) {
		gpu_call_forget(&c->call);
		list_remove(&c->node);
		free(c);
	}
}

static void probed(struct gpu_call *call)
{
	struct candidate *c = container_of(call, struct candidate, call);
	struct gpu_group *g = c->g;
	struct error err = ERROR_NULL;
	int r = 0;

	if (call->result == 0 && call->restore_tid)
		r = gpu_group_add(g, c->pid, c->start_time);
	if (r < 0) {
		(void)error_sys(&err, r, "keep CUDA process %d", c->pid);
		group_note(g, &err);
	}
	/* "I could not find out" is not "no": the image would lack its GPU memory. */
	if (call->result < 0 && call->result != -ESRCH && !call->gone)
		group_note(g, &call->err);
	list_remove(&c->node);
	free(c);
	group_one_less(g);
}

void group_discover(struct gpu_group *g, void (*next)(struct gpu_group *g))
{
	ssize_t n = g->list(g->list_data, g->pids, GPU_PIDS_MAX);
	struct error err = ERROR_NULL;

	g->n_before = g->n;
	g->discoveries++;
	g->next = NULL;
	if (n < 0) {
		(void)error_sys(&err, (int)n, "list the container's processes");
		group_note(g, &err);
		n = 0;
	}
	g->n_pids = (size_t)n;
	for (ssize_t i = 0; i < n; i++) {
		struct candidate *c;
		uint64_t start;

		if (procfs_start_time(g->pids[i], &start) < 0 || group_find(g, g->pids[i], start))
			continue; /* gone already, or known */
		c = calloc(1, sizeof(*c));
		if (!c) {
			(void)error_set(&err, -ENOMEM, "out of memory");
			group_note(g, &err);
			break;
		}
		c->g = g;
		c->pid = g->pids[i];
		c->start_time = c->call.start_time = start;
		list_append(&g->candidates, &c->node);
		g->pending++;
		gpu_worker_probe(g->worker, &c->call, c->pid, g->deadline, probed);
	}
	group_then(g, next);
}

/* --- memory --------------------------------------------------------------------------------- */

static bool listed(const struct gpu_group *g, pid_t pid)
{
	for (size_t i = 0; i < g->n_pids; i++)
		if (g->pids[i] == pid)
			return true;
	return false;
}

/* A process of ours that has GPU memory and, as the driver told us, no CUDA: one of them is wrong,
 * and the image would lack that memory. */
static void find_forgotten(struct gpu_group *g)
{
	const struct gpu_memory *mem = &g->memory;
	const struct member *m;
	struct error err = ERROR_NULL;

	for (uint32_t i = 0; i < mem->n_processes; i++) {
		pid_t pid = mem->processes[i].pid;
		bool known = false;

		list_for_each(m, &g->members, node)
			known = known || m->pub.pid == pid;
		if (known || !listed(g, pid))
			continue;
		(void)error_reason(&err, REASON_CUDA_QUERY_FAILED, -EPROTO,
				   "process %d has GPU memory, but the driver says that it has no CUDA",
				   pid);
		group_note(g, &err);
	}
}

static void memory_done(struct gpu_call *call)
{
	struct gpu_group *g = container_of(call, struct gpu_group, memory_call);
	const struct gpu_memory *mem = &g->memory;
	struct member *m;

	list_for_each(m, &g->members, node) {
		m->pub.devices = 0;
		m->pub.vram_bytes = GPU_BYTES_UNKNOWN;
	}
	if (call->result < 0)
		g->memory.n_devices = g->memory.n_processes = 0; /* NVML tells, it decides nothing */
	for (uint32_t i = 0; i < mem->n_processes; i++) {
		list_for_each(m, &g->members, node) {
			if (m->pub.pid != mem->processes[i].pid)
				continue;
			m->pub.devices |= 1U << mem->processes[i].device;
			if (mem->processes[i].bytes == GPU_BYTES_UNKNOWN)
				continue;
			if (m->pub.vram_bytes == GPU_BYTES_UNKNOWN)
				m->pub.vram_bytes = 0;
			m->pub.vram_bytes += mem->processes[i].bytes;
		}
	}
	find_forgotten(g);
	group_one_less(g);
}

void group_measure(struct gpu_group *g, void (*next)(struct gpu_group *g))
{
	g->next = NULL;
	g->pending++;
	gpu_worker_memory(g->worker, &g->memory_call, &g->memory, g->deadline, memory_done);
	group_then(g, next);
}

static uint32_t find_device(const struct gpu_memory *mem, const struct cuda_uuid *uuid)
{
	uint32_t i = 0;

	while (i < mem->n_devices && memcmp(&mem->devices[i].uuid, uuid, sizeof(*uuid)) != 0)
		i++;
	return i;
}

/* On its device of that number: what is known, shared out evenly over the GPUs of a process. */
static uint64_t saved_of(const struct gpu_group *g, uint32_t device)
{
	const struct member *m;
	uint64_t sum = 0;

	list_for_each(m, &g->members, node)
		if (group_checkpointed(&m->pub) && (m->pub.devices & (1U << device)) &&
		    m->pub.vram_bytes != GPU_BYTES_UNKNOWN)
			sum += m->pub.vram_bytes / (uint64_t)__builtin_popcount(m->pub.devices);
	return sum;
}

/* By others, which may or may not have it already. */
static uint64_t promised(const struct gpu_group *g, const struct cuda_uuid *uuid)
{
	const struct gpu_group *other;
	uint64_t sum = 0;

	if (!g->returning)
		return 0;
	list_for_each(other, g->returning, returning_node) {
		uint32_t device = find_device(&other->memory, uuid);

		if (other != g && device < other->memory.n_devices)
			sum += saved_of(other, device);
	}
	return sum;
}

static void room_known(struct gpu_call *call)
{
	struct gpu_group *g = container_of(call, struct gpu_group, memory_call);
	struct error err = ERROR_NULL;

	for (uint32_t i = 0; call->result == 0 && i < g->memory.n_devices; i++) {
		const struct cuda_uuid *uuid = &g->memory.devices[i].uuid;
		uint32_t now = find_device(&g->now, uuid);
		uint64_t need = saved_of(g, i), taken = promised(g, uuid), has;
		char text[GPU_UUID_TEXT_MAX];

		has = now < g->now.n_devices ? g->now.devices[now].free : GPU_BYTES_UNKNOWN;
		if (!need || has == GPU_BYTES_UNKNOWN || (taken <= has && need <= has - taken))
			continue;
		(void)error_reason(&err, REASON_VRAM_SHORT, -ENOMEM,
				   "%s has %" PRIu64 " MiB of GPU memory free, %" PRIu64
				   " MiB of it promised to others, %" PRIu64
				   " MiB are needed to bring it back",
				   gpu_uuid_format(uuid, text), has >> 20, taken >> 20, need >> 20);
		group_note(g, &err);
	}
	if (g->returning && !group_failed(g))
		list_append(g->returning, &g->returning_node);
	group_one_less(g);
}

void group_room(struct gpu_group *g, void (*next)(struct gpu_group *g))
{
	g->next = NULL;
	/* Other GPUs than before: whoever chose them has looked at them. */
	if (g->memory.n_devices && !g->n_pairs) {
		list_remove(&g->returning_node);
		g->pending++;
		gpu_worker_memory(g->worker, &g->memory_call, &g->now, g->deadline, room_known);
	}
	group_then(g, next);
}
