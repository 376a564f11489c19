/* SPDX-License-Identifier: Apache-2.0 */
/* status: how the agent is, and what it is doing. */
#include <inttypes.h>
#include <stdio.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "ctl.h"
#include "doc.h"
#include "human.h"
#include "table.h"

typedef Kybernate__Agent__V1__StatusReply pb_status;
typedef Kybernate__Agent__V1__Operation pb_operation;

static const struct client_method method = {
	CLIENT_METHOD("Status"), &kybernate__agent__v1__status_reply__descriptor
};

static bool degraded(const pb_operation *o)
{
	return o->status == KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED;
}

static void pair(struct table *t, const char *key, enum style style, const char *value)
{
	table_cell_styled(t, STYLE_DIM, key);
	table_cell_styled(t, style, value);
}

/* "LOCK_TIMEOUT: message" */
static void error_text_of(const Kybernate__Agent__V1__Error *e, struct text *out)
{
	char name[DOC_NAME_MAX];

	if (!e)
		return;
	if (e->reason)
		text_printf(out, "%s%s",
			    doc_enum_name(&kybernate__agent__v1__reason__descriptor,
					  (int)e->reason, name),
			    *e->message ? ": " : "");
	text_add(out, e->message);
}

static void print_agent(const pb_status *s, bool colour, struct text *out)
{
	static const struct table_column columns[] = { { NULL, false }, { NULL, false } };
	_cleanup_text_ struct text v = TEXT_NULL;
	_cleanup_table_ struct table t = TABLE_OF(columns);
	char buf[HUMAN_MAX];

	pair(&t, "Agent", STYLE_PLAIN, s->agent_version);
	if (s->worker_pid)
		text_printf(&v, "pid %" PRIu32, s->worker_pid);
	pair(&t, "CUDA worker", STYLE_PLAIN, s->worker_pid ? text_str(&v) : "none");
	text_clear(&v);
	error_text_of(s->driver_error, &v);
	if (s->driver_ok)
		pair(&t, "GPU driver", STYLE_GOOD, *s->driver_version ? s->driver_version : "ready");
	else
		pair(&t, "GPU driver", STYLE_BAD,
		     *text_str(&v) ? text_str(&v) : "not ready");
	text_clear(&v);
	text_printf(&v, "%s (%s free)", s->store_path, human_size(s->store_free_bytes, buf));
	pair(&t, "Store", STYLE_PLAIN, text_str(&v));
	table_write(&t, 0, colour, out);
}

static void add_progress(struct table *t, const Kybernate__Agent__V1__Progress *p)
{
	char buf[HUMAN_MAX];

	if (p && p->bytes_total)
		table_cell(t, human_part(p->bytes_done, p->bytes_total, buf));
	else if (p && p->bytes_done)
		table_cell(t, human_size(p->bytes_done, buf));
	else
		table_blank(t);
	if (p && p->elapsed_ms)
		table_cell(t, human_duration(p->elapsed_ms > NSEC_NEVER / NSEC_PER_MSEC
						     ? NSEC_NEVER
						     : p->elapsed_ms * NSEC_PER_MSEC,
					     buf));
	else
		table_blank(t);
}

static void add_operation(struct table *t, const pb_operation *o)
{
	char name[DOC_NAME_MAX];

	table_cell(t, o->kind);
	table_cell(t, o->checkpoint_ref);
	table_cell(t, doc_enum_name(&kybernate__agent__v1__phase__descriptor, (int)o->phase, name));
	table_cell_styled(t, degraded(o) ? STYLE_WARN : STYLE_PLAIN,
			  doc_enum_name(&kybernate__agent__v1__status__descriptor, (int)o->status,
					name));
	add_progress(t, o->progress);
	table_cell(t, o->containerd_namespace);
	table_cell(t, o->container_id);
}

static void print_operations(const pb_status *s, bool colour, struct text *out)
{
	static const struct table_column columns[] = {
		{ "OPERATION", false }, { "REF", false },   { "PHASE", false },
		{ "STATUS", false },    { "BYTES", true },  { "TIME", true },
		{ "NAMESPACE", false }, { "CONTAINER", false },
	};
	_cleanup_table_ struct table t = TABLE_OF(columns);

	if (!s->n_operations) {
		text_add(out, "\nNo operation is under way.\n");
		return;
	}
	for (size_t i = 0; i < s->n_operations; i++)
		add_operation(&t, s->operations[i]);
	text_add(out, "\n");
	table_write(&t, 0, colour, out);
}

/* What went wrong with single operations, where something did. */
static void print_errors(const pb_status *s, struct text *out)
{
	for (size_t i = 0; i < s->n_operations; i++) {
		_cleanup_text_ struct text v = TEXT_NULL;

		error_text_of(s->operations[i]->error, &v);
		if (!*text_str(&v))
			continue;
		text_add(out, "\n");
		text_escaped(out, s->operations[i]->container_id);
		text_add(out, ": ");
		text_escaped(out, text_str(&v));
		text_add(out, "\n");
	}
}

static int print_text(const struct ctl *ctl, const pb_status *s)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	if (ctl->quiet)
		return CTL_OK;
	print_agent(s, ctl->out.colour, &t);
	print_operations(s, ctl->out.colour, &t);
	print_errors(s, &t);
	return ctl_print(ctl, &t);
}

static int run(struct ctl *ctl, const void *args, char *const *operands)
{
	Kybernate__Agent__V1__StatusRequest request = KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	const pb_status *s = ctl_ask(ctl, &method, &request.base, CLIENT_ANSWER_TIME, &mem, &fault);
	int exit;

	(void)args;
	(void)operands;
	if (!s)
		return ctl_fail(ctl, &fault);
	exit = ctl_json(ctl) ? ctl_print_doc(ctl, doc_message(&s->base)) : print_text(ctl, s);
	for (size_t i = 0; exit == CTL_OK && i < s->n_operations; i++)
		if (degraded(s->operations[i]))
			exit = CTL_DEGRADED;
	return exit;
}

const struct verb verb_status = {
	.name = "status",
	.operands = "",
	.summary = "show how the agent is and what it is doing",
	.about = "Shows the agent, its driver and store, and the operations under way. The exit\n"
		 "status is 6 while the GPU memory of a container could not be brought back. With\n"
		 "--quiet, nothing but the exit status.",
	.run = run,
};
