/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Task service, as containerd.task.v2.Task and containerd.task.v3.Task: the same calls under
 * two names (containerd 2.x uses v3 with shims that announce version 3, tests dial it directly).
 * The calls that only look are here; those that change something have files of their own.
 */
#include "shim/service.h"

#include <unistd.h>

#include "api/containerd/task.pb-c.h"
#include "shim/reply.h"

static Task__Status status_of(const struct process *p)
{
	const struct container *c = p->c;

	/* An exec is frozen with its init. */
	if (p->state == PROCESS_RUNNING && c->pausing)
		return TASK__STATUS__PAUSING;
	if (p->state == PROCESS_RUNNING && c->init.state == PROCESS_PAUSED)
		return TASK__STATUS__PAUSED;
	switch (p->state) {
	case PROCESS_CREATED:
	case PROCESS_CREATED_CHECKPOINT:
		return TASK__STATUS__CREATED;
	case PROCESS_RUNNING:
		return TASK__STATUS__RUNNING;
	case PROCESS_PAUSED:
		return TASK__STATUS__PAUSED;
	case PROCESS_STOPPED:
		return TASK__STATUS__STOPPED;
	default:
		return TASK__STATUS__UNKNOWN;
	}
}

static void do_state(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__StateRequest *req = request;
	Task__StateResponse response = TASK__STATE_RESPONSE__INIT;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct process *p = c ? container_process(c, req->exec_id, &err) : NULL;
	Ctd__Timestamp at;

	if (!p) {
		call_fail(call, &err);
		return;
	}
	response.id = p->id;
	response.bundle = c->path;
	response.pid = (uint32_t)p->pid;
	response.status = status_of(p);
	response.stdin = p->io.path[0];
	response.stdout = p->io.path[1];
	response.stderr = p->io.path[2];
	response.terminal = p->io.terminal;
	response.exit_status = p->exit_status;
	response.exited_at = reply_exited_at(p, &at);
	ttrpc_call_reply(call, &response.base);
}

static void do_wait(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__WaitRequest *req = request;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct process *p = c ? container_process(c, req->exec_id, &err) : NULL;

	if (p)
		process_wait(p, call);
	else
		call_fail(call, &err);
}

static void do_close_io(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__CloseIORequest *req = request;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct process *p = c ? container_process(c, req->exec_id, &err) : NULL;

	if (!p) {
		call_fail(call, &err);
		return;
	}
	stdio_close_stdin(&p->io);
	ttrpc_call_reply_empty(call);
}

static void do_resize(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__ResizePtyRequest *req = request;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct process *p = c ? container_process(c, req->exec_id, &err) : NULL;
	int r = p ? 0 : -1;

	if (p && !p->init)
		r = process_allow(p, "resize", IN(CREATED) | IN(RUNNING), &err);
	if (r == 0)
		r = stdio_resize(&p->io, req->width, req->height, &err);
	if (r < 0)
		call_fail(call, &err);
	else
		ttrpc_call_reply_empty(call);
}

/*
 * Must not fail for an id that is not known: containerd connects while it loads bundles, and,
 * for pods, before Create.
 */
static void do_connect(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__ConnectRequest *req = request;
	Task__ConnectResponse response = TASK__CONNECT_RESPONSE__INIT;
	struct container *c = container_find(arg, req->id, NULL);

	response.shim_pid = (uint32_t)getpid();
	response.task_pid = c ? (uint32_t)c->init.pid : 0;
	ttrpc_call_reply(call, &response.base);
}

static void do_shutdown(void *arg, struct ttrpc_call *call, const void *request)
{
	struct shim *shim = arg;
	bool leave = list_empty(&shim->containers);

	(void)request; /* "now" changes nothing, as with the reference */
	ttrpc_call_reply_empty(call);
	if (leave)
		shim_leave(shim);
}

static const struct ttrpc_method methods[] = {
	{ "State", &task__state_request__descriptor, do_state },
	{ "Create", &task__create_task_request__descriptor, do_create },
	{ "Start", &task__start_request__descriptor, do_start },
	{ "Delete", &task__delete_request__descriptor, do_delete },
	{ "Pids", &task__pids_request__descriptor, do_pids },
	{ "Pause", &task__pause_request__descriptor, do_pause },
	{ "Resume", &task__resume_request__descriptor, do_resume },
	{ "Checkpoint", &task__checkpoint_task_request__descriptor, do_checkpoint },
	{ "Kill", &task__kill_request__descriptor, do_kill },
	{ "Exec", &task__exec_process_request__descriptor, do_exec },
	{ "ResizePty", &task__resize_pty_request__descriptor, do_resize },
	{ "CloseIO", &task__close_iorequest__descriptor, do_close_io },
	{ "Update", &task__update_task_request__descriptor, do_update },
	{ "Wait", &task__wait_request__descriptor, do_wait },
	{ "Stats", &task__stats_request__descriptor, do_stats },
	{ "Connect", &task__connect_request__descriptor, do_connect },
	{ "Shutdown", &task__shutdown_request__descriptor, do_shutdown },
};

const struct ttrpc_service service_table[] = {
	{ "containerd.task.v2.Task", methods, ARRAY_SIZE(methods) },
	{ "containerd.task.v3.Task", methods, ARRAY_SIZE(methods) },
};

const size_t service_table_size = ARRAY_SIZE(service_table);
