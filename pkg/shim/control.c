/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that act on a process that exists: Kill, Pause, Resume, Update. */
#include "shim/task.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"

/* Finds the process, or answers the call and returns NULL. */
static struct process *find(struct shim *shim, struct ttrpc_call *call, const char *id,
			    const char *exec_id)
{
	struct error err = ERROR_NULL;
	struct container *c = container_find(shim, id, &err);
	struct process *p = c ? container_process(c, exec_id, &err) : NULL;

	if (!p)
		call_fail(call, &err);
	return p;
}

static void end_op(void *data, int r, const struct error *err, struct bytes output)
{
	(void)output;
	op_end(data, r, err);
}

/* --- Kill ----------------------------------------------------------------------------------- */

static int kill_exec(const struct process *p, unsigned int signo, struct error *err)
{
	if (p->exited_at)
		return error_rpc(err, RPC_NOT_FOUND, -ESRCH,
				 "process already finished: not found");
	if (!p->pid)
		return error_rpc(err, RPC_FAILED_PRECONDITION, -ESRCH,
				 "process not created: failed precondition");
	/* Nobody but us reaps it, so the number is still its own. */
	if (kill(p->pid, (int)signo) < 0)
		return errno == ESRCH ? error_rpc(err, RPC_NOT_FOUND, -ESRCH,
						  "process already finished: not found")
				      : error_sys(err, errno, "exec kill error");
	return 0;
}

/*
 * A container that ends by itself while the runtime is at it may fail the kill in words of any
 * kind: runc 1.1 freezes first, and finds no "transition from stopped to paused". A CRI that is not
 * told NotFound fails its StopPodSandbox.
 */
static void killed(void *data, int r, const struct error *err, struct bytes output)
{
	struct op *op = data;
	struct flow *f = NULL;
	struct error over = ERROR_NULL;

	(void)output;
	if (r < 0 && exit_has_come(op->p)) {
		r = error_rpc(&over, RPC_NOT_FOUND, -ESRCH,
			      "process already finished: not found");
		err = &over;
	}
	if (--op->p->kills == 0) {
		f = op->p->kills_flow;
		op->p->kills_flow = NULL;
	}
	op_end(op, r, err);
	if (f)
		flow_resume(f, 0, NULL);
}

/* Not in the lane: a kill must get through while anything else is under way. */
void do_kill(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__KillRequest *req = request;
	struct process *p = find(arg, call, req->id, req->exec_id);
	struct error err = ERROR_NULL;
	struct op *op;
	int r;

	if (!p)
		return;
	op = op_new(sizeof(*op), call, p);
	if (!op)
		return;
	if (!p->init) {
		r = kill_exec(p, req->signal, &err);
		op_end(op, r, &err);
		return;
	}
	/* containerd's clients stop asking only when they are told NotFound, and soon. */
	if (p->exited_at) {
		(void)error_rpc(&err, RPC_NOT_FOUND, -ESRCH, "process already finished: not found");
		op_fail(op, &err);
		return;
	}
	/* The caller is answered at once: it counts the grace period from its answer. */
	if (stop_by_checkpoint(op->c, req->signal)) {
		op_reply_empty(op);
		return;
	}
	p->sigkilled |= req->signal == SIGKILL;
	p->kills++;
	r = runtime_kill(&op->c->rt, req->signal, req->all, killed, op, &err);
	if (r < 0)
		killed(op, r, &err, bytes_of(NULL, 0));
}

/* --- Pause, Resume -------------------------------------------------------------------------- */

void pause_end(struct op *op, int r, const struct error *err)
{
	Events__TaskPaused event = EVENTS__TASK_PAUSED__INIT;

	op->c->pausing = false;
	if (r == 0 && op->p->state == PROCESS_RUNNING) {
		process_set_state(op->p, PROCESS_PAUSED);
		event.container_id = op->c->id;
		shim_publish(op->c->shim, "/tasks/paused", "containerd.events.TaskPaused",
			     &event.base);
	}
	op_end(op, r, err);
}

static void paused(void *data, int r, const struct error *err, struct bytes output)
{
	(void)output;
	pause_end(data, r, err);
}

void pause_plainly(struct op *op)
{
	struct error err = ERROR_NULL;
	int r = runtime_pause(&op->c->rt, paused, op, &err);

	if (r < 0)
		pause_end(op, r, &err);
}

static void begin_pause(struct op *op)
{
	struct error err = ERROR_NULL;

	if (process_allow(op->p, "pause", IN(RUNNING), &err) < 0) {
		op_fail(op, &err);
		return;
	}
	op->c->pausing = true; /* State says so meanwhile */
	if (op->c->bundle.gpu)
		gpu_pause(op);
	else
		pause_plainly(op);
}

void do_pause(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__PauseRequest *req = request;

	op_call(arg, call, req->id, "", begin_pause);
}

void resume_end(struct op *op, int r, const struct error *err)
{
	Events__TaskResumed event = EVENTS__TASK_RESUMED__INIT;

	if (r == 0 && op->p->state == PROCESS_PAUSED) {
		process_set_state(op->p, PROCESS_RUNNING);
		event.container_id = op->c->id;
		shim_publish(op->c->shim, "/tasks/resumed", "containerd.events.TaskResumed",
			     &event.base);
	}
	op_end(op, r, err);
}

static void resumed(void *data, int r, const struct error *err, struct bytes output)
{
	(void)output;
	resume_end(data, r, err);
}

static void begin_resume(struct op *op)
{
	struct error err = ERROR_NULL;
	int r = process_allow(op->p, "resume", IN(PAUSED), &err);

	if (r == 0 && buf_len(&op->c->held)) {
		gpu_resume(op);
		return;
	}
	if (r == 0)
		r = runtime_resume(&op->c->rt, resumed, op, &err);
	if (r < 0)
		op_fail(op, &err);
}

void do_resume(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__ResumeRequest *req = request;

	op_call(arg, call, req->id, "", begin_resume);
}

/* --- Update --------------------------------------------------------------------------------- */

#define RESOURCES_TYPE "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

struct update {
	struct op op; /* first member */
	struct bytes resources;
};

static void begin_update(struct op *op)
{
	struct update *u = container_of(op, struct update, op);
	struct error err = ERROR_NULL;
	int r = process_allow(op->p, "update",
			      IN(CREATED) | IN(CREATED_CHECKPOINT) | IN(RUNNING) | IN(PAUSED), &err);

	if (r == 0)
		r = runtime_update(&op->c->rt, u->resources, end_op, op, &err);
	if (r < 0)
		op_fail(op, &err);
}

void do_update(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__UpdateTaskRequest *req = request;
	struct process *p = find(arg, call, req->id, "");
	struct error err = ERROR_NULL;
	const char *type;
	struct update *u;

	if (!p)
		return; /* and with the call went its request */
	type = req->resources ? req->resources->type_url : "";
	if (strncmp(type, "type.googleapis.com/", 20) == 0)
		type += 20;
	if (strcmp(type, RESOURCES_TYPE) != 0) {
		(void)error_rpc(&err, RPC_INVALID_ARGUMENT, -EINVAL,
				"resources of type \"%.200s\" cannot be applied", type);
		call_fail(call, &err);
		return;
	}
	u = op_new(sizeof(*u), call, p);
	if (!u)
		return;
	u->resources = bytes_of(req->resources->value.data, req->resources->value.len);
	op_enter(&u->op, begin_update);
}
