/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What containerd has forgotten though the shim lives. It ended while a container was being created,
 * found it half made when it came back, had `delete` clean up behind the shim's back, and removed
 * the bundle: no Delete and no Shutdown will ever name it (containerd 1.6 to 2.x, shim_load.go).
 * containerd's own shim keeps what belongs to such a container for as long as the pod lives, and
 * a shim without a container for ever.
 */
#include "shim/task.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/log.h"

/* containerd removes a bundle within 5 s of `delete`. Rarely anybody keeps a stopped task. */
#define FIRST_LOOK (15 * NSEC_PER_SEC)
#define LAST_PAUSE (300 * NSEC_PER_SEC)

static void look(struct timer *t);

static void look_again(struct loop *loop, struct orphan *o, void (*next)(struct timer *t))
{
	timer_set(loop, &o->timer, time_now() + o->pause, next);
	if (o->pause < LAST_PAUSE)
		o->pause *= 2;
}

/* In the lane of its init: no Delete is under way. */
static void forget(struct op *op)
{
	struct container *c = op->c;

	/* One that was started meanwhile is watched again when it has exited. */
	if (op->p->state != PROCESS_STOPPED && op->p->state != PROCESS_CREATED_CHECKPOINT) {
		op_end(op, 0, NULL);
		return;
	}
	if (access(c->path, F_OK) == 0 || errno != ENOENT) {
		look_again(c->shim->loop, &c->orphan, look);
		op_end(op, 0, NULL);
		return;
	}
	log_info("the bundle of a container without a process is gone, and so is the container",
		 F_STR("container", c->id), F_STR("bundle", c->path));
	process_set_state(op->p, PROCESS_DELETED);
	process_release_waiters(op->p);
	stdio_close(&op->p->io);
	container_retire(c);
	op_end(op, 0, NULL);
}

static void look(struct timer *t)
{
	struct container *c = container_of(t, struct container, orphan.timer);
	struct op *op;

	if (access(c->path, F_OK) == 0 || errno != ENOENT) {
		look_again(c->shim->loop, &c->orphan, look);
		return;
	}
	op = op_new(sizeof(*op), NULL, &c->init);
	if (op)
		op_enter(op, forget);
	else
		look_again(c->shim->loop, &c->orphan, look);
}

void orphan_watch(struct container *c)
{
	c->orphan.pause = FIRST_LOOK;
	look_again(c->shim->loop, &c->orphan, look);
}

void orphan_unwatch(struct container *c)
{
	timer_cancel(&c->orphan.timer);
}

static void look_at_own(struct timer *t)
{
	struct shim *shim = container_of(t, struct shim, orphan.timer);
	char cwd[PATH_MAX];

	if (!list_empty(&shim->containers))
		return; /* the last to go sets the timer again */
	if (getcwd(cwd, sizeof(cwd)) || errno != ENOENT) {
		look_again(shim->loop, &shim->orphan, look_at_own);
		return;
	}
	log_info("leaving: there is no container, and the bundle is gone");
	shim_leave(shim);
}

void orphan_watch_shim(struct shim *shim)
{
	shim->orphan.pause = FIRST_LOOK;
	look_again(shim->loop, &shim->orphan, look_at_own);
}
