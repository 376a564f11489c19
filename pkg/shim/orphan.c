/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container that containerd has forgotten, though its shim lives on with the rest of the pod:
 * containerd ended while it was being created, found it half made when it came back, had `delete`
 * clean up behind the shim's back, and removed the bundle. No Delete will ever name it (containerd
 * 1.6 to 2.x: core/runtime/v2/shim_load.go, cleanupAfterDeadShim). containerd's own shim keeps
 * what belongs to such a container for as long as the pod lives.
 */
#include "shim/task.h"

#include <errno.h>
#include <unistd.h>

#include "base/log.h"

/* containerd removes a bundle within 5 s of `delete`. Rarely anybody keeps a stopped task. */
#define FIRST_LOOK (15 * NSEC_PER_SEC)
#define LAST_PAUSE (300 * NSEC_PER_SEC)

static void look(struct timer *t);

static void look_again(struct container *c)
{
	timer_set(c->shim->loop, &c->orphan, time_now() + c->orphan_pause, look);
	if (c->orphan_pause < LAST_PAUSE)
		c->orphan_pause *= 2;
}

/* In the lane of its init: no Delete is under way. */
static void forget(struct op *op)
{
	struct container *c = op->c;
	struct shim *shim = c->shim;

	if (op->p->state != PROCESS_STOPPED) {
		op_end(op, 0, NULL);
		return;
	}
	if (access(c->path, F_OK) == 0 || errno != ENOENT) {
		look_again(c);
		op_end(op, 0, NULL);
		return;
	}
	log_info("the bundle of a stopped container is gone, and so is the container",
		 F_STR("container", c->id), F_STR("bundle", c->path));
	process_set_state(op->p, PROCESS_DELETED);
	process_release_waiters(op->p);
	stdio_close(&op->p->io);
	container_retire(c);
	op_end(op, 0, NULL);
	if (list_empty(&shim->containers) && shim->n_ops == 0)
		shim_leave(shim); /* nobody knows of it any more */
}

static void look(struct timer *t)
{
	struct container *c = container_of(t, struct container, orphan);
	struct op *op;

	if (access(c->path, F_OK) == 0 || errno != ENOENT) {
		look_again(c);
		return;
	}
	op = op_new(sizeof(*op), NULL, &c->init);
	if (op)
		op_enter(op, forget);
	else
		look_again(c);
}

void orphan_watch(struct container *c)
{
	c->orphan_pause = FIRST_LOOK;
	look_again(c);
}
