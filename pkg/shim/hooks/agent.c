/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/hooks/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/arena.h"
#include "base/path.h"
#include "rpc/grpc_client.h"
#include "rpc/pb.h"

#define REPLY_MEMORY_MAX ((size_t)4 << 20)
#define MOUNTS_MEMORY_MAX ((size_t)1 << 20)
#define DETAIL_LINES_MAX 64

struct agent_op {
	struct loop *loop;
	struct grpc_client *client;
	struct grpc_stream *stream;
	enum agent_kind kind;
	const struct agent_ops *ops;
	void *data;
	struct sockaddr_un addr;
	uid_t foreign;    /* who answers on the socket, where that is not to be trusted */
	bool refused;
	bool over;        /* the agent has given its verdict */
	int result;
	struct error err; /* of the verdict */
	struct job free_job;
};

static char *text(const char *s)
{
	return (char *)(s ? s : "");
}

/* What all three kinds of request share. */
static Kybernate__Agent__V1__Context *make_context(const struct agent_request *req,
						   Kybernate__Agent__V1__Context *x)
{
	kybernate__agent__v1__context__init(x);
	x->containerd_namespace = text(req->ns);
	x->task_pid = (uint32_t)req->task_pid;
	x->bundle = text(req->bundle);
	x->pod_name = text(req->pod_name);
	x->pod_namespace = text(req->pod_namespace);
	x->sandbox_id = text(req->sandbox_id);
	x->container_name = text(req->container_name);
	x->seat_generation = text(req->seat_generation);
	x->group_annotation = text(req->group_annotation);
	x->seat_annotation = text(req->seat_annotation);
	x->runtime = text(req->runtime);
	x->gpu = req->gpu;
	x->traceparent = text(req->traceparent);
	x->tracestate = text(req->tracestate);
	x->shim_version = text(KYB_VERSION);
	x->shim_pid = (uint32_t)getpid();
	x->device_paths = (char **)req->device_paths;
	x->n_device_paths = req->n_device_paths;
	x->visible_devices = (char **)req->visible_devices;
	x->n_visible_devices = req->n_visible_devices;
	return x;
}

static ProtobufCBinaryData binary(struct bytes b)
{
	return (ProtobufCBinaryData){ .len = b.n, .data = (uint8_t *)(uintptr_t)b.p };
}

static int send_message(struct agent_op *op, const ProtobufCMessage *msg)
{
	_cleanup_buf_ struct buf packed = BUF_NULL;
	int r = pb_pack(msg, &packed);

	return r < 0 ? r : grpc_stream_send(op->stream, buf_bytes(&packed));
}

static Kybernate__Agent__V1__Error *make_error(const struct error *err,
					       Kybernate__Agent__V1__Error *buf)
{
	kybernate__agent__v1__error__init(buf);
	buf->reason = (Kybernate__Agent__V1__Reason)err->reason;
	buf->message = (char *)error_text(err);
	return buf;
}

static void explain(Kybernate__Agent__V1__OrderResult *result, const struct agent_detail *detail)
{
	if (!detail)
		return;
	result->error->detail = (char **)(uintptr_t)detail->lines;
	result->error->n_detail = detail->n_lines;
	result->log_path = text(detail->log_path);
}

/* --- mounts --------------------------------------------------------------------------------- */

static int put_mounts(const struct mount_records *from, struct arena *mem,
		      Kybernate__Agent__V1__CheckpointOptions *to)
{
	Kybernate__Agent__V1__Mount *m = arena_alloc(mem, (from->n + 1) * sizeof(*m));

	to->mounts = arena_alloc(mem, (from->n + 1) * sizeof(*to->mounts));
	if (!m || !to->mounts)
		return -ENOMEM;
	for (size_t i = 0; i < from->n; i++) {
		const struct mount_record *r = &from->items[i];

		kybernate__agent__v1__mount__init(&m[i]);
		m[i].destination = text(r->destination);
		m[i].kind = text(r->kind);
		m[i].type = text(r->type);
		m[i].root = text(r->root);
		m[i].source = text(r->source);
		m[i].size = r->size;
		m[i].external = r->external;
		m[i].configured = r->configured;
		m[i].in_root = r->in_root;
		to->mounts[i] = &m[i];
	}
	to->n_mounts = from->n;
	return 0;
}

static int take_mounts(const Kybernate__Agent__V1__RestoreReply *from, struct arena *mem,
		       struct mount_records *ret)
{
	*ret = (struct mount_records){ .items = arena_alloc(mem, (from->n_mounts + 1) *
								      sizeof(*ret->items)) };
	if (!ret->items)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_mounts; i++) {
		const Kybernate__Agent__V1__Mount *m = from->mounts[i];

		ret->items[ret->n++] = (struct mount_record){
			.destination = m->destination,
			.kind = m->kind,
			.type = m->type,
			.root = m->root,
			.source = *m->source ? m->source : NULL,
			.size = m->size,
			.external = m->external,
			.configured = m->configured,
			.in_root = m->in_root,
		};
	}
	return 0;
}

static int send_checkpoint(struct agent_op *op, const struct agent_request *req)
{
	Kybernate__Agent__V1__CheckpointRequest m = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__CheckpointOptions o = KYBERNATE__AGENT__V1__CHECKPOINT_OPTIONS__INIT;
	Kybernate__Agent__V1__OrderResult result = KYBERNATE__AGENT__V1__ORDER_RESULT__INIT;
	Kybernate__Agent__V1__Error error;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MOUNTS_MEMORY_MAX);
	Kybernate__Agent__V1__Context context;

	if (put_mounts(&req->mounts, &mem, &o) < 0)
		return -ENOMEM;
	m.container_id = text(req->container_id);
	m.pod_uid = text(req->pod_uid);
	m.gpu_group = text(req->gpu_group);
	m.gpu_seat = text(req->gpu_seat);
	m.timeout_ms = req->timeout_ms;
	m.context = make_context(req, &context);
	o.exit = req->exit;
	o.paused = req->paused;
	o.stop = req->stop;
	o.image_path = text(req->image_path);
	o.work_path = text(req->work_path);
	o.checkpoint_ref = text(req->checkpoint_ref);
	o.runtime_flags = (char **)req->runtime_flags;
	o.n_runtime_flags = req->n_runtime_flags;
	o.held = binary(req->held);
	m.options = &o;
	m.resume = req->came_back;
	m.resume_order = (Kybernate__Agent__V1__Order)req->last_order;
	if (req->last_answered) {
		result.order = m.resume_order;
		result.ok = req->last_result == 0;
		if (req->last_result < 0) {
			result.error = make_error(req->last_err, &error);
			explain(&result, req->last_detail);
		}
		m.result = &result;
	}
	return send_message(op, &m.base);
}

static int send_restore(struct agent_op *op, const struct agent_request *req)
{
	Kybernate__Agent__V1__RestoreRequest m = KYBERNATE__AGENT__V1__RESTORE_REQUEST__INIT;
	Kybernate__Agent__V1__Context context;

	m.container_id = text(req->container_id);
	m.pod_uid = text(req->pod_uid);
	m.gpu_group = text(req->gpu_group);
	m.gpu_seat = text(req->gpu_seat);
	m.timeout_ms = req->timeout_ms;
	m.context = make_context(req, &context);
	m.checkpoint_ref = text(req->checkpoint_ref);
	m.image_path = text(req->image_path);
	m.stage = req->prepare ? KYBERNATE__AGENT__V1__RESTORE_STAGE__RESTORE_STAGE_PREPARE
			       : KYBERNATE__AGENT__V1__RESTORE_STAGE__RESTORE_STAGE_RESTORE;
	return send_message(op, &m.base);
}

static int send_suspend(struct agent_op *op, const struct agent_request *req)
{
	Kybernate__Agent__V1__SuspendRequest m = KYBERNATE__AGENT__V1__SUSPEND_REQUEST__INIT;
	Kybernate__Agent__V1__Context context;

	m.container_id = text(req->container_id);
	m.pod_uid = text(req->pod_uid);
	m.gpu_group = text(req->gpu_group);
	m.gpu_seat = text(req->gpu_seat);
	m.timeout_ms = req->timeout_ms;
	m.context = make_context(req, &context);
	m.resume = req->resume;
	m.if_asked = req->if_asked;
	m.held = binary(req->held);
	return send_message(op, &m.base);
}

/* --- replies -------------------------------------------------------------------------------- */

/* What the three kinds of reply share. */
struct verdict {
	Kybernate__Agent__V1__Status status;
	const Kybernate__Agent__V1__Error *error;
};

static void take_error(struct error *err, const Kybernate__Agent__V1__Error *e)
{
	struct error out = ERROR_NULL;
	_cleanup_buf_ struct buf lines = BUF_LIMIT(ERROR_TEXT_MAX);

	if (!e) {
		(void)error_reason(err, REASON_INTERNAL, -EREMOTEIO,
				   "the agent reports a failure without saying which");
		return;
	}
	for (size_t i = 0; i < e->n_detail && i < DETAIL_LINES_MAX; i++)
		if (buf_printf(&lines, "%s%s", i ? " | " : " [", e->detail[i]) < 0)
			break;
	(void)error_reason(&out, (enum reason)e->reason, -EREMOTEIO, "%s%s%s", e->message,
			   buf_str(&lines), e->n_detail ? "]" : "");
	*err = out;
}

static void judge(struct agent_op *op, const struct verdict *v)
{
	switch (v->status) {
	case KYBERNATE__AGENT__V1__STATUS__STATUS_OK:
		op->over = true;
		op->result = 0;
		break;
	case KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED:
	case KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED:
		op->over = true;
		take_error(&op->err, v->error);
		op->result = op->err.code;
		break;
	default:
		break;
	}
}

/* Unpacks a reply of op's kind. Returns false when it is none. */
static bool unpack(struct agent_op *op, struct bytes msg, struct arena *arena, struct verdict *v,
		   struct agent_reply *out)
{
	if (op->kind == AGENT_CHECKPOINT) {
		const Kybernate__Agent__V1__CheckpointReply *m = pb_unpack(
			&kybernate__agent__v1__checkpoint_reply__descriptor, msg, arena);

		if (!m)
			return false;
		*v = (struct verdict){ m->status, m->error };
		*out = (struct agent_reply){ .phase = m->phase,
					     .order = (enum agent_order)m->order,
					     .cuda_done = m->cuda_done,
					     .criu_done = m->criu_done,
					     .image_path = m->image_path,
					     .work_path = m->work_path };
		return true;
	}
	if (op->kind == AGENT_RESTORE) {
		const Kybernate__Agent__V1__RestoreReply *m =
			pb_unpack(&kybernate__agent__v1__restore_reply__descriptor, msg, arena);

		if (!m)
			return false;
		*v = (struct verdict){ m->status, m->error };
		*out = (struct agent_reply){ .phase = m->phase,
					     .order = (enum agent_order)m->order,
					     .image_path = m->image_path,
					     .work_path = m->work_path,
					     .runtime_flags = m->runtime_flags,
					     .n_runtime_flags = m->n_runtime_flags };
		return take_mounts(m, arena, &out->mounts) == 0;
	}
	const Kybernate__Agent__V1__SuspendReply *m =
		pb_unpack(&kybernate__agent__v1__suspend_reply__descriptor, msg, arena);

	if (!m)
		return false;
	*v = (struct verdict){ m->status, m->error };
	*out = (struct agent_reply){ .phase = m->phase,
				     .order = (enum agent_order)m->order,
				     .cuda_done = m->cuda_done,
				     .held = bytes_of(m->held.data, m->held.len) };
	return true;
}

static void message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(REPLY_MEMORY_MAX);
	struct agent_op *op = arg;
	struct agent_reply reply;
	struct verdict v;

	(void)stream;
	if (op->over)
		return;
	if (!unpack(op, msg, &arena, &v, &reply)) {
		op->over = true;
		op->result = error_reason(&op->err, REASON_INTERNAL, -EBADMSG,
					  "the agent's reply cannot be decoded");
		return;
	}
	judge(op, &v);
	if (!op->over)
		op->ops->reply(op->data, &reply);
}

static void free_later(struct job *job)
{
	struct agent_op *op = container_of(job, struct agent_op, free_job);

	grpc_client_free(op->client);
	free(op);
}

/*
 * Whoever answers here decides what becomes of the container: only root, or the user that we are
 * ourselves, is believed to be the agent.
 */
static int connect_to_agent(void *arg)
{
	struct agent_op *op = arg;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;
	struct ucred peer;
	socklen_t n = sizeof(peer);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&op->addr, sizeof(op->addr)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) {
		r = -errno;
	} else if (peer.uid != 0 && peer.uid != geteuid()) {
		op->refused = true;
		op->foreign = peer.uid;
		r = -EPERM;
	}
	if (r < 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

/* The stream has ended without a verdict: refused before an operation began ("REASON: message"), or
 * broken. */
static int take_status(struct agent_op *op, const struct grpc_status *status)
{
	enum reason reason;
	const char *words = reason_in_text(status->text, &reason);

	if (words)
		return error_reason(&op->err, reason, -EREMOTEIO, "%s", words);
	return error_reason(&op->err,
			    status->code == RPC_DEADLINE_EXCEEDED ? REASON_TIMEOUT
								  : REASON_AGENT_UNAVAILABLE,
			    status->code == RPC_UNAVAILABLE ? -EPIPE : -EREMOTEIO,
			    "the node agent: %s (%s)",
			    status->text[0] ? status->text : "the stream ended",
			    rpc_code_name(status->code));
}

static void ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct agent_op *op = arg;

	(void)stream;
	op->stream = NULL;
	if (op->refused && !op->over) {
		op->over = true;
		op->result = error_reason(&op->err, REASON_PERMISSION, -EPERM,
					  "the socket %s is served by uid %u, which is not the agent's",
					  op->addr.sun_path, op->foreign);
	}
	if (!op->over)
		op->result = take_status(op, status);
	op->ops->ended(op->data, op->result, &op->err);
	job_put_off(op->loop, &op->free_job, free_later);
}

/* --- the calls ------------------------------------------------------------------------------ */

int agent_op_open(struct agent_op **ret, struct loop *loop, const char *path,
		  const struct agent_request *req, nsec_t deadline, const struct agent_ops *ops,
		  void *data, struct error *err)
{
	static const struct {
		const char *method;
		int (*send)(struct agent_op *op, const struct agent_request *req);
	} kinds[] = {
		[AGENT_CHECKPOINT] = { "/kybernate.agent.v1.NodeAgent/Checkpoint", send_checkpoint },
		[AGENT_RESTORE] = { "/kybernate.agent.v1.NodeAgent/Restore", send_restore },
		[AGENT_SUSPEND] = { "/kybernate.agent.v1.NodeAgent/Suspend", send_suspend },
	};
	static const struct grpc_stream_ops stream_ops = { .message = message, .ended = ended };
	struct grpc_client_config config = { .connect = connect_to_agent };
	struct agent_op *op = calloc(1, sizeof(*op));
	int r;

	if (!op)
		return error_set(err, -ENOMEM, "out of memory");
	op->addr.sun_family = AF_UNIX;
	r = path_printf(op->addr.sun_path, sizeof(op->addr.sun_path), "%s", path);
	config.connect_arg = op;
	op->loop = loop;
	op->kind = req->kind;
	op->ops = ops;
	op->data = data;
	if (r == 0)
		r = grpc_client_open(loop, path, &config, &op->client);
	if (r == 0)
		r = grpc_stream_open(op->client, kinds[req->kind].method, NULL, 0, deadline,
				     &stream_ops, op, &op->stream);
	if (r == 0)
		r = kinds[req->kind].send(op, req);
	if (r < 0) {
		grpc_client_free(op->client);
		free(op);
		return error_reason(err, REASON_AGENT_UNAVAILABLE, r, "the node agent at %s: %s",
				    path, strerror(-r));
	}
	*ret = op;
	return 0;
}

static void send_result(struct agent_op *op, Kybernate__Agent__V1__OrderResult *result)
{
	Kybernate__Agent__V1__CheckpointRequest c = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__RestoreRequest s = KYBERNATE__AGENT__V1__RESTORE_REQUEST__INIT;
	Kybernate__Agent__V1__SuspendRequest p = KYBERNATE__AGENT__V1__SUSPEND_REQUEST__INIT;

	if (!op->stream)
		return; /* the lease is over; ended() tells */
	c.result = s.result = p.result = result;
	/* A failure to send ends the stream, and ended() tells. */
	(void)send_message(op, op->kind == AGENT_CHECKPOINT ? &c.base
			       : op->kind == AGENT_RESTORE  ? &s.base
							    : &p.base);
}

void agent_op_result(struct agent_op *op, enum agent_order order, int r, const struct error *err,
		     pid_t task_pid, nsec_t took)
{
	Kybernate__Agent__V1__OrderResult result = KYBERNATE__AGENT__V1__ORDER_RESULT__INIT;

	if (r < 0) {
		agent_op_failed(op, order, err, NULL, took);
		return;
	}
	result.order = (Kybernate__Agent__V1__Order)order;
	result.ok = true;
	result.task_pid = (uint32_t)task_pid;
	result.duration_ms = took / NSEC_PER_MSEC;
	send_result(op, &result);
}

void agent_op_failed(struct agent_op *op, enum agent_order order, const struct error *err,
		     const struct agent_detail *detail, nsec_t took)
{
	Kybernate__Agent__V1__OrderResult result = KYBERNATE__AGENT__V1__ORDER_RESULT__INIT;
	Kybernate__Agent__V1__Error error;

	result.order = (Kybernate__Agent__V1__Order)order;
	result.error = make_error(err, &error);
	explain(&result, detail);
	result.duration_ms = took / NSEC_PER_MSEC;
	send_result(op, &result);
}

void agent_op_cancel(struct agent_op *op)
{
	if (!op)
		return;
	if (op->stream)
		grpc_stream_cancel(op->stream);
	op->stream = NULL;
	job_put_off(op->loop, &op->free_job, free_later);
}
