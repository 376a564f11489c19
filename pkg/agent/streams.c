/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streams that shims open: Checkpoint, Restore, Suspend. The first request begins an
 * operation, every further one answers an order; replies carry progress, orders, and in the end
 * the verdict. When the stream breaks, the operation loses its host and undoes what it has done.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/kubelet.h"
#include "agent/report.h"
#include "base/log.h"
#include "checkpoint/revive.h"
#include "rpc/pb.h"

#define MEMORY_MAX ((size_t)4 << 20)

struct stream {
	struct agent *agent;
	struct grpc_call *call;   /* NULL: it has ended */
	struct operation *op;     /* NULL: not begun, or over */
	/* The operator's call that it belongs to, or NULL. */
	struct report *report;
	struct creation *creation; /* the owner of report */
	struct rebirth *rebirth;
	struct creation *stop; /* ours: a container that is being stopped */
	bool looking;          /* it is not ready yet */
	struct kubelet_call kubelet;  /* before it begins */
	bool asking;
	void (*go_on)(struct stream *s);
	bool if_asked; /* a suspend that only an operator can want */
	struct operation_request req; /* what waits for these */
	struct arena mem;             /* of the first request */
	struct rootfs *rootfs;
};

static struct stream *stream_of(struct grpc_call *call)
{
	return grpc_call_data(call);
}

static void stream_free(struct stream *s)
{
	if (s->stop)
		creation_free(s->stop);
	kubelet_call_done(&s->kubelet);
	arena_done(&s->mem);
	free(s);
}

static void started(struct grpc_call *call)
{
	struct stream *s = calloc(1, sizeof(*s));
	struct error err = ERROR_NULL;

	if (!s) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		agent_fail(call, &err);
		return;
	}
	s->agent = grpc_call_arg(call);
	s->call = call;
	s->mem = ARENA_LIMIT(MEMORY_MAX);
	grpc_call_set_data(call, s);
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct stream *s = stream_of(call);

	(void)why;
	if (!s)
		return;
	s->call = NULL;
	if (s->op)
		operation_host_lost(s->op); /* finished() frees the stream */
	else if (s->looking)
		creation_cancel(s->stop); /* stop_known() does */
	else
		stream_free(s);
}

/* --- replies -------------------------------------------------------------------------------- */

/* What a reply says, whichever kind it is. */
struct reply {
	enum operation_status status;
	const struct error *err;
	enum order order;
	bool last;
};

/* What all replies have in common, ready to be sent. */
struct parts {
	struct arena mem;
	Kybernate__Agent__V1__Status status;
	Kybernate__Agent__V1__Phase phase;
	Kybernate__Agent__V1__Order order;
	pb_progress progress, *has_progress;
	pb_error error, *has_error;
	pb_phase_time **timeline;
	size_t n_timeline;
};

static void parts_init(struct parts *p, const struct operation *op, const struct reply *what)
{
	*p = (struct parts){ .mem = ARENA_LIMIT(MEMORY_MAX) };
	p->status = (Kybernate__Agent__V1__Status)what->status;
	p->phase = (Kybernate__Agent__V1__Phase)op->phase;
	p->order = (Kybernate__Agent__V1__Order)what->order;
	p->has_progress = convert_progress(op, &p->progress);
	if (what->err)
		p->has_error = convert_error(what->err, op->failed_phase, op, &p->error);
	if (what->last)
		p->n_timeline = convert_timeline(op, &p->mem, &p->timeline);
}

/* The messages have no type in common. */
#define SET_PARTS(m, p)                                                                            \
	do {                                                                                       \
		(m)->status = (p)->status;                                                         \
		(m)->phase = (p)->phase;                                                           \
		(m)->order = (p)->order;                                                           \
		(m)->progress = (p)->has_progress;                                                 \
		(m)->error = (p)->has_error;                                                       \
		(m)->timeline = (p)->timeline;                                                     \
		(m)->n_timeline = (p)->n_timeline;                                                 \
	} while (0)

static void send_checkpoint(struct stream *s, const struct operation *op, const struct parts *p)
{
	Kybernate__Agent__V1__CheckpointReply m = KYBERNATE__AGENT__V1__CHECKPOINT_REPLY__INIT;

	SET_PARTS(&m, p);
	m.cuda_done = op->cuda_done;
	m.criu_done = op->criu_done;
	m.checkpoint_ref = (char *)op->req.ref;
	if (m.order == KYBERNATE__AGENT__V1__ORDER__ORDER_DUMP) {
		m.image_path = (char *)op->image_path;
		m.work_path = (char *)op->work_path;
	}
	agent_send(s->call, &m.base);
}

static void send_restore(struct stream *s, const struct operation *op, struct parts *p)
{
	Kybernate__Agent__V1__RestoreReply m = KYBERNATE__AGENT__V1__RESTORE_REPLY__INIT;

	SET_PARTS(&m, p);
	if (m.order == KYBERNATE__AGENT__V1__ORDER__ORDER_RESTORE) {
		m.image_path = (char *)op->image_path;
		m.work_path = (char *)op->work_path;
		m.runtime_flags = (char **)op->metadata.runtime_flags;
		m.n_runtime_flags = op->metadata.n_runtime_flags;
		m.n_mounts = convert_mounts(op->metadata.mounts, op->metadata.n_mounts, &p->mem,
					    &m.mounts);
		if (!m.mounts) {
			agent_fail(s->call, &(struct error){ .code = -ENOMEM,
							     .text = "out of memory" });
			return;
		}
	}
	agent_send(s->call, &m.base);
}

static void send_suspend(struct stream *s, const struct operation *op, struct parts *p)
{
	Kybernate__Agent__V1__SuspendReply m = KYBERNATE__AGENT__V1__SUSPEND_REPLY__INIT;

	SET_PARTS(&m, p);
	m.cuda_done = op->cuda_done;
	if (m.order == KYBERNATE__AGENT__V1__ORDER__ORDER_FREEZE &&
	    op->req.kind == OPERATION_SUSPEND && convert_make_held(op, &p->mem, &m.held) < 0)
		agent_fail(s->call, &(struct error){ .code = -ENOMEM, .text = "out of memory" });
	else
		agent_send(s->call, &m.base);
}

static void send_reply(struct operation *op, const struct reply *what)
{
	struct stream *s = op->host_data;
	struct parts parts;

	if (!s->call)
		return;
	parts_init(&parts, op, what);
	switch (op->req.kind) {
	case OPERATION_CHECKPOINT:
		send_checkpoint(s, op, &parts);
		break;
	case OPERATION_SUSPEND:
	case OPERATION_RESUME:
		send_suspend(s, op, &parts);
		break;
	default:
		send_restore(s, op, &parts);
	}
	arena_done(&parts.mem);
}

/* --- the operation's host ------------------------------------------------------------------- */

static void order(struct operation *op, enum order what)
{
	send_reply(op, &(struct reply){ .status = OPERATION_WORKING, .order = what });
}

static void update(struct operation *op)
{
	struct stream *s = op->host_data;

	if (s->rootfs && op->phase == PHASE_ROOTFS)
		rootfs_progress(s->rootfs);
	send_reply(op, &(struct reply){ .status = OPERATION_WORKING });
	if (s->report)
		report_update(s->report, op);
	if (s->rebirth)
		rebirth_update(s->rebirth, op);
}

static void finished(struct operation *op, enum operation_status status, const struct error *err)
{
	struct stream *s = op->host_data;

	rootfs_free(s->rootfs);
	s->rootfs = NULL;
	if (s->report)
		report_finished(s->report, op, status, err);
	if (s->creation)
		creation_over(s->creation);
	if (s->rebirth)
		rebirth_finished(s->rebirth, op, status, err);
	send_reply(op, &(struct reply){ .status = status,
					.err = status == OPERATION_OK ? NULL : err,
					.last = true });
	s->op = NULL;
	if (!s->call) {
		stream_free(s);
		return;
	}
	/* The verdict is a message, for clients that read no trailers; the status says it too. */
	if (status == OPERATION_OK)
		grpc_call_finish(s->call, RPC_OK, NULL, bytes_of(NULL, 0));
	else
		agent_fail(s->call, err);
}

static int save_files(struct operation *op, struct error *err)
{
	struct stream *s = op->host_data;

	if (!s->creation)
		return error_reason(err, REASON_INTERNAL, -EPROTO,
				    "a checkpoint into the store that nobody asked for");
	return creation_save_rootfs(s->creation, op, &s->rootfs, err);
}

static int put_files_back(struct operation *op, struct error *err)
{
	struct stream *s = op->host_data;

	return rootfs_restore(s->agent, op, &s->rootfs, err);
}

static int rootfs_step(struct operation *op, struct error *err)
{
	return op->req.kind == OPERATION_CHECKPOINT ? save_files(op, err)
						    : put_files_back(op, err);
}

static void rootfs_stop(struct operation *op)
{
	struct stream *s = op->host_data;

	if (s->rootfs)
		rootfs_cancel(s->rootfs);
}

static const struct operation_host host = { .order = order,
					    .update = update,
					    .rootfs = rootfs_step,
					    .rootfs_cancel = rootfs_stop,
					    .finished = finished };

/* --- requests ------------------------------------------------------------------------------- */

static void begin(struct stream *s, struct operation_request *req)
{
	struct error err = ERROR_NULL;
	struct operation *op;
	int r;

	s->rebirth = rebirth_find(s->agent, req->ns, req->container_id);
	if (req->kind == OPERATION_CHECKPOINT) {
		s->creation = s->stop ? s->stop
				      : creation_find(s->agent, req->ns, req->container_id,
						      req->ref);
		if (*req->ref && !s->creation) {
			(void)error_reason(&err, REASON_CANCELED, -ECANCELED,
					   "nobody waits for a checkpoint \"%s\" any more",
					   req->ref);
			agent_fail(s->call, &err);
			return;
		}
		if (s->creation) {
			creation_describe(s->creation, req);
			s->report = creation_report(s->creation);
		}
	}
	r = operation_start(&s->agent->node, req, &host, s, &op, &err);
	if (r < 0) {
		log_warning("operation refused", F_STR("id", req->container_id),
			    F_STR("reason", reason_name(err.reason)), F_ERR(&err));
		if (s->report)
			report_finished(s->report, NULL, OPERATION_FAILED, &err);
		agent_fail(s->call, &err);
		return;
	}
	s->op = op;
	if (s->report)
		report_begun(s->report, op);
}

/* Everything is known that a checkpoint in place of a stop needs. */
static void stop_known(void *data, int r, const struct error *err)
{
	struct stream *s = data;

	s->looking = false;
	if (!s->call) {
		stream_free(s);
		return;
	}
	if (r < 0) {
		agent_fail(s->call, err);
		return;
	}
	s->req.ref = creation_ref(s->stop);
	begin(s, &s->req);
}

static void begin_stop(struct stream *s)
{
	struct error err = ERROR_NULL;

	s->stop = creation_for_stop(s->agent, s->req.ns, s->req.container_id, stop_known, s);
	s->looking = s->stop != NULL;
	if (!s->stop) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		agent_fail(s->call, &err);
	}
}

/* Nothing has begun, so that nothing has to be undone when the stream breaks meanwhile. */
static void kubelet_known(struct kubelet_call *call, int r, const struct error *err)
{
	struct stream *s = container_of(call, struct stream, kubelet);

	s->asking = false;
	if (r == -ENOENT) {
		log_warning("operation refused", F_STR("id", s->req.container_id),
			    F_STR("reason", reason_name(err->reason)), F_ERR(err));
		agent_fail(s->call, err);
		return;
	}
	if (r < 0) /* a kubelet that is being restarted holds nobody up */
		log_warning("kubelet does not say which GPUs the pod has",
			    F_STR("id", s->req.container_id), F_ERR(err));
	s->req.pod_gpus = call->gpus;
	s->req.n_pod_gpus = call->n_gpus;
	s->go_on(s);
}

/* go_on() as soon as it is known which GPUs the container was given. */
static void ask_kubelet(struct stream *s, void (*go_on)(struct stream *s))
{
	struct error err = ERROR_NULL;
	const struct operation_request *req = &s->req;

	s->go_on = go_on;
	if (!req->gpu || !*req->pod_name || !*req->container_name ||
	    !kubelet_here(s->agent->kubelet)) {
		go_on(s);
		return;
	}
	if (kubelet_ask(s->agent->kubelet, &s->kubelet, req->pod_namespace, req->pod_name,
			req->container_name, kubelet_known, &err) < 0)
		agent_fail(s->call, &err);
	else
		s->asking = true;
}

static void begin_request(struct stream *s)
{
	begin(s, &s->req);
}

/* Is this the first message of a stream? Later ones answer orders. */
static bool is_first(const struct stream *s)
{
	return s && !s->op && !s->stop && !s->asking;
}

/* As a message too: a bare status could be taken for one more broken connection. */
static void refuse_resume(struct stream *s, const struct operation_request *req,
			  const struct error *err)
{
	Kybernate__Agent__V1__CheckpointReply m = KYBERNATE__AGENT__V1__CHECKPOINT_REPLY__INIT;
	pb_error error;

	log_warning("nothing to resume", F_STR("id", req->container_id), F_ERR(err));
	m.status = KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED;
	m.error = convert_error(err, PHASE_NONE, NULL, &error);
	agent_send(s->call, &m.base);
	agent_fail(s->call, err);
}

/* A shim whose agent has died: its operation waits for it, or there is none any more. */
static void come_back(struct stream *s, const pb_order_result *result)
{
	struct error err = ERROR_NULL, why = ERROR_NULL;
	struct operation *op;
	int r = 0;

	if (result && !result->ok) {
		r = error_reason(&why, REASON_RUNTIME_FAILED, -EREMOTEIO, "%s",
				 result->error ? result->error->message : "the shim failed");
		if (result->error && result->error->reason)
			why.reason = (enum reason)result->error->reason;
	}
	if (revive_claim(&s->agent->node, &s->req, &host, s, result != NULL, r, &why, &op, &err) < 0)
		refuse_resume(s, &s->req, &err);
	else
		s->op = op;
}

static void answered(struct stream *s, const pb_order_result *m)
{
	struct error err = ERROR_NULL;
	int r;

	if (!s->op || !m)
		return; /* it is over, and the answer crossed the verdict */
	r = convert_order_result(m, s->op, &err);
	operation_order_done(s->op, (enum order)m->order, r, &err, (pid_t)m->task_pid);
}

static void checkpoint_message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	struct stream *s = stream_of(call);
	struct arena *kept = is_first(s) ? &s->mem : &mem;
	const Kybernate__Agent__V1__CheckpointRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__checkpoint_request__descriptor, kept);
	struct error err = ERROR_NULL;

	if (!m || !s)
		return;
	if (!is_first(s) || (m->result && !m->resume))
		answered(s, m->result);
	else if (convert_checkpoint_request(m, &s->req, kept, &err) < 0)
		agent_fail(call, &err);
	else if (m->resume)
		come_back(s, m->result);
	else
		ask_kubelet(s, m->options->stop ? begin_stop : begin_request);
}

static void restore_message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	struct stream *s = stream_of(call);
	struct arena *kept = is_first(s) ? &s->mem : &mem;
	const Kybernate__Agent__V1__RestoreRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__restore_request__descriptor, kept);
	struct error err = ERROR_NULL;

	if (!m || !s)
		return;
	if (!is_first(s) || m->result)
		answered(s, m->result);
	else if (convert_restore_request(m, &s->req, &err) < 0)
		agent_fail(call, &err);
	else
		ask_kubelet(s, begin_request);
}

/* The pod did not ask for it, and nobody else does. */
static void not_asked(struct grpc_call *call)
{
	Kybernate__Agent__V1__SuspendReply m = KYBERNATE__AGENT__V1__SUSPEND_REPLY__INIT;

	m.status = KYBERNATE__AGENT__V1__STATUS__STATUS_OK;
	agent_send(call, &m.base);
	grpc_call_finish(call, RPC_OK, NULL, bytes_of(NULL, 0));
}

static struct report *asked(struct stream *s)
{
	return switching_find(s->agent, s->req.ns, s->req.container_id,
			      s->req.kind == OPERATION_RESUME, &s->req.timeout_ms);
}

/* The operator may have left while kubelet was asked. */
static void begin_suspend(struct stream *s)
{
	s->report = asked(s);
	if (s->if_asked && !s->report)
		not_asked(s->call);
	else
		begin(s, &s->req);
}

static void suspend_message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	struct stream *s = stream_of(call);
	struct arena *kept = is_first(s) ? &s->mem : &mem;
	const Kybernate__Agent__V1__SuspendRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__suspend_request__descriptor, kept);
	struct error err = ERROR_NULL;

	if (!m || !s)
		return;
	if (!is_first(s) || m->result) {
		answered(s, m->result);
		return;
	}
	if (convert_suspend_request(m, &s->req, kept, &err) < 0) {
		agent_fail(call, &err);
		return;
	}
	s->if_asked = m->if_asked;
	if (m->if_asked && !asked(s))
		not_asked(call);
	else
		ask_kubelet(s, begin_suspend);
}

void streams_forget(struct agent *agent, const void *what)
{
	struct operation *op;

	list_for_each(op, &agent->node.operations, node_link) {
		struct stream *s = op->host_data;

		if (s->report == what) {
			s->report = NULL;
			s->creation = NULL;
		}
		if (s->rebirth == what)
			s->rebirth = NULL;
	}
}

const struct grpc_method_ops suspend_stream = { .started = started,
						.message = suspend_message,
						.ended = ended };
const struct grpc_method_ops checkpoint_stream = { .started = started,
						   .message = checkpoint_message,
						   .ended = ended };
const struct grpc_method_ops restore_stream = { .started = started,
						.message = restore_message,
						.ended = ended };
