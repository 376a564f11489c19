/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoint of a container. Without a GPU: the OCI runtime's, as under containerd's own shim.
 * With a GPU, or when the agent asked for it: conducted by the agent, see gpu_checkpoint.c.
 */
#include "shim/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"

int checkpoint_work_path(struct checkpoint *ck, struct error *err)
{
	int r;

	if (*ck->options.work_path) {
		r = PATH_PRINTF(ck->work_path, "%s", ck->options.work_path);
	} else {
		r = PATH_PRINTF(ck->work_path, "%s/work/criu-work", ck->op.c->path);
		ck->remove_work = true;
	}
	if (r == 0)
		r = path_mkdirs(ck->work_path, 0700);
	return r < 0 ? error_sys(err, r, "CRIU's work path %s", ck->work_path) : 0;
}

static nsec_t earlier(nsec_t a, nsec_t b)
{
	return a < b ? a : b;
}

void checkpoint_args(const struct checkpoint *ck, struct runtime_checkpoint *args)
{
	const struct checkpoint_options *o = &ck->options;
	const struct shim_settings *s = &ck->op.c->shim->settings;

	*args = (struct runtime_checkpoint){
		.image_path = ck->image_path,
		.work_path = ck->work_path,
		.parent_path = o->parent_path,
		.tcp_established = o->open_tcp || s->checkpoint.tcp_established,
		.ext_unix_sk = o->external_unix_sockets || s->checkpoint.ext_unix_sk,
		.shell_job = o->terminal,
		.file_locks = o->file_locks || s->checkpoint.file_locks,
		.empty_namespaces = (char *const *)(uintptr_t)o->empty_namespaces,
		.n_empty_namespaces = o->n_empty_namespaces,
		.deadline = earlier(ck->op.call ? ttrpc_call_deadline(ck->op.call) : NSEC_NEVER,
				    time_add(time_now(), s->timeouts.criu_dump)),
	};
}

static void stop_delivered(void *data, int r, const struct error *err, struct bytes output)
{
	struct op *op = data;

	(void)output;
	if (r < 0 && err->rpc != RPC_NOT_FOUND)
		log_error("the signal that stops the container could not be delivered",
			  F_STR("container", op->c->id), F_ERR(err));
	op_end(op, r, err);
}

/* No checkpoint, so it ends as it would have without us. */
static void deliver_stop(struct checkpoint *ck)
{
	struct error err = ERROR_NULL;
	int r;

	log_info("the container is stopped by its signal after all",
		 F_STR("container", ck->op.c->id), F_INT("signal", ck->stop_signal));
	r = runtime_kill(&ck->op.c->rt, ck->stop_signal, false, stop_delivered, &ck->op, &err);
	if (r < 0)
		stop_delivered(&ck->op, r, &err, bytes_of(NULL, 0));
}

void checkpoint_end(struct checkpoint *ck, int r, const struct error *err)
{
	const struct process *init = &ck->op.c->init;

	if (ck->remove_work)
		(void)path_remove_tree(AT_FDCWD, ck->work_path);
	checkpoint_options_done(&ck->options);
	arena_done(&ck->mounts_mem);
	if (r < 0)
		log_error("checkpoint failed", F_STR("container", ck->op.c->id),
			  F_STR("reason", reason_name(err->reason)), F_ERR(err));
	if (r < 0 && ck->stop_signal && !init->exited_at && !ck->op.c->init_reaped)
		deliver_stop(ck);
	else
		op_end(&ck->op, r, err);
}

/* --- without a GPU -------------------------------------------------------------------------- */

static void settled(struct freezer *f, int r, const struct error *err)
{
	struct checkpoint *ck = container_of(f, struct checkpoint, freezer);

	if (r < 0 && r != -ENOENT)
		log_warning("a dump that failed has left the container frozen, or has let it run",
			    F_STR("container", ck->op.c->id), F_ERR(err));
	checkpoint_end(ck, ck->result, &ck->err);
}

/*
 * CRIU freezes and thaws the container while it dumps (criu/seize.c, freeze_processes() and
 * freezer_restore_state()), and ends with its own clean-up only if it is not killed. What containerd
 * has paused must not run then, or its Resume would be refused, and what runs must not stand still.
 */
static void end_failed_dump(struct checkpoint *ck, int r, const struct error *err)
{
	const struct container *c = ck->op.c;
	bool paused = c->init.state == PROCESS_PAUSED;
	struct freezer_state now;

	ck->result = r;
	ck->err = *err;
	if (c->init_reaped || !c->cgroup.host || freezer_state(&c->cgroup, &now, NULL) < 0 ||
	    now.self == paused)
		checkpoint_end(ck, r, err);
	else
		checkpoint_freeze(ck, paused, c->shim->settings.timeouts.quiesce, settled);
}

static void dumped(void *data, int r, const struct error *err, struct bytes output)
{
	struct checkpoint *ck = data;
	struct error mine = *err, digest = *err;
	char line[ERROR_TEXT_MAX];

	(void)output;
	if (r == 0) {
		checkpoint_end(ck, 0, NULL);
		return;
	}
	/* "<first line> path= <log>": containerd's own words. */
	(void)snprintf(line, sizeof(line), "%.*s", (int)strcspn(err->text, "\n"), err->text);
	(void)gpu_criu_failure(ck->op.c, ck->work_path, true, NULL, &digest);
	(void)error_set(&mine, r, "%s path= %s/criu-dump.log", line, ck->op.c->path);
	end_failed_dump(ck, r, &mine);
}

static void plain_checkpoint(struct checkpoint *ck)
{
	struct runtime_checkpoint args;
	struct error err = ERROR_NULL;
	int r = checkpoint_work_path(ck, &err);

	checkpoint_args(ck, &args);
	args.leave_running = !ck->options.exit;
	args.file_locks = ck->options.file_locks; /* exactly what the client asked for */
	args.tcp_established = ck->options.open_tcp;
	args.ext_unix_sk = ck->options.external_unix_sockets;
	if (r == 0)
		r = runtime_checkpoint(&ck->op.c->rt, &args, dumped, ck, NULL, &err);
	if (r < 0)
		checkpoint_end(ck, r, &err);
}

/* --- the call ------------------------------------------------------------------------------- */

static void begin(struct op *op)
{
	struct checkpoint *ck = container_of(op, struct checkpoint, op);
	struct error err = ERROR_NULL;
	int r = process_allow(op->p, "checkpoint", IN(RUNNING) | IN(PAUSED), &err);

	if (r < 0)
		checkpoint_end(ck, r, &err);
	else if (op->c->bundle.gpu || ck->options.ref || ck->stop_signal)
		gpu_checkpoint(ck);
	else
		plain_checkpoint(ck);
}

void do_checkpoint(void *arg, struct ttrpc_call *call, const void *request)
{
	const Task__CheckpointTaskRequest *req = request;
	const Ctd__Any *any = req->options;
	struct error err = ERROR_NULL;
	struct container *c = container_find(arg, req->id, &err);
	struct checkpoint_options options;
	struct checkpoint *ck;
	int r = c ? 0 : -ESRCH;

	if (r == 0)
		r = checkpoint_options_parse(any ? any->type_url : "",
					     any ? bytes_of(any->value.data, any->value.len)
						 : bytes_of(NULL, 0),
					     &options, &err);
	if (r < 0) {
		call_fail(call, &err);
		return;
	}
	ck = op_new(sizeof(*ck), call, &c->init);
	if (!ck) {
		checkpoint_options_done(&options);
		return;
	}
	ck->options = options;
	r = PATH_PRINTF(ck->image_path, "%s",
			*req->path ? req->path : ck->options.image_path);
	if (r < 0) {
		(void)error_sys(&err, r, "the image path");
		checkpoint_end(ck, r, &err);
		return;
	}
	op_enter(&ck->op, begin);
}

/* --- in place of a stop --------------------------------------------------------------------- */

bool stop_by_checkpoint(struct container *c, unsigned int signo)
{
	struct checkpoint_options options;
	struct error err = ERROR_NULL;
	struct checkpoint *ck;

	if (signo != SIGTERM || !c->intent.checkpoint_on_stop || c->stopping ||
	    (c->init.state != PROCESS_RUNNING && c->init.state != PROCESS_PAUSED) ||
	    checkpoint_options_parse("", bytes_of(NULL, 0), &options, &err) < 0)
		return false;
	ck = op_new(sizeof(*ck), NULL, &c->init);
	if (!ck) {
		checkpoint_options_done(&options);
		return false;
	}
	c->stopping = true;
	ck->options = options;
	ck->options.exit = true;
	ck->options.file_locks = true;
	ck->stop_signal = signo;
	log_info("a checkpoint in place of the signal", F_STR("container", c->id),
		 F_INT("signal", signo));
	op_enter(&ck->op, begin);
	return true;
}
