/* SPDX-License-Identifier: Apache-2.0 */
/* Start: dispatches to the init, an exec or a restore; the init's own start. */
#include "shim/task.h"

#include <errno.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"

static void started(void *data, int r, const struct error *err, struct bytes output)
{
	struct op *op = data;
	struct container *c = container_ref(op->c);
	Events__TaskStart event = EVENTS__TASK_START__INIT;
	Task__StartResponse response = TASK__START_RESPONSE__INIT;

	(void)output;
	if (r == 0) {
		process_set_state(&c->init, PROCESS_RUNNING);
		event.container_id = c->id;
		event.pid = response.pid = (uint32_t)c->init.pid;
		shim_publish(c->shim, "/tasks/start", "containerd.events.TaskStart", &event.base);
		op_reply(op, &response.base);
	} else {
		op_fail(op, err);
	}
	exit_watch(&c->init); /* whatever came of it: an exit in the meantime is told now */
	container_unref(c);
}

void start_init(struct op *op)
{
	struct error err = ERROR_NULL;
	int r;

	exit_keep(&op->c->init);
	r = runtime_start(&op->c->rt, started, op, &err);
	if (r < 0)
		started(op, r, &err, bytes_of(NULL, 0));
}

static void begin(struct op *op)
{
	struct error err = ERROR_NULL;
	int r = process_allow(op->p, "start", IN(CREATED) | IN(CREATED_CHECKPOINT), &err);

	if (r == 0 && op->p->start_failed)
		r = error_set(&err, -EBUSY, "cannot start a process whose start has failed");
	if (r < 0)
		op_fail(op, &err);
	else if (!op->p->init)
		start_exec(op);
	else if (op->p->state == PROCESS_CREATED_CHECKPOINT)
		start_restore(op);
	else
		start_init(op);
}

void do_start(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__StartRequest *req = request;

	op_call(arg, call, req->id, req->exec_id, begin);
}
