/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "base/log.h"
#include "cgroup/controllers.h"

int container_new(struct container **ret, struct shim *shim, const char *id, const char *path,
		  struct error *err)
{
	struct container *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->shim = shim;
	c->refs = 1;
	list_init(&c->node);
	list_init(&c->execs);
	gate_init(&c->exec_gate, shim->loop);
	c->id = strdup(id);
	c->path = strdup(path);
	if (!c->id || !c->path) {
		container_unref(c);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = c;
	return 0;
}

struct container *container_ref(struct container *c)
{
	c->refs++;
	return c;
}

void container_unref(struct container *c)
{
	if (!c || --c->refs)
		return;
	if (c->init.c)
		process_done(&c->init);
	timer_cancel(&c->orphan.timer);
	oom_watch_stop(&c->oom);
	cgroup_close(&c->cgroup);
	runtime_done(&c->rt);
	runtime_options_done(&c->options);
	bundle_done(&c->bundle);
	buf_done(&c->held);
	free(c->checkpoint);
	free(c->id);
	free(c->path);
	free(c);
}

struct container *container_find(struct shim *shim, const char *id, struct error *err)
{
	struct container *c;

	list_for_each(c, &shim->containers, node)
		if (c->ready && strcmp(c->id, id) == 0)
			return c;
	(void)error_rpc(err, RPC_NOT_FOUND, -ESRCH, "container not created: not found");
	return NULL;
}

struct process *container_process(struct container *c, const char *exec_id, struct error *err)
{
	struct process *p;

	if (!*exec_id)
		return &c->init;
	list_for_each(p, &c->execs, node)
		if (strcmp(p->id, exec_id) == 0)
			return p;
	(void)error_rpc(err, RPC_NOT_FOUND, -ESRCH, "process does not exist %s: not found", exec_id);
	return NULL;
}

void container_publish(struct container *c)
{
	c->ready = true;
}

void container_retire(struct container *c)
{
	struct process *p;

	if (!list_linked(&c->node))
		return;
	list_remove(&c->node);
	timer_cancel(&c->orphan.timer);
	if (list_empty(&c->shim->containers))
		orphan_watch_shim(c->shim);
	c->ready = false;
	while ((p = list_first(&c->execs, struct process, node)))
		process_retire(p);
	container_unref(c);
}

void container_tell_ooms(struct container *c)
{
	Events__TaskOOM event = EVENTS__TASK_OOM__INIT;

	event.container_id = c->id;
	for (; c->ooms_untold; c->ooms_untold--)
		shim_publish(c->shim, "/tasks/oom", "containerd.events.TaskOOM", &event.base);
}

static void killed_by_kernel(struct oom_watch *w)
{
	struct container *c = container_of(w, struct container, oom);

	c->ooms_untold++;
	if (!c->init.starting)
		container_tell_ooms(c);
}

void container_find_cgroup(struct container *c)
{
	struct error err = ERROR_NULL;

	if (cgroup_open_apart(&c->cgroup, &c->shim->cgroups, c->init.pid, getpid(), &err) < 0) {
		log_warning("the container has no cgroup that can be found",
			    F_STR("container", c->id), F_ERR(&err));
		return;
	}
	if (controllers_enable(&c->cgroup, &err) < 0)
		log_warning("cgroup controllers cannot be enabled", F_STR("container", c->id),
			    F_ERR(&err));
	err = ERROR_NULL;
	if (oom_watch_start(&c->oom, c->shim->loop, &c->cgroup, killed_by_kernel, &err) < 0)
		log_warning("out-of-memory kills cannot be watched", F_STR("container", c->id),
			    F_ERR(&err));
}
