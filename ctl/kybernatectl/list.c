/* SPDX-License-Identifier: Apache-2.0 */
/* list: the checkpoints of the store, the newest first. */
#include <stdlib.h>
#include <string.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "ctl.h"
#include "doc.h"
#include "human.h"
#include "table.h"

typedef Kybernate__Agent__V1__CheckpointInfo pb_info;

static const struct client_method method = {
	CLIENT_METHOD("ListCheckpoints"), &kybernate__agent__v1__list_checkpoints_reply__descriptor
};

/* One whose time cannot be read is older than all others. */
static nsec_t created(const pb_info *info)
{
	nsec_t t;

	return human_time(info->created_at, &t) == 0 ? t : 0;
}

static int newest_first(const void *a, const void *b)
{
	const pb_info *one = *(const pb_info *const *)a, *two = *(const pb_info *const *)b;
	nsec_t t1 = created(one), t2 = created(two);

	if (t1 != t2)
		return t1 < t2 ? 1 : -1;
	return strcmp(one->checkpoint_ref, two->checkpoint_ref);
}

static void add_row(struct table *t, const pb_info *info, nsec_t now)
{
	_cleanup_text_ struct text pod = TEXT_NULL;
	char buf[HUMAN_MAX];
	nsec_t at = created(info);

	table_cell(t, info->checkpoint_ref);
	table_cell(t, at ? human_age(now > at ? now - at : 0, buf) : "?");
	table_cell(t, human_size(info->size_bytes, buf));
	table_cell(t, human_size(info->vram_bytes, buf));
	if (*info->pod_name)
		text_printf(&pod, "%s/%s", info->pod_namespace, info->pod_name);
	table_cell(t, text_str(&pod));
	table_cell(t, info->containerd_namespace);
	table_cell(t, info->container_id);
}

static int print_table(const struct ctl *ctl, pb_info *const *infos, size_t n)
{
	static const struct table_column columns[] = {
		{ "REF", false },  { "CREATED", false },   { "SIZE", true },       { "VRAM", true },
		{ "POD", false },  { "NAMESPACE", false }, { "CONTAINER", false },
	};
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(columns);
	nsec_t now = time_wall();

	for (size_t i = 0; i < n; i++)
		add_row(&table, infos[i], now);
	table_write(&table, 0, ctl->out.colour, &t);
	return ctl_print(ctl, &t);
}

static int print_refs(const struct ctl *ctl, pb_info *const *infos, size_t n)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	for (size_t i = 0; i < n; i++) {
		text_escaped(&t, infos[i]->checkpoint_ref);
		text_add(&t, "\n");
	}
	return ctl_print(ctl, &t);
}

static int print_lines(const struct ctl *ctl, pb_info *const *infos, size_t n)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	for (size_t i = 0; i < n; i++)
		doc_write(doc_message(&infos[i]->base), false, &t);
	return ctl_print(ctl, &t);
}

static int run(struct ctl *ctl, const void *args, char *const *operands)
{
	Kybernate__Agent__V1__ListCheckpointsRequest request =
		KYBERNATE__AGENT__V1__LIST_CHECKPOINTS_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	const Kybernate__Agent__V1__ListCheckpointsReply *reply =
		ctl_ask(ctl, &method, &request.base, CLIENT_ANSWER_TIME, &mem, &fault);

	(void)args;
	(void)operands;
	if (!reply)
		return ctl_fail(ctl, &fault);
	if (reply->n_checkpoints)
		qsort(reply->checkpoints, reply->n_checkpoints, sizeof(*reply->checkpoints),
		      newest_first);
	if (ctl->output == OUTPUT_JSON)
		return ctl_print_doc(ctl, doc_message(&reply->base));
	if (ctl->output == OUTPUT_JSONL)
		return print_lines(ctl, reply->checkpoints, reply->n_checkpoints);
	if (ctl->quiet)
		return print_refs(ctl, reply->checkpoints, reply->n_checkpoints);
	return print_table(ctl, reply->checkpoints, reply->n_checkpoints);
}

const struct verb verb_list = {
	.name = "list",
	.operands = "",
	.summary = "list the checkpoints of the store",
	.about = "Lists the checkpoints of the agent's store, the newest first. With --quiet,\n"
		 "only their names.",
	.run = run,
};
