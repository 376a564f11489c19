/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start of a container that was created from a checkpoint: the OCI runtime restores it, as our
 * child. Without a GPU that is all. With one, the agent verifies first, gives the order, brings the
 * GPU memory back, and has the last word: only then the task counts as running.
 */
#include "shim/task.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"
#include "cgroup/adopt.h"
#include "oci/cgroup_path.h"
#include "shim/gpu.h"
#include "shim/remains.h"

#define LAST_WORD_MAX (5 * NSEC_PER_SEC)

struct restore {
	struct op *op;
	struct container *c;
	struct process *p;
	struct flow flow;
	struct agent_op *agent; /* NULL: none, or over */
	bool with_agent;
	bool ordered;   /* the agent's order is being carried out */
	bool restored;  /* the runtime has done it */
	char image_path[PATH_MAX], work_path[PATH_MAX];
	struct runtime_restore args;
	struct runtime_call *call;
	nsec_t order_start;
	struct remains remains;
	int hold; /* of the checkpoint; 0 = none */
	struct arena mounts_mem;
	struct mount_records mounts; /* that it had */
	bool awaiting_end; /* of the stream, after a failure */
	struct gpu_failure failure; /* what CRIU says of it, where it was CRIU */
	struct error last_word;     /* of the agent on our failure: it knows where the log is kept */
	struct timer timer;
};

static struct restore *restore_of(struct flow *f)
{
	return container_of(f, struct restore, flow);
}

/* --- the agent ------------------------------------------------------------------------------ */

/* The reply is gone when the restore has ended. */
static int keep_mounts(struct restore *rs, const struct mount_records *from, struct error *err)
{
	struct arena *mem = &rs->mounts_mem;
	struct mount_records *to = &rs->mounts;

	*to = (struct mount_records){ arena_alloc(mem, (from->n + 1) * sizeof(*to->items)), 0 };
	for (size_t i = 0; to->items && i < from->n; i++) {
		struct mount_record *m = &to->items[i];

		*m = from->items[i];
		m->destination = arena_strdup(mem, m->destination);
		m->kind = arena_strdup(mem, m->kind);
		m->type = m->root = NULL; /* nobody asks */
		m->source = m->source ? arena_strdup(mem, m->source) : NULL;
		if (!m->destination || !m->kind || (from->items[i].source && !m->source))
			break;
		to->n++;
	}
	return to->n == from->n && to->items ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static void agent_replied(void *data, const struct agent_reply *reply)
{
	struct restore *rs = data;
	struct error err = ERROR_NULL;
	int r;

	if (reply->order == AGENT_ORDER_NONE)
		return;
	if (reply->order == AGENT_ORDER_ABORT) {
		if (rs->call)
			runtime_call_kill(rs->call);
		return;
	}
	if (reply->order != AGENT_ORDER_RESTORE || rs->ordered) {
		(void)error_reason(&err, REASON_INTERNAL, -EPROTO,
				   "order %d makes no sense in a restore", (int)reply->order);
		agent_op_result(rs->agent, reply->order, err.code, &err, 0, 0);
		return;
	}
	rs->ordered = true;
	rs->order_start = time_now();
	gpu_flags_apply(reply->runtime_flags, reply->n_runtime_flags, &rs->args);
	r = PATH_PRINTF(rs->image_path, "%s", reply->image_path);
	if (r == 0 && *reply->work_path)
		r = PATH_PRINTF(rs->work_path, "%s", reply->work_path);
	if (r == 0 && rs->c->intent.restore_from) {
		r = gpu_hold_images(rs->image_path, &err);
		rs->hold = r > 0 ? r : 0;
	}
	if (r >= 0)
		r = keep_mounts(rs, &reply->mounts, &err);
	if (r >= 0)
		r = gpu_map_mounts(rs->c, &rs->mounts, &rs->mounts_mem, &rs->args.mounts, &err);
	flow_resume(&rs->flow, r < 0 ? r : 0, &err);
}

/* The agent's verdict, at whatever step we are. */
static void agent_ended(void *data, int r, const struct error *err)
{
	struct restore *rs = data;
	struct error mine = *err;

	rs->agent = NULL;
	rs->last_word = r < 0 ? mine : ERROR_NULL;
	if (rs->awaiting_end) {
		timer_cancel(&rs->timer);
		flow_resume(&rs->flow, 0, NULL);
		return;
	}
	if (rs->flow.direction == FLOW_BACKWARD)
		return; /* it has failed already */
	if (r == 0 && !rs->restored)
		r = error_reason(&mine, REASON_INTERNAL, -EPROTO,
				 "the agent reports a restore that it has not ordered");
	if (strcmp(flow_step(&rs->flow)->name, "verdict") == 0 ||
	    strcmp(flow_step(&rs->flow)->name, "agent") == 0)
		flow_resume(&rs->flow, r, &mine);
	else
		flow_abort(&rs->flow, &mine); /* the runtime is at work; its end comes first */
}

static int step_agent(struct flow *f, struct error *err)
{
	static const struct agent_ops ops = { .reply = agent_replied, .ended = agent_ended };
	struct restore *rs = restore_of(f);
	struct container *c = rs->c;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(GPU_REQUEST_MEMORY);
	struct agent_request req;
	int r;

	if (!rs->with_agent)
		return 0;
	r = gpu_request(c, AGENT_RESTORE, &mem, &req, err);
	if (r < 0)
		return r;
	req.task_pid = 0;
	req.timeout_ms = gpu_timeout_ms(rs->op->call);
	req.checkpoint_ref = c->intent.restore_from;
	req.image_path = c->intent.restore_from ? NULL : c->checkpoint;
	r = agent_op_open(&rs->agent, c->shim->loop, c->shim->settings.agent_socket, &req,
			  gpu_stream_deadline(c, rs->op->call), &ops, rs, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void last_word_overdue(struct timer *t)
{
	struct restore *rs = container_of(t, struct restore, timer);

	agent_op_cancel(rs->agent);
	rs->agent = NULL;
	flow_resume(&rs->flow, 0, NULL);
}

/* The agent has been told why; it says its last word, and the stream ends in order. */
static int undo_agent(struct flow *f, struct error *err)
{
	struct restore *rs = restore_of(f);

	(void)err;
	if (!rs->agent)
		return 0;
	if (rs->ordered) {
		rs->awaiting_end = true;
		timer_set(rs->c->shim->loop, &rs->timer, time_now() + LAST_WORD_MAX,
			  last_word_overdue);
		return FLOW_WAIT;
	}
	agent_op_cancel(rs->agent);
	rs->agent = NULL;
	return 0;
}

/* --- the runtime ---------------------------------------------------------------------------- */

static void restored(void *data, int r, const struct error *err, struct bytes output)
{
	struct restore *rs = data;
	struct error mine = *err;

	(void)output;
	rs->call = NULL;
	if (r < 0) {
		(void)gpu_criu_failure(rs->c, rs->work_path, false, &rs->failure, &mine);
		if (!rs->with_agent) {
			/* containerd's own words, with what CRIU says behind them. */
			char text[ERROR_TEXT_MAX];

			(void)snprintf(text, sizeof(text), "%s", mine.text);
			mine = *err;
			if (strcmp(text, mine.text) != 0)
				(void)error_set(&mine, r, "%.480s: %.500s", err->text, text);
		} else if (mine.reason == REASON_NONE) {
			mine.reason = REASON_CRIU_RESTORE_FAILED;
		}
	}
	flow_resume(&rs->flow, r, &mine);
}

/* The cgroup to restore into, NULL where only the OCI runtime knows. CRIU's configuration takes no
 * blanks in a path, and no "#". */
static const char *cgroup_root(const struct container *c, char *buf, size_t size)
{
	if (c->shim->cgroups.mode != CGROUP_V2 ||
	    cgroup_path_of(&c->rt, &c->bundle, buf, size) < 0 || strpbrk(buf, " \t\n\r#\"'"))
		return NULL;
	return buf;
}

static int step_restore(struct flow *f, struct error *err)
{
	struct restore *rs = restore_of(f);
	struct container *c = rs->c;
	char pid_file[PATH_MAX], cgroup[PATH_MAX];
	struct spawn io = { 0 };
	int r;

	r = PATH_PRINTF(pid_file, "%s/init.pid", c->path);
	if (r < 0)
		return error_sys(err, r, "%s", c->path);
	rs->args.image_path = rs->image_path;
	rs->args.work_path = rs->work_path;
	rs->args.pid_file = pid_file;
	rs->args.console_socket = stdio_console(&c->init.io);
	rs->args.no_pivot = c->options.no_pivot_root;
	rs->args.deadline = time_add(time_now(), c->shim->settings.timeouts.criu_restore);
	if (ttrpc_call_deadline(rs->op->call) < rs->args.deadline)
		rs->args.deadline = ttrpc_call_deadline(rs->op->call);
	rs->args.no_cuda_plugin = rs->args.own_mounts = rs->with_agent;
	rs->args.cgroup_root = cgroup_root(c, cgroup, sizeof(cgroup));
	stdio_child(&c->init.io, &io);
	reaper_hold(&c->shim->reaper, &c->init.hold);
	r = runtime_restore(&c->rt, &rs->args, &io, restored, rs, &rs->call, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_restore(struct flow *f)
{
	struct restore *rs = restore_of(f);

	if (rs->call)
		runtime_call_kill(rs->call);
}

static void removed(void *data, int r, const struct error *err, struct bytes output)
{
	struct restore *rs = data;

	(void)output;
	flow_resume(&rs->flow, r, err);
}

static void cleared(struct remains *m)
{
	struct restore *rs = container_of(m, struct restore, remains);
	struct error err = ERROR_NULL;
	int r = runtime_delete(&rs->c->rt, true, removed, rs, &err);

	if (r < 0)
		flow_resume(&rs->flow, r, &err);
}

/* Nothing half restored may live on, least of all without its GPU memory. */
static int undo_restore(struct flow *f, struct error *err)
{
	struct restore *rs = restore_of(f);

	(void)err;
	rs->c->init.pid = 0;
	reaper_release(&rs->c->init.hold);
	remains_clear(&rs->remains, rs->c->shim->loop, &rs->c->rt, rs->work_path,
		      &rs->c->shim->cgroups, rs->c->bundle.cgroups_path, cleared);
	return FLOW_WAIT;
}

static int step_attach(struct flow *f, struct error *err)
{
	(void)err;
	return process_attach_stdio(&restore_of(f)->c->init, f);
}

/*
 * CRIU was told the cgroup where the spec names it (cgroup_root()); only the runtime knows where
 * it is otherwise, and it has made it by now: see adopt.h. Outside of its cgroup the container
 * would have no limits, and pause and kill would miss it: then it does not run at all.
 */
static int settle_in_cgroup(const struct container *c, struct error *err)
{
	char path[PATH_MAX];
	int r;

	if (c->shim->cgroups.mode != CGROUP_V2)
		return 0;
	r = runtime_cgroup(&c->rt, path, sizeof(path), err);
	if (r == -ENOENT) {
		*err = ERROR_NULL; /* a container without a cgroup of its own, or another runtime's */
		return 0;
	}
	if (r == 0)
		r = adopt_processes(&c->shim->cgroups, c->init.pid, path, err);
	if (r == 0)
		return 0;
	err->reason = REASON_RUNTIME_FAILED;
	return error_wrap(err, r, "the restored container is not in its cgroup");
}

static int step_register(struct flow *f, struct error *err)
{
	struct restore *rs = restore_of(f);
	struct container *c = rs->c;
	int r = process_read_pid(c->path, "init.pid", &c->init.pid, err);

	if (r == 0)
		r = settle_in_cgroup(c, err);
	if (r < 0)
		return r;
	container_find_cgroup(c);
	rs->restored = true;
	r = gpu_verify_mounts(c, &rs->mounts, err);
	if (r < 0)
		return r;
	return rs->with_agent && c->bundle.gpu ? gpu_make_nodes(c, err) : 0;
}

static int step_verdict(struct flow *f, struct error *err)
{
	struct restore *rs = restore_of(f);

	(void)err;
	if (!rs->with_agent)
		return 0;
	agent_op_result(rs->agent, AGENT_ORDER_RESTORE, 0, NULL, rs->c->init.pid,
			time_now() - rs->order_start);
	return FLOW_WAIT;
}

static const struct flow_step steps[] = {
	{ "agent", step_agent, undo_agent, NULL },
	{ "restore", step_restore, undo_restore, cancel_restore },
	{ "attach", step_attach, NULL, NULL },
	{ "register", step_register, NULL, NULL },
	{ "verdict", step_verdict, NULL, NULL },
};

/* Tells the agent of a failure of ours before the flow takes everything back. */
static void observe(struct flow *f, const struct flow_step *step, enum flow_event event,
		    const struct error *err)
{
	struct restore *rs = restore_of(f);
	struct agent_detail detail = gpu_failure_detail(&rs->failure);

	(void)step;
	if (event == FLOW_FAILED && rs->agent && rs->ordered)
		agent_op_failed(rs->agent, AGENT_ORDER_RESTORE, err, &detail,
				time_now() - rs->order_start);
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct restore *rs = restore_of(f);
	struct container *c = container_ref(rs->c);
	Events__TaskStart event = EVENTS__TASK_START__INIT;
	Task__StartResponse response = TASK__START_RESPONSE__INIT;

	if (r < 0 && rs->last_word.reason == err->reason && err->reason != REASON_NONE)
		err = &rs->last_word;
	if (r == 0) {
		process_set_state(&c->init, PROCESS_RUNNING);
		event.container_id = c->id;
		event.pid = response.pid = (uint32_t)c->init.pid;
		shim_publish(c->shim, "/tasks/start", "containerd.events.TaskStart", &event.base);
		op_reply(rs->op, &response.base);
		exit_watch(&c->init);
	} else {
		log_error("restore failed", F_STR("container", c->id),
			  F_STR("reason", reason_name(err->reason)), F_ERR(err));
		c->init.start_failed = true;
		process_release_waiters(&c->init);
		orphan_watch(c);
		op_fail(rs->op, err);
	}
	container_unref(c);
	gpu_let_go(&rs->hold);
	arena_done(&rs->mounts_mem);
	free(rs);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .observe = observe,
				     .done = done };

void start_restore(struct op *op)
{
	struct restore *rs = calloc(1, sizeof(*rs));
	struct container *c = op->c;
	struct error err = ERROR_NULL;
	int r;

	if (!rs) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		op_fail(op, &err);
		return;
	}
	rs->op = op;
	rs->c = c;
	rs->p = op->p;
	rs->with_agent = gpu_restores(c);
	rs->mounts_mem = ARENA_LIMIT(GPU_MOUNTS_MEMORY);
	r = PATH_PRINTF(rs->image_path, "%s", c->checkpoint ? c->checkpoint : "");
	if (r == 0)
		r = *c->options.criu_work_path
			    ? PATH_PRINTF(rs->work_path, "%s", c->options.criu_work_path)
			    : PATH_PRINTF(rs->work_path, "%s/work", c->path);
	if (r == 0 && *c->options.criu_work_path)
		r = path_mkdirs(rs->work_path, 0700); /* runc does, crun does not */
	if (r < 0) {
		(void)error_sys(&err, r, "the paths of a restore");
		op_fail(op, &err);
		free(rs);
		return;
	}
	orphan_unwatch(c);
	flow_start(&rs->flow, c->shim->loop, &ops);
}
