/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "gpu/calls.h"
#include "gpu/outcome.h"
#include "gpu/worker-private.h"
#include "proc/spawn.h"

#define READS_A_ROUND 64
#define READ_ALL      (2 * GPU_CALLS_MAX) /* more than there can be */

/* Ids of our own requests; a call's id is larger, see calls.c. */
#define ID_HELLO 1
#define ID_PING  2

struct gpu_worker {
	struct loop *loop;
	struct reaper *reaper;
	struct gpu_worker_config config; /* its strings are ours */
	const struct gpu_worker_ops *ops;
	void *owner;
	enum gpu_worker_state state;
	struct source sock;
	struct child child;
	pid_t pid; /* for messages; child.pid is 0 once it has been reaped */
	/* Of the worker's life. DOWN: the next start is due. STARTING: it took too long. READY: the
	 * next ping is due, or the last one's answer. DYING: it should have been reaped by now. */
	struct timer life;
	struct timer deadline; /* the earliest of the calls' */
	struct timer recheck;
	bool ping_sent;
	bool eof;          /* DYING: it ended by itself; its exit status is the reason */
	bool planned;      /* DYING: it is replaced without having failed */
	bool lost;         /* since the last READY one was lost */
	bool start_failed; /* the last one did not get READY */
	bool stuck;        /* killed and not dead */
	bool have_info;
	unsigned int starts, losses, in_a_row;
	nsec_t ready_since; /* 0 = this one has not been READY */
	struct error why;   /* why this one ends */
	struct error last;  /* the last failure */
	struct error unfit; /* why the driver cannot be used; code 0 = it can */
	struct gpu_hello info;
	struct calls calls;
	union gpu_any_reply reply; /* the packet being read */
	uint8_t packet[sizeof(union gpu_any_reply)];
};

const char *gpu_worker_state_name(enum gpu_worker_state state)
{
	static const char *const names[] = { "DOWN", "STARTING", "READY", "DYING" };

	return (unsigned int)state < ARRAY_SIZE(names) ? names[state] : "?";
}

static void set_state(struct gpu_worker *w, enum gpu_worker_state state, const struct error *why)
{
	w->state = state;
	if (w->ops->changed)
		w->ops->changed(w->owner, state, why);
}

/*
 * The calls
 */

static void deadline_over(struct timer *t);

static void arm_deadline(struct gpu_worker *w)
{
	/* With a dying worker the calls it had end when it does. */
	nsec_t at = calls_deadline(&w->calls, w->state == GPU_WORKER_READY);

	if (at == NSEC_NEVER)
		timer_cancel(&w->deadline);
	else if (!w->deadline.loop || w->deadline.at != at)
		timer_set(w->loop, &w->deadline, at, deadline_over);
}

/* True when the packet is on its way. False when the socket is full, or the worker has gone:
 * then the end of the stream is about to be read. */
static bool send_request(struct gpu_worker *w, const struct gpu_request *req)
{
	ssize_t n;

	do
		n = send(w->sock.fd, req, sizeof(*req), MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EPIPE && errno != ECONNRESET)
		source_want(&w->sock, EPOLLIN | EPOLLOUT);
	return n > 0;
}

/* Sends what waits, as far as the socket takes it. Never calls back. */
static void pump(struct gpu_worker *w)
{
	struct gpu_request req;
	struct gpu_call *call;

	if (w->state != GPU_WORKER_READY || w->sock.want & EPOLLOUT)
		return;
	while (calls_next_cancel(&w->calls, &req)) {
		if (!send_request(w, &req))
			return;
		calls_cancel_sent(&w->calls, &req);
	}
	while ((call = calls_next(&w->calls))) {
		calls_request(&w->calls, call, &req);
		if (!send_request(w, &req))
			return;
		calls_sent(&w->calls, call, &req);
	}
}

/* No worker is to be expected soon: the last one could not be started, or does not die. */
static bool hopeless(const struct gpu_worker *w)
{
	return w->stuck || (w->start_failed && (w->state == GPU_WORKER_DOWN ||
						w->state == GPU_WORKER_DYING));
}

void worker_take(struct gpu_worker *w, struct gpu_call *call)
{
	calls_add(&w->calls, call);
	if (hopeless(w) && call->phase == GPU_CALL_QUEUED)
		calls_end_later(&w->calls, call, w->stuck ? &w->why : &w->last);
	pump(w);
	arm_deadline(w);
}

void worker_cancel(struct gpu_worker *w, struct gpu_call *call)
{
	if (calls_cancel(&w->calls, call))
		pump(w);
}

void worker_forget(struct gpu_worker *w, struct gpu_call *call)
{
	calls_forget(&w->calls, call);
}

/*
 * The worker's life
 */

static void try_start(struct gpu_worker *w);

static void start_due(struct timer *t)
{
	try_start(container_of(t, struct gpu_worker, life));
}

/* The worker is gone, or could not be started; why says it. */
static void gone(struct gpu_worker *w)
{
	nsec_t pause = w->planned ? 0 : w->config.backoff_min;

	w->stuck = false;
	if (!w->planned) {
		/* One that lived well for longer than any pause begins a new count. */
		if (w->ready_since && time_now() - w->ready_since > w->config.backoff_max)
			w->in_a_row = 0;
		for (unsigned int i = 0; i < w->in_a_row && pause < w->config.backoff_max; i++)
			pause *= 2;
		if (pause > w->config.backoff_max)
			pause = w->config.backoff_max;
		w->in_a_row++;
		w->losses++;
		w->last = w->why;
		w->start_failed = w->ready_since == 0;
		w->lost |= !w->start_failed;
	}
	timer_set(w->loop, &w->life, time_add(time_now(), pause), start_due);
	set_state(w, GPU_WORKER_DOWN, w->planned ? NULL : &w->last);
	calls_fail_sent(&w->calls, &w->last);
	if (w->start_failed)
		calls_fail_queue(&w->calls, &w->last);
	arm_deadline(w);
}

/* Killed, but not reaped in time. We cannot have two, so there is none until it has died. */
static void does_not_die(struct timer *t)
{
	struct gpu_worker *w = container_of(t, struct gpu_worker, life);

	w->stuck = true;
	w->planned = false;
	(void)error_wrap(&w->why, w->why.code,
			 "CUDA worker %d was killed and does not die: it is held in the kernel",
			 w->pid);
	set_state(w, GPU_WORKER_DYING, &w->why);
	calls_fail_sent(&w->calls, &w->why);
	calls_fail_queue(&w->calls, &w->why);
}

/* Ends a worker that is STARTING or READY; what follows, follows when it has been reaped. */
static void end_worker(struct gpu_worker *w, const struct error *why)
{
	w->why = *why;
	timer_cancel(&w->recheck);
	source_remove(&w->sock);
	(void)close(w->sock.fd);
	if (w->child.pid) /* not yet reaped, so the number is still its own */
		(void)kill(w->child.pid, SIGKILL);
	timer_set(w->loop, &w->life, time_add(time_now(), w->config.kill_timeout), does_not_die);
	set_state(w, GPU_WORKER_DYING, NULL);
	arm_deadline(w);
}

static void fail_worker(struct gpu_worker *w, int code, const char *what)
{
	struct error err;

	(void)error_reason(&err, REASON_WORKER_FAILED, code, "CUDA worker %d %s", w->pid, what);
	end_worker(w, &err);
}

static void receive(struct gpu_worker *w, int rounds);

static void exited(struct child *child, const struct exit_record *rec)
{
	struct gpu_worker *w = container_of(child, struct gpu_worker, child);

	/* What it had answered before it died still counts. */
	receive(w, READ_ALL);
	if (w->state != GPU_WORKER_DYING) {
		w->eof = true; /* a child of its own may hold the socket open */
		fail_worker(w, -EIO, "ended");
	}
	if (w->eof && WIFSIGNALED(rec->status))
		(void)error_reason(&w->why, REASON_WORKER_FAILED, -EIO,
				   "CUDA worker %d was killed by signal %d (%s)", rec->pid,
				   WTERMSIG(rec->status), strsignal(WTERMSIG(rec->status)));
	else if (w->eof)
		(void)error_reason(&w->why, REASON_WORKER_FAILED, -EIO,
				   "CUDA worker %d ended with exit status %d", rec->pid,
				   WEXITSTATUS(rec->status));
	gone(w);
}

static void deadline_over(struct timer *t)
{
	struct gpu_worker *w = container_of(t, struct gpu_worker, deadline);
	static const struct error none = { 0 };
	nsec_t now = time_now();
	struct error err;

	/* If it was us who were late - stopped, or starved - the answers are here already. */
	receive(w, READ_ALL);
	calls_expire_queue(&w->calls, now, w->state == GPU_WORKER_READY ? &none : &w->last);
	if (w->state == GPU_WORKER_READY && calls_expire_sent(&w->calls, now, &err)) {
		end_worker(w, &err);
		return;
	}
	pump(w);
	arm_deadline(w);
}

static void ping_due(struct timer *t)
{
	struct gpu_worker *w = container_of(t, struct gpu_worker, life);
	struct gpu_request req;

	if (w->ping_sent) {
		receive(w, READ_ALL); /* as above */
		if (w->state == GPU_WORKER_READY && w->ping_sent)
			fail_worker(w, -ETIMEDOUT, "does not answer: its main thread hangs");
		return;
	}
	gpu_request_init(&req, GPU_OP_PING, ID_PING);
	/* If the socket is full it does not read its requests, which is just as bad in time. */
	(void)send_request(w, &req);
	w->ping_sent = true;
	timer_set(w->loop, &w->life, time_add(time_now(), w->config.ping_timeout), ping_due);
}

static void recheck_due(struct timer *t)
{
	struct gpu_worker *w = container_of(t, struct gpu_worker, recheck);

	if (w->calls.n_open || w->state != GPU_WORKER_READY) {
		timer_set(w->loop, &w->recheck, time_add(time_now(), w->config.recheck),
			  recheck_due);
		return;
	}
	/* A library that failed to initialise keeps failing in a process: take a new one. */
	w->planned = true;
	end_worker(w, &w->unfit);
}

static void start_too_long(struct timer *t)
{
	struct gpu_worker *w = container_of(t, struct gpu_worker, life);
	char what[96];

	receive(w, READ_ALL); /* as above */
	if (w->state != GPU_WORKER_STARTING)
		return;
	(void)snprintf(what, sizeof(what), "did not open the driver in %" PRIu64 " ms",
		       w->config.start_timeout / NSEC_PER_MSEC);
	fail_worker(w, -ETIMEDOUT, what);
}

static void became_ready(struct gpu_worker *w, const struct gpu_hello_reply *hello)
{
	struct list held;

	w->info = hello->hello;
	w->have_info = true;
	w->unfit = ERROR_NULL;
	(void)gpu_outcome(0, &hello->reply, &w->unfit);
	w->ready_since = time_now();
	w->start_failed = false;
	w->ping_sent = false;
	timer_set(w->loop, &w->life, time_add(w->ready_since, w->config.ping_interval), ping_due);
	if (w->unfit.code && w->config.recheck != NSEC_NEVER)
		timer_set(w->loop, &w->recheck, time_add(w->ready_since, w->config.recheck),
			  recheck_due);
	set_state(w, GPU_WORKER_READY, w->unfit.code ? &w->unfit : NULL);
	if (w->lost) {
		/* States are read before anything else is done: what is asked in restarted()
		 * goes out first. */
		w->lost = false;
		list_init(&held);
		list_splice(&held, &w->calls.queue);
		if (w->ops->restarted)
			w->ops->restarted(w->owner);
		list_splice(&w->calls.queue, &held);
	}
	pump(w);
	arm_deadline(w);
}

static void handle(struct gpu_worker *w)
{
	const struct gpu_packet *head = &w->reply.head;
	struct error err;

	if (w->state == GPU_WORKER_STARTING) {
		if (head->op == GPU_OP_HELLO && head->id == ID_HELLO &&
		    (w->reply.reply.status == GPU_STATUS_OK ||
		     w->reply.reply.status == GPU_STATUS_UNAVAILABLE ||
		     w->reply.reply.status == GPU_STATUS_TOO_OLD))
			became_ready(w, &w->reply.hello);
		else
			fail_worker(w, -EPROTO, "answered hello with something else");
	} else if (head->op == GPU_OP_PING && head->id == ID_PING && w->ping_sent) {
		w->ping_sent = false;
		timer_set(w->loop, &w->life, time_add(time_now(), w->config.ping_interval),
			  ping_due);
	} else if (calls_reply(&w->calls, &w->reply, &err) < 0) {
		fail_worker(w, -EPROTO, error_text(&err));
	}
}

static void receive(struct gpu_worker *w, int rounds)
{
	while (w->sock.loop && rounds--) {
		ssize_t n = recv(w->sock.fd, w->packet, sizeof(w->packet),
				 MSG_DONTWAIT | MSG_TRUNC);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			w->eof = true;
			fail_worker(w, -EIO, "closed its socket");
			return;
		}
		r = (size_t)n > sizeof(w->packet)
			    ? -EBADMSG
			    : gpu_reply_parse(bytes_of(w->packet, (size_t)n), &w->reply);
		if (r == -EPROTONOSUPPORT)
			fail_worker(w, r, "speaks another version: it is of another installation");
		else if (r < 0)
			fail_worker(w, r, "sent a malformed packet");
		else
			handle(w);
	}
}

static void sock_ready(struct source *src, uint32_t events)
{
	struct gpu_worker *w = container_of(src, struct gpu_worker, sock);

	if (events & EPOLLOUT) {
		source_want(src, EPOLLIN);
		pump(w);
	}
	receive(w, READS_A_ROUND);
	if (w->state == GPU_WORKER_READY)
		arm_deadline(w);
}

#define ARGUMENT_MAX 4096

static int spawn_worker(struct gpu_worker *w, int fd, pid_t *ret_pid, struct error *err)
{
	static const char *const no_env[] = { NULL };
	char number[32], parent[32], cuda[ARGUMENT_MAX], nvml[ARGUMENT_MAX];
	const char *argv[6] = { w->config.program, number, parent };
	struct spawn s = { .argv = argv,
			   .envp = w->config.env ? w->config.env : no_env,
			   .cwd = "/",
			   .new_group = true, /* a terminal's signals are for the agent */
			   .die_with_parent = true };
	int n = 3;

	(void)snprintf(number, sizeof(number), "--fd=%d", GPU_WORKER_FD);
	(void)snprintf(parent, sizeof(parent), "--parent=%d", getpid());
	if (w->config.libcuda) {
		(void)snprintf(cuda, sizeof(cuda), "--libcuda=%s", w->config.libcuda);
		argv[n++] = cuda;
	}
	if (w->config.libnvml) {
		(void)snprintf(nvml, sizeof(nvml), "--libnvml=%s", w->config.libnvml);
		argv[n++] = nvml;
	}
	if (w->config.stderr_fd >= 0)
		spawn_fd(&s, w->config.stderr_fd, 2);
	spawn_fd(&s, fd, GPU_WORKER_FD);
	return spawn(&s, ret_pid, err);
}

static int open_worker(struct gpu_worker *w, struct error *err)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	struct gpu_request req;
	int fds[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return error_sys(err, errno, "socketpair");
	ours = fds[0];
	theirs = fds[1];
	r = source_add(w->loop, &w->sock, ours, EPOLLIN, sock_ready);
	if (r < 0)
		return error_sys(err, r, "watch a socket");
	r = spawn_worker(w, theirs, &pid, err);
	if (r < 0) {
		source_remove(&w->sock);
		return r;
	}
	(void)TAKE_FD(ours); /* it is the source's now */
	w->pid = pid;
	reaper_watch(w->reaper, &w->child, pid, exited);
	gpu_request_init(&req, GPU_OP_HELLO, ID_HELLO);
	(void)send_request(w, &req); /* an empty socket takes it; a dead worker is noticed */
	return 0;
}

static void try_start(struct gpu_worker *w)
{
	struct error err = ERROR_NULL;

	w->ready_since = 0;
	w->eof = false;
	w->planned = false;
	w->starts++;
	if (open_worker(w, &err) < 0) {
		w->why = err;
		w->why.reason = REASON_WORKER_FAILED;
		(void)error_wrap(&w->why, err.code, "the CUDA worker cannot be started");
		gone(w);
		return;
	}
	timer_set(w->loop, &w->life, time_add(time_now(), w->config.start_timeout),
		  start_too_long);
	set_state(w, GPU_WORKER_STARTING, NULL);
}

void gpu_worker_start(struct gpu_worker *w)
{
	if (w->state == GPU_WORKER_DOWN && !w->life.loop)
		timer_set(w->loop, &w->life, loop_now(w->loop), start_due);
}

/*
 * Making, freeing, asking
 */

int gpu_worker_new(struct loop *loop, struct reaper *reaper, const struct gpu_worker_config *config,
		   const struct gpu_worker_ops *ops, void *owner, struct gpu_worker **ret)
{
	struct gpu_worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->reaper = reaper;
	w->ops = ops;
	w->owner = owner;
	calls_init(&w->calls, loop);
	r = worker_config_copy(&w->config, config);
	if (r < 0) {
		worker_config_done(&w->config);
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void gpu_worker_free(struct gpu_worker *w)
{
	if (!w)
		return;
	calls_done(&w->calls);
	timer_cancel(&w->life);
	timer_cancel(&w->deadline);
	timer_cancel(&w->recheck);
	if (w->sock.loop) {
		source_remove(&w->sock);
		(void)close(w->sock.fd);
	}
	if (w->child.pid) {
		(void)kill(w->child.pid, SIGKILL);
		reaper_unwatch(&w->child); /* the sweep reaps it as somebody unknown */
	}
	worker_config_done(&w->config);
	free(w);
}

const struct gpu_hello *gpu_worker_info(const struct gpu_worker *w)
{
	return w->have_info ? &w->info : NULL;
}

void gpu_worker_health(const struct gpu_worker *w, struct gpu_worker_health *ret)
{
	*ret = (struct gpu_worker_health){ .state = w->state,
					   .pid = w->child.pid,
					   .starts = w->starts,
					   .losses = w->losses,
					   .open = w->calls.n_open,
					   .stuck = w->stuck,
					   .last = w->last };
	if (w->state == GPU_WORKER_DOWN && w->life.loop)
		ret->next_start = w->life.at;
}

int gpu_worker_usable(const struct gpu_worker *w, struct error *err)
{
	if (w->state != GPU_WORKER_READY) {
		const char *why = w->stuck ? error_text(&w->why)
				  : w->last.code ? error_text(&w->last)
						 : "it has just been started";

		return error_reason(err, REASON_WORKER_FAILED, hopeless(w) ? -EIO : -EAGAIN,
				    "the CUDA worker is not ready: %s", why);
	}
	if (w->unfit.code && err)
		*err = w->unfit;
	return w->unfit.code;
}
