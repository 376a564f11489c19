/* SPDX-License-Identifier: Apache-2.0 */
#include "event/gate.h"

#include <assert.h>

static void let_in(struct job *job)
{
	struct gate *g = container_of(job, struct gate, let_in);
	struct gate_pass *pass;

	while (!g->closed && (pass = list_first(&g->waiting, struct gate_pass, node))) {
		list_remove(&pass->node);
		pass->inside = true;
		g->n_inside++;
		pass->enter(pass);
	}
}

static void tell(struct job *job)
{
	struct gate *g = container_of(job, struct gate, told);
	void (*empty)(struct gate *) = g->empty;

	if (!empty || g->n_inside)
		return;
	g->empty = NULL;
	empty(g);
}

void gate_init(struct gate *g, struct loop *loop)
{
	*g = (struct gate){ .loop = loop };
	list_init(&g->waiting);
}

void gate_enter(struct gate *g, struct gate_pass *pass, void (*enter)(struct gate_pass *pass))
{
	*pass = (struct gate_pass){ .gate = g, .enter = enter };
	list_append(&g->waiting, &pass->node);
	if (!g->closed)
		job_put_off(g->loop, &g->let_in, let_in);
}

void gate_leave(struct gate_pass *pass)
{
	struct gate *g = pass->gate;

	if (!g)
		return;
	pass->gate = NULL;
	if (!pass->inside) {
		list_remove(&pass->node);
		return;
	}
	g->n_inside--;
	if (g->empty && !g->n_inside)
		job_put_off(g->loop, &g->told, tell);
}

void gate_close(struct gate *g, void (*empty)(struct gate *g))
{
	assert(!g->closed);
	g->closed = true;
	g->empty = empty;
	if (!g->n_inside)
		job_put_off(g->loop, &g->told, tell);
}

void gate_open(struct gate *g)
{
	if (!g->closed)
		return;
	g->closed = false;
	g->empty = NULL;
	if (!list_empty(&g->waiting))
		job_put_off(g->loop, &g->let_in, let_in);
}
