/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/degraded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define PAUSE_FIRST (1 * NSEC_PER_SEC)
#define PAUSE_MAX   (60 * NSEC_PER_SEC)
#define TRY_MAX     (30 * NSEC_PER_SEC)

static void degraded_free(struct degraded *d)
{
	list_remove(&d->node_link);
	timer_cancel(&d->again);
	gpu_group_free(d->group);
	free(d->ns);
	free(d->container_id);
	free(d->pod_uid);
	free(d);
}

static void forget(const struct degraded *d)
{
	struct error err = ERROR_NULL;

	/* A new operation on the container has a record of its own by now. */
	if (journal_kept(&d->node->journal) && !operation_find(d->node, d->ns, d->container_id) &&
	    journal_remove(&d->node->journal, d->ns, d->container_id, &err) < 0)
		log_warning("the journal keeps a container that is well",
			    F_STR("id", d->container_id), F_ERR(&err));
}

static void attempt(struct timer *t);

static void tried(void *data, int r, const struct error *err)
{
	struct degraded *d = data;

	d->attempts++;
	if (r == 0) {
		log_info("GPU memory is back", F_STR("ns", d->ns), F_STR("id", d->container_id),
			 F_INT("attempts", d->attempts),
			 F_INT("dur_ms", (time_now() - d->since) / NSEC_PER_MSEC));
		forget(d);
		degraded_free(d);
		return;
	}
	d->err = *err;
	log_warning("GPU memory is still in host memory", F_STR("ns", d->ns),
		    F_STR("id", d->container_id), F_INT("attempts", d->attempts),
		    F_STR("reason", reason_name(err->reason)), F_ERR(err));
	timer_set(d->node->loop, &d->again, time_now() + backoff_next(&d->backoff), attempt);
}

static void attempt(struct timer *t)
{
	struct degraded *d = container_of(t, struct degraded, again);

	gpu_group_recover(d->group, time_now() + TRY_MAX, tried, d);
}

static ssize_t no_new_ones(void *data, pid_t *pids, size_t max)
{
	(void)data; /* recovering looks at the processes it knows, and for no others */
	(void)pids;
	(void)max;
	return 0;
}

int degraded_add(struct operation *op, const struct error *err)
{
	struct degraded *d = calloc(1, sizeof(*d));
	struct error late = ERROR_NULL;

	if (d) {
		d->ns = strdup(op->req.ns);
		d->container_id = strdup(op->req.container_id);
		d->pod_uid = strdup(op->req.pod_uid);
	}
	if (!d || !d->ns || !d->container_id || !d->pod_uid) {
		if (d) {
			list_init(&d->node_link);
			degraded_free(d);
		}
		return -ENOMEM;
	}
	op->status = OPERATION_DEGRADED;
	if (record_write(op, phase_name(PHASE_VRAM_RESTORE), &late) < 0)
		log_warning("after a crash nobody will know of a degraded container",
			    F_STR("id", op->req.container_id), F_ERR(&late));
	d->node = op->node;
	d->group = op->group;
	gpu_group_set_lister(d->group, no_new_ones, d);
	op->group = NULL;
	d->err = *err;
	d->since = time_now();
	d->backoff = BACKOFF(PAUSE_FIRST, PAUSE_MAX);
	list_append(&op->node->degraded, &d->node_link);
	timer_set(d->node->loop, &d->again, time_now() + backoff_next(&d->backoff), attempt);
	log_error("container degraded: its GPU memory stays in host memory for the time being",
		  F_STR("ns", d->ns), F_STR("id", d->container_id),
		  F_STR("reason", reason_name(err->reason)), F_ERR(err));
	return 0;
}

struct degraded *degraded_find(const struct node *node, const char *ns, const char *container_id)
{
	struct degraded *d;

	list_for_each(d, &node->degraded, node_link)
		if (strcmp(d->container_id, container_id) == 0 && strcmp(d->ns, ns) == 0)
			return d;
	return NULL;
}

void degraded_retry(struct degraded *d)
{
	if (d->again.loop)
		timer_set(d->node->loop, &d->again, time_now(), attempt);
}

void degraded_free_all(struct node *node)
{
	struct degraded *d;

	while ((d = list_first(&node->degraded, struct degraded, node_link)))
		degraded_free(d);
}
