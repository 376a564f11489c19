/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RestoreContainer: a new container at containerd, made like the one that was checkpointed, and
 * started from the checkpoint. The annotation kybernate.io/restore-from makes its shim come here;
 * from there on it is the same way that a pod of Kubernetes goes.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/agent.h"
#include "agent/convert.h"
#include "agent/respec.h"
#include "api/containerd/services.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/fit.h"
#include "rpc/pb.h"

#define REQUEST_MAX ((size_t)1 << 20)
#define RECORD_MAX  ((size_t)32 << 20)
#define CALL_MAX    (60 * NSEC_PER_SEC)
#define REBIRTH_TIMES_MAX (2 * OPERATION_TIMES_MAX)
/* Ids that are tried where the caller leaves the choice to us. */
#define IDS_MAX    16
/* Of an id that another is made from: "-r" and eight digits follow. */
#define ID_KEPT    (ID_MAX - 10)

struct rebirth {
	struct agent *agent;
	struct list node;
	struct grpc_call *call; /* NULL: the caller has left */
	struct flow flow;
	struct containerd_call work, mounts_call;
	const Svc__SnapshotMounts *mounts; /* lives in mounts_call */
	struct store_pin pin;
	struct arena mem;
	struct metadata metadata;
	const Svc__Container *record; /* of the old container */
	struct buf spec;              /* of the new one */
	char *ns, *id, *ref, *out, *err_path;
	char lease[64];
	nsec_t deadline;
	uint32_t pid;
	unsigned int ids_tried;
	bool has_container, has_task;
	bool running; /* it is restored: from here on nothing is taken back */
	bool stuck;   /* its task cannot be removed, so nothing may be removed from under it */
	nsec_t begun;
	struct arena times;
	pb_phase_time *timeline[REBIRTH_TIMES_MAX]; /* of both operations of the shim */
	size_t n_timeline;
	bool failed_inside; /* an operation of the shim has failed: it knows why */
	enum phase failed_phase;
	struct error outcome;
};

static struct rebirth *rebirth_of(struct flow *f)
{
	return container_of(f, struct rebirth, flow);
}

/* --- the operation's side ------------------------------------------------------------------- */

struct rebirth *rebirth_find(struct agent *agent, const char *ns, const char *container_id)
{
	struct rebirth *b;

	list_for_each(b, &agent->rebirths, node)
		if (strcmp(b->id, container_id) == 0 && strcmp(b->ns, ns) == 0)
			return b;
	return NULL;
}

static void send_update(struct rebirth *b, enum phase phase, const struct operation *op)
{
	Kybernate__Agent__V1__OperationUpdate m = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;
	pb_progress progress;

	if (!b->call)
		return;
	m.status = KYBERNATE__AGENT__V1__STATUS__STATUS_WORKING;
	m.phase = (Kybernate__Agent__V1__Phase)phase;
	if (op)
		m.progress = convert_progress(op, &progress);
	m.checkpoint_ref = b->ref;
	m.container_id = b->id;
	agent_send(b->call, &m.base);
}

void rebirth_update(struct rebirth *b, const struct operation *op)
{
	send_update(b, op->phase, op);
}

void rebirth_finished(struct rebirth *b, const struct operation *op, enum operation_status status,
		      const struct error *err)
{
	pb_phase_time **more;
	size_t n = convert_timeline(op, &b->times, &more);

	for (size_t i = 0; i < n && b->n_timeline < REBIRTH_TIMES_MAX; i++) {
		more[i]->start_us += (op->begun - b->begun) / NSEC_PER_USEC;
		b->timeline[b->n_timeline++] = more[i];
	}
	if (status == OPERATION_OK)
		return;
	b->failed_inside = true;
	b->failed_phase = op->failed_phase;
	b->outcome = *err;
}

/* --- steps ---------------------------------------------------------------------------------- */

static void answered(struct containerd_call *call, int r, const void *reply, const struct error *err)
{
	struct rebirth *b = container_of(call, struct rebirth, work);

	(void)reply;
	flow_resume(&b->flow, r, err);
}

static int call(struct rebirth *b, const char *method, const ProtobufCMessage *request,
		const ProtobufCMessageDescriptor *type, nsec_t deadline, struct error *err)
{
	int r = containerd_call(b->agent->containerd, &b->work, b->ns, b->lease, method, request,
				type, deadline, answered, err);

	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_call(struct flow *f)
{
	struct rebirth *b = rebirth_of(f);

	containerd_call_done(&b->work);
	containerd_call_done(&b->mounts_call);
	flow_resume(f, -ECANCELED, NULL);
}

/* The checkpoint, and what it says of the container it was made of. */
static int step_read(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	_cleanup_buf_ struct buf raw = BUF_LIMIT(STORE_SMALL_FILE_MAX);
	int r;

	r = store_pin(b->agent->store, b->ref, &b->pin, err);
	if (r == 0)
		r = store_get(b->agent->store, b->ref, &b->mem, &b->metadata, err);
	if (r < 0)
		return r;
	r = file_read(b->pin.fd, "container.pb", &raw);
	if (r == 0)
		b->record = pb_unpack(&svc__container__descriptor, buf_bytes(&raw), &b->mem);
	if (!b->record || !b->record->spec)
		return error_reason(err, REASON_IMAGE_CORRUPT, -EBADMSG,
				    "checkpoint %s has no record of its container", b->ref);
	if (!*b->ns) {
		free(b->ns);
		b->ns = strdup(b->metadata.container.containerd_namespace
				       ? b->metadata.container.containerd_namespace
				       : "");
		if (!b->ns)
			return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int ask_for_id(struct rebirth *b, struct error *err);

/* Another one that the old container's id can be seen in. */
static int make_id(struct rebirth *b, struct error *err)
{
	unsigned int random;
	char id[ID_MAX + 1];
	size_t n = strnlen(b->record->id, ID_KEPT);

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return error_sys(err, -EIO, "make up an id");
	/* "a-" and "-r..." would be two separators in a row */
	while (n && !isalnum((unsigned char)b->record->id[n - 1]))
		n--;
	(void)snprintf(id, sizeof(id), "%.*s-r%08x", (int)n, b->record->id, random);
	free(b->id);
	b->id = strdup(id);
	return b->id ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static void id_known(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, work);
	struct error mine = *err;

	(void)reply;
	if (r < 0 && err->rpc == RPC_NOT_FOUND) {
		flow_resume(&b->flow, 0, NULL);
		return;
	}
	if (r == 0)
		r = make_id(b, &mine);
	if (r == 0)
		r = ask_for_id(b, &mine);
	if (r < 0)
		flow_resume(&b->flow, r, &mine);
}

static int ask_for_id(struct rebirth *b, struct error *err)
{
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;

	if (b->ids_tried++ == IDS_MAX)
		return error_reason(err, REASON_CONTAINERD_FAILED, -EEXIST,
				    "found no id that is free for the new container");
	request.id = b->id;
	return containerd_call(b->agent->containerd, &b->work, b->ns, NULL, CTD_CONTAINERS "Get",
			       &request.base, &svc__container_message__descriptor,
			       time_now() + CALL_MAX, id_known, err);
}

/* What the new one is called, where the caller has not said: as the old one, if it is gone. */
static int step_id(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	int r;

	if (*b->id)
		return 0;
	r = id_valid(b->record->id) && !rebirth_find(b->agent, b->ns, b->record->id)
		    ? 0
		    : make_id(b, err);
	if (r == 0 && !*b->id) {
		free(b->id);
		b->id = strdup(b->record->id);
		r = b->id ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0)
		r = ask_for_id(b, err);
	return r < 0 ? r : FLOW_WAIT;
}

static size_t list_moves(const struct metadata_gpu *gpu, const struct gpu_device *const *target,
			 struct respec_move *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < gpu->n_devices; i++) {
		const struct gpu_device *dev = target[i];
		struct respec_move *m = &ret[n];

		if (!gpu->devices[i].node || dev->minor == GPU_NUMBER_UNKNOWN)
			continue;
		(void)snprintf(m->from, sizeof(m->from), "%s", gpu->devices[i].node);
		(void)snprintf(m->to, sizeof(m->to), GPU_NODE "%d", dev->minor);
		n += strcmp(m->from, m->to) != 0;
	}
	return n;
}

/*
 * The driver opens the node of the GPU that it restores onto inside of the container. Where a GPU of
 * the checkpoint is not here, or not to be used, the new container is given that of another.
 */
static int plan_gpus(struct rebirth *b, struct respec_move *moves, size_t *ret_n,
		     struct error *err)
{
	const struct gpu_hello *hello = gpu_worker_info(b->agent->worker);
	const struct metadata_gpu *gpu = &b->metadata.gpu;
	const struct fit_scope scope = { .node = &b->agent->node,
					 .gpu_group = gpu->group ? gpu->group : "" };
	const struct gpu_device *target[GPU_DEVICES_MAX];
	bool moved;
	int r;

	*ret_n = 0;
	if (!gpu->n_devices)
		return 0;
	r = gpu_worker_usable(b->agent->worker, err);
	/* The GPUs are those that the last worker knew; the restore's preflight waits for the next. */
	if (r == -EAGAIN && hello) {
		*err = ERROR_NULL;
		r = 0;
	}
	if (r == 0)
		r = fit_map(gpu, &hello->memory, &scope, target, &moved, err);
	if (r == 0)
		*ret_n = list_moves(gpu, target, moves);
	return r;
}

static int step_spec(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	struct respec_move moves[GPU_DEVICES_MAX];
	size_t n;
	int r = plan_gpus(b, moves, &n, err);

	if (r < 0)
		return r;
	return respec(bytes_of(b->record->spec->value.data, b->record->spec->value.len),
		      b->record->id, b->id, b->ref, moves, n, &b->spec, err);
}

static int step_lease(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__LeaseCreateRequest request = SVC__LEASE_CREATE_REQUEST__INIT;
	Ctd__StringEntry expire = CTD__STRING_ENTRY__INIT, *labels[] = { &expire };
	char until[TIME_RFC3339_MAX];

	(void)time_rfc3339(time_wall() + 24 * 3600 * NSEC_PER_SEC, until);
	expire.key = (char *)"containerd.io/gc.expire";
	expire.value = until;
	request.id = b->lease;
	request.labels = labels;
	request.n_labels = 1;
	return call(b, CTD_LEASES "Create", &request.base, &svc__lease_create_response__descriptor,
		    time_now() + CALL_MAX, err);
}

static int drop_lease(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__LeaseDeleteRequest request = SVC__LEASE_DELETE_REQUEST__INIT;

	request.id = b->lease;
	return call(b, CTD_LEASES "Delete", &request.base, &ctd__empty__descriptor,
		    time_now() + CALL_MAX, err);
}

static void prepared(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, mounts_call);

	b->mounts = reply;
	flow_resume(&b->flow, r, err);
}

static int step_snapshot(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__SnapshotPrepareRequest request = SVC__SNAPSHOT_PREPARE_REQUEST__INIT;
	int r;

	request.snapshotter = b->record->snapshotter;
	request.key = b->id;
	request.parent = (char *)(b->metadata.container.parent_chain_id
					  ? b->metadata.container.parent_chain_id
					  : "");
	r = containerd_call(b->agent->containerd, &b->mounts_call, b->ns, b->lease,
			    CTD_SNAPSHOTS "Prepare", &request.base,
			    &svc__snapshot_mounts__descriptor, time_now() + CALL_MAX, prepared, err);
	return r < 0 ? r : FLOW_WAIT;
}

/* May what was made be removed again? */
static bool may_undo(const struct rebirth *b)
{
	return !b->running && !b->stuck;
}

static int undo_snapshot(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__SnapshotRequest request = SVC__SNAPSHOT_REQUEST__INIT;

	if (!b->mounts || !may_undo(b))
		return 0; /* it was not made: one of that name may be somebody else's */
	request.snapshotter = b->record->snapshotter;
	request.key = b->id;
	return call(b, CTD_SNAPSHOTS "Remove", &request.base, &ctd__empty__descriptor,
		    time_now() + CALL_MAX, err);
}

static void container_made(struct containerd_call *c, int r, const void *reply,
			   const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, work);

	(void)reply;
	b->has_container = r == 0;
	flow_resume(&b->flow, r, err);
}

static int step_container(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__ContainerMessage request = SVC__CONTAINER_MESSAGE__INIT;
	Svc__Container c = *b->record;
	Ctd__Any spec = *b->record->spec;
	int r;

	c.id = b->id;
	c.snapshot_key = b->id;
	c.created_at = c.updated_at = NULL;
	spec.value.data = (uint8_t *)buf_bytes(&b->spec).p;
	spec.value.len = buf_len(&b->spec);
	c.spec = &spec;
	request.container = &c;
	r = containerd_call(b->agent->containerd, &b->work, b->ns, b->lease,
			    CTD_CONTAINERS "Create", &request.base,
			    &svc__container_message__descriptor, time_now() + CALL_MAX,
			    container_made, err);
	return r < 0 ? r : FLOW_WAIT;
}

static int undo_container(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;

	if (!b->has_container || !may_undo(b))
		return 0;
	request.id = b->id;
	return call(b, CTD_CONTAINERS "Delete", &request.base, &ctd__empty__descriptor,
		    time_now() + CALL_MAX, err);
}

static void task_made(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, work);

	(void)reply;
	/* Where containerd has not said, there may be one. */
	b->has_task = r == 0 || err->rpc == RPC_UNAVAILABLE ||
		      err->rpc == RPC_DEADLINE_EXCEEDED;
	flow_resume(&b->flow, r, err);
}

static int step_task(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__TaskCreateRequest request = SVC__TASK_CREATE_REQUEST__INIT;
	int r;

	request.container_id = b->id;
	request.rootfs = b->mounts->mounts;
	request.n_rootfs = b->mounts->n_mounts;
	request.stdout = b->out;
	request.stderr = b->err_path;
	r = containerd_call(b->agent->containerd, &b->work, b->ns, NULL, CTD_TASKS "Create",
			    &request.base, &svc__task_create_response__descriptor, b->deadline,
			    task_made, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void task_removed(struct containerd_call *c, int r, const void *reply,
			 const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, work);

	(void)reply;
	if (r < 0 && err->rpc == RPC_NOT_FOUND)
		r = 0;
	b->stuck = r < 0;
	flow_resume(&b->flow, r, err);
}

static int undo_task(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	int r;

	if (!b->has_task || b->running)
		return 0;
	request.container_id = b->id;
	r = containerd_call(b->agent->containerd, &b->work, b->ns, NULL, CTD_TASKS "Delete",
			    &request.base, &svc__task_start_response__descriptor,
			    time_now() + CALL_MAX, task_removed, err);
	b->stuck = r < 0;
	return r < 0 ? r : FLOW_WAIT;
}

static void task_started(struct containerd_call *c, int r, const void *reply,
			 const struct error *err)
{
	struct rebirth *b = container_of(c, struct rebirth, work);
	const Svc__TaskStartResponse *m = reply;

	if (r == 0)
		b->pid = m->pid;
	b->running = r == 0;
	flow_resume(&b->flow, r, err);
}

static int step_start(struct flow *f, struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	int r;

	request.container_id = b->id;
	r = containerd_call(b->agent->containerd, &b->work, b->ns, NULL, CTD_TASKS "Start",
			    &request.base, &svc__task_start_response__descriptor, b->deadline,
			    task_started, err);
	return r < 0 ? r : FLOW_WAIT;
}

static const struct flow_step steps[] = {
	{ "read", step_read, NULL, NULL },
	{ "id", step_id, NULL, cancel_call },
	{ "spec", step_spec, NULL, NULL },
	{ "lease", step_lease, drop_lease, cancel_call },
	{ "snapshot", step_snapshot, undo_snapshot, cancel_call },
	{ "container", step_container, undo_container, cancel_call },
	/* What the shim does in these is bounded by its and the agent's own time-outs. */
	{ "task", step_task, undo_task, NULL },
	{ "start", step_start, NULL, NULL },
	/* Left alone it expires: its failure is none of the restore. */
	{ "drop-lease", drop_lease, NULL, NULL },
};

static void observe(struct flow *f, const struct flow_step *step, enum flow_event event,
		    const struct error *err)
{
	struct rebirth *b = rebirth_of(f);

	if (event == FLOW_BEGIN && strcmp(step->name, "lease") == 0)
		send_update(b, PHASE_CREATE, NULL);
	if (event == FLOW_UNDO_FAILED)
		log_warning("a container that was not restored could not be removed whole",
			    F_STR("id", b->id), F_STR("step", step->name), F_ERR(err));
}

/* --- the caller's side ---------------------------------------------------------------------- */

static void rebirth_free(struct rebirth *b)
{
	list_remove(&b->node);
	streams_forget(b->agent, b);
	containerd_call_done(&b->work);
	containerd_call_done(&b->mounts_call);
	store_unpin(&b->pin);
	buf_done(&b->spec);
	arena_done(&b->mem);
	arena_done(&b->times);
	free(b->ns);
	free(b->id);
	free(b->ref);
	free(b->out);
	free(b->err_path);
	free(b);
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct rebirth *b = rebirth_of(f);
	Kybernate__Agent__V1__OperationUpdate m = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;
	const struct error *why = b->failed_inside ? &b->outcome : err;
	enum phase phase = b->failed_inside ? b->failed_phase : PHASE_CREATE;
	pb_error error;

	if (b->running)
		r = 0; /* whatever was wrong after that */
	log_info(r == 0 ? "container restored" : "container not restored", F_STR("ns", b->ns),
		 F_STR("id", b->id), F_STR("ref", b->ref), F_INT("pid", b->pid));
	if (b->call) {
		m.status = r == 0 ? KYBERNATE__AGENT__V1__STATUS__STATUS_OK
				  : KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED;
		m.checkpoint_ref = b->ref;
		m.container_id = b->id;
		m.task_pid = b->pid;
		m.timeline = b->timeline;
		m.n_timeline = b->n_timeline;
		if (r < 0)
			m.error = convert_error(why, phase, NULL, &error);
		agent_send(b->call, &m.base);
		grpc_call_set_data(b->call, NULL);
		if (r < 0)
			agent_fail(b->call, why);
		else
			grpc_call_finish(b->call, RPC_OK, NULL, bytes_of(NULL, 0));
	}
	rebirth_free(b);
}

static const struct flow_ops ops = {
	.steps = steps, .n_steps = ARRAY_SIZE(steps), .observe = observe, .done = done
};

static int take_request(struct rebirth *b,
			const Kybernate__Agent__V1__RestoreContainerRequest *m, struct error *err)
{
	nsec_t limit = b->agent->node.operation_timeout, asked = time_from_ms(m->timeout_ms);

	if (!ref_valid(m->checkpoint_ref))
		return error_reason(err, REASON_REF_INVALID, -EINVAL,
				    "\"%.160s\" is no name for a checkpoint", m->checkpoint_ref);
	if ((*m->container_id && !id_valid(m->container_id)) ||
	    (*m->containerd_namespace && !id_valid(m->containerd_namespace)))
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "\"%.80s\" is no name for a container", m->container_id);
	b->ref = strdup(m->checkpoint_ref);
	b->id = strdup(m->container_id);
	b->ns = strdup(m->containerd_namespace);
	b->out = strdup(m->stdout);
	b->err_path = strdup(m->stderr);
	b->begun = time_now();
	b->deadline = time_add(b->begun, asked && asked < limit ? asked : limit);
	(void)snprintf(b->lease, sizeof(b->lease), "kybernate-restore-%llx",
		       (unsigned long long)time_now());
	return b->ref && b->id && b->ns && b->out && b->err_path
		       ? 0
		       : error_set(err, -ENOMEM, "out of memory");
}

static void message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__RestoreContainerRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__restore_container_request__descriptor, &mem);
	struct rebirth *b = m ? calloc(1, sizeof(*b)) : NULL;
	struct error err = ERROR_NULL;

	if (!m)
		return;
	if (!b) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		agent_fail(call, &err);
		return;
	}
	b->agent = grpc_call_arg(call);
	b->call = call;
	b->pin = STORE_PIN_NULL;
	b->mem = ARENA_LIMIT(RECORD_MAX);
	b->times = ARENA_LIMIT(REQUEST_MAX);
	b->spec = BUF_LIMIT(STORE_SMALL_FILE_MAX);
	list_append(&b->agent->rebirths, &b->node);
	if (take_request(b, m, &err) < 0) {
		agent_fail(call, &err);
		rebirth_free(b);
		return;
	}
	grpc_call_set_data(call, b);
	flow_start(&b->flow, b->agent->loop, &ops);
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct rebirth *b = grpc_call_data(call);
	struct error err = ERROR_NULL;

	(void)why;
	if (!b)
		return;
	b->call = NULL;
	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the caller has ended the call");
	flow_abort(&b->flow, &err);
}

const struct grpc_method_ops rebirth_verb = { .message = message, .ended = ended };
