/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exits, in the order that containerd and its clients rely on (containerd PRs 9828, 10603, 10634,
 * 10651): a process's start event before its exit event, exactly one of each; the exit events of
 * all execs before that of their init; State and Wait tell of an exit before the event does.
 */
#include "shim/task.h"

#include <signal.h>
#include <sys/wait.h>

#include "api/containerd/events.pb-c.h"
#include "base/log.h"
#include "shim/exit_status.h"
#include "shim/reply.h"

static void publish_exit(const struct process *p)
{
	Events__TaskExit event = EVENTS__TASK_EXIT__INIT;
	Ctd__Timestamp at;

	event.container_id = p->c->id;
	event.id = p->id;
	event.pid = (uint32_t)p->pid;
	event.exit_status = p->exit_status;
	event.exited_at = reply_exited_at(p, &at);
	shim_publish(p->c->shim, "/tasks/exit", "containerd.events.TaskExit", &event.base);
}

/* By whom else than the kernel, for want of memory? That is asked where its count is gone. */
static bool killed_by_nobody(const struct process *p)
{
	return WIFSIGNALED(p->exit.status) && WTERMSIG(p->exit.status) == SIGKILL && !p->sigkilled;
}

static void finish_init(struct container *c)
{
	/* A kill by the kernel is only now certain to be counted, and must be told first. */
	oom_watch_check(&c->oom);
	if (killed_by_nobody(&c->init))
		oom_watch_infer(&c->oom);
	process_set_exited(&c->init, &c->init.exit);
	exit_status_write(c->path, &(struct exit_status){ c->init.pid, c->init.exit_status,
							  c->init.exited_at });
	publish_exit(&c->init);
	if (list_linked(&c->node))
		orphan_watch(c);
	container_unref(c);
}

static void init_killed_all(void *data, int r, const struct error *err, struct bytes output)
{
	struct container *c = data;

	(void)output;
	if (r < 0 && err->rpc != RPC_NOT_FOUND)
		log_error("failed to kill the rest of the container", F_STR("container", c->id),
			  F_ERR(err));
	if (c->running_execs == 0)
		finish_init(c);
	else
		c->init_waits = true;
}

/* Without a pid namespace of its own, nothing else ends what init leaves behind. */
static void kill_rest(struct container *c)
{
	struct error err = ERROR_NULL;
	int r = 0;

	if (!c->bundle.own_pid_namespace) {
		r = runtime_kill(&c->rt, SIGKILL, true, init_killed_all, c, &err);
		if (r == 0)
			return;
	}
	init_killed_all(c, r, &err, bytes_of(NULL, 0));
}

static void init_thawed(void *data, int r, const struct error *err, struct bytes output)
{
	struct container *c = data;

	(void)output;
	if (r < 0)
		log_warning("failed to resume a container whose init has died",
			    F_STR("container", c->id), F_ERR(err));
	kill_rest(c);
}

/*
 * Their exits come before the init's, and an exec whose client died together with containerd would
 * be waited for until its time is over; containerd, back again, has no such patience in a Delete.
 */
static void hurry_execs(struct container *c)
{
	struct process *p;

	list_for_each(p, &c->execs, node)
		process_hurry_stdio(p);
}

static void handle_init_exit(struct process *p)
{
	struct container *c = container_ref(p->c); /* until finish_init() */
	struct error err = ERROR_NULL;

	c->init_reaped = true;
	hurry_execs(c);
	/* Now, as long as the cgroup is there: systemd removes it as soon as nobody is in it. */
	oom_watch_check(&c->oom);
	if (p->state == PROCESS_PAUSED) {
		/* What is frozen cannot die, and the runtime could not remove the cgroup. */
		if (runtime_resume(&c->rt, init_thawed, c, &err) < 0)
			init_thawed(c, err.code, &err, bytes_of(NULL, 0));
		return;
	}
	kill_rest(c);
}

void exit_exec_gone(struct container *c)
{
	c->running_execs--;
	if (c->running_execs == 0 && c->init_waits) {
		c->init_waits = false;
		finish_init(c);
	}
}

static void handle_exec_exit(struct process *p)
{
	struct container *c = container_ref(p->c);

	process_set_exited(p, &p->exit);
	publish_exit(p);
	exit_exec_gone(c);
	container_unref(c);
}

static void handle_exit(struct process *p)
{
	p->exit_kept = false;
	log_debug("process exited", F_STR("container", p->c->id), F_STR("process", p->id),
		  F_INT("pid", p->pid), F_INT("status", exit_record_code(&p->exit)));
	if (p->init)
		handle_init_exit(p);
	else
		handle_exec_exit(p);
}

static void reaped(struct child *child, const struct exit_record *rec)
{
	struct process *p = container_of(child, struct process, child);

	p->exit = *rec;
	p->exit_kept = true;
	if (!p->starting)
		handle_exit(p);
}

void exit_keep(struct process *p)
{
	p->starting = true;
}

/* Still our child, alive or a zombie: then a record of that pid is another process's. */
static bool still_ours(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool exit_has_come(const struct process *p)
{
	siginfo_t info = { 0 };

	if (p->exited_at || p->exit_kept || (p->init && p->c->init_reaped))
		return true;
	/* A zombie, if its exit comes after that of whoever has seen it. */
	return p->pid && waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == p->pid;
}

void exit_watch(struct process *p)
{
	bool gone = p->pid && reaper_claim(&p->hold, p->pid, &p->exit) && !still_ours(p->pid);

	reaper_release(&p->hold);
	p->starting = false;
	if (p->init)
		container_tell_ooms(p->c);
	if (gone || p->exit_kept)
		handle_exit(p);
	else if (p->pid && !p->child.pid && !p->exited_at)
		reaper_watch(&p->c->shim->reaper, &p->child, p->pid, reaped);
}
