/* SPDX-License-Identifier: Apache-2.0 */
/* Exec reserves a process in a running container; its Start runs it. */
#include "shim/task.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "oci/process_spec.h"

/* --- Exec ----------------------------------------------------------------------------------- */

static struct process *exec_new(struct container *c, const Task__ExecProcessRequest *req,
				struct error *err)
{
	struct process *p;
	int r;

	if (!id_valid(req->exec_id)) {
		(void)error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				"exec id \"%.80s\" is not a valid identifier", req->exec_id);
		return NULL;
	}
	if (container_process(c, req->exec_id, NULL)) {
		(void)error_rpc(err, RPC_ALREADY_EXISTS, -EEXIST, "id %s: already exists",
				req->exec_id);
		return NULL;
	}
	if (process_allow(&c->init, "exec in", IN(CREATED) | IN(RUNNING), err) < 0)
		return NULL;
	p = calloc(1, sizeof(*p));
	r = p ? process_init(p, c, req->exec_id, false, req->stdin, req->stdout, req->stderr,
			     req->terminal)
	      : -ENOMEM;
	if (r == 0)
		r = process_spec_rewrite(bytes_of(req->spec ? req->spec->value.data : NULL,
						  req->spec ? req->spec->value.len : 0),
					 req->terminal, &p->spec, err);
	else
		(void)error_sys(err, r, "exec");
	if (r < 0) {
		if (p)
			process_done(p);
		free(p);
		return NULL;
	}
	(void)container_ref(c);
	list_append(&c->execs, &p->node);
	return p;
}

void do_exec(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__ExecProcessRequest *req = request;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	Events__TaskExecAdded event = EVENTS__TASK_EXEC_ADDED__INIT;

	if (!c || !exec_new(c, req, &err)) {
		call_fail(call, &err);
		return;
	}
	event.container_id = c->id;
	event.exec_id = req->exec_id;
	shim_publish(c->shim, "/tasks/exec-added", "containerd.events.TaskExecAdded", &event.base);
	ttrpc_call_reply_empty(call);
	shim_expect_moves(c->shim); /* its Start is the next call */
}

/* --- its Start ------------------------------------------------------------------------------ */

struct start {
	struct op *op;
	struct process *p;
	struct gate_pass pass;
	struct flow flow;
	bool counted; /* among the container's running execs */
};

static struct start *start_of(struct flow *f)
{
	return container_of(f, struct start, flow);
}

static void resume_with(void *data, int r, const struct error *err, struct bytes output)
{
	struct start *st = data;

	(void)output;
	flow_resume(&st->flow, r, err);
}

static void let_in(struct gate_pass *pass)
{
	flow_resume(&container_of(pass, struct start, pass)->flow, 0, NULL);
}

/* While the container is dumped no process may come in. */
static int step_gate(struct flow *f, struct error *err)
{
	struct start *st = start_of(f);

	(void)err;
	gate_enter(&st->p->c->exec_gate, &st->pass, let_in);
	return FLOW_WAIT;
}

static int check_init(const struct process *p, struct error *err)
{
	if (!p->c->init_reaped)
		return 0;
	return error_rpc(err, RPC_FAILED_PRECONDITION, -ESRCH,
			 "container %s init process is not running: failed precondition", p->c->id);
}

static int step_stdio(struct flow *f, struct error *err)
{
	struct process *p = start_of(f)->p;
	int r = check_init(p, err);

	if (r < 0)
		return r;
	r = process_prepare_stdio(p, f, err);
	return r < 0 ? error_wrap(err, r, "failed to create exec process I/O") : r;
}

static int spec_path(const struct process *p, char *buf)
{
	return path_printf(buf, PATH_MAX, "%s/%s-process.json", p->c->path, p->id);
}

/* Beside "init.pid", which is the container's: no id has a colon. */
int exec_pid_path(const struct process *p, char *buf, size_t size)
{
	const char *mark = strcmp(p->id, "init") == 0 ? "exec:" : "";

	return path_printf(buf, size, "%s/%s%s.pid", p->c->path, mark, p->id);
}

static int step_exec(struct flow *f, struct error *err)
{
	struct start *st = start_of(f);
	struct process *p = st->p;
	char spec_file[PATH_MAX], pid_file[PATH_MAX];
	struct spawn io = { 0 };
	int r;

	/* A logger may have taken its time: once init's exit is told no exec may be counted. */
	r = check_init(p, err);
	if (r < 0)
		return r;
	r = spec_path(p, spec_file);
	if (r == 0)
		r = exec_pid_path(p, pid_file, sizeof(pid_file));
	if (r == 0)
		r = file_write(AT_FDCWD, spec_file, buf_bytes(&p->spec).p, buf_len(&p->spec), 0600,
			       FILE_PLAIN);
	if (r < 0)
		return error_sys(err, r, "write the process of exec %s", p->id);
	buf_done(&p->spec);
	stdio_child(&p->io, &io);
	/* From now on it may live, and die, before we know its pid. */
	reaper_hold(&p->c->shim->reaper, &p->hold);
	p->c->running_execs++;
	st->counted = true;
	r = runtime_exec(&p->c->rt, spec_file, pid_file, stdio_console(&p->io), &io, resume_with,
			 st, err);
	shim_expect_moves(p->c->shim); /* after: it has some milliseconds to go until then */
	return r < 0 ? r : FLOW_WAIT;
}

static int undo_exec(struct flow *f, struct error *err)
{
	struct start *st = start_of(f);

	(void)err;
	reaper_release(&st->p->hold);
	if (st->counted)
		exit_exec_gone(st->p->c);
	return 0;
}

static int step_attach(struct flow *f, struct error *err)
{
	(void)err;
	return process_attach_stdio(start_of(f)->p, f);
}

static int step_pid(struct flow *f, struct error *err)
{
	struct process *p = start_of(f)->p;
	char path[PATH_MAX];
	int r = exec_pid_path(p, path, sizeof(path));

	return r < 0 ? r : process_read_pid(p->c->path, strrchr(path, '/') + 1, &p->pid, err);
}

static const struct flow_step steps[] = {
	{ "gate", step_gate, NULL, NULL },
	{ "stdio", step_stdio, NULL, NULL },
	{ "exec", step_exec, undo_exec, NULL },
	{ "attach", step_attach, NULL, NULL },
	{ "pid", step_pid, NULL, NULL },
};

static void done(struct flow *f, int r, const struct error *err)
{
	struct start *st = start_of(f);
	struct process *p = process_ref(st->p);
	Events__TaskExecStarted event = EVENTS__TASK_EXEC_STARTED__INIT;
	Task__StartResponse response = TASK__START_RESPONSE__INIT;
	char spec_file[PATH_MAX];

	gate_leave(&st->pass);
	if (spec_path(p, spec_file) == 0)
		(void)unlink(spec_file);
	if (r == 0) {
		process_set_state(p, PROCESS_RUNNING);
		event.container_id = p->c->id;
		event.exec_id = p->id;
		event.pid = response.pid = (uint32_t)p->pid;
		shim_publish(p->c->shim, "/tasks/exec-started", "containerd.events.TaskExecStarted",
			     &event.base);
		op_reply(st->op, &response.base);
		exit_watch(p);
	} else {
		/* It stays "created" for Delete, but nobody may wait for its exit. */
		p->start_failed = true;
		process_release_waiters(p);
		op_fail(st->op, err);
	}
	process_unref(p);
	free(st);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .done = done };

void start_exec(struct op *op)
{
	struct start *st = calloc(1, sizeof(*st));
	struct error err = ERROR_NULL;

	if (!st) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		op_fail(op, &err);
		return;
	}
	st->op = op;
	st->p = op->p;
	flow_start(&st->flow, op->c->shim->loop, &ops);
}
