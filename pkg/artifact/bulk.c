/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/bulk.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/worker.h"
#include "base/fd.h"
#include "proc/spawn.h"

/*
 * How long a killed child may take to die: one that waits for a dead disk inside the kernel does
 * not die at all. It has to be given up then, and reaped whenever it comes.
 */
#define GRACE (2 * NSEC_PER_SEC)

static void forget(struct bulk *b)
{
	timer_cancel(&b->deadline);
	timer_cancel(&b->grace);
	job_cancel(&b->end);
	conn_close(&b->conn);
	reaper_unwatch(&b->child);
	b->env = NULL;
}

/* What it comes to, once there is nothing more to come. */
static int verdict(struct bulk *b)
{
	if (b->has_result) {
		b->err = b->result.err;
		return b->err.code;
	}
	if (b->err.code)
		return b->err.code;
	if (WIFSIGNALED(b->status))
		return error_reason(&b->err, REASON_STORE_FAILED, -EIO,
				    "the store worker was killed by signal %d",
				    WTERMSIG(b->status));
	return error_reason(&b->err, REASON_STORE_FAILED, -EIO,
			    "the store worker ended without a result, with status %d",
			    WEXITSTATUS(b->status));
}

static void end(struct job *job)
{
	struct bulk *b = container_of(job, struct bulk, end);
	int r = verdict(b);

	forget(b);
	b->ops->done(b, r, r < 0 ? &b->err : NULL);
}

static void check_over(struct bulk *b)
{
	if (b->exited && b->closed)
		job_put_off(b->env->loop, &b->end, end);
}

static void grace_over(struct timer *t);

static void set_grace(struct bulk *b)
{
	timer_set(b->env->loop, &b->grace, time_add(loop_now(b->env->loop), GRACE), grace_over);
}

/* Not yet reaped, so the number is still this process's. */
static void kill_child(struct bulk *b)
{
	if (b->killed)
		return;
	b->killed = true;
	if (b->child.pid)
		(void)kill(b->child.pid, SIGKILL);
	set_grace(b);
}

static void grace_over(struct timer *t)
{
	struct bulk *b = container_of(t, struct bulk, grace);

	if (!b->exited && !b->killed) {
		/* It has closed its socket, and should have ended with that. */
		if (!b->err.code)
			(void)error_reason(&b->err, REASON_STORE_FAILED, -EPROTO,
					   "the store worker was killed: it did not end");
		kill_child(b);
		return;
	}
	/* Killed, and still not gone; or gone, but its socket is still open somewhere. */
	if (!b->exited)
		(void)error_wrap(&b->err, b->err.code, "the store worker hangs in the kernel");
	b->exited = b->closed = true;
	check_over(b);
}

static void time_over(struct timer *t)
{
	struct bulk *b = container_of(t, struct bulk, deadline);

	if (!b->err.code)
		(void)error_reason(&b->err, REASON_TIMEOUT, -ETIMEDOUT,
				   "the store worker was killed: it did not end in its time");
	kill_child(b);
}

void bulk_cancel(struct bulk *b)
{
	if (!bulk_running(b))
		return;
	if (!b->err.code)
		(void)error_reason(&b->err, REASON_CANCELED, -ECANCELED, "the work was canceled");
	kill_child(b);
}

static void exited(struct child *child, const struct exit_record *rec)
{
	struct bulk *b = container_of(child, struct bulk, child);

	b->exited = true;
	b->status = rec->status;
	timer_cancel(&b->deadline);
	/* What it has sent may still be on its way, but not for long. */
	if (!b->closed)
		set_grace(b);
	check_over(b);
}

static int input(struct conn *c, struct buf *in)
{
	struct bulk *b = container_of(c, struct bulk, conn);
	struct protocol_report report;
	int r;

	for (;;) {
		struct bytes view = buf_bytes(in);

		r = protocol_get_report(&view, &report);
		if (r == BYTES_MORE)
			return 0;
		/* A result is the last thing it says. */
		if (r < 0 || b->has_result)
			return -EBADMSG;
		buf_consume(in, buf_len(in) - view.n);
		if (report.type == PROTOCOL_RESULT) {
			b->result = report.result;
			b->has_result = true;
			set_grace(b); /* there is nothing left to do but to end */
			continue;
		}
		if (!b->err.code && b->ops->progress)
			b->ops->progress(b, report.done, report.total);
		if (!bulk_running(b))
			return 0; /* released in the callback */
	}
}

static void closed(struct conn *c, int r)
{
	struct bulk *b = container_of(c, struct bulk, conn);

	conn_close(c);
	b->closed = true;
	/* That it closed its end is no news: how it ends tells more. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
		b->has_result = false;
		if (!b->err.code)
			(void)error_reason(&b->err, REASON_STORE_FAILED, r,
					   "the store worker cannot be understood");
		kill_child(b);
	} else if (!b->exited && !b->killed) {
		set_grace(b);
	}
	check_over(b);
}

static const struct conn_ops conn_ops = { .input = input, .closed = closed };

static int spawn_worker(const char *program, int socket, int dirfd, pid_t *ret, struct error *err)
{
	const char *const argv[] = { program, "--store-worker", NULL };
	struct spawn s = { .argv = argv, .die_with_parent = true };
	int r;

	spawn_fd(&s, 2, 2);
	spawn_fd(&s, socket, PROTOCOL_SOCKET_FD);
	spawn_fd(&s, dirfd, PROTOCOL_DIR_FD);
	r = spawn(&s, ret, err);
	if (r < 0 && err)
		err->reason = REASON_STORE_FAILED;
	return r;
}

static int failed(struct error *err, int code)
{
	return error_reason(err, REASON_STORE_FAILED, code, "start the store worker");
}

int bulk_start(struct bulk *b, const struct bulk_env *env, const struct protocol_job *job,
	       int dirfd, nsec_t deadline, const struct bulk_ops *ops, struct error *err)
{
	_cleanup_buf_ struct buf frame = BUF_LIMIT(PROTOCOL_JOB_MAX + 16);
	int sockets[2], r;
	pid_t pid;

	*b = (struct bulk){ .ops = ops };
	r = protocol_put_job(&frame, job);
	if (r < 0)
		return error_reason(err, REASON_INTERNAL, r, "a job for the store worker is "
							     "out of bounds");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		return failed(err, errno);
	r = spawn_worker(env->program ? env->program : WORKER_PROGRAM, sockets[1], dirfd, &pid,
			 err);
	(void)close(sockets[1]);
	if (r < 0) {
		(void)close(sockets[0]);
		return r;
	}
	b->env = env;
	reaper_watch(env->reaper, &b->child, pid, exited);
	r = fd_nonblock(sockets[0], true);
	if (r == 0)
		r = conn_open(&b->conn, env->loop, sockets[0], PROTOCOL_REPORT_MAX + 16,
			      buf_len(&frame) + PROTOCOL_JOB_MAX + 16, &conn_ops);
	else
		(void)close(sockets[0]);
	if (r < 0) {
		bulk_release(b);
		return failed(err, r);
	}
	/* If it is dead already, closed() and exited() follow. */
	(void)conn_write(&b->conn, buf_bytes(&frame).p, buf_len(&frame));
	if (deadline != NSEC_NEVER)
		timer_set(env->loop, &b->deadline, deadline, time_over);
	return 0;
}

int bulk_go_on(struct bulk *b, const struct protocol_job *job, nsec_t deadline,
	       const struct bulk_ops *ops, struct error *err)
{
	_cleanup_buf_ struct buf frame = BUF_LIMIT(PROTOCOL_JOB_MAX + 16);
	int r = protocol_put_job(&frame, job);

	assert(bulk_running(b));
	if (r < 0)
		r = error_reason(err, REASON_INTERNAL, r, "a job for the store worker is out of "
							  "bounds");
	else if (b->exited || b->closed || b->killed)
		r = failed(err, -EPIPE);
	else if ((r = conn_write(&b->conn, buf_bytes(&frame).p, buf_len(&frame))) < 0)
		r = failed(err, r);
	if (r < 0) {
		bulk_release(b);
		return r;
	}
	b->ops = ops;
	timer_cancel(&b->deadline);
	if (deadline != NSEC_NEVER)
		timer_set(b->env->loop, &b->deadline, deadline, time_over);
	return 0;
}

void bulk_release(struct bulk *b)
{
	if (!bulk_running(b))
		return;
	if (b->child.pid)
		(void)kill(b->child.pid, SIGKILL);
	forget(b);
}
