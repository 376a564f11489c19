/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/task.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/containerd/task.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "shim/reply.h"

#define ATTACH_MAX (30 * NSEC_PER_SEC) /* as long as the reference waits for the FIFOs' readers */
/* ... once the container is gone: a client that is there has opened them before it asks for a start. */
#define ATTACH_OF_THE_DEAD_MAX (2 * NSEC_PER_SEC)

struct waiter {
	struct list node;
	struct ttrpc_call *call;
};

int process_init(struct process *p, struct container *c, const char *id, bool init,
		 const char *in, const char *out, const char *err, bool terminal)
{
	*p = (struct process){ .c = c, .refs = 1, .init = init };
	list_init(&p->node);
	list_init(&p->waiters);
	lane_init(&p->lane, c->shim->loop);
	p->id = strdup(id);
	if (!p->id)
		return -ENOMEM;
	return stdio_init(&p->io, c->shim->loop, &c->shim->reaper, in, out, err, terminal);
}

void process_done(struct process *p)
{
	process_release_waiters(p);
	reaper_unwatch(&p->child);
	reaper_release(&p->hold);
	stdio_close(&p->io);
	buf_done(&p->spec);
	free(p->id);
	p->id = NULL;
}

struct process *process_ref(struct process *p)
{
	if (!p->init)
		p->refs++;
	return p;
}

void process_unref(struct process *p)
{
	struct container *c = p->c;

	if (p->init || --p->refs)
		return;
	list_remove(&p->node);
	process_done(p);
	free(p);
	container_unref(c);
}

void process_retire(struct process *p)
{
	if (!list_linked(&p->node))
		return;
	list_remove(&p->node);
	process_unref(p);
}

const char *process_state_name(const struct process *p)
{
	static const char *const names[] = {
		[PROCESS_CREATED] = "created", [PROCESS_CREATED_CHECKPOINT] = "created",
		[PROCESS_RUNNING] = "running", [PROCESS_PAUSED] = "paused",
		[PROCESS_STOPPED] = "stopped", [PROCESS_DELETED] = "deleted",
	};

	return names[p->state];
}

void process_set_state(struct process *p, enum process_state state)
{
	p->state = state;
	log_debug("process state", F_STR("container", p->c->id), F_STR("process", p->id),
		  F_STR("state", process_state_name(p)), F_INT("pid", p->pid));
}

static void answer_wait(const struct process *p, struct ttrpc_call *call)
{
	Task__WaitResponse response = TASK__WAIT_RESPONSE__INIT;
	Ctd__Timestamp at;

	response.exit_status = p->exit_status;
	response.exited_at = reply_exited_at(p, &at);
	ttrpc_call_reply(call, &response.base);
}

static void wait_canceled(struct ttrpc_call *call, enum rpc_code why, void *data)
{
	struct waiter *w = data;
	struct error err = ERROR_NULL;

	list_remove(&w->node);
	(void)error_rpc(&err, why, -ECANCELED, "context %s",
			why == RPC_CANCELED ? "canceled" : "deadline exceeded");
	ttrpc_call_fail(call, &err);
}

void process_wait(struct process *p, struct ttrpc_call *call)
{
	struct error err = ERROR_NULL;
	struct waiter *w;

	if (p->exited_at || p->start_failed) {
		answer_wait(p, call);
		return;
	}
	w = arena_alloc(ttrpc_call_arena(call), sizeof(*w));
	if (!w) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		ttrpc_call_fail(call, &err);
		return;
	}
	w->call = call;
	list_append(&p->waiters, &w->node);
	ttrpc_call_on_cancel(call, wait_canceled, w);
}

void process_release_waiters(struct process *p)
{
	struct waiter *w;

	while ((w = list_first(&p->waiters, struct waiter, node))) {
		list_remove(&w->node);
		answer_wait(p, w->call); /* frees w */
	}
}

void process_set_exited(struct process *p, const struct exit_record *rec)
{
	p->exit_status = exit_record_code(rec);
	p->exited_at = rec->wall;
	process_set_state(p, PROCESS_STOPPED);
	stdio_exited(&p->io);
	process_release_waiters(p);
	if (p->exit_hook)
		p->exit_hook(p);
}

static void stdio_done(struct stdio *io, int r, const struct error *err)
{
	struct process *p = container_of(io, struct process, io);

	flow_resume(p->io_flow, r, err);
}

int process_prepare_stdio(struct process *p, struct flow *f, struct error *err)
{
	const struct runtime_options *o = &p->c->options;
	int r = stdio_prepare(&p->io, o->io_uid, o->io_gid, p->c->shim->ns, p->id, stdio_done, err);

	p->io_flow = f;
	return r > 0 ? FLOW_WAIT : r;
}

int process_attach_stdio(struct process *p, struct flow *f)
{
	p->io_flow = f;
	stdio_attach(&p->io, time_now() + (p->c->init_reaped ? ATTACH_OF_THE_DEAD_MAX : ATTACH_MAX),
		     stdio_done);
	return FLOW_WAIT;
}

void process_hurry_stdio(struct process *p)
{
	stdio_hurry(&p->io, time_now() + ATTACH_OF_THE_DEAD_MAX);
}

int process_read_pid(const char *dir, const char *name, pid_t *ret, struct error *err)
{
	char path[PATH_MAX], line[32];
	uint64_t pid;
	int r;

	r = PATH_PRINTF(path, "%s/%s", dir, name);
	if (r == 0)
		r = file_read_line(AT_FDCWD, path, line, sizeof(line));
	if (r == 0)
		r = num_parse(line, INT_MAX, &pid);
	if (r == 0 && pid == 0)
		r = -EINVAL;
	if (r < 0)
		return error_sys(err, r, "failed to retrieve OCI runtime container pid: %s", name);
	*ret = (pid_t)pid;
	return 0;
}
