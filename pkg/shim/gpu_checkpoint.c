/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's half of a checkpoint with GPU: it carries out the agent's orders, one at a time, and
 * hands back the state that containerd expects.
 *
 *	QUIESCE	no exec comes in any more; thaw what containerd has paused (a CUDA lock on a
 *		frozen container would hang); sync the changed files
 *	DUMP	freeze, empty the output pipes, let the OCI runtime dump. It leaves the container
 *		frozen and alive, whatever is to become of it.
 *	THAW	let it run, so that the driver can bring the GPU memory back
 *	RELEASE	the GPU memory is back: as paused as before, and execs come in again. The image
 *		is sealed only now, which may take a minute that nobody has to wait.
 *	EXIT	the image is sealed: end it
 *
 * An agent that dies is waited for, with everything as it is, an order under way included: only an
 * agent can bring the GPU memory back, and the next one knows from its journal how far things were.
 * When it takes too long, the call fails, and the next agent undoes its half without us.
 *
 * CRIU is started in one place, gpu_dump.c, and only by the agent's order to dump.
 */
#include "shim/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/path.h"
#include "shim/args.h"

#define RETURN_PAUSE_FIRST (50 * NSEC_PER_MSEC)
#define RETURN_PAUSE_MAX   (1 * NSEC_PER_SEC)

static void wind_up(struct checkpoint *ck);
static void agent_ended(void *data, int r, const struct error *err);

static const struct shim_settings *settings_of(const struct checkpoint *ck)
{
	return &ck->op.c->shim->settings;
}

static struct loop *loop_of(const struct checkpoint *ck)
{
	return ck->op.c->shim->loop;
}

/* Its stream ends, which is as good as a crash: the next one, or this one, undoes its half. */
static void agent_overdue(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, patience);
	struct error err = ERROR_NULL;

	if (!ck->agent || ck->order != AGENT_ORDER_NONE)
		return;
	agent_op_cancel(ck->agent);
	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "the node agent has not done its part after order %d in time",
			   (int)ck->last_order);
	agent_ended(ck, err.code, &err);
}

/* The driver's part of the work may take so long, whatever the agent says of itself. */
static void wait_for_orders(struct checkpoint *ck, enum agent_order last)
{
	nsec_t limit = last == AGENT_ORDER_QUIESCE ? settings_of(ck)->timeouts.cuda_checkpoint
		       : last == AGENT_ORDER_THAW  ? settings_of(ck)->timeouts.cuda_restore
						   : 0;

	if (limit)
		timer_set(loop_of(ck), &ck->patience, time_add(time_now(), limit), agent_overdue);
}

static void answer(struct checkpoint *ck, enum agent_order order)
{
	struct agent_detail detail = gpu_failure_detail(&ck->failure);
	nsec_t took = time_now() - ck->order_start;

	if (ck->last_result < 0)
		agent_op_failed(ck->agent, order, &ck->last_err, &detail, took);
	else
		agent_op_result(ck->agent, order, 0, NULL, 0, took);
}

void checkpoint_order_done(struct checkpoint *ck, int r, const struct error *err)
{
	enum agent_order order = ck->order;

	ck->order = AGENT_ORDER_NONE;
	/* From now on it is the agent's alone, who seals it or throws it away. */
	gpu_let_go(&ck->hold);
	ck->last_result = r;
	ck->last_err = r < 0 ? *err : ERROR_NULL;
	if (ck->over) {
		wind_up(ck); /* the agent went away in the middle of it */
		return;
	}
	if (ck->agent) /* else it hears of it when it is back */
		answer(ck, order);
	wait_for_orders(ck, order);
}

/* --- freezing ------------------------------------------------------------------------------- */

static struct checkpoint *of_freezer(struct freezer *f)
{
	return container_of(f, struct checkpoint, freezer);
}

void checkpoint_freeze(struct checkpoint *ck, bool freeze, nsec_t timeout,
		       void (*done)(struct freezer *f, int r, const struct error *err))
{
	struct error err = ERROR_NULL;
	nsec_t deadline = time_add(time_now(), timeout);
	int r;

	ck->freezer = (struct freezer){ 0 };
	r = freeze ? freezer_freeze(&ck->freezer, loop_of(ck), &ck->op.c->cgroup, deadline, done,
				    &err)
		   : freezer_thaw(&ck->freezer, loop_of(ck), &ck->op.c->cgroup, deadline, done,
				  &err);
	if (r < 0)
		done(&ck->freezer, r, &err);
}

/* --- QUIESCE -------------------------------------------------------------------------------- */

static void synced(struct command *cmd)
{
	struct checkpoint *ck = container_of(cmd, struct checkpoint, sync);
	struct error err = ERROR_NULL;

	/* The image would be as good without: its files are in the page cache of this node. */
	if (command_result(cmd, "sync", &err) < 0)
		log_warning("the changed files could not be synced",
			    F_STR("container", ck->op.c->id), F_ERR(&err));
	command_release(cmd);
	checkpoint_order_done(ck, 0, NULL);
}

static void sync_files(struct checkpoint *ck)
{
	const struct container *c = ck->op.c;
	const char *argv[] = { SHIM_NAME, "-namespace", c->shim->ns, "-id",	 c->id,
			       "-bundle",	 c->path,      "sync-rootfs", NULL };
	struct spawn s = { .program = "/proc/self/exe",
			   .argv = argv,
			   .die_with_parent = true };
	struct error err = ERROR_NULL;

	if (command_start(&ck->sync, loop_of(ck), &c->shim->reaper, &s, 0, NULL,
			  time_add(time_now(), settings_of(ck)->timeouts.quiesce), synced,
			  &err) == 0)
		return;
	log_warning("the changed files could not be synced", F_STR("container", c->id), F_ERR(&err));
	checkpoint_order_done(ck, 0, NULL);
}

static void thawed_to_quiesce(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = of_freezer(f);

	if (r < 0) {
		checkpoint_order_done(ck, r, err);
		return;
	}
	ck->frozen = false;
	sync_files(ck);
}

/* Those execs that were being started are in. */
static void gate_empty(struct gate *g)
{
	struct container *c = container_of(g, struct container, exec_gate);
	struct checkpoint *ck = c->checkpointing;

	timer_cancel(&ck->timer);
	/* One that is suspended has its GPU memory saved already: it stays as it is. */
	if (ck->frozen && !buf_len(&c->held))
		checkpoint_freeze(ck, false, settings_of(ck)->timeouts.quiesce, thawed_to_quiesce);
	else
		sync_files(ck);
}

static void gate_stuck(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, timer);
	struct error err = ERROR_NULL;

	gate_open(&ck->op.c->exec_gate);
	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "an exec that is being started did not get ready in time");
	checkpoint_order_done(ck, err.code, &err);
}

static void quiesce(struct checkpoint *ck)
{
	struct error err = ERROR_NULL;

	if (ck->op.c->exec_gate.closed) {
		(void)error_reason(&err, REASON_INTERNAL, -EPROTO, "the container is quiet already");
		checkpoint_order_done(ck, err.code, &err);
		return;
	}
	timer_set(loop_of(ck), &ck->timer,
		  time_add(time_now(), settings_of(ck)->timeouts.quiesce), gate_stuck);
	gate_close(&ck->op.c->exec_gate, gate_empty);
}

/* --- THAW, FREEZE --------------------------------------------------------------------------- */

static void thawed(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = of_freezer(f);

	if (r == -ENOENT)
		r = 0; /* the container is gone; that is told elsewhere */
	if (r == 0)
		ck->frozen = false;
	checkpoint_order_done(ck, r, err);
}

static void frozen(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = of_freezer(f);

	ck->frozen = r == 0;
	checkpoint_order_done(ck, r, err);
}

/* --- RELEASE -------------------------------------------------------------------------------- */

static void release(struct checkpoint *ck)
{
	gate_open(&ck->op.c->exec_gate);
	if (ck->was_paused && !ck->frozen)
		checkpoint_freeze(ck, true, settings_of(ck)->timeouts.quiesce, frozen);
	else
		checkpoint_order_done(ck, 0, NULL);
}

/* --- EXIT ----------------------------------------------------------------------------------- */

static void exit_seen(struct process *p)
{
	struct checkpoint *ck = p->exit_data;

	p->exit_hook = NULL;
	timer_cancel(&ck->timer);
	checkpoint_order_done(ck, 0, NULL);
}

static void exit_overdue(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, timer);
	struct error err = ERROR_NULL;

	ck->op.p->exit_hook = NULL;
	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "the container did not end after its checkpoint");
	checkpoint_order_done(ck, err.code, &err);
}

static void thawed_to_exit(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = of_freezer(f);
	struct process *p = ck->op.p;

	if (r < 0 && r != -ENOENT) {
		checkpoint_order_done(ck, r, err);
		return;
	}
	ck->frozen = false;
	if (p->exited_at) {
		checkpoint_order_done(ck, 0, NULL);
		return;
	}
	p->exit_hook = exit_seen;
	p->exit_data = ck;
	timer_set(loop_of(ck), &ck->timer, time_add(time_now(), settings_of(ck)->timeouts.exit),
		  exit_overdue);
}

static void killed(void *data, int r, const struct error *err, struct bytes output)
{
	struct checkpoint *ck = data;

	(void)output;
	if (r < 0 && err->rpc != RPC_NOT_FOUND) {
		checkpoint_order_done(ck, r, err);
		return;
	}
	/* Frozen processes die when they are thawed, before they run another instruction. */
	checkpoint_freeze(ck, false, settings_of(ck)->timeouts.exit, thawed_to_exit);
}

static void order_exit(struct checkpoint *ck)
{
	struct error err = ERROR_NULL;
	struct container *c = ck->op.c;
	int r;

	/* Whatever is in the container: in a pid namespace of its own all die with the init. */
	r = runtime_kill(&c->rt, SIGKILL, !c->bundle.own_pid_namespace, killed, ck, &err);
	if (r < 0)
		checkpoint_order_done(ck, r, &err);
}

/* --- the stream ----------------------------------------------------------------------------- */

static void replied(void *data, const struct agent_reply *reply)
{
	struct checkpoint *ck = data;

	if (ck->return_by) {
		log_info("the node agent is back", F_STR("container", ck->op.c->id));
		ck->return_by = 0;
	}
	if (reply->order == AGENT_ORDER_NONE)
		return; /* progress */
	if (reply->order == AGENT_ORDER_ABORT) {
		/*
		 * Only an order to dump can be called off, at whatever step it is. Any other has a
		 * short time-out of its own.
		 */
		gpu_dump_abort(ck);
		return;
	}
	timer_cancel(&ck->patience);
	if (ck->order != AGENT_ORDER_NONE) {
		log_error("the agent gives an order before the last one is done",
			  F_STR("container", ck->op.c->id), F_INT("order", reply->order));
		return;
	}
	ck->order = ck->last_order = reply->order;
	ck->failure = (struct gpu_failure){ .log_path = "" };
	ck->order_start = time_now();
	switch (reply->order) {
	case AGENT_ORDER_QUIESCE:
		quiesce(ck);
		break;
	case AGENT_ORDER_DUMP:
		gpu_dump(ck, reply);
		break;
	case AGENT_ORDER_THAW:
		checkpoint_freeze(ck, false, settings_of(ck)->timeouts.quiesce, thawed);
		break;
	case AGENT_ORDER_FREEZE:
		checkpoint_freeze(ck, true, settings_of(ck)->timeouts.quiesce, frozen);
		break;
	case AGENT_ORDER_RELEASE:
		release(ck);
		break;
	case AGENT_ORDER_EXIT:
		order_exit(ck);
		break;
	default: {
		struct error err = ERROR_NULL;

		(void)error_reason(&err, REASON_INTERNAL, -EPROTO,
				   "order %d makes no sense in a checkpoint", (int)reply->order);
		checkpoint_order_done(ck, err.code, &err);
	}
	}
}

static int open_stream(struct checkpoint *ck, struct error *err);

static void call_again(struct timer *t)
{
	struct checkpoint *ck = container_of(t, struct checkpoint, call_again);
	struct error err = ERROR_NULL;
	int r = open_stream(ck, &err);

	if (r < 0)
		agent_ended(ck, r, &err);
}

/* Is there something to wait for? Before the first order nothing has been touched. */
static bool wait_for_agent(struct checkpoint *ck, int r)
{
	nsec_t now = time_now(), pause;

	if (r != -EPIPE || ck->last_order == AGENT_ORDER_NONE)
		return false;
	if (!ck->return_by) {
		log_warning("the node agent has gone in the middle of a checkpoint",
			    F_STR("container", ck->op.c->id), F_INT("order", ck->order));
		ck->return_by = time_add(now, settings_of(ck)->timeouts.agent_return);
		ck->pause = BACKOFF(RETURN_PAUSE_FIRST, RETURN_PAUSE_MAX);
	}
	pause = backoff_next(&ck->pause);
	if (now + pause >= ck->return_by)
		return false;
	timer_set(loop_of(ck), &ck->call_again, now + pause, call_again);
	return true;
}

static void agent_ended(void *data, int r, const struct error *err)
{
	struct checkpoint *ck = data;

	ck->agent = NULL;
	timer_cancel(&ck->patience);
	if (wait_for_agent(ck, r))
		return;
	ck->over = true;
	ck->result = r;
	ck->err = *err;
	if (ck->order == AGENT_ORDER_NONE)
		wind_up(ck);
	/* Else the order under way ends first: CRIU must not be torn off a container. */
}

/* --- the end -------------------------------------------------------------------------------- */

static void as_it_was(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = of_freezer(f);

	if (r < 0 && r != -ENOENT) {
		log_error("the container could not be brought back into the state it was in",
			  F_STR("container", ck->op.c->id), F_ERR(err));
		if (ck->result == 0) {
			ck->result = r;
			ck->err = *err;
		}
	}
	checkpoint_end(ck, ck->result, &ck->err);
}

/* The container is as frozen, or as running, as containerd believes. */
static void wind_up(struct checkpoint *ck)
{
	struct container *c = ck->op.c;
	bool freeze = ck->was_paused && !c->init.exited_at && !c->init_reaped;

	c->checkpointing = NULL;
	gate_open(&c->exec_gate);
	if (freeze != ck->frozen)
		checkpoint_freeze(ck, freeze, settings_of(ck)->timeouts.quiesce, as_it_was);
	else
		checkpoint_end(ck, ck->result, &ck->err);
}

/* The request is made anew each time, so that there is one place that makes it. */
static int open_stream(struct checkpoint *ck, struct error *err)
{
	static const struct agent_ops ops = { .reply = replied, .ended = agent_ended };
	const char *flags[GPU_FLAGS_MAX];
	struct runtime_checkpoint args;
	struct agent_detail detail = gpu_failure_detail(&ck->failure);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(GPU_REQUEST_MEMORY);
	struct agent_request req;
	int r = gpu_request(ck->op.c, AGENT_CHECKPOINT, &mem, &req, err);

	if (r < 0)
		return r;
	checkpoint_args(ck, &args);
	req.n_runtime_flags = gpu_flags_name(&args, flags);
	req.runtime_flags = flags;
	req.timeout_ms = ck->stop_signal ? settings_of(ck)->timeouts.stop / NSEC_PER_MSEC
					 : gpu_timeout_ms(ck->op.call);
	req.stop = ck->stop_signal != 0;
	req.exit = ck->options.exit;
	req.paused = ck->was_paused;
	req.image_path = ck->image_path;
	req.work_path = ck->work_path;
	req.checkpoint_ref = ck->options.ref;
	req.held = buf_bytes(&ck->op.c->held);
	req.mounts = ck->mounts;
	if (ck->return_by) {
		req.came_back = true;
		req.last_order = ck->last_order;
		req.last_answered = ck->order == AGENT_ORDER_NONE;
		req.last_result = ck->last_result;
		req.last_err = &ck->last_err;
		req.last_detail = &detail;
	}
	return agent_op_open(&ck->agent, loop_of(ck), settings_of(ck)->agent_socket, &req,
			     ck->stream_deadline, &ops, ck, err);
}

static void looked(struct checkpoint *ck, int r, const struct error *err)
{
	struct container *c = ck->op.c;
	struct error mine = *err;

	ck->stream_deadline = gpu_stream_deadline(c, ck->op.call);
	if (r == 0)
		r = open_stream(ck, &mine);
	if (r < 0) {
		c->checkpointing = NULL;
		checkpoint_end(ck, r, &mine);
	}
}

void gpu_checkpoint(struct checkpoint *ck)
{
	struct container *c = ck->op.c;
	struct error err = ERROR_NULL;
	int r = 0;

	if (!c->cgroup.host)
		r = error_reason(&err, REASON_CONTAINER_MISSING, -ENOENT,
				 "the container has no cgroup of its own, so its processes cannot be "
				 "told from others");
	if (r == 0)
		r = checkpoint_work_path(ck, &err);
	ck->mounts_mem = ARENA_LIMIT(GPU_MOUNTS_MEMORY);
	if (r < 0) {
		checkpoint_end(ck, r, &err);
		return;
	}
	ck->was_paused = ck->frozen = c->init.state == PROCESS_PAUSED;
	c->checkpointing = ck;
	gpu_look(ck, looked);
}
