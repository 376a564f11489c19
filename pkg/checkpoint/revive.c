/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/revive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/path.h"
#include "cgroup/search.h"
#include "checkpoint/degraded.h"
#include "gpu/uuid.h"

#define LOOK_AGAIN   (100 * NSEC_PER_MSEC)
#define PAUSE_FIRST  (50 * NSEC_PER_MSEC)
#define PAUSE_MAX    (1 * NSEC_PER_SEC)
#define CGROUP_LINES ((size_t)256 << 10)
/* No GPU in the spec, and no driver that answers: then there is nothing to bring back. */
#define DRIVER_WAIT  (5 * NSEC_PER_SEC)

struct revival {
	char phase[32];     /* in which the agent died */
	bool alone;         /* nobody will come */
	bool torn;	    /* no record that could be read: what is known is where it is */
	bool waiting;       /* for the shim */
	bool dumping;       /* at the time of the crash */
	nsec_t shim_until;
};

/* --- the shim ------------------------------------------------------------------------------- */

static void no_order(struct operation *op, enum order order)
{
	(void)op;
	(void)order;
}

static void no_update(struct operation *op)
{
	(void)op;
}

static void nobody_told(struct operation *op, enum operation_status status,
			const struct error *err)
{
	(void)op;
	(void)status;
	(void)err;
}

static const struct operation_host nobody = { .order = no_order,
					      .update = no_update,
					      .finished = nobody_told };

static void no_shim(struct operation *op)
{
	struct error err = ERROR_NULL;

	op->revival->waiting = false;
	(void)error_reason(&err, REASON_SHIM_GONE, -EPIPE,
			   "neither the agent nor the shim of the operation are there any more");
	flow_resume(&op->flow, err.code, &err);
}

static bool stands_still(const struct operation *op)
{
	struct freezer_state state;

	return op->cgroup.host && freezer_state(&op->cgroup, &state, NULL) == 0 && state.self;
}

/*
 * Whose record was torn is waited for only while the container stands still: either its shim has it
 * dumped, and comes; or it has it suspended or on its way back from there, and then nothing is to
 * be brought back before it is asked for.
 */
static void look_for_shim(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, timer);
	struct revival *rv = op->revival;
	bool still = rv->torn && stands_still(op);

	if (time_now() < rv->shim_until && (rv->torn ? still : operation_shim_lives(op))) {
		timer_set(op->node->loop, t, time_now() + LOOK_AGAIN, look_for_shim);
		return;
	}
	op->revived_held = op->revived_held || still;
	no_shim(op);
}

static int step_shim(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	struct revival *rv = op->revival;

	(void)err;
	rv->waiting = true;
	rv->shim_until = rv->alone ? 0 : time_add(time_now(), op->node->shim_return);
	timer_set(op->node->loop, &op->timer, time_now(), look_for_shim);
	return FLOW_WAIT;
}

static void cancel_shim(struct flow *f)
{
	struct operation *op = operation_of_flow(f);

	/* An order that the shim still carries out comes to its end by the shim's own deadline. */
	if (!op->revival->waiting)
		return;
	op->revival->waiting = false;
	timer_cancel(&op->timer);
	flow_resume(f, -ECANCELED, NULL);
}

/* --- on, or back? --------------------------------------------------------------------------- */

static int step_decide(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (op->sealed && op->req.exit)
		return 0;
	if (op->req.held)
		op->undoing = true; /* it stays suspended, and can be asked again */
	if (op->revival->dumping && op->req.resume_order == ORDER_DUMP)
		op->criu_done = true; /* step_shim() has seen its success */
	if (!op->undoing && op->criu_done && !*op->req.ref) {
		(void)PATH_PRINTF(op->image_path, "%s", op->req.image_path);
		(void)PATH_PRINTF(op->work_path, "%s", op->req.work_path);
		return 0;
	}
	return error_reason(err, REASON_AGENT_UNAVAILABLE, -ECANCELED,
			    "the agent was restarted in phase %s: the operation was undone",
			    op->revival->phase);
}

/* --- back ----------------------------------------------------------------------------------- */

static void again(struct timer *t);

static void brought_back(void *data, int r, const struct error *err)
{
	struct operation *op = data;

	if (r < 0 && degraded_add(op, err) == 0)
		op->status = OPERATION_DEGRADED;
	flow_resume(&op->flow, r, err);
}

static void discovered(void *data, int r, const struct error *err)
{
	struct operation *op = data;
	nsec_t at = time_now() + backoff_next(&op->backoff);

	if (r == 0) {
		gpu_group_recover(op->group, operation_step_deadline(op), brought_back, op);
	} else if (!op->req.gpu && gpu_group_size(op->group) == 0 &&
		   at > time_add(op->flow.step_start, DRIVER_WAIT)) {
		flow_resume(&op->flow, 0, NULL);
	} else if (at < operation_step_deadline(op)) {
		timer_set(op->node->loop, &op->timer, at, again); /* the worker is starting, say */
	} else {
		brought_back(op, r, err);
	}
}

static void again(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, timer);

	gpu_group_discover(op->group, operation_step_deadline(op), discovered, op);
}

static void bring_back(struct operation *op)
{
	op->dumping = false;
	op->backoff = BACKOFF(PAUSE_FIRST, PAUSE_MAX);
	timer_set(op->node->loop, &op->timer, time_now(), again);
}

static void thawed(struct operation *op, int r, const struct error *err)
{
	/* Not the end: the driver's calls have deadlines of their own. */
	if (r < 0)
		log_warning("the container cannot be thawed", F_STR("id", op->req.container_id),
			    F_ERR(err));
	bring_back(op);
}

/* It is suspended, and stays so. */
static bool stays_held(const struct operation *op)
{
	struct freezer_state state;

	if (!op->revived_held || op->req.kind != OPERATION_RESUME || operation_shim_lives(op))
		return op->revived_held;
	return !op->cgroup.host || freezer_state(&op->cgroup, &state, NULL) < 0 || state.self;
}

static int undo_gpu(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);

	(void)err;
	if (stays_held(op))
		return 0;
	if (op->cgroup.host)
		operation_thaw(op, thawed);
	else
		bring_back(op);
	return FLOW_WAIT;
}

/* The shim believes it frozen, so that is whom we ask; without it, CRIU may still be at work. */
static int undo_dump(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	struct freezer_state state;

	if (op->revived_held || op->host_lost || !op->cgroup.host ||
	    freezer_state(&op->cgroup, &state, NULL) < 0 || !state.self)
		return 0;
	return operation_order(op, ORDER_THAW, err);
}

static int undo_store(struct flow *f, struct error *err)
{
	struct operation *op = operation_of_flow(f);
	int r;

	if (!*op->req.ref || op->sealed)
		return 0;
	r = store_resume(op->node->store, op->req.ref, &op->work, err);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : store_abort(&op->work, err);
}

static int begin(struct flow *f, struct error *err)
{
	(void)f;
	(void)err;
	return 0;
}

/* Undone from the bottom: freeze off, GPU back, store cleaned. */
static const struct flow_step steps[] = {
	{ "preflight", begin, undo_store, NULL },
	{ "lock", begin, undo_gpu, NULL },
	{ "quiesce", begin, undo_dump, NULL },
	{ "criu_dump", step_shim, NULL, cancel_shim },
	{ "rootfs", step_decide, NULL, NULL },
};

/* --- the end -------------------------------------------------------------------------------- */

static void revived(struct flow *f, int r, const struct error *err)
{
	struct operation *op = operation_of_flow(f);

	if (r == 0)
		checkpoint_goes_on(op);
	else
		operation_finish(op, op->status ? op->status : OPERATION_FAILED, err);
}

static const struct flow_ops revive_flow = { .steps = steps,
					     .n_steps = ARRAY_SIZE(steps),
					     .timeout = operation_timeout,
					     .observe = operation_observe,
					     .done = revived };

/* --- from the journal ----------------------------------------------------------------------- */

static int open_cgroup(struct operation *op, const struct journal_record *rec)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(CGROUP_LINES);
	int r = 0;

	op->cgroup_lines = arena_alloc(&op->mem,
				       JOURNAL_CGROUPS_MAX * sizeof(*op->cgroup_lines));
	if (!op->cgroup_lines)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < rec->n_cgroups; i++) {
		r = buf_printf(&text, "%s\n", rec->cgroups[i]);
		op->cgroup_lines[i] = arena_strdup(&op->mem, rec->cgroups[i]);
		if (!op->cgroup_lines[i])
			r = -ENOMEM;
		op->n_cgroup_lines = i + 1;
	}
	if (r == 0)
		r = cgroup_open(&op->cgroup, op->node->cgroups, buf_bytes(&text), NULL);
	return r == -ENOENT ? 0 : r;
}

static ssize_t list_pids(void *data, pid_t *pids, size_t max)
{
	struct cgroup *cgroup = data;
	ssize_t n = cgroup->host ? operation_list_pids(cgroup, pids, max) : 0;

	return n == -ENOENT ? 0 : n; /* the container has ended, and all its processes with it */
}

static int know_processes(struct operation *op, const struct journal_record *rec)
{
	struct gpu_memory *memory = calloc(1, sizeof(*memory));
	int r = memory ? gpu_group_new(&op->group, op->node->loop, op->node->worker, list_pids,
				       &op->cgroup)
		       : -ENOMEM;

	if (r == 0)
		gpu_group_share(op->group, &op->node->returning);
	for (size_t i = 0; r == 0 && i < rec->n_processes; i++) {
		const struct journal_process *p = &rec->processes[i];
		const struct gpu_member m = {
			.pid = (pid_t)p->pid,
			.ns_pid = (pid_t)p->ns_pid,
			.start_time = p->start_time,
			.vram_bytes = p->vram_bytes ? p->vram_bytes : GPU_BYTES_UNKNOWN,
			.devices = (uint32_t)p->devices,
			.job = (unsigned int)p->job,
			.apart = p->apart,
		};

		r = gpu_group_know(op->group, &m);
	}
	for (size_t i = 0; r == 0 && i < rec->n_devices && i < GPU_DEVICES_MAX; i++) {
		const struct journal_device *d = &rec->devices[i];
		struct gpu_device *to = &memory->devices[memory->n_devices++];

		r = gpu_uuid_parse(d->uuid, &to->uuid);
		(void)snprintf(to->name, sizeof(to->name), "%s", d->chip ? d->chip : "");
		to->total = d->memory_bytes ? d->memory_bytes : GPU_BYTES_UNKNOWN;
	}
	if (r == 0)
		gpu_group_set_memory(op->group, memory);
	free(memory);
	return r;
}

static enum operation_kind kind_of(const struct journal_record *rec)
{
	return strcmp(rec->kind, "resume") == 0	   ? OPERATION_RESUME
	       : strcmp(rec->kind, "suspend") == 0 ? OPERATION_SUSPEND
						   : OPERATION_CHECKPOINT;
}

/* found: the cgroup of a torn record, now the operation's. */
static int take(struct node *node, const struct journal_record *rec, struct cgroup *found)
{
	struct operation_request req = {
		.kind = kind_of(rec),
		.container_id = rec->container_id,
		.ns = rec->ns,
		.pod_uid = rec->pod_uid,
		.ref = rec->ref,
		.gpu = rec->gpu || rec->torn,
		.exit = rec->exit,
		.paused = rec->paused,
		.task_pid = (pid_t)rec->task_pid,
		.shim_pid = (pid_t)rec->shim_pid,
	};
	struct error err = ERROR_NULL;
	struct revival *rv = calloc(1, sizeof(*rv));
	struct operation *op;
	int r = rv ? operation_begin(node, &req, &revive_flow, &nobody, NULL, &op, &err) : -ENOMEM;

	if (r < 0) {
		cgroup_close(found);
		free(rv);
		return r;
	}
	(void)snprintf(rv->phase, sizeof(rv->phase), "%s", rec->phase);
	/* The shim of a suspend or resume has undone its half by itself. */
	rv->alone = rec->degraded || req.kind != OPERATION_CHECKPOINT;
	rv->torn = rec->torn;
	rv->dumping = rec->dumping;
	op->revival = rv;
	op->host_lost = true;
	op->task_start = rec->task_start;
	op->shim_start = rec->shim_start;
	op->undoing = rec->undoing || rec->torn;
	op->dumping = rec->dumping;
	op->criu_done = rec->criu_done;
	op->settled = rec->settled;
	op->sealed = rec->sealed;
	op->revived_held = rec->held;
	op->cuda_done = rec->dumping || rec->criu_done;
	if (rec->torn)
		op->cgroup = *found;
	else
		r = open_cgroup(op, rec);
	return r < 0 ? r : know_processes(op, rec);
}

static int revive(struct node *node, const struct journal_record *rec)
{
	struct cgroup found = { 0 };
	int r = rec->torn ? cgroup_search(&found, node->cgroups, rec->ns, rec->container_id, NULL)
			  : 0;

	if (r < 0)
		return r; /* perhaps its shim comes, and says where it is */
	return take(node, rec, &found);
}

static void replay(void *data, const struct journal_record *rec)
{
	struct node *node = data;
	int r = revive(node, rec);

	log_warning("an operation of a former agent is taken up", F_STR("op", rec->kind),
		    F_STR("ns", rec->ns), F_STR("id", rec->container_id), F_STR("phase", rec->phase),
		    F_INT("dumping", rec->dumping), F_INT("criu_done", rec->criu_done),
		    F_INT("sealed", rec->sealed), F_INT("undoing", rec->undoing),
		    F_INT("processes", (int64_t)rec->n_processes));
	if (r < 0)
		log_error("it cannot be taken up", F_STR("id", rec->container_id),
			  F_STR("err", strerror(-r)));
}

int revive_all(struct node *node, struct error *err)
{
	return !journal_kept(&node->journal) ? 0 : journal_replay(&node->journal, replay, node, err);
}

/*
 * A shim comes back, and there is no record: it was torn, has been removed, or the operation has
 * been undone long ago. Only in the last case all is well, and then that is what is found. What
 * the shim has carried out it takes back itself when it is refused.
 */
static void revive_unrecorded(struct node *node, const struct operation_request *req)
{
	const struct journal_record nothing = { 0 };
	struct error err = ERROR_NULL;
	struct revival *rv = calloc(1, sizeof(*rv));
	struct operation *op;
	int r = rv ? operation_begin(node, req, &revive_flow, &nobody, NULL, &op, &err) : -ENOMEM;

	if (r < 0) {
		free(rv);
	} else {
		(void)snprintf(rv->phase, sizeof(rv->phase), "unknown");
		rv->alone = true;
		op->revival = rv;
		op->host_lost = true;
		op->undoing = true;
		op->revived_held = req->held != NULL;
		/* Gone: then there is nothing to bring back. */
		(void)cgroup_open_pid(&op->cgroup, node->cgroups, req->task_pid, NULL);
		r = know_processes(op, &nothing);
	}
	log_warning("an operation of a former agent is not on record", F_STR("ns", req->ns),
		    F_STR("id", req->container_id), F_STR("err", r < 0 ? strerror(-r) : ""));
}

int revive_claim(struct node *node, const struct operation_request *req,
		 const struct operation_host *host, void *host_data, bool answered, int r,
		 const struct error *result, struct operation **ret, struct error *err)
{
	struct operation *op = operation_find(node, req->ns, req->container_id);

	if (!op)
		revive_unrecorded(node, req);
	if (!op || !op->revival || !op->revival->waiting)
		return error_reason(err, REASON_AGENT_UNAVAILABLE, -ECANCELED,
				    "the agent was restarted in the middle of the operation, which "
				    "was undone or is being undone now");
	if (operation_adopt(op, req, host, host_data) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	log_info("the shim is back", F_STR("id", op->req.container_id),
		 F_INT("order", req->resume_order), F_INT("answered", answered));
	timer_cancel(&op->timer);
	op->revival->waiting = false;
	if (op->revival->torn)
		op->revived_held = req->held != NULL;
	if (answered || req->resume_order == ORDER_NONE)
		flow_resume(&op->flow, r, result);
	else
		op->order = req->resume_order;
	*ret = op;
	return 0;
}

bool revive_keeps(void *data, const char *ref)
{
	const struct node *node = data;
	const struct operation *op;

	list_for_each(op, &node->operations, node_link)
		if (op->revival && strcmp(op->req.ref, ref) == 0)
			return true;
	return false;
}
