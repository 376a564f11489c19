/* SPDX-License-Identifier: Apache-2.0 */
/* Doctor: what has to be right on this node, or for one container, each with what was found. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/convert.h"
#include "agent/kubelet.h"
#include "agent/seat.h"
#include "api/containerd/services.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/path.h"
#include "checkpoint/survey.h"
#include "gpu/capability.h"
#include "proc/spawn.h"

#define REQUEST_MAX ((size_t)1 << 20)
#define LOOK_MAX    (10 * NSEC_PER_SEC)
#define CHECKS_MAX  32
#define STORE_LOW   ((uint64_t)1 << 30)

struct doctor {
	struct agent *agent;
	struct grpc_call *call;
	struct containerd_call version, task, record;
	struct kubelet_call kubelet;
	pid_t pid;             /* of the container */
	struct seat seat;
	struct error seat_err; /* code 0 = none so far */
	struct cgroup cgroup; /* of the container */
	struct gpu_group *group;
	struct arena mem;
	char *ns, *id;
	Kybernate__Agent__V1__DoctorCheck *checks[CHECKS_MAX];
	size_t n;
	bool ok;
};

static void add(struct doctor *d, const char *name, enum reason reason, const char *found)
{
	Kybernate__Agent__V1__DoctorCheck *c = arena_alloc(&d->mem, sizeof(*c));

	if (!c || d->n == CHECKS_MAX) {
		d->ok = false;
		return;
	}
	kybernate__agent__v1__doctor_check__init(c);
	c->name = (char *)name;
	c->ok = reason == REASON_NONE;
	c->reason = (Kybernate__Agent__V1__Reason)reason;
	c->found = arena_strdup(&d->mem, found);
	if (!c->found)
		c->found = (char *)"";
	c->advice = (char *)(c->ok ? "" : reason_advice(reason));
	d->checks[d->n++] = c;
	d->ok = d->ok && c->ok;
}

static void check_driver(struct doctor *d)
{
	const struct gpu_hello *hello = gpu_worker_info(d->agent->worker);
	struct error err = ERROR_NULL;
	char text[512];

	if (gpu_worker_usable(d->agent->worker, &err) < 0) {
		add(d, "driver", err.reason, error_text(&err));
		return;
	}
	(void)snprintf(text, sizeof(text), "driver %s, CUDA %d.%d, %u GPUs, %s", hello->driver_version,
		       hello->cuda_version / 1000, hello->cuda_version % 1000 / 10,
		       hello->memory.n_devices, hello->library);
	add(d, "driver", REASON_NONE, text);
	for (uint32_t i = 0; i < hello->memory.n_devices; i++) {
		const struct gpu_device *dev = &hello->memory.devices[i];
		bool mig = dev->flags & GPU_DEVICE_MIG;

		(void)snprintf(text, sizeof(text), "%s, MIG %s", dev->name, mig ? "on" : "off");
		add(d, "gpu", mig ? REASON_MIG : REASON_NONE, text);
	}
}

static void check_store(struct doctor *d)
{
	struct store_space space;
	struct error err = ERROR_NULL;
	char text[512];

	if (store_space(d->agent->store, &space, &err) < 0) {
		add(d, "store", err.reason, error_text(&err));
		return;
	}
	(void)snprintf(text, sizeof(text), "%.200s: %" PRIu64 " MiB free of %" PRIu64 " MiB%s",
		       store_path(d->agent->store), space.free_bytes >> 20, space.total_bytes >> 20,
		       space.limited ? " (limits.store_size)" : "");
	add(d, "store", space.free_bytes < STORE_LOW ? REASON_STORE_FULL : REASON_NONE, text);
}

static void check_program(struct doctor *d, const char *name)
{
	char path[PATH_MAX];

	if (spawn_lookup(name, path, sizeof(path)) == 0)
		add(d, name, REASON_NONE, path);
	else
		add(d, name, REASON_RUNTIME_FAILED, "not in the agent's PATH");
}

static void check_cgroups(struct doctor *d)
{
	enum cgroup_mode mode = d->agent->cgroups.mode;

	add(d, "cgroups", mode == CGROUP_NONE ? REASON_CONFIG_INVALID : REASON_NONE,
	    mode == CGROUP_V2	? "version 2"
	    : mode == CGROUP_V1 ? "version 1"
				: "none at " CGROUP_ROOT);
}

static void doctor_free(struct doctor *d)
{
	containerd_call_done(&d->version);
	containerd_call_done(&d->task);
	containerd_call_done(&d->record);
	kubelet_call_done(&d->kubelet);
	seat_done(&d->seat);
	gpu_group_free(d->group);
	cgroup_close(&d->cgroup);
	arena_done(&d->mem);
	free(d->ns);
	free(d->id);
	free(d);
}

static void answer(struct doctor *d)
{
	Kybernate__Agent__V1__DoctorReply reply = KYBERNATE__AGENT__V1__DOCTOR_REPLY__INIT;

	reply.checks = d->checks;
	reply.n_checks = d->n;
	reply.ok = d->ok;
	grpc_call_set_data(d->call, NULL);
	agent_reply(d->call, &reply.base);
	doctor_free(d);
}

/* --- a container ---------------------------------------------------------------------------- */

static void add_cuda(struct doctor *d, int r, const struct error *err)
{
	char text[512];
	size_t at, n = gpu_group_size(d->group);

	if (r < 0) {
		add(d, "CUDA", err->reason, error_text(err));
		return;
	}
	at = (size_t)snprintf(text, sizeof(text), "%zu processes, %" PRIu64 " MiB of GPU memory", n,
			      gpu_group_vram_bytes(d->group) >> 20);
	for (size_t i = 0; i < n && at < sizeof(text); i++) {
		const struct gpu_member *m = gpu_group_member(d->group, i);

		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %d (%s)", i ? "," : ":",
				       m->pid, m->name);
	}
	add(d, "CUDA", REASON_NONE, text);
}

/* The seat by the specification, by the node's table, by kubelet, and by what is really in use. */
static void add_seat(struct doctor *d)
{
	struct error err = d->seat_err;
	int r = err.code;
	char text[512];

	if (r == 0)
		r = preflight_seat(&d->agent->node, &d->seat.req, &err);
	if (r == 0 && d->cgroup.host)
		r = preflight_pod(&d->seat.req, &d->cgroup, &err);
	if (r == 0 && d->group)
		r = preflight_gpus(&d->agent->node, &d->seat.req, d->group, &err);
	if (r < 0) {
		add(d, "seat", err.reason ? err.reason : REASON_INTERNAL, error_text(&err));
		return;
	}
	seat_describe(&d->seat, text, sizeof(text));
	add(d, "seat", REASON_NONE, text);
}

/* Everything that a checkpoint of this container would look at before it begins. */
static void surveyed(void *data, int r, const struct error *err)
{
	struct doctor *d = data;
	const struct survey s = { .cgroup = &d->cgroup,
				  .group = d->group,
				  .store = d->agent->store,
				  .promised = survey_promised(&d->agent->node, NULL),
				  .worker = d->agent->worker };
	char found[512];

	add_seat(d);
	if (d->group)
		add_cuda(d, r, err);
	for (unsigned int i = 0; i < SURVEY_COUNT; i++) {
		enum survey_check check = (enum survey_check)i;
		struct error mine = ERROR_NULL;

		if (survey_one(&s, check, found, sizeof(found), &mine) < 0)
			add(d, survey_name(check),
			    mine.reason ? mine.reason : REASON_INTERNAL, error_text(&mine));
		else
			add(d, survey_name(check), REASON_NONE, found);
	}
	answer(d);
}

static void check_container(struct doctor *d)
{
	struct error err = ERROR_NULL;

	if (cgroup_open_pid(&d->cgroup, &d->agent->cgroups, d->pid, &err) < 0) {
		add_seat(d);
		add(d, "container's cgroup", REASON_CONTAINER_MISSING, error_text(&err));
		answer(d);
		return;
	}
	if (gpu_worker_usable(d->agent->worker, NULL) < 0 ||
	    gpu_group_new(&d->group, d->agent->loop, d->agent->worker, operation_list_pids,
			  &d->cgroup) < 0)
		surveyed(d, 0, &err);
	else
		gpu_group_survey(d->group, time_now() + LOOK_MAX, surveyed, d);
}

/* One that is being restarted holds nobody up, as in an operation. */
static void kubelet_known(struct kubelet_call *call, int r, const struct error *err)
{
	struct doctor *d = container_of(call, struct doctor, kubelet);

	if (r == -ENOENT)
		d->seat_err = *err;
	d->seat.req.pod_gpus = call->gpus;
	d->seat.req.n_pod_gpus = call->n_gpus;
	check_container(d);
}

static void record_known(struct containerd_call *call, int r, const void *reply,
			 const struct error *err)
{
	struct doctor *d = container_of(call, struct doctor, record);
	const Svc__ContainerMessage *m = reply;
	const struct operation_request *req = &d->seat.req;

	if (r < 0) {
		d->seat_err = *err;
		d->seat_err.reason = REASON_CONTAINERD_FAILED;
	} else if (seat_read(m->container, d->pid, &d->seat, &d->seat_err) == 0 && req->gpu &&
		   *req->pod_name && *req->container_name && kubelet_here(d->agent->kubelet) &&
		   kubelet_ask(d->agent->kubelet, &d->kubelet, req->pod_namespace, req->pod_name,
			       req->container_name, kubelet_known, &d->seat_err) == 0) {
		return;
	}
	check_container(d);
}

static void ask_for_record(struct doctor *d)
{
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;

	request.id = d->id;
	if (containerd_call(d->agent->containerd, &d->record, d->ns, NULL, CTD_CONTAINERS "Get",
			    &request.base, &svc__container_message__descriptor,
			    time_now() + LOOK_MAX, record_known, &d->seat_err) < 0)
		check_container(d);
}

static void task_known(struct containerd_call *call, int r, const void *reply,
		       const struct error *err)
{
	struct doctor *d = container_of(call, struct doctor, task);
	const Svc__TaskGetResponse *m = reply;
	const struct operation *op = operation_find(&d->agent->node, d->ns, d->id);
	char text[512];

	if (r < 0 || !m->process) {
		add(d, "container", REASON_CONTAINER_MISSING, error_text(err));
		answer(d);
		return;
	}
	(void)snprintf(text, sizeof(text), "pid %u, %s", m->process->pid,
		       m->process->status == TASK__STATUS__RUNNING  ? "running"
		       : m->process->status == TASK__STATUS__PAUSED ? "paused"
								    : "not running");
	add(d, "container",
	    m->process->status == TASK__STATUS__RUNNING || m->process->status == TASK__STATUS__PAUSED
		    ? REASON_NONE
		    : REASON_CONTAINER_MISSING,
	    text);
	add(d, "operation", op ? REASON_BUSY : REASON_NONE,
	    op ? "an operation on this container is under way" : "none under way");
	d->pid = (pid_t)m->process->pid;
	if (d->checks[d->n - 2]->ok)
		ask_for_record(d);
	else
		answer(d);
}

static void version_known(struct containerd_call *call, int r, const void *reply,
			  const struct error *err)
{
	struct doctor *d = container_of(call, struct doctor, version);
	const Svc__VersionResponse *m = reply;
	Svc__TaskRequest request = SVC__TASK_REQUEST__INIT;
	struct error mine = ERROR_NULL;

	if (r < 0)
		add(d, "containerd", REASON_CONTAINERD_FAILED, error_text(err));
	else
		add(d, "containerd", REASON_NONE, m->version);
	if (r < 0 || !d->id) {
		answer(d);
		return;
	}
	request.container_id = d->id;
	if (containerd_call(d->agent->containerd, &d->task, d->ns, NULL, CTD_TASKS "Get",
			    &request.base, &svc__task_get_response__descriptor,
			    time_now() + LOOK_MAX, task_known, &mine) < 0) {
		add(d, "container", REASON_CONTAINERD_FAILED, error_text(&mine));
		answer(d);
	}
}

static void message(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__DoctorRequest *m =
		agent_unpack(call, msg, &kybernate__agent__v1__doctor_request__descriptor, &mem);
	Ctd__Empty empty = CTD__EMPTY__INIT;
	struct doctor *d = m ? calloc(1, sizeof(*d)) : NULL;
	struct error err = ERROR_NULL;

	if (!m)
		return;
	if (d) {
		d->mem = ARENA_LIMIT(REQUEST_MAX);
		d->ns = strdup(*m->containerd_namespace ? m->containerd_namespace : "k8s.io");
		d->id = *m->container_id ? strdup(m->container_id) : NULL;
	}
	if (!d || !d->ns || (*m->container_id && (!d->id || !id_valid(d->id)))) {
		(void)error_rpc(&err, RPC_INVALID_ARGUMENT, -EINVAL, "\"%.80s\" is no container",
				m->container_id);
		agent_fail(call, &err);
		if (d)
			doctor_free(d);
		return;
	}
	d->agent = grpc_call_arg(call);
	d->call = call;
	d->ok = true;
	check_driver(d);
	check_store(d);
	check_cgroups(d);
	check_program(d, "criu");
	grpc_call_set_data(call, d);
	if (containerd_call(d->agent->containerd, &d->version, d->ns, NULL, CTD_VERSION "Version",
			    &empty.base, &svc__version_response__descriptor, time_now() + LOOK_MAX,
			    version_known, &err) < 0) {
		add(d, "containerd", REASON_CONTAINERD_FAILED, error_text(&err));
		answer(d);
	}
}

static void ended(struct grpc_call *call, enum grpc_end why)
{
	struct doctor *d = grpc_call_data(call);

	(void)why;
	if (d)
		doctor_free(d);
}

const struct grpc_method_ops doctor_verb = { .message = message, .ended = ended };
