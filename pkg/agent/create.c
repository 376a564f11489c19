/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CreateCheckpoint: an operator's checkpoint into the store. Driven through containerd, so that its
 * view stays true: it calls the shim, the shim opens its stream here, and the operation that begins
 * then belongs to this call and reports to it.
 *
 * containerd is never asked for "exit": a shim that is not ours would end the container after a
 * checkpoint that nobody gets. The exit is our own last order to our own shim.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/report.h"
#include "api/containerd/options.pb-c.h"
#include "api/containerd/services.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"
#include "rpc/pb.h"

#define REQUEST_MAX ((size_t)1 << 20)
#define RECORD_MAX  ((size_t)16 << 20)
#define LOOK_MAX    (30 * NSEC_PER_SEC)
#define DEFAULT_NS  "k8s.io"

struct creation {
	struct agent *agent;
	struct list node;
	struct flow flow;
	struct report report;
	struct containerd_call container_call, task_call, snapshot_call, checkpoint_call;
	const Svc__Container *container; /* lives in container_call */
	const char *parent;              /* lives in snapshot_call; NULL = none */
	char *ns, *id;
	char ref[REF_MAX + 1];
	bool exit;
	nsec_t deadline;
	bool answered; /* by containerd, while the operation still runs: with */
	int answer;
	struct error answer_err;
	/* For a stop: the stream that waits until everything is known. */
	void (*ready)(void *data, int r, const struct error *err);
	void *data;
};

static struct creation *creation_of(struct flow *f)
{
	return container_of(f, struct creation, flow);
}

/* --- the operation's side ------------------------------------------------------------------- */

struct creation *creation_find(struct agent *agent, const char *ns, const char *container_id,
			       const char *ref)
{
	struct creation *c;

	list_for_each(c, &agent->creations, node)
		if (strcmp(c->id, container_id) == 0 && strcmp(c->ns, ns) == 0 &&
		    strcmp(c->ref, ref) == 0 && !c->report.begun)
			return c;
	return NULL;
}

/* The shim tells what containerd gave it, which has room for undoing: not the caller's patience. */
static uint64_t left_ms(nsec_t deadline)
{
	nsec_t now = time_now();

	return deadline > now + NSEC_PER_MSEC ? (deadline - now) / NSEC_PER_MSEC : 1;
}

void creation_describe(const struct creation *c, struct operation_request *req)
{
	req->exit = c->exit;
	req->image = c->container->image;
	req->snapshotter = c->container->snapshotter;
	req->parent_chain_id = c->parent;
	if (c->container->runtime)
		req->runtime_type = c->container->runtime->name;
	if (!c->ready)
		req->timeout_ms = left_ms(c->deadline);
}

struct report *creation_report(struct creation *c)
{
	return &c->report;
}

static int put_record(const struct creation *c, const struct operation *op, struct error *err)
{
	_cleanup_buf_ struct buf record = BUF_LIMIT(RECORD_MAX);
	const Ctd__Any *spec = c->container->spec;
	int r;

	r = pb_pack(&c->container->base, &record);
	if (r < 0)
		return error_set(err, r, "the container's record is too large");
	r = store_put(&op->work, "container.pb", buf_bytes(&record), err);
	if (r == 0 && spec)
		r = store_put(&op->work, "spec.json", bytes_of(spec->value.data, spec->value.len),
			      err);
	return r;
}

int creation_save_rootfs(struct creation *c, struct operation *op, struct rootfs **ret,
			 struct error *err)
{
	int r = put_record(c, op, err);

	if (r < 0)
		return r;
	if (!*c->container->snapshot_key)
		return 0;
	return rootfs_save(c->agent, op, c->ns, c->container->snapshotter,
			   c->container->snapshot_key, ret, err);
}

/* --- at containerd -------------------------------------------------------------------------- */

static int missing(struct creation *c, struct error *err)
{
	return error_reason(err, REASON_CONTAINER_MISSING, -ESRCH,
			    "there is no running container \"%s\" in namespace \"%s\"", c->id, c->ns);
}

static void container_known(struct containerd_call *call, int r, const void *reply,
			    const struct error *err)
{
	struct creation *c = container_of(call, struct creation, container_call);
	const Svc__ContainerMessage *m = reply;
	struct error mine = *err;

	if (r == 0 && m->container)
		c->container = m->container;
	else if (r == 0 || err->rpc == RPC_NOT_FOUND)
		r = missing(c, &mine);
	flow_resume(&c->flow, r, &mine);
}

static int step_container(struct flow *f, struct error *err)
{
	struct creation *c = creation_of(f);
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;
	int r;

	request.id = c->id;
	r = containerd_call(c->agent->containerd, &c->container_call, c->ns, NULL,
			    CTD_CONTAINERS "Get", &request.base, &svc__container_message__descriptor,
			    time_now() + LOOK_MAX, container_known, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void snapshot_known(struct containerd_call *call, int r, const void *reply,
			   const struct error *err)
{
	struct creation *c = container_of(call, struct creation, snapshot_call);
	const Svc__SnapshotStatResponse *m = reply;

	if (r == 0 && m->info)
		c->parent = m->info->parent;
	flow_resume(&c->flow, r, err);
}

/* What the container's own layer lies on: the new container of a restore needs the same. */
static int step_snapshot(struct flow *f, struct error *err)
{
	struct creation *c = creation_of(f);
	Svc__SnapshotRequest request = SVC__SNAPSHOT_REQUEST__INIT;
	int r;

	if (!*c->container->snapshot_key)
		return 0; /* its root file system is its own affair */
	request.snapshotter = c->container->snapshotter;
	request.key = c->container->snapshot_key;
	r = containerd_call(c->agent->containerd, &c->snapshot_call, c->ns, NULL,
			    CTD_SNAPSHOTS "Stat", &request.base,
			    &svc__snapshot_stat_response__descriptor, time_now() + LOOK_MAX,
			    snapshot_known, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void task_known(struct containerd_call *call, int r, const void *reply,
		       const struct error *err)
{
	struct creation *c = container_of(call, struct creation, task_call);
	const Svc__TaskGetResponse *m = reply;
	struct error mine = *err;

	if ((r < 0 && err->rpc == RPC_NOT_FOUND) ||
	    (r == 0 && (!m->process || (m->process->status != TASK__STATUS__RUNNING &&
					m->process->status != TASK__STATUS__PAUSED))))
		r = missing(c, &mine);
	flow_resume(&c->flow, r, &mine);
}

static int step_task(struct flow *f, struct error *err)
{
	struct creation *c = creation_of(f);
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	int r;

	request.container_id = c->id;
	r = containerd_call(c->agent->containerd, &c->task_call, c->ns, NULL, CTD_TASKS "Get",
			    &request.base, &svc__task_get_response__descriptor,
			    time_now() + LOOK_MAX, task_known, err);
	return r < 0 ? r : FLOW_WAIT;
}

static int step_ref(struct flow *f, struct error *err)
{
	struct creation *c = creation_of(f);

	return *c->ref ? 0 : store_new_ref(c->agent->store, c->id, c->ref, err);
}

/*
 * The answer may come while the operation still runs: containerd was restarted, or its patience is
 * over. That is no reason to give the operation up: creation_over() goes on.
 */
static void checkpointed(struct containerd_call *call, int r, const void *reply,
			 const struct error *err)
{
	struct creation *c = container_of(call, struct creation, checkpoint_call);
	struct error mine = *err;

	(void)reply;
	if (c->report.op) {
		c->answered = true;
		c->answer = r;
		c->answer_err = *err;
		return;
	}
	if (r == 0 && !c->report.begun)
		r = error_reason(&mine, REASON_CONFIG_INVALID, -EPROTO,
				 "container \"%s\" does not run under kybernate's shim", c->id);
	flow_resume(&c->flow, r, &mine);
}

void creation_over(struct creation *c)
{
	if (c->answered)
		flow_resume(&c->flow, c->answer, &c->answer_err);
}

static int step_checkpoint(struct flow *f, struct error *err)
{
	struct creation *c = creation_of(f);
	Svc__TaskCheckpointRequest request = SVC__TASK_CHECKPOINT_REQUEST__INIT;
	Options__Checkpoint options = OPTIONS__CHECKPOINT__INIT;
	_cleanup_buf_ struct buf packed = BUF_NULL;
	Ctd__Any any = CTD__ANY__INIT;
	int r;

	options.file_locks = true;
	options.kybernate_ref = c->ref;
	r = pb_pack(&options.base, &packed);
	if (r < 0)
		return error_set(err, r, "out of memory");
	any.type_url = (char *)"containerd.runc.v1.CheckpointOptions";
	any.value.data = (uint8_t *)buf_bytes(&packed).p;
	any.value.len = buf_len(&packed);
	request.container_id = c->id;
	request.options = &any;
	r = containerd_call(c->agent->containerd, &c->checkpoint_call, c->ns, NULL,
			    CTD_TASKS "Checkpoint", &request.base,
			    &svc__task_checkpoint_response__descriptor,
			    time_add(c->deadline, agent_undo_time(c->agent)), checkpointed, err);
	return r < 0 ? r : FLOW_WAIT;
}

/* The caller has left: the operation is undone, then containerd's call ends by itself. */
static void cancel_checkpoint(struct flow *f)
{
	struct creation *c = creation_of(f);
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the caller has ended the call");
	if (c->report.op) {
		operation_cancel(c->report.op, &err);
		return;
	}
	if (c->report.begun)
		return; /* it is over, containerd's answer is on its way */
	c->report.begun = true; /* no stream may begin for it any more */
	containerd_call_done(&c->checkpoint_call);
	flow_resume(f, -ECANCELED, &err);
}

static const struct flow_step steps[] = {
	{ "container", step_container, NULL, NULL },
	{ "task", step_task, NULL, NULL },
	{ "snapshot", step_snapshot, NULL, NULL },
	{ "ref", step_ref, NULL, NULL },
	{ "checkpoint", step_checkpoint, NULL, cancel_checkpoint },
};

void creation_free(struct creation *c)
{
	list_remove(&c->node);
	streams_forget(c->agent, &c->report);
	containerd_call_done(&c->container_call);
	containerd_call_done(&c->task_call);
	containerd_call_done(&c->snapshot_call);
	containerd_call_done(&c->checkpoint_call);
	report_done(&c->report);
	free(c->ns);
	free(c->id);
	free(c);
}

/* --- a container that is being stopped ------------------------------------------------------ */

static const struct flow_step stop_steps[] = {
	{ "container", step_container, NULL, NULL },
	{ "snapshot", step_snapshot, NULL, NULL },
	{ "ref", step_ref, NULL, NULL },
};

static void known(struct flow *f, int r, const struct error *err)
{
	struct creation *c = creation_of(f);

	c->ready(c->data, r, err);
}

static const struct flow_ops stop_ops = { .steps = stop_steps,
					  .n_steps = ARRAY_SIZE(stop_steps),
					  .done = known };

struct creation *creation_for_stop(struct agent *agent, const char *ns, const char *container_id,
				   void (*ready)(void *data, int r, const struct error *err),
				   void *data)
{
	struct creation *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	list_init(&c->node);
	c->agent = agent;
	report_init(&c->report, NULL);
	c->report.begun = true; /* no other stream may take it for its own */
	c->ns = strdup(ns);
	c->id = strdup(container_id);
	if (!c->ns || !c->id) {
		creation_free(c);
		return NULL;
	}
	c->report.id = c->id;
	c->report.ref = c->ref;
	c->exit = true;
	c->ready = ready;
	c->data = data;
	list_append(&agent->creations, &c->node);
	flow_start(&c->flow, agent->loop, &stop_ops);
	return c;
}

void creation_cancel(struct creation *c)
{
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_SHIM_GONE, -EPIPE, "the shim has left");
	flow_abort(&c->flow, &err);
}

const char *creation_ref(const struct creation *c)
{
	return c->ref;
}

/* --- the caller's side ---------------------------------------------------------------------- */

static void done(struct flow *f, int r, const struct error *err)
{
	struct creation *c = creation_of(f);

	report_answer(&c->report, r, err);
	creation_free(c);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .done = done };

static int take_request(struct creation *c,
			const Kybernate__Agent__V1__CreateCheckpointRequest *m, struct error *err)
{
	const char *ns = *m->containerd_namespace ? m->containerd_namespace : DEFAULT_NS;
	nsec_t limit = c->agent->node.operation_timeout, asked = time_from_ms(m->timeout_ms);

	if (!id_valid(m->container_id) || !id_valid(ns))
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "\"%.80s\" in \"%.80s\" is no container", m->container_id, ns);
	if (*m->checkpoint_ref && !ref_valid(m->checkpoint_ref))
		return error_reason(err, REASON_REF_INVALID, -EINVAL,
				    "\"%.160s\" is no name for a checkpoint", m->checkpoint_ref);
	(void)snprintf(c->ref, sizeof(c->ref), "%s", m->checkpoint_ref);
	c->exit = m->exit;
	c->deadline = time_add(time_now(), asked && asked < limit ? asked : limit);
	c->ns = strdup(ns);
	c->id = strdup(m->container_id);
	c->report.id = c->id;
	return c->ns && c->id ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static void message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__CreateCheckpointRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__create_checkpoint_request__descriptor, &mem);
	struct creation *c = m ? calloc(1, sizeof(*c)) : NULL;
	struct error err = ERROR_NULL;

	if (!m)
		return;
	if (!c) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		agent_fail(call, &err);
		return;
	}
	c->agent = grpc_call_arg(call);
	report_init(&c->report, call);
	c->report.ref = c->ref;
	list_append(&c->agent->creations, &c->node);
	if (take_request(c, m, &err) < 0) {
		agent_fail(call, &err);
		creation_free(c);
		return;
	}
	grpc_call_set_data(call, c);
	flow_start(&c->flow, c->agent->loop, &ops);
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct creation *c = grpc_call_data(call);
	struct error err = ERROR_NULL;

	(void)why;
	if (!c)
		return;
	c->report.call = NULL;
	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the caller has ended the call");
	flow_abort(&c->flow, &err);
}

const struct grpc_method_ops create_verb = { .message = message, .ended = ended };
