/* SPDX-License-Identifier: Apache-2.0 */
/* Pids and Stats, straight from the cgroup: no process is started for them. */
#include "shim/task.h"

#include <errno.h>

#include "api/containerd/task.pb-c.h"
#include "cgroup/stats_pb.h"
#include "rpc/pb.h"

#define STATS_MAX ((size_t)1 << 20)

/* --- Pids ----------------------------------------------------------------------------------- */

static const struct process *exec_of(const struct container *c, pid_t pid)
{
	const struct process *p;

	list_for_each(p, &c->execs, node)
		if (p->pid == pid && !p->exited_at)
			return p;
	return NULL;
}

/* An exec's process says which exec it is: containerd.runc.v1.ProcessDetails. */
static int add_details(Task__ProcessInfo *info, const struct process *exec, struct arena *mem)
{
	Task__ProcessDetails details = TASK__PROCESS_DETAILS__INIT;

	info->info = arena_alloc(mem, sizeof(*info->info));
	if (!info->info)
		return -ENOMEM;
	ctd__any__init(info->info);
	details.exec_id = exec->id;
	info->info->type_url = (char *)"containerd.runc.v1.ProcessDetails";
	info->info->value.data = pb_pack_arena(&details.base, mem, &info->info->value.len);
	return info->info->value.data ? 0 : -ENOMEM;
}

static int fill_pids(const struct container *c, const pid_t *pids, size_t n, struct arena *mem,
		     Task__PidsResponse *response)
{
	Task__ProcessInfo *all = arena_alloc(mem, (n + 1) * sizeof(*all));

	response->processes = arena_alloc(mem, (n + 1) * sizeof(*response->processes));
	if (!all || !response->processes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct process *exec = exec_of(c, pids[i]);

		task__process_info__init(&all[i]);
		all[i].pid = (uint32_t)pids[i];
		if (exec && add_details(&all[i], exec, mem) < 0)
			return -ENOMEM;
		response->processes[i] = &all[i];
	}
	response->n_processes = n;
	return 0;
}

/*
 * Never empty for a container that lives, frozen or not: containerd, when it restarts, takes a
 * task without processes for a leaked shim and ends it.
 */
void do_pids(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__PidsRequest *req = request;
	Task__PidsResponse response = TASK__PIDS_RESPONSE__INIT;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct cgroup_pids list = { 0 };
	int r;

	if (!c) {
		call_fail(call, &err);
		return;
	}
	r = c->cgroup.host ? cgroup_pids(&c->cgroup, &list, &err) : -ENOENT;
	if (r == 0)
		r = fill_pids(c, list.pid, list.n, ttrpc_call_arena(call), &response);
	else if (r == -ENOENT) /* no cgroup of its own: the init at least is known */
		r = fill_pids(c, &c->init.pid, c->init.pid && !c->init.exited_at ? 1 : 0,
			      ttrpc_call_arena(call), &response);
	if (r < 0) {
		(void)error_wrap(&err, r, "list the processes of %s", c->id);
		call_fail(call, &err);
	} else {
		ttrpc_call_reply(call, &response.base);
	}
	cgroup_pids_free(&list);
}

/* --- Stats ---------------------------------------------------------------------------------- */

void do_stats(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__StatsRequest *req = request;
	Task__StatsResponse response = TASK__STATS_RESPONSE__INIT;
	Ctd__Any any = CTD__ANY__INIT;
	_cleanup_buf_ struct buf packed = BUF_LIMIT(STATS_MAX);
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	const char *type;
	int r;

	if (!c) {
		call_fail(call, &err);
		return;
	}
	r = c->cgroup.host ? stats_pb(&c->cgroup, &packed, &type, &err)
			   : error_set(&err, -ENOENT, "cgroup does not exist");
	if (r < 0) {
		if (r == -ENOENT)
			err.rpc = RPC_NOT_FOUND;
		call_fail(call, &err);
		return;
	}
	any.type_url = (char *)type;
	any.value.data = (uint8_t *)buf_bytes(&packed).p;
	any.value.len = buf_len(&packed);
	response.stats = &any;
	ttrpc_call_reply(call, &response.base);
}
