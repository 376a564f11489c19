/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/report.h"

#include "agent/agent.h"

#define MEMORY_MAX ((size_t)1 << 20)

void report_init(struct report *r, struct grpc_call *call)
{
	*r = (struct report){ .call = call, .ref = "", .id = "", .mem = ARENA_LIMIT(MEMORY_MAX) };
}

void report_done(struct report *r)
{
	arena_done(&r->mem);
}

void report_begun(struct report *r, struct operation *op)
{
	r->begun = true;
	r->op = op;
}

void report_update(struct report *r, const struct operation *op)
{
	Kybernate__Agent__V1__OperationUpdate m = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;
	pb_progress progress;

	if (!r->call)
		return;
	m.status = KYBERNATE__AGENT__V1__STATUS__STATUS_WORKING;
	m.phase = (Kybernate__Agent__V1__Phase)op->phase;
	m.progress = convert_progress(op, &progress);
	m.checkpoint_ref = (char *)r->ref;
	m.container_id = (char *)r->id;
	agent_send(r->call, &m.base);
}

void report_finished(struct report *r, const struct operation *op, enum operation_status status,
		     const struct error *err)
{
	r->op = NULL;
	r->begun = r->over = true;
	r->status = status;
	if (status != OPERATION_OK)
		r->outcome = *err;
	if (!op)
		return;
	r->failed_phase = op->failed_phase;
	r->n_timeline = convert_timeline(op, &r->mem, &r->timeline);
	r->detail = arena_alloc(&r->mem, (op->n_detail + 1) * sizeof(*r->detail));
	for (size_t i = 0; r->detail && i < op->n_detail; i++) {
		r->detail[i] = arena_strdup(&r->mem, op->detail[i]);
		if (!r->detail[i])
			break;
		r->n_detail++;
	}
}

void report_answer(struct report *r, int result, const struct error *err)
{
	Kybernate__Agent__V1__OperationUpdate m = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;
	const struct error *why = r->over && r->status != OPERATION_OK ? &r->outcome : err;
	bool ok = r->over ? r->status == OPERATION_OK : result == 0;
	pb_error error;

	if (!r->call)
		return;
	m.status = (Kybernate__Agent__V1__Status)(ok	    ? OPERATION_OK
						  : r->over ? r->status
							    : OPERATION_FAILED);
	m.checkpoint_ref = (char *)r->ref;
	m.container_id = (char *)r->id;
	m.timeline = r->timeline;
	m.n_timeline = r->n_timeline;
	if (!ok) {
		m.error = convert_error(why, r->failed_phase, NULL, &error);
		m.phase = (Kybernate__Agent__V1__Phase)r->failed_phase;
		error.detail = r->detail;
		error.n_detail = r->n_detail;
	}
	agent_send(r->call, &m.base);
	grpc_call_set_data(r->call, NULL);
	if (ok)
		grpc_call_finish(r->call, RPC_OK, NULL, bytes_of(NULL, 0));
	else
		agent_fail(r->call, why);
	r->call = NULL;
}
