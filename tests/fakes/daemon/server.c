/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/server.h"

#include <string.h>

/* Driver branches, the CUDA each belongs to (NVIDIA's release notes), and a version of each. */
static const struct branch {
	unsigned int branch, cuda;
	const char *version;
} branches[] = {
	{ 615, 13040, "615.12.01" }, { 610, 13030, "610.57.04" },  { 595, 13020, "595.71.05" },
	{ 590, 13010, "590.48.01" }, { 580, 13000, "580.159.04" }, { 575, 12090, "575.57.08" },
	{ 570, 12080, "570.86.15" }, { 565, 12070, "565.57.01" },  { 560, 12060, "560.35.03" },
	{ 555, 12050, "555.42.06" }, { 550, 12040, "550.54.15" },
};

static const struct branch *branch_of(const struct server *srv)
{
	size_t i = 0;

	while (i + 1 < ARRAY_SIZE(branches) && srv->settings.branch < branches[i].branch)
		i++;
	return &branches[i];
}

unsigned int server_cuda_version(const struct server *srv)
{
	return branch_of(srv)->cuda;
}

const char *server_version(const struct server *srv)
{
	return *srv->config.version ? srv->config.version : branch_of(srv)->version;
}

uint64_t gpu_free(const struct gpu *gpu)
{
	uint64_t taken = gpu->info.used + gpu->reserved;

	return taken > gpu->info.total ? 0 : gpu->info.total - taken;
}

struct gpu *server_gpu(struct server *srv, const uint8_t *uuid)
{
	for (unsigned int i = 0; i < srv->n_gpus; i++)
		if (memcmp(srv->gpus[i].info.uuid, uuid, 16) == 0)
			return &srv->gpus[i];
	return NULL;
}

/*
 * Runs one step of each piece of work. A timer and not a job: jobs put off inside a job run in the
 * same round, and no descriptor would be looked at until all work was done.
 */
static void run_work(struct timer *t)
{
	struct server *srv = container_of(t, struct server, work_timer);
	struct list todo;
	struct work *w;

	list_init(&todo);
	list_splice(&todo, &srv->work);
	while ((w = list_first(&todo, struct work, node))) {
		/* Back in the list first: a step may stop its own work or another's. */
		list_remove(&w->node);
		list_append(&srv->work, &w->node);
		w->step(w);
	}
	if (!list_empty(&srv->work))
		timer_set(srv->loop, t, loop_now(srv->loop) + 1, run_work);
}

void work_start(struct server *srv, struct work *w)
{
	if (list_linked(&w->node))
		return;
	list_append(&srv->work, &w->node);
	if (!srv->work_timer.loop)
		timer_set(srv->loop, &srv->work_timer, loop_now(srv->loop) + 1, run_work);
}

void work_stop(struct work *w)
{
	list_remove(&w->node);
}
