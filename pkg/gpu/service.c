/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/service.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "event/loop.h"
#include "gpu/execute.h"
#include "gpu/pool.h"

#define READS_A_ROUND 64
#define THREAD_IDLE   (30 * NSEC_PER_SEC)

/* Keys of the pool: a pid for the calls, so these are out of the way of pids. */
#define KEY_INIT   UINT64_MAX
#define KEY_MEMORY (UINT64_MAX - 1) /* one snapshot at a time is plenty */

struct service {
	struct loop *loop;
	struct source sock, wake;
	struct pool *pool;
	struct gpu_backend backend;
	struct list tasks; /* in the pool */
	struct list out;   /* answered, not yet sent */
	unsigned int n_tasks;
	bool said_hello, ready; /* HELLO has come; it has been carried out */
	bool ended;
	int result;
	struct error *err;
};

/* A request from its arrival until its reply is sent. */
struct task {
	struct service *s;
	struct pool_job job;
	struct list node;
	struct gpu_request req;
	size_t size;
	struct gpu_reply *reply; /* size bytes */
};

static void end(struct service *s, int r)
{
	if (s->ended)
		return;
	s->ended = true;
	s->result = r;
	source_want(&s->sock, 0);
	loop_stop(s->loop);
}

static void task_free(struct task *t)
{
	free(t->reply);
	free(t);
}

static struct task *task_new(struct service *s, const struct gpu_request *req)
{
	struct task *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->s = s;
	t->req = *req;
	t->size = gpu_reply_size(req->head.op);
	t->reply = calloc(1, t->size);
	if (!t->reply) {
		free(t);
		return NULL;
	}
	gpu_reply_init(t->reply, req->head.op, req->head.id);
	return t;
}

/* 0, -EAGAIN, or another error after which there is no point in going on. */
static int send_packet(struct service *s, const void *packet, size_t n)
{
	ssize_t sent;

	do
		sent = send(s->sock.fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static void flush(struct service *s)
{
	struct task *t;

	while (!s->ended && (t = list_first(&s->out, struct task, node))) {
		int r = send_packet(s, t->reply, t->size);

		if (r == -EAGAIN)
			break;
		if (r < 0) {
			end(s, 0); /* the agent is gone: that is how we end */
			return;
		}
		list_remove(&t->node);
		task_free(t);
	}
	/* While it does not read its replies, the agent gets no more requests in. */
	if (!s->ended)
		source_want(&s->sock, list_empty(&s->out) ? EPOLLIN : EPOLLOUT);
}

/* Takes the task over. */
static void answer(struct task *t)
{
	struct pool_stats stats;

	pool_stats(t->s->pool, &stats);
	t->reply->running = stats.running;
	t->reply->queued = stats.waiting;
	list_append(&t->s->out, &t->node);
	flush(t->s);
}

static void answer_now(struct task *t, enum gpu_status status, const char *text)
{
	t->reply->status = status;
	GPU_TEXT_SET(t->reply->text, text);
	answer(t);
}

static void run(struct pool_job *job) /* in a thread of the pool */
{
	struct task *t = container_of(job, struct task, job);

	gpu_execute(&t->s->backend, &t->req, t->reply);
}

static void submit(struct task *t)
{
	struct service *s = t->s;

	t->job.run = run;
	t->job.key = t->req.head.op == GPU_OP_HELLO    ? KEY_INIT
		     : t->req.head.op == GPU_OP_MEMORY ? KEY_MEMORY
						       : (uint64_t)t->req.pid;
	if (pool_submit(s->pool, &t->job) < 0) {
		answer_now(t, GPU_STATUS_BUSY, "no thread can be started");
		return;
	}
	list_append(&s->tasks, &t->node);
	s->n_tasks++;
}

static void cancel(struct service *s, uint64_t id)
{
	struct task *t;

	list_for_each(t, &s->tasks, node) {
		if (t->req.head.id != id)
			continue;
		if (!pool_cancel(s->pool, &t->job))
			return; /* it runs: its own answer will come */
		list_remove(&t->node);
		s->n_tasks--;
		answer_now(t, GPU_STATUS_CANCELED, "");
		return;
	}
}

static void handle(struct service *s, const struct gpu_request *req)
{
	struct task *t;

	if (req->head.op == GPU_OP_CANCEL) {
		cancel(s, req->target);
		return;
	}
	t = task_new(s, req);
	if (!t) {
		end(s, error_set(s->err, -ENOMEM, "out of memory"));
		return;
	}
	if (req->head.op == GPU_OP_PING) {
		answer(t);
	} else if (req->head.op == GPU_OP_HELLO) {
		if (s->said_hello)
			answer_now(t, GPU_STATUS_FAILED, "hello has been said already");
		else
			submit(t);
		s->said_hello = true;
	} else if (!s->ready) {
		answer_now(t, GPU_STATUS_FAILED, "not before hello has been answered");
	} else if (s->n_tasks >= GPU_CALLS_MAX) {
		answer_now(t, GPU_STATUS_BUSY, "too many requests at a time");
	} else {
		submit(t);
	}
}

/* A request of another version: we can still say which one we speak. */
static void refuse_version(struct service *s, const struct gpu_packet *head)
{
	struct gpu_reply reply;

	gpu_reply_init(&reply, head->op, head->id);
	reply.status = GPU_STATUS_VERSION;
	(void)send_packet(s, &reply, sizeof(reply));
	end(s, error_set(s->err, -EPROTONOSUPPORT, "the agent speaks version %u, this worker %u",
			 head->version, GPU_PROTOCOL_VERSION));
}

static void receive(struct service *s)
{
	for (int i = 0; i < READS_A_ROUND && s->sock.want & EPOLLIN; i++) {
		uint8_t packet[sizeof(struct gpu_request)];
		struct gpu_request req;
		ssize_t n = recv(s->sock.fd, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			end(s, 0); /* closed, or reset by an agent that died */
			return;
		}
		r = (size_t)n > sizeof(packet)
			    ? -EBADMSG
			    : gpu_request_parse(bytes_of(packet, (size_t)n), &req);
		if (r == -EPROTONOSUPPORT)
			refuse_version(s, &req.head);
		else if (r < 0)
			end(s, error_set(s->err, r, "malformed packet of %zd bytes", n));
		else
			handle(s, &req);
	}
}

static void sock_ready(struct source *src, uint32_t events)
{
	struct service *s = container_of(src, struct service, sock);

	if (events & EPOLLOUT)
		flush(s);
	if (s->sock.want & EPOLLIN)
		receive(s);
	else if (events & (EPOLLHUP | EPOLLERR))
		end(s, 0); /* it went away with replies unread */
}

static void jobs_done(struct source *src, uint32_t events)
{
	struct service *s = container_of(src, struct service, wake);
	struct pool_job *job;

	(void)events;
	pool_clear_fd(s->pool);
	while ((job = pool_collect(s->pool))) {
		struct task *t = container_of(job, struct task, job);

		list_remove(&t->node);
		s->n_tasks--;
		if (t->req.head.op == GPU_OP_HELLO)
			s->ready = true;
		answer(t);
	}
}

static int start(struct service *s, int fd)
{
	int r = fd_nonblock(fd, true);

	if (r == 0)
		r = loop_new(&s->loop);
	if (r == 0)
		r = pool_new(GPU_CALLS_MAX, THREAD_IDLE, &s->pool);
	if (r == 0)
		r = source_add(s->loop, &s->sock, fd, EPOLLIN, sock_ready);
	if (r == 0)
		r = source_add(s->loop, &s->wake, pool_fd(s->pool), EPOLLIN, jobs_done);
	return r;
}

/* Frees all that no thread uses any more. */
static void stop(struct service *s)
{
	struct task *t;

	source_remove(&s->sock);
	source_remove(&s->wake);
	while ((t = list_first(&s->out, struct task, node))) {
		list_remove(&t->node);
		task_free(t);
	}
	loop_free(s->loop);
	if (list_empty(&s->tasks)) {
		pool_free(s->pool);
		free(s->backend.driver);
		free(s->backend.nvml);
		free(s);
	}
	/* Else threads are still in the driver, with s in their hands: the process ends now. */
}

int gpu_service_run(int fd, const struct gpu_service_config *config, struct error *err)
{
	struct service *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	list_init(&s->tasks);
	list_init(&s->out);
	s->backend.libcuda = config->libcuda;
	s->backend.libnvml = config->libnvml;
	s->err = err;
	r = start(s, fd);
	if (r < 0)
		(void)error_sys(err, r, "start");
	else
		r = loop_run(s->loop);
	if (r == 0)
		r = s->result;
	stop(s);
	return r;
}
