/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test-rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/services.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "artifact/worker.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/degraded.h"
#include "checkpoint/prepared.h"
#include "rpc/pb.h"

#define TASK_PID 4711
#define SPEC     "{\"ociVersion\":\"1.0.2\",\"linux\":{\"cgroupsPath\":\"/k8s.io/web\"}}"

int rig_main(int argc, char **argv)
{
	int status;

	return worker_role(argc, argv, &status) ? status : -1;
}

/* --- containerd ----------------------------------------------------------------------------- */

/* "/containerd.services.tasks.v1.Tasks/Get" -> "Tasks.Get" */
static const char *short_name(const char *path, char *buf, size_t size)
{
	const char *dot = strrchr(path, '.');

	(void)snprintf(buf, size, "%s", dot ? dot + 1 : path);
	for (char *at = buf; *at; at++)
		if (*at == '/')
			*at = '.';
	return buf;
}

static void say(struct grpc_call *call, const ProtobufCMessage *m)
{
	_cleanup_buf_ struct buf packed = BUF_NULL;

	assert_int_equal(pb_pack(m, &packed), 0);
	grpc_call_reply(call, buf_bytes(&packed));
}

static void fill_record(Svc__Container *c, Svc__ContainerRuntime *runtime, Ctd__Any *spec)
{
	svc__container__init(c);
	svc__container_runtime__init(runtime);
	ctd__any__init(spec);
	runtime->name = (char *)"io.containerd.kybernate.v1";
	spec->type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Spec";
	spec->value.data = (uint8_t *)(uintptr_t)SPEC;
	spec->value.len = sizeof(SPEC) - 1;
	c->id = (char *)"web";
	c->image = (char *)"docker.io/library/web:1";
	c->snapshotter = (char *)"overlayfs";
	c->runtime = runtime;
	c->spec = spec;
}

static void say_container(const struct rig *r, struct grpc_call *call)
{
	Svc__ContainerMessage m = SVC__CONTAINER_MESSAGE__INIT;
	Svc__Container c;
	Svc__ContainerRuntime runtime;
	Ctd__Any spec;

	fill_record(&c, &runtime, &spec);
	if (r->snapshot_key)
		c.snapshot_key = (char *)r->snapshot_key;
	m.container = &c;
	say(call, &m.base);
}

static void say_task(const struct rig *r, struct grpc_call *call)
{
	Svc__TaskGetResponse m = SVC__TASK_GET_RESPONSE__INIT;
	Svc__TaskProcess p = SVC__TASK_PROCESS__INIT;

	p.container_id = p.id = (char *)"web";
	p.pid = TASK_PID;
	p.status = r->task_status;
	m.process = &p;
	say(call, &m.base);
}

static void say_started(struct grpc_call *call)
{
	Svc__TaskStartResponse m = SVC__TASK_START_RESPONSE__INIT;

	m.pid = TASK_PID;
	say(call, &m.base);
}

static void containerd_asked(struct grpc_call *call, struct bytes msg)
{
	struct rig *r = grpc_call_arg(call);
	char *what = r->asked[r->n_asked];

	(void)msg;
	assert_true(r->n_asked + 1 < RIG_CALLS_MAX);
	(void)short_name(grpc_call_method(call)->path, what, sizeof(r->asked[0]));
	r->n_asked++;
	if (r->on_call)
		r->on_call(r, what);
	if (r->hold && strcmp(r->hold, what) == 0)
		r->held = call;
	else if (r->refuse && strcmp(r->refuse, what) == 0)
		grpc_call_finish(call, r->refuse_code, "refused by the test", bytes_of(NULL, 0));
	else if (strcmp(what, "Containers.Get") == 0)
		say_container(r, call);
	else if (strcmp(what, "Tasks.Get") == 0)
		say_task(r, call);
	else if (strcmp(what, "Tasks.Start") == 0)
		say_started(call);
	else /* an empty message, whatever it is */
		grpc_call_reply(call, bytes_of(NULL, 0));
}

static void containerd_ended(struct grpc_call *call, enum grpc_end why)
{
	struct rig *r = grpc_call_arg(call);

	(void)why;
	if (r->held == call)
		r->held = NULL;
}

static const struct grpc_method_ops ctd_ops = { .message = containerd_asked,
						.ended = containerd_ended };
#define M(service, name) { service name, GRPC_UNARY, &ctd_ops }
static const struct grpc_method ctd_methods[] = {
	M(CTD_CONTAINERS, "Get"),	M(CTD_CONTAINERS, "Create"), M(CTD_CONTAINERS, "Delete"),
	M(CTD_TASKS, "Get"),		M(CTD_TASKS, "Create"),	     M(CTD_TASKS, "Start"),
	M(CTD_TASKS, "Delete"),		M(CTD_TASKS, "Checkpoint"),  M(CTD_SNAPSHOTS, "Stat"),
	M(CTD_SNAPSHOTS, "Prepare"),	M(CTD_SNAPSHOTS, "Remove"),  M(CTD_LEASES, "Create"),
	M(CTD_LEASES, "Delete"),
};
#undef M

/* --- the agent ------------------------------------------------------------------------------ */

static void caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct agent, signals)->reaper);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static void make_folders(struct rig *r)
{
	char path[128];

	(void)strcpy(r->dir, "/tmp/test-agent-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	assert_int_equal(PATH_PRINTF(r->ctd_path, "%s/c.sock", r->dir), 0);
	assert_int_equal(PATH_PRINTF(r->agent_path, "%s/a.sock", r->dir), 0);
	assert_int_equal(PATH_PRINTF(r->proc, "%s/proc", r->dir), 0);
	assert_int_equal(PATH_PRINTF(r->cgroup, "%s/cgroup", r->dir), 0);
	assert_int_equal(PATH_PRINTF(r->store, "%s/store", r->dir), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%d", r->proc, TASK_PID), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%d/cgroup", r->proc, TASK_PID), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "0::/web\n", 8, 0600, FILE_PLAIN), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/web", r->cgroup), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	/* The preflight looks at the processes of the container. */
	assert_int_equal(PATH_PRINTF(path, "%s/web/cgroup.procs", r->cgroup), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "", 0, 0600, FILE_PLAIN), 0);
}

static void open_node(struct agent *a)
{
	struct node *n = &a->node;

	n->journal = JOURNAL_NULL;
	n->loop = a->loop;
	n->worker = a->worker;
	n->store = a->store;
	n->bulk = &a->bulk;
	n->cgroups = &a->cgroups;
	n->operation_timeout = 60 * NSEC_PER_SEC;
	n->max_operations = 8;
	for (int i = 0; i < PHASE_COUNT; i++)
		n->timeouts[i] = 30 * NSEC_PER_SEC;
	slots_init(&n->criu, a->loop, 2);
	list_init(&n->operations);
	list_init(&n->prepared);
	list_init(&n->degraded);
	list_init(&n->returning);
}

int rig_open(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	static const struct grpc_server_config config = { 0 };
	static const struct grpc_client_config client_config = { 0 };
	static const struct gpu_worker_ops ops = { 0 };
	struct gpu_worker_config worker = GPU_WORKER_CONFIG_DEFAULT;
	struct rig *r = calloc(1, sizeof(*r));
	struct agent *a;

	assert_non_null(r);
	a = &r->agent;
	log_set_fd(-1);
	(void)signal(SIGPIPE, SIG_IGN);
	make_folders(r);
	r->task_status = TASK__STATUS__RUNNING;
	list_init(&a->creations);
	list_init(&a->rebirths);
	list_init(&a->switchings);
	list_init(&a->deletions);
	reaper_init(&a->reaper);
	assert_int_equal(loop_new(&a->loop), 0);
	assert_int_equal(signals_open(a->loop, &a->signals, signos, caught), 0);
	a->bulk = (struct bulk_env){ .loop = a->loop, .reaper = &a->reaper };
	assert_int_equal(store_open(r->store, STORE_OWNER, &a->bulk, &a->store, NULL), 0);
	store_on_swept(a->store, deletions_swept, a);
	assert_int_equal(gpu_worker_new(a->loop, &a->reaper, &worker, &ops, a, &a->worker), 0);
	assert_int_equal(cgroup_host_open(&a->cgroups, CGROUP_V2, r->cgroup, r->proc, NULL), 0);
	assert_int_equal(containerd_new(&a->containerd, a->loop, r->ctd_path), 0);
	open_node(a);
	assert_int_equal(grpc_server_new(a->loop, listen_at(r->ctd_path), &config, ctd_methods,
					 ARRAY_SIZE(ctd_methods), r, &r->containerd), 0);
	assert_int_equal(grpc_server_new(a->loop, listen_at(r->agent_path), &config, agent_methods,
					 agent_methods_size, a, &a->server), 0);
	assert_int_equal(grpc_client_open(a->loop, r->agent_path, &client_config, &r->client), 0);
	*state = r;
	return 0;
}

/* What the agent does at its end; then nothing may be left. */
int rig_close(void **state)
{
	struct rig *r = *state;
	struct agent *a = &r->agent;

	grpc_client_free(r->client);
	UNTIL(r, list_empty(&a->node.operations) && list_empty(&a->creations) &&
			 list_empty(&a->rebirths));
	grpc_server_free(a->server);
	deletions_forget(a);
	degraded_free_all(&a->node);
	prepared_free_all(&a->node);
	containerd_free(a->containerd);
	grpc_server_free(r->containerd);
	gpu_worker_free(a->worker);
	store_close(a->store);
	cgroup_host_close(&a->cgroups);
	signals_close(&a->signals);
	loop_free(a->loop);
	assert_int_equal(path_remove_tree(AT_FDCWD, r->dir), 0);
	free(r);
	return 0;
}

/* --- clients -------------------------------------------------------------------------------- */

static void got_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	struct client_call *c = arg;

	(void)stream;
	c->messages++;
	buf_clear(&c->last);
	assert_int_equal(buf_append(&c->last, msg.p, msg.n), 0);
}

static void got_end(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct client_call *c = arg;

	(void)stream;
	c->stream = NULL;
	c->ended++;
	c->code = status->code;
	(void)snprintf(c->text, sizeof(c->text), "%s", status->text);
}

static void open_stream(struct rig *r, struct client_call *c, const char *method,
			const ProtobufCMessage *request, nsec_t deadline,
			const struct grpc_stream_ops *ops)
{
	_cleanup_buf_ struct buf packed = BUF_NULL;
	char path[128];

	c->rig = r;
	assert_int_equal(PATH_PRINTF(path, "/kybernate.agent.v1.NodeAgent/%s", method), 0);
	assert_int_equal(pb_pack(request, &packed), 0);
	assert_int_equal(grpc_stream_open(r->client, path, NULL, 0, deadline, ops, c,
					  &c->stream), 0);
	assert_int_equal(grpc_stream_send(c->stream, buf_bytes(&packed)), 0);
}

void client_begin_by(struct rig *r, struct client_call *c, const char *method,
		     const ProtobufCMessage *request, nsec_t deadline)
{
	static const struct grpc_stream_ops ops = { .message = got_message, .ended = got_end };

	*c = (struct client_call){ 0 };
	open_stream(r, c, method, request, deadline, &ops);
	grpc_stream_half_close(c->stream);
}

void client_begin(struct rig *r, struct client_call *c, const char *method,
		  const ProtobufCMessage *request)
{
	client_begin_by(r, c, method, request, NSEC_NEVER);
}

enum rpc_code client_run(struct rig *r, struct client_call *c, const char *method,
			 const ProtobufCMessage *request)
{
	client_begin(r, c, method, request);
	UNTIL(r, c->ended);
	return c->code;
}

void client_done(struct client_call *c)
{
	if (c->stream)
		grpc_stream_cancel(c->stream);
	c->stream = NULL;
	buf_done(&c->last);
}

void *client_message(const struct client_call *c, const ProtobufCMessageDescriptor *type,
		     struct arena *mem)
{
	void *m = pb_unpack(type, buf_bytes(&c->last), mem);

	assert_true(c->messages > 0);
	assert_non_null(m);
	return m;
}

/* --- shims ---------------------------------------------------------------------------------- */

/* What CRIU leaves. */
static void dump_into(const char *path)
{
	static const char *const names[] = { "core-1.img", "pages-1.img", "inventory.img" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char file[PATH_MAX];

		assert_int_equal(PATH_PRINTF(file, "%s/%s", path, names[i]), 0);
		assert_int_equal(file_write(AT_FDCWD, file, "memory", 6, 0600, FILE_PLAIN), 0);
	}
}

void shim_answer(struct rig *r, struct rig_shim *s, bool ok)
{
	Kybernate__Agent__V1__CheckpointRequest c = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__RestoreRequest x = KYBERNATE__AGENT__V1__RESTORE_REQUEST__INIT;
	Kybernate__Agent__V1__OrderResult result = KYBERNATE__AGENT__V1__ORDER_RESULT__INIT;
	Kybernate__Agent__V1__Error error = KYBERNATE__AGENT__V1__ERROR__INIT;
	_cleanup_buf_ struct buf packed = BUF_NULL;

	(void)r;
	error.reason = KYBERNATE__AGENT__V1__REASON__REASON_CRIU_DUMP_FAILED;
	error.message = (char *)"as the test orders";
	if (s->detail) {
		error.detail = &s->detail;
		error.n_detail = 1;
	}
	if (s->log_path)
		result.log_path = s->log_path;
	result.order = (Kybernate__Agent__V1__Order)s->held;
	result.ok = ok;
	result.error = ok ? NULL : &error;
	result.task_pid = s->held == ORDER_RESTORE ? TASK_PID : 0;
	s->held = ORDER_NONE;
	c.result = x.result = &result;
	assert_int_equal(pb_pack(s->restore ? &x.base : &c.base, &packed), 0);
	assert_int_equal(grpc_stream_send(s->call.stream, buf_bytes(&packed)), 0);
}

static void ordered(struct rig_shim *s, enum order order, const char *image_path)
{
	static const char *const names[] = { "", "quiesce", "dump", "thaw", "exit", "restore",
					     "freeze", "release", "abort" };
	size_t n = strlen(s->log);

	assert_true(order <= ORDER_ABORT && (order == ORDER_ABORT || s->held == ORDER_NONE));
	(void)snprintf(s->log + n, sizeof(s->log) - n, "%s ", names[order]);
	if (order == ORDER_ABORT)
		return; /* the one under way is answered, this one is not */
	s->orders++;
	s->held = order;
	if (order == ORDER_DUMP)
		dump_into(image_path);
	if (order != s->hold_order)
		shim_answer(s->call.rig, s, order != s->fail_order);
}

static void shim_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	struct rig_shim *s = container_of((struct client_call *)arg, struct rig_shim, call);

	got_message(stream, arg, msg);
	if (s->restore) {
		const Kybernate__Agent__V1__RestoreReply *m = client_message(
			&s->call, &kybernate__agent__v1__restore_reply__descriptor, &mem);

		if (m->order)
			ordered(s, (enum order)m->order, m->image_path);
	} else {
		const Kybernate__Agent__V1__CheckpointReply *m = client_message(
			&s->call, &kybernate__agent__v1__checkpoint_reply__descriptor, &mem);

		if (m->order)
			ordered(s, (enum order)m->order, m->image_path);
	}
}

static const struct grpc_stream_ops shim_ops = { .message = shim_message, .ended = got_end };

static void fill_context(Kybernate__Agent__V1__Context *x, pid_t pid)
{
	kybernate__agent__v1__context__init(x);
	x->containerd_namespace = (char *)RIG_NS;
	x->task_pid = (uint32_t)pid;
	x->runtime = (char *)"runc";
}

void shim_checkpoint(struct rig *r, struct rig_shim *s, const char *id, const char *ref)
{
	Kybernate__Agent__V1__CheckpointRequest m = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__CheckpointOptions o = KYBERNATE__AGENT__V1__CHECKPOINT_OPTIONS__INIT;
	Kybernate__Agent__V1__Context x;

	fill_context(&x, TASK_PID);
	m.container_id = (char *)id;
	m.context = &x;
	o.checkpoint_ref = (char *)ref;
	m.options = &o;
	open_stream(r, &s->call, "Checkpoint", &m.base, NSEC_NEVER, &shim_ops);
}

void shim_return(struct rig *r, struct rig_shim *s, const char *id)
{
	Kybernate__Agent__V1__CheckpointRequest m = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__CheckpointOptions o = KYBERNATE__AGENT__V1__CHECKPOINT_OPTIONS__INIT;
	Kybernate__Agent__V1__Context x;

	fill_context(&x, TASK_PID);
	m.container_id = (char *)id;
	m.context = &x;
	m.options = &o;
	o.image_path = (char *)"/tmp/nowhere";
	m.resume = true;
	m.resume_order = KYBERNATE__AGENT__V1__ORDER__ORDER_DUMP;
	open_stream(r, &s->call, "Checkpoint", &m.base, NSEC_NEVER, &shim_ops);
}

void shim_restore(struct rig *r, struct rig_shim *s, const char *id, const char *ref, bool prepare)
{
	Kybernate__Agent__V1__RestoreRequest m = KYBERNATE__AGENT__V1__RESTORE_REQUEST__INIT;
	Kybernate__Agent__V1__Context x;

	fill_context(&x, 0);
	s->restore = true;
	m.container_id = (char *)id;
	m.context = &x;
	m.checkpoint_ref = (char *)ref;
	m.stage = prepare ? KYBERNATE__AGENT__V1__RESTORE_STAGE__RESTORE_STAGE_PREPARE
			  : KYBERNATE__AGENT__V1__RESTORE_STAGE__RESTORE_STAGE_RESTORE;
	open_stream(r, &s->call, "Restore", &m.base, NSEC_NEVER, &shim_ops);
}

void shim_done(struct rig_shim *s)
{
	client_done(&s->call);
}

/* --- the store ------------------------------------------------------------------------------ */

struct sealing {
	struct bulk bulk;
	bool done;
	int r;
};

static void sealed(struct bulk *b, int r, const struct error *err)
{
	struct sealing *s = container_of(b, struct sealing, bulk);

	(void)err;
	s->done = true;
	s->r = r;
}

void rig_checkpoint(struct rig *r, const char *ref, bool with_record)
{
	static const struct bulk_ops ops = { .done = sealed };
	struct sealing s = { 0 };
	struct store_work work;
	struct metadata m = { .created_at = "2026-11-23T15:22:01Z",
			      .kybernate_version = "0.1.0",
			      .container = { .id = "web", .containerd_namespace = RIG_NS } };
	_cleanup_buf_ struct buf packed = BUF_NULL;
	Svc__Container c;
	Svc__ContainerRuntime runtime;
	Ctd__Any spec;

	assert_int_equal(store_begin(r->agent.store, ref, &work, NULL), 0);
	dump_into(work.criu_path);
	fill_record(&c, &runtime, &spec);
	assert_int_equal(pb_pack(&c.base, &packed), 0);
	if (with_record)
		assert_int_equal(store_put(&work, "container.pb", buf_bytes(&packed), NULL), 0);
	assert_int_equal(store_commit(&work, &m, 1, time_now() + RIG_PATIENCE, &s.bulk, &ops, NULL),
			 0);
	UNTIL(r, s.done);
	assert_int_equal(s.r, 0);
	store_work_close(&work);
}

bool rig_has(const struct rig *r, const char *ref)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/%s/metadata.json", r->store, ref), 0);
	return access(path, F_OK) == 0;
}

void rig_is_idle(const struct rig *r)
{
	_cleanup_closedir_ DIR *dir = opendir(r->store);
	struct dirent *e;

	assert_true(list_empty(&r->agent.node.operations));
	assert_non_null(dir);
	while ((e = readdir(dir)))
		if (strncmp(e->d_name, ".new-", 5) == 0)
			fail_msg("%s is left in the store", e->d_name);
}

unsigned int rig_asked(const struct rig *r, const char *what)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < r->n_asked; i++)
		n += strcmp(r->asked[i], what) == 0;
	return n;
}
