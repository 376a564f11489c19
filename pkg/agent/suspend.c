/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SuspendContainer and ResumeContainer: containerd's Pause and Resume, so that its view stays true.
 * It calls the shim, the shim opens its Suspend stream here, and the operation that begins then
 * reports to this call.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/report.h"
#include "api/containerd/services.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"

#define REQUEST_MAX ((size_t)1 << 20)
#define LOOK_MAX    (30 * NSEC_PER_SEC)
#define DEFAULT_NS  "k8s.io"

struct switching {
	struct agent *agent;
	struct list node;
	struct flow flow;
	struct containerd_call call;
	struct report report;
	char *ns, *id;
	bool resume;
	uint64_t timeout_ms;
	nsec_t deadline;
};

static struct switching *switching_of(struct flow *f)
{
	return container_of(f, struct switching, flow);
}

struct report *switching_find(struct agent *agent, const char *ns, const char *container_id,
			      bool resume, uint64_t *ret_timeout_ms)
{
	struct switching *s;

	list_for_each(s, &agent->switchings, node) {
		if (strcmp(s->id, container_id) != 0 || strcmp(s->ns, ns) != 0 ||
		    s->resume != resume || s->report.begun)
			continue;
		*ret_timeout_ms = s->timeout_ms;
		return &s->report;
	}
	return NULL;
}

/* --- at containerd -------------------------------------------------------------------------- */

static int missing(const struct switching *s, struct error *err)
{
	return error_reason(err, REASON_CONTAINER_MISSING, -ESRCH,
			    "there is no running container \"%s\" in namespace \"%s\"", s->id, s->ns);
}

static int judge_state(const struct switching *s, const Svc__TaskGetResponse *m, struct error *err)
{
	Task__Status want = s->resume ? TASK__STATUS__PAUSED : TASK__STATUS__RUNNING;

	if (!m->process || (m->process->status != TASK__STATUS__RUNNING &&
			    m->process->status != TASK__STATUS__PAUSED))
		return missing(s, err);
	if (m->process->status == (int)want)
		return 0;
	return error_rpc(err, RPC_FAILED_PRECONDITION, -EALREADY, "container \"%s\" is %s", s->id,
			 s->resume ? "not paused" : "paused already");
}

static void task_known(struct containerd_call *call, int r, const void *reply,
		       const struct error *err)
{
	struct switching *s = container_of(call, struct switching, call);
	struct error mine = *err;

	if (r < 0 && err->rpc == RPC_NOT_FOUND)
		r = missing(s, &mine);
	else if (r == 0)
		r = judge_state(s, reply, &mine);
	flow_resume(&s->flow, r, &mine);
}

static int step_task(struct flow *f, struct error *err)
{
	struct switching *s = switching_of(f);
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	int r;

	request.container_id = s->id;
	r = containerd_call(s->agent->containerd, &s->call, s->ns, NULL, CTD_TASKS "Get",
			    &request.base, &svc__task_get_response__descriptor,
			    time_now() + LOOK_MAX, task_known, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_task(struct flow *f)
{
	containerd_call_done(&switching_of(f)->call);
	flow_resume(f, -ECANCELED, NULL);
}

static void switched(struct containerd_call *call, int r, const void *reply,
		     const struct error *err)
{
	struct switching *s = container_of(call, struct switching, call);

	(void)reply;
	flow_resume(&s->flow, r, err);
}

static int ask(struct switching *s, const char *method, struct error *err)
{
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	int r;

	request.container_id = s->id;
	r = containerd_call(s->agent->containerd, &s->call, s->ns, NULL, method, &request.base,
			    &ctd__empty__descriptor,
			    time_add(s->deadline, agent_undo_time(s->agent)), switched, err);
	return r < 0 ? r : FLOW_WAIT;
}

static int step_switch(struct flow *f, struct error *err)
{
	struct switching *s = switching_of(f);

	return ask(s, s->resume ? CTD_TASKS "Resume" : CTD_TASKS "Pause", err);
}

/* The caller has left: the operation is undone, then containerd's call ends by itself. */
static void cancel_switch(struct flow *f)
{
	struct switching *s = switching_of(f);
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the caller has ended the call");
	if (s->report.op)
		operation_cancel(s->report.op, &err);
	/* Else containerd is on its way into the shim, or out of it, and its answer follows. */
}

/* Nobody came to us: what containerd has paused has no GPU, or not our shim. It runs on. */
static int step_check(struct flow *f, struct error *err)
{
	struct switching *s = switching_of(f);

	if (s->resume || s->report.begun)
		return 0;
	return error_reason(err, REASON_NOT_GPU, -ENXIO,
			    "container \"%s\" has no GPU, or does not run under kybernate's shim",
			    s->id);
}

static int undo_switch(struct flow *f, struct error *err)
{
	struct switching *s = switching_of(f);

	/* An operation that failed was undone by itself. */
	return s->resume || s->report.begun ? 0 : ask(s, CTD_TASKS "Resume", err);
}

static const struct flow_step steps[] = {
	{ "task", step_task, NULL, cancel_task },
	{ "switch", step_switch, undo_switch, cancel_switch },
	{ "check", step_check, NULL, NULL },
};

/* --- the caller's side ---------------------------------------------------------------------- */

static void switching_free(struct switching *s)
{
	list_remove(&s->node);
	streams_forget(s->agent, &s->report);
	containerd_call_done(&s->call);
	report_done(&s->report);
	free(s->ns);
	free(s->id);
	free(s);
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct switching *s = switching_of(f);

	report_answer(&s->report, r, err);
	switching_free(s);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .done = done };

static void begin(struct grpc_call *call, const char *ns, const char *id, uint64_t timeout_ms,
		  bool resume)
{
	struct agent *agent = grpc_call_arg(call);
	nsec_t limit = agent->node.operation_timeout, asked = time_from_ms(timeout_ms);
	struct switching *s = NULL;
	struct error err = ERROR_NULL;

	if (!*ns)
		ns = DEFAULT_NS;
	if (!id_valid(id) || !id_valid(ns)) {
		(void)error_rpc(&err, RPC_INVALID_ARGUMENT, -EINVAL,
				"\"%.80s\" in \"%.80s\" is no container", id, ns);
		agent_fail(call, &err);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (s) {
		list_init(&s->node);
		s->agent = agent;
		report_init(&s->report, call);
		s->ns = strdup(ns);
		s->id = strdup(id);
	}
	if (!s || !s->ns || !s->id) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		agent_fail(call, &err);
		if (s)
			switching_free(s);
		return;
	}
	s->report.id = s->id;
	s->resume = resume;
	s->timeout_ms = timeout_ms;
	s->deadline = time_add(time_now(), asked && asked < limit ? asked : limit);
	list_append(&agent->switchings, &s->node);
	grpc_call_set_data(call, s);
	flow_start(&s->flow, agent->loop, &ops);
}

static void suspend_message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__SuspendContainerRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__suspend_container_request__descriptor, &mem);

	if (m)
		begin(call, m->containerd_namespace, m->container_id, m->timeout_ms, false);
}

static void resume_message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__ResumeContainerRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__resume_container_request__descriptor, &mem);

	if (m)
		begin(call, m->containerd_namespace, m->container_id, m->timeout_ms, true);
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct switching *s = grpc_call_data(call);
	struct error err = ERROR_NULL;

	(void)why;
	if (!s)
		return;
	s->report.call = NULL;
	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the caller has ended the call");
	flow_abort(&s->flow, &err);
}

const struct grpc_method_ops suspend_verb = { .message = suspend_message, .ended = ended };
const struct grpc_method_ops resume_verb = { .message = resume_message, .ended = ended };
