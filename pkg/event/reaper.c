/* SPDX-License-Identifier: Apache-2.0 */
#include "event/reaper.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

struct early {
	struct exit_record rec;
	struct list node;
};

unsigned int exit_record_code(const struct exit_record *rec)
{
	if (WIFSIGNALED(rec->status))
		return 128U + (unsigned int)WTERMSIG(rec->status);
	return (unsigned int)WEXITSTATUS(rec->status);
}

void reaper_init(struct reaper *r)
{
	list_init(&r->children);
	list_init(&r->holds);
}

/* Every hold gets its own copy: two commands in flight may both be waiting for this pid. */
static void keep_early(struct reaper *r, const struct exit_record *rec)
{
	struct reaper_hold *hold;

	list_for_each(hold, &r->holds, node) {
		struct early *e = malloc(sizeof(*e));

		if (!e)
			abort(); /* a lost exit would leave a container "running" for ever */
		e->rec = *rec;
		list_append(&hold->early, &e->node);
	}
}

static void deliver(struct reaper *r, const struct exit_record *rec)
{
	struct list due;
	struct child *c, *tmp;

	/* First take all watches of this pid out, then call: a callback may watch it anew. */
	list_init(&due);
	list_for_each_safe(c, tmp, &r->children, node) {
		if (c->pid != rec->pid)
			continue;
		list_remove(&c->node);
		list_append(&due, &c->node);
	}
	if (list_empty(&due)) {
		keep_early(r, rec);
		return;
	}
	while ((c = list_first(&due, struct child, node))) {
		list_remove(&c->node);
		c->pid = 0;
		c->exited(c, rec);
	}
}

void reaper_sweep(struct reaper *r)
{
	for (;;) {
		struct exit_record rec;

		rec.pid = waitpid(-1, &rec.status, WNOHANG | __WALL);
		if (rec.pid < 0 && errno == EINTR)
			continue;
		if (rec.pid <= 0)
			return;
		rec.wall = time_wall();
		deliver(r, &rec);
	}
}

void reaper_watch(struct reaper *r, struct child *child, pid_t pid,
		  void (*exited)(struct child *child, const struct exit_record *rec))
{
	child->pid = pid;
	child->exited = exited;
	list_append(&r->children, &child->node);
}

void reaper_unwatch(struct child *child)
{
	if (!child->pid)
		return;
	list_remove(&child->node);
	child->pid = 0;
}

void reaper_hold(struct reaper *r, struct reaper_hold *hold)
{
	list_init(&hold->early);
	list_append(&r->holds, &hold->node);
}

bool reaper_claim(const struct reaper_hold *hold, pid_t pid, struct exit_record *ret)
{
	const struct early *e;

	if (!hold->node.next || !list_linked(&hold->node))
		return false;
	/* The newest: an older one with this number was another process. */
	for (const struct list *i = hold->early.prev; i != &hold->early; i = i->prev) {
		e = container_of((struct list *)(uintptr_t)i, struct early, node);
		if (e->rec.pid == pid) {
			*ret = e->rec;
			return true;
		}
	}
	return false;
}

void reaper_release(struct reaper_hold *hold)
{
	struct early *e;

	if (!hold->node.next || !list_linked(&hold->node))
		return;
	list_remove(&hold->node);
	while ((e = list_first(&hold->early, struct early, node))) {
		list_remove(&e->node);
		free(e);
	}
}
