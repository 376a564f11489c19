/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delete. Goes on to its end when the caller has left (containerd's CRI gives up after ten
 * seconds and asks again: containerd issue 7496), and can be asked again after a failure.
 */
#include "shim/task.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"
#include "mnt/mnt.h"
#include "shim/exit_status.h"
#include "shim/reply.h"

#define DRAIN_MAX (10 * NSEC_PER_SEC) /* as 2.x */
#define EXIT_MAX  (10 * NSEC_PER_SEC)
/* containerd's own patience with a busy mount: 50 times 50 ms. */
#define UNMOUNT_MAX   (2500 * NSEC_PER_MSEC)
#define UNMOUNT_PAUSE (50 * NSEC_PER_MSEC)

struct delete {
	struct op *op;
	struct process *p;
	struct container *c;
	struct flow flow;
	struct timer timer;
	nsec_t give_up;
	bool runtime_done; /* it has been removed there already */
};

static struct delete *delete_of(struct flow *f)
{
	return container_of(f, struct delete, flow);
}

static void resume_with(void *data, int r, const struct error *err, struct bytes output)
{
	struct delete *d = data;

	(void)output;
	flow_resume(&d->flow, r, err);
}

static int remove_at_runtime(struct delete *d, struct error *err)
{
	int r = runtime_delete(&d->c->rt, false, resume_with, d, err);

	return r < 0 ? r : FLOW_WAIT;
}

/*
 * The process can be gone, and its exit told, before the runtime's kill ends. Whoever asked for the
 * kill is answered first: after Delete containerd closes the connection, and a Kill that fails for
 * that fails the StopPodSandbox that it is a part of.
 */
static int step_await_kills(struct flow *f, struct error *err)
{
	struct process *p = delete_of(f)->p;

	(void)err;
	if (p->kills == 0)
		return 0;
	p->kills_flow = f;
	return FLOW_WAIT;
}

/*
 * An init that was created but never started still runs, as far as the kernel is concerned: the
 * runtime kills it first, else its output would never end.
 */
static int step_kill_created(struct flow *f, struct error *err)
{
	struct delete *d = delete_of(f);

	if (!d->p->init || d->p->state != PROCESS_CREATED)
		return 0;
	d->runtime_done = true;
	return remove_at_runtime(d, err);
}

static void exit_told(struct process *p)
{
	struct delete *d = p->exit_data;

	p->exit_hook = NULL;
	timer_cancel(&d->timer);
	flow_resume(&d->flow, 0, NULL);
}

static void exit_overdue(struct timer *t)
{
	struct delete *d = container_of(t, struct delete, timer);
	struct error err = ERROR_NULL;

	if (!d->runtime_done) {
		d->p->exit_hook = NULL;
		flow_resume(&d->flow, process_allow(d->p, "delete", IN(STOPPED), &err), &err);
		return;
	}
	log_warning("the runtime has deleted a container whose init has not exited",
		    F_STR("container", d->c->id), F_INT("pid", d->p->pid));
	exit_told(d->p);
}

/* Its exit is on its way, and must be told before the deletion. */
static int step_await_exit(struct flow *f, struct error *err)
{
	struct delete *d = delete_of(f);

	(void)err;
	if (!d->p->init || !d->p->pid || d->p->exited_at)
		return 0;
	d->p->exit_hook = exit_told;
	d->p->exit_data = d;
	timer_set(d->c->shim->loop, &d->timer, time_now() + EXIT_MAX, exit_overdue);
	return FLOW_WAIT;
}

static void drained(struct stdio *io, int r, const struct error *err)
{
	struct process *p = container_of(io, struct process, io);

	if (r < 0)
		log_warning("the last output was not waited for", F_STR("container", p->c->id),
			    F_STR("process", p->id), F_ERR(err));
	flow_resume(p->io_flow, 0, NULL);
}

static int step_drain(struct flow *f, struct error *err)
{
	struct process *p = delete_of(f)->p;

	(void)err;
	p->io_flow = f;
	stdio_drain(&p->io, time_now() + DRAIN_MAX, drained);
	return FLOW_WAIT;
}

static int step_runtime(struct flow *f, struct error *err)
{
	struct delete *d = delete_of(f);

	if (!d->p->init || d->runtime_done)
		return 0;
	return remove_at_runtime(d, err);
}

static void unmount(struct timer *t)
{
	struct delete *d = container_of(t, struct delete, timer);
	struct error err = ERROR_NULL;
	char path[PATH_MAX];
	int r;

	r = PATH_PRINTF(path, "%s/rootfs", d->c->path);
	if (r == 0)
		r = mnt_unmount_all(path, 0, &err);
	if (r == -EBUSY && time_now() < d->give_up) {
		timer_set(d->c->shim->loop, t, time_now() + UNMOUNT_PAUSE, unmount);
		return;
	}
	d->c->mounted = r < 0;
	if (r < 0)
		(void)error_wrap(&err, r, "failed rootfs umount");
	flow_resume(&d->flow, r, &err);
}

static int step_unmount(struct flow *f, struct error *err)
{
	struct delete *d = delete_of(f);

	(void)err;
	if (!d->p->init || !d->c->mounted)
		return 0;
	d->give_up = time_now() + UNMOUNT_MAX;
	timer_set(d->c->shim->loop, &d->timer, time_now(), unmount);
	return FLOW_WAIT;
}

static int step_tidy(struct flow *f, struct error *err)
{
	struct delete *d = delete_of(f);
	char path[PATH_MAX];

	(void)err;
	if (d->p->init)
		exit_status_settle(d->c->path);
	else if (exec_pid_path(d->p, path, sizeof(path)) == 0)
		(void)unlink(path);
	return 0;
}

static const struct flow_step steps[] = {
	{ "kills", step_await_kills, NULL, NULL }, { "kill", step_kill_created, NULL, NULL },
	{ "exit", step_await_exit, NULL, NULL },   { "drain", step_drain, NULL, NULL },
	{ "runtime", step_runtime, NULL, NULL },   { "unmount", step_unmount, NULL, NULL },
	{ "tidy", step_tidy, NULL, NULL },
};

static void publish_delete(const struct process *p)
{
	Events__TaskDelete event = EVENTS__TASK_DELETE__INIT;
	Ctd__Timestamp at;

	event.container_id = p->c->id;
	event.pid = (uint32_t)p->pid;
	event.exit_status = p->exit_status;
	event.exited_at = reply_exited_at(p, &at);
	shim_publish(p->c->shim, "/tasks/delete", "containerd.events.TaskDelete", &event.base);
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct delete *d = delete_of(f);
	Task__DeleteResponse response = TASK__DELETE_RESPONSE__INIT;
	struct process *p = d->p;
	Ctd__Timestamp at;

	timer_cancel(&d->timer);
	if (r < 0) {
		log_error("delete failed", F_STR("container", d->c->id), F_STR("process", p->id),
			  F_ERR(err));
		op_fail(d->op, err);
		free(d);
		return;
	}
	response.pid = (uint32_t)p->pid;
	response.exit_status = p->exit_status;
	response.exited_at = reply_exited_at(p, &at);
	process_set_state(p, PROCESS_DELETED);
	process_release_waiters(p);
	stdio_close(&p->io);
	if (p->init) {
		publish_delete(p);
		container_retire(d->c);
	} else {
		process_retire(p); /* without an event */
	}
	op_reply(d->op, &response.base);
	free(d);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .done = done };

static void begin(struct op *op)
{
	struct error err = ERROR_NULL;
	struct delete *d;
	int r;

	/*
	 * An init that has exited counts as running until its execs are told of, which takes as long
	 * as the runtime is still starting one. containerd asks just once where it has forgotten the
	 * container while it was down (1.7: "cleaning leaked shim process"): let it wait, not fail.
	 */
	r = op->p->init && op->c->init_reaped && op->p->state != PROCESS_DELETED
		    ? 0
		    : process_allow(op->p, "delete",
				    IN(CREATED) | IN(CREATED_CHECKPOINT) | IN(STOPPED), &err);
	d = r == 0 ? calloc(1, sizeof(*d)) : NULL;
	if (r == 0 && !d)
		r = error_set(&err, -ENOMEM, "out of memory");
	if (r < 0) {
		op_fail(op, &err);
		return;
	}
	d->op = op;
	d->p = op->p;
	d->c = op->c;
	flow_start(&d->flow, op->c->shim->loop, &ops);
}

void do_delete(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__DeleteRequest *req = request;

	op_call(arg, call, req->id, req->exec_id, begin);
}
