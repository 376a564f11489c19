/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "checkpoint/criu.h"
#include "checkpoint/degraded.h"
#include "proc/procfs.h"

#define MEMORY_MAX    ((size_t)1 << 20)
/* Whoever watches is told that often at least, whether or not anything can be counted. */
#define PULSE         (500 * NSEC_PER_MSEC)
#define WATCH_ENTRIES 4096
#define CRIU_LOOK     (50 * NSEC_PER_MSEC)
#define CRIU_PATIENCE (5 * NSEC_PER_SEC)

struct operation *operation_of_flow(struct flow *f)
{
	return container_of(f, struct operation, flow);
}

struct operation *operation_find(const struct node *node, const char *ns, const char *container_id)
{
	struct operation *op;

	list_for_each(op, &node->operations, node_link)
		if (strcmp(op->req.container_id, container_id) == 0 &&
		    strcmp(op->req.ns, ns) == 0)
			return op;
	return NULL;
}

/* --- progress --------------------------------------------------------------------- */

static uint64_t folder_bytes(const char *path)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *e;
	uint64_t sum = 0;
	struct stat st;

	for (int i = 0; dir && i < WATCH_ENTRIES && (e = readdir(dir)); i++)
		if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_size;
	return sum;
}

uint64_t operation_image_bytes(const struct operation *op)
{
	return folder_bytes(op->image_path);
}

static void pulse(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, pulse);

	if (op->watching)
		op->bytes_done = operation_image_bytes(op);
	op->host->update(op);
	timer_set(op->node->loop, t, time_now() + PULSE, pulse);
}

void operation_watch_size(struct operation *op)
{
	op->watching = true;
}

/* --- start ---------------------------------------------------------------------------------- */

static const char *copy(struct arena *mem, const char *s, bool *failed)
{
	const char *c = s && *s ? arena_strdup(mem, s) : "";

	if (!c)
		*failed = true;
	return c;
}

static const char *const *copy_list(struct arena *mem, const char *const *list, size_t n,
				    bool *failed)
{
	const char **c = arena_alloc(mem, (n + 1) * sizeof(*c));

	if (!c) {
		*failed = true;
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		c[i] = copy(mem, list[i], failed);
	return c;
}

static const struct gpu_held *copy_held(struct arena *mem, const struct gpu_held *held,
					bool *failed)
{
	struct gpu_held *c = arena_alloc(mem, sizeof(*c));
	struct gpu_memory *memory = arena_alloc(mem, sizeof(*memory));
	struct gpu_member *members = arena_alloc(mem, (held->n_members + 1) * sizeof(*members));

	if (!c || !memory || !members) {
		*failed = true;
		return NULL;
	}
	*memory = *held->memory;
	memcpy(members, held->members, held->n_members * sizeof(*members));
	*c = (struct gpu_held){ members, held->n_members, memory };
	return c;
}

static struct mount_records copy_mounts(struct arena *mem, const struct mount_records *from,
					bool *failed)
{
	struct mount_records c = { arena_alloc(mem, (from->n + 1) * sizeof(*c.items)), from->n };

	if (!c.items) {
		*failed = true;
		return (struct mount_records){ 0 };
	}
	for (size_t i = 0; i < c.n; i++) {
		struct mount_record *m = &c.items[i];

		*m = from->items[i];
		m->destination = copy(mem, m->destination, failed);
		m->kind = copy(mem, m->kind, failed);
		m->type = copy(mem, m->type, failed);
		m->root = copy(mem, m->root, failed);
		m->source = m->source ? copy(mem, m->source, failed) : NULL;
	}
	return c;
}

static int copy_request(struct operation *op, const struct operation_request *req)
{
	static const size_t strings[] = {
#define S(member) offsetof(struct operation_request, member)
		S(container_id), S(ns), S(pod_uid), S(pod_name), S(pod_namespace), S(sandbox_id),
		S(container_name), S(bundle), S(runtime), S(gpu_group), S(gpu_seat),
		S(group_annotation), S(seat_annotation), S(seat_generation), S(image_path),
		S(work_path), S(ref), S(image), S(image_digest), S(snapshotter),
		S(parent_chain_id), S(runtime_type),
#undef S
	};
	struct operation_request *to = &op->req;
	bool failed = false;

	*to = *req;
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		const char **s = (const char **)(void *)((char *)to + strings[i]);

		*s = copy(&op->mem, *s, &failed);
	}
	to->device_paths = copy_list(&op->mem, req->device_paths, req->n_device_paths, &failed);
	to->pod_gpus = copy_list(&op->mem, req->pod_gpus, req->n_pod_gpus, &failed);
	to->visible_devices =
		copy_list(&op->mem, req->visible_devices, req->n_visible_devices, &failed);
	if (req->held)
		to->held = copy_held(&op->mem, req->held, &failed);
	to->runtime_flags = copy_list(&op->mem, req->runtime_flags, req->n_runtime_flags, &failed);
	to->mounts = copy_mounts(&op->mem, &req->mounts, &failed);
	return failed ? -ENOMEM : 0;
}

static void operation_free(struct operation *op)
{
	list_remove(&op->node_link);
	timer_cancel(&op->timer);
	timer_cancel(&op->pulse);
	freezer_cancel(&op->freezer);
	slot_release(&op->slot);
	bulk_release(&op->bulk);
	gpu_call_forget(&op->memory_call);
	gpu_group_free(op->group);
	cgroup_close(&op->cgroup);
	free(op->revival);
	store_work_close(&op->work);
	store_unpin(&op->pin);
	if (op->image_fd >= 0)
		(void)close(op->image_fd);
	arena_done(&op->metadata_mem);
	arena_done(&op->mem);
	free(op);
}

static const char *const kinds[] = { "checkpoint", "restore", "prepare", "suspend", "resume" };

static const struct flow_ops *flow_of(const struct operation_request *req)
{
	switch (req->kind) {
	case OPERATION_RESTORE:
		return &restore_flow;
	case OPERATION_PREPARE:
		return &prepare_flow;
	case OPERATION_SUSPEND:
		return &suspend_flow;
	case OPERATION_RESUME:
		return &resume_flow;
	case OPERATION_CHECKPOINT:
		break;
	}
	if (req->held)
		return req->exit ? &checkpoint_held_exit_flow : &checkpoint_held_flow;
	return req->exit ? &checkpoint_exit_flow : &checkpoint_flow;
}

void operation_free_all(struct node *node)
{
	struct operation *op;

	while ((op = list_first(&node->operations, struct operation, node_link))) {
		job_cancel(&op->end);
		job_cancel(&op->flow.begin);
		timer_cancel(&op->flow.timer);
		operation_free(op);
	}
}

/* Which process is it? 0 = it has gone, or is not known. */
static uint64_t start_of(pid_t pid)
{
	uint64_t start;

	return pid > 0 && procfs_start_time(pid, &start) == 0 ? start : 0;
}

int operation_begin(struct node *node, const struct operation_request *req,
		    const struct flow_ops *course, const struct operation_host *host,
		    void *host_data, struct operation **ret, struct error *err)
{
	nsec_t limit = node->operation_timeout, asked = time_from_ms(req->timeout_ms);
	struct operation *op = calloc(1, sizeof(*op));
	int r;

	if (!op)
		return error_set(err, -ENOMEM, "out of memory");
	op->node = node;
	op->mem = ARENA_LIMIT(MEMORY_MAX);
	op->metadata_mem = ARENA_LIMIT(METADATA_MEMORY_MAX);
	op->host = host;
	op->host_data = host_data;
	op->work.fd = op->image_fd = -1;
	op->pin = STORE_PIN_NULL;
	op->begun = time_now();
	op->task_start = start_of(req->task_pid);
	op->shim_start = start_of(req->shim_pid);
	op->deadline = time_add(op->begun, asked && asked < limit ? asked : limit);
	list_init(&op->node_link);
	r = copy_request(op, req);
	if (r < 0) {
		operation_free(op);
		return error_set(err, r, "out of memory");
	}
	list_append(&node->operations, &op->node_link);
	flow_start(&op->flow, node->loop, course);
	timer_set(node->loop, &op->pulse, op->begun + PULSE, pulse);
	log_info("operation begins", F_STR("op", kinds[req->kind]), F_STR("ns", op->req.ns),
		 F_STR("id", op->req.container_id), F_STR("ref", op->req.ref));
	*ret = op;
	return 0;
}

int operation_start(struct node *node, const struct operation_request *req,
		    const struct operation_host *host, void *host_data, struct operation **ret,
		    struct error *err)
{
	const struct operation *other = operation_find(node, req->ns, req->container_id);

	if (other)
		return error_reason(err, REASON_BUSY, -EBUSY, "a %s of container %s is under way",
				    kinds[other->req.kind], req->container_id);
	if (list_count(&node->operations) >= node->max_operations)
		return error_reason(err, REASON_BUSY, -EBUSY,
				    "%u operations are under way on this node",
				    node->max_operations);
	return operation_begin(node, req, flow_of(req), host, host_data, ret, err);
}

int operation_adopt(struct operation *op, const struct operation_request *req,
		    const struct operation_host *host, void *host_data)
{
	const char *ref = op->req.ref; /* may have been made up here */
	int r = copy_request(op, req);

	if (r < 0)
		return r;
	op->req.ref = ref;
	op->host = host;
	op->host_data = host_data;
	op->host_lost = false;
	return 0;
}

/* --- orders --------------------------------------------------------------------------------- */

int operation_order(struct operation *op, enum order order, struct error *err)
{
	if (op->host_lost)
		return error_reason(err, REASON_SHIM_GONE, -EPIPE,
				    "the shim has left in the middle of the operation");
	op->order = order;
	op->host->order(op, order);
	return FLOW_WAIT;
}

void operation_abort_order(struct operation *op)
{
	if (!op->host_lost && op->order != ORDER_NONE)
		op->host->order(op, ORDER_ABORT);
}

bool operation_shim_lives(const struct operation *op)
{
	/* Whoever has to reap it may take a while. */
	return op->shim_start && start_of(op->req.shim_pid) == op->shim_start &&
	       !procfs_zombie(op->req.shim_pid);
}

void operation_order_done(struct operation *op, enum order order, int r, const struct error *err,
			  pid_t task_pid)
{
	if (op->order == ORDER_NONE || order != op->order) {
		log_warning("an answer to an order that was not given",
			    F_STR("id", op->req.container_id), F_INT("order", order));
		return;
	}
	op->order = ORDER_NONE;
	if (task_pid)
		op->task_pid = task_pid;
	flow_resume(&op->flow, r, err);
}

void operation_rootfs_done(struct operation *op, int r, const struct error *err)
{
	flow_resume(&op->flow, r, err);
}

void operation_cancel(struct operation *op, const struct error *why)
{
	if (op->canceled.code == 0)
		op->canceled = *why;
	flow_abort(&op->flow, why);
}

void operation_host_lost(struct operation *op)
{
	struct error err = ERROR_NULL;
	bool ordered = op->order != ORDER_NONE;

	if (op->host_lost)
		return;
	op->host_lost = true;
	op->order = ORDER_NONE;
	(void)error_reason(&err, REASON_SHIM_GONE, -EPIPE,
			   "the shim has left in the middle of the operation");
	flow_abort(&op->flow, &err);
	if (ordered) /* nobody will answer it any more */
		flow_resume(&op->flow, err.code, &err);
}

/* --- steps ---------------------------------------------------------------------------------- */

/* What the driver's calls end by themselves is given a little longer, so that they can say why. */
#define DRIVER_SLACK (10 * NSEC_PER_SEC)

static bool at_driver(enum phase phase)
{
	return phase == PHASE_LOCK || phase == PHASE_VRAM_SAVE || phase == PHASE_VRAM_RESTORE ||
	       phase == PHASE_UNLOCK;
}

/* How long the present step may take. */
static nsec_t step_limit(const struct operation *op)
{
	enum phase phase = phase_from_name(flow_step(&op->flow)->name);
	const nsec_t *limits = op->node->timeouts;
	nsec_t begun = op->flow.step_start;
	nsec_t left = op->deadline > begun ? op->deadline - begun : NSEC_PER_MSEC;

	if (op->flow.direction == FLOW_FORWARD)
		return left < limits[phase] ? left : limits[phase];
	/* Undoing is not subject to the caller's patience, and undoing a lock is a restore. */
	return at_driver(phase) || phase == PHASE_EXIT
		       ? limits[PHASE_VRAM_RESTORE] + limits[PHASE_UNLOCK]
		       : limits[phase];
}

nsec_t operation_timeout(struct flow *f, const struct flow_step *step)
{
	struct operation *op = operation_of_flow(f);
	bool driver = at_driver(phase_from_name(step->name)) || f->direction == FLOW_BACKWARD;

	return step_limit(op) + (driver ? DRIVER_SLACK : 0);
}

nsec_t operation_step_deadline(const struct operation *op)
{
	return time_add(op->flow.step_start, step_limit(op));
}

nsec_t operation_step_left(const struct operation *op)
{
	nsec_t at = operation_step_deadline(op), now = time_now();

	return at > now ? at - now : 0;
}

void operation_group_done(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	flow_resume(&op->flow, r, err);
}

static void book(struct operation *op, enum phase phase, bool undo)
{
	struct phase_time *t;

	if (op->watching)
		op->bytes_done = operation_image_bytes(op);
	op->watching = false;
	if (op->n_times == OPERATION_TIMES_MAX)
		return;
	t = &op->times[op->n_times++];
	*t = (struct phase_time){ .phase = phase,
				  .start = op->flow.step_start - op->begun,
				  .duration = time_now() - op->flow.step_start,
				  .bytes = op->bytes_done,
				  .undo = undo };
}

/* Before anything is done it is written down; what cannot be written down is not done. */
static void write_down(struct flow *f, const struct flow_step *step)
{
	struct operation *op = operation_of_flow(f);
	struct error err = ERROR_NULL;

	if (record_write(op, step->name, &err) < 0)
		flow_abort(f, &err);
}

void operation_observe(struct flow *f, const struct flow_step *step, enum flow_event event,
		       const struct error *err)
{
	struct operation *op = operation_of_flow(f);
	enum phase phase = phase_from_name(step->name);
	bool undo = event == FLOW_UNDO || event == FLOW_UNDONE || event == FLOW_UNDO_FAILED;

	if (event == FLOW_BEGIN || event == FLOW_UNDO) {
		op->phase = phase;
		op->bytes_done = op->bytes_total = 0;
		op->host->update(op);
		if (event == FLOW_BEGIN)
			write_down(f, step);
		return;
	}
	book(op, phase, undo);
	if (event == FLOW_FAILED) {
		struct error late = ERROR_NULL;

		op->failed_phase = phase;
		op->undoing = true;
		/* Without the record it would be finished after a crash, not undone: no harm. */
		if (record_write(op, step->name, &late) < 0)
			log_warning("the journal lacks a failure",
				    F_STR("id", op->req.container_id), F_ERR(&late));
	}
	if (err)
		log_warning(undo ? "undo failed" : "phase failed", F_STR("id", op->req.container_id),
			    F_STR("phase", step->name), F_STR("reason", reason_name(err->reason)),
			    F_INT("dur_ms", op->times[op->n_times - 1].duration / NSEC_PER_MSEC),
			    F_ERR(err));
	else
		log_info(undo ? "phase undone" : "phase done", F_STR("id", op->req.container_id),
			 F_STR("phase", step->name),
			 F_INT("dur_us", op->times[op->n_times - 1].duration / NSEC_PER_USEC),
			 F_INT("bytes", op->bytes_done));
}

/* --- the end -------------------------------------------------------------------------------- */

static void end(struct job *job)
{
	struct operation *op = container_of(job, struct operation, end);

	log_info("operation ends", F_STR("op", kinds[op->req.kind]), F_STR("ns", op->req.ns),
		 F_STR("id", op->req.container_id), F_STR("ref", op->req.ref),
		 F_STR("status", op->status == OPERATION_OK	  ? "ok"
				 : op->status == OPERATION_FAILED ? "failed"
								  : "degraded"),
		 F_STR("reason", reason_name(op->outcome.reason)),
		 F_INT("dur_ms", (time_now() - op->begun) / NSEC_PER_MSEC));
	op->host->finished(op, op->status, &op->outcome);
	record_remove(op);
	operation_free(op);
}

static void frozen_again(struct freezer *f, int r, const struct error *err)
{
	struct operation *op = container_of(f, struct operation, freezer);

	if (r < 0 && r != -ENOENT)
		log_warning("a paused container runs", F_STR("id", op->req.container_id), F_ERR(err));
	job_put_off(op->node->loop, &op->end, end);
}

/* containerd believes it paused, and there is no host that would see to it. */
static bool freeze_again(struct operation *op)
{
	return op->host_lost && op->was_frozen && operation_shim_lives(op) &&
	       freezer_freeze(&op->freezer, op->node->loop, &op->cgroup,
			      time_add(time_now(), op->node->timeouts[PHASE_QUIESCE]), frozen_again,
			      NULL) == 0;
}

void operation_finish(struct operation *op, enum operation_status status, const struct error *err)
{
	op->status = status;
	timer_cancel(&op->pulse);
	if (err)
		op->outcome = *err;
	if (!freeze_again(op))
		job_put_off(op->node->loop, &op->end, end);
}

void operation_add_detail(struct operation *op, const char *line)
{
	const char *s;

	if (op->n_detail == OPERATION_DETAIL_MAX)
		return;
	s = arena_strdup(&op->mem, line);
	if (s)
		op->detail[op->n_detail++] = s;
}

/* --- processes ------------------------------------------------------------------------------ */

ssize_t operation_list_pids(void *data, pid_t *pids, size_t max)
{
	const struct cgroup *cgroup = data;
	struct cgroup_pids list;
	ssize_t n;
	int r = cgroup_pids(cgroup, &list, NULL);

	if (r < 0)
		return r;
	n = list.n > max ? -E2BIG : (ssize_t)list.n;
	if (n > 0)
		memcpy(pids, list.pid, (size_t)n * sizeof(*pids));
	cgroup_pids_free(&list);
	return n;
}

int operation_find_processes(struct operation *op, pid_t pid, struct error *err)
{
	int r = cgroup_open_pid(&op->cgroup, op->node->cgroups, pid, err);

	if (r < 0) {
		(void)error_wrap(err, r, "find the cgroup of process %d", pid);
		if (err)
			err->reason = REASON_CONTAINER_MISSING;
		return r;
	}
	/* No usable driver, and no GPU in the spec: there is nothing to take care of. */
	if (!op->req.gpu && gpu_worker_usable(op->node->worker, NULL) < 0)
		return 0;
	r = gpu_group_new(&op->group, op->node->loop, op->node->worker, operation_list_pids,
			  &op->cgroup);
	if (r < 0)
		return error_set(err, r, "out of memory");
	gpu_group_share(op->group, &op->node->returning);
	return 0;
}

static void thawed(struct freezer *f, int r, const struct error *err)
{
	struct operation *op = container_of(f, struct operation, freezer);

	op->thawed(op, r == -ENOENT ? 0 : r, err);
}

static void thawed_already(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, timer);

	op->thawed(op, op->outcome.code == -ENOENT ? 0 : op->outcome.code, &op->outcome);
}

static void thaw(struct operation *op)
{
	if (freezer_thaw(&op->freezer, op->node->loop, &op->cgroup, operation_step_deadline(op),
			 thawed, &op->outcome) < 0)
		timer_set(op->node->loop, &op->timer, time_now(), thawed_already);
}

/*
 * CRIU without a shim goes on for a while, and may even end well. Killed, it leaves what it has put
 * into the processes to find out and to remove itself (CRIU: pie/parasite.c, fini() at the end of
 * the control socket), so that comes last.
 */
static void wait_for_criu(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, timer);
	pid_t criu = criu_tracer(&op->cgroup);

	if (criu && time_now() > op->criu_until) {
		log_warning("a CRIU that nobody waits for is ended",
			    F_STR("id", op->req.container_id), F_INT("pid", criu));
		(void)kill(criu, SIGKILL);
		op->criu_until = NSEC_NEVER;
	}
	if (criu && operation_step_left(op) > 0)
		timer_set(op->node->loop, t, time_now() + CRIU_LOOK, wait_for_criu);
	else
		thaw(op);
}

void operation_thaw(struct operation *op,
		    void (*done)(struct operation *op, int r, const struct error *err))
{
	struct freezer_state state;

	op->thawed = done;
	if (op->req.paused && freezer_state(&op->cgroup, &state, NULL) == 0 && state.self)
		op->was_frozen = true;
	op->criu_until = time_now() + CRIU_PATIENCE;
	timer_set(op->node->loop, &op->timer, time_now(), wait_for_criu);
}
