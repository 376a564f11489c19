/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/control.h"

#define SESSIONS_MAX   2048
#define ACCEPT_A_ROUND 16
#define ACCEPT_PAUSE   (100 * NSEC_PER_MSEC)
#define OUT_MAX        ((size_t)32 << 20)
#define READ_STEP      ((size_t)4096)

struct answer {
	struct list node;
	int fd; /* our own duplicate, -1 = none */
	size_t n, at;
	uint8_t bytes[];
};

/* ---- answers ---------------------------------------------------------------------------- */

static void drop_answer(struct session *s, struct answer *a)
{
	list_remove(&a->node);
	s->out_bytes -= a->n;
	if (a->fd >= 0)
		(void)close(a->fd);
	free(a);
}

/* Returns bytes sent or -errno. */
static ssize_t send_some(int sock, const struct answer *a)
{
	struct iovec v = { .iov_base = (void *)(uintptr_t)(a->bytes + a->at),
			   .iov_len = a->n - a->at };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} c = { 0 };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1 };
	ssize_t n;

	if (a->fd >= 0 && a->at == 0) {
		struct cmsghdr *cm = &c.align;

		h.msg_control = &c;
		h.msg_controllen = sizeof(c.space);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &a->fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void flush(struct session *s)
{
	struct answer *a;

	while ((a = list_first(&s->out, struct answer, node))) {
		ssize_t n = send_some(s->src.fd, a);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			session_end(s);
			return;
		}
		a->at += (size_t)n;
		if (a->at == a->n)
			drop_answer(s, a);
	}
	source_want(&s->src, a ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void session_send(struct session *s, const struct fg_msg *m)
{
	struct answer *a;

	if (s->ended)
		return;
	a = s->out_bytes > OUT_MAX ? NULL : malloc(sizeof(*a) + FG_HEAD_MAX + m->len);
	if (!a) {
		session_end(s);
		return;
	}
	a->at = 0;
	a->n = fg_encode_head(m, a->bytes);
	a->fd = -1;
	if (m->len)
		memcpy(a->bytes + a->n, m->data, m->len);
	a->n += m->len;
	list_append(&s->out, &a->node);
	s->out_bytes += a->n;
	if (m->fd >= 0) {
		a->fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 0);
		if (a->fd < 0) {
			session_end(s);
			return;
		}
	}
	flush(s);
}

void session_result(struct session *s, uint64_t seq, uint64_t code, uint64_t value)
{
	session_send(s, &(struct fg_msg){ .type = FG_RESULT,
					  .n = 2,
					  .seq = seq,
					  .arg = { code, value },
					  .fd = -1 });
}

/* ---- requests --------------------------------------------------------------------------- */

uint64_t session_vram(const struct session *s, const struct gpu *gpu)
{
	const struct vram *v;
	uint64_t n = 0;

	list_for_each(v, &s->vram, node)
		if (!gpu || v->gpu == gpu)
			n += v->bytes;
	return n;
}

static int on_hello(struct session *s, const struct fg_msg *m, int fd)
{
	struct server *srv = s->srv;
	struct fg_msg answer = {
		.type = FG_RESULT,
		.n = 6,
		.seq = m->seq,
		.arg = { FG_SUCCESS, srv->settings.branch, server_cuda_version(srv),
			 srv->settings.context, srv->settings.persistence,
			 srv->settings.not_cuda },
		.data = server_version(srv),
		.len = strlen(server_version(srv)),
		.fd = -1,
	};

	(void)fd;
	if (m->arg[0] <= FG_ROLE_NONE || m->arg[0] > FG_CONTROL || m->arg[1] != FG_VERSION ||
	    m->arg[2] > INT32_MAX)
		return -EBADMSG;
	s->role = (enum fg_role)m->arg[0];
	s->tid = (pid_t)m->arg[2];
	if (s->role == FG_APP || s->role == FG_RESTORER) {
		s->process = process_get(srv, s->pid);
		if (!s->process)
			return -ESRCH;
		s->process->cuda = true;
		if (s->role == FG_RESTORER)
			s->process->tid = s->tid;
	}
	session_send(s, &answer);
	return 0;
}

static int on_gpus(struct session *s, const struct fg_msg *m, int fd)
{
	struct server *srv = s->srv;
	struct fg_gpu_info info[FG_GPUS_MAX];
	struct fg_msg answer = {
		.type = FG_RESULT,
		.n = 2,
		.seq = m->seq,
		.arg = { FG_SUCCESS, srv->n_gpus },
		.data = info,
		.len = srv->n_gpus * sizeof(*info),
		.fd = -1,
	};

	(void)fd;
	for (unsigned int i = 0; i < srv->n_gpus; i++) {
		info[i] = srv->gpus[i].info;
		info[i].used += srv->gpus[i].reserved;
		info[i].persistence = srv->settings.persistence != 0;
	}
	session_send(s, &answer);
	return 0;
}

static int on_alloc(struct session *s, const struct fg_msg *m, int fd)
{
	struct server *srv = s->srv;
	enum fg_code code = FG_INVALID_DEVICE;

	(void)fd;
	if (m->arg[0] < srv->n_gpus)
		code = vram_alloc(s, &srv->gpus[m->arg[0]], m->arg[1], m->arg[2],
				  (unsigned int)m->arg[3], m->seq);
	if (code != FG_SUCCESS)
		session_result(s, m->seq, code, 0);
	return 0;
}

static int on_free(struct session *s, const struct fg_msg *m, int fd)
{
	struct vram *v = vram_find(s, m->arg[0], 1);
	enum fg_code code = FG_INVALID_VALUE;

	(void)fd;
	if (v && v->address == m->arg[0])
		code = kernel_fence(s, v, m->seq);
	if (code != FG_SUCCESS)
		session_result(s, m->seq, code, 0);
	return 0;
}

static int on_launch(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	session_result(s, m->seq, kernel_launch(s, m), 0);
	return 0;
}

static int on_sync(struct session *s, const struct fg_msg *m, int fd)
{
	enum fg_code code = kernel_fence(s, NULL, m->seq);

	(void)fd;
	if (code != FG_SUCCESS)
		session_result(s, m->seq, code, 0);
	return 0;
}

static int on_map(struct session *s, const struct fg_msg *m, int fd)
{
	struct vram *v = vram_find(s, m->arg[0], 1);
	struct fg_msg answer = {
		.type = FG_RESULT,
		.n = 2,
		.seq = m->seq,
		.arg = { v ? FG_SUCCESS : FG_INVALID_VALUE, v ? v->bytes : 0 },
		.fd = v ? v->fd : -1,
	};

	(void)fd;
	session_send(s, &answer);
	return 0;
}

static void release_all(struct session *s)
{
	struct vram *v, *next;

	stream_cancel(&s->stream);
	list_for_each_safe(v, next, &s->vram, node)
		vram_release(v);
}

static int on_detach(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	release_all(s);
	session_result(s, m->seq, FG_SUCCESS, 0);
	return 0;
}

static int on_procs(struct session *s, const struct fg_msg *m, int fd)
{
	struct server *srv = s->srv;
	_cleanup_buf_ struct buf out = BUF_LIMIT(FG_REPLY_MAX / 2);
	struct fg_msg answer = { .type = FG_RESULT, .n = 2, .seq = m->seq, .fd = -1 };
	struct session *other;

	(void)fd;
	if (m->arg[0] >= srv->n_gpus)
		answer.arg[0] = FG_INVALID_DEVICE;
	list_for_each(other, &srv->sessions, node) {
		struct fg_proc_info info = { .pid = (uint64_t)other->pid };

		if (answer.arg[0] || other->role != FG_APP || other->ended)
			continue;
		info.bytes = session_vram(other, &srv->gpus[m->arg[0]]);
		if (!info.bytes)
			continue;
		if (buf_append(&out, &info, sizeof(info)) < 0)
			return -ENOMEM;
		answer.arg[1]++;
	}
	answer.data = buf_bytes(&out).p;
	answer.len = buf_len(&out);
	session_send(s, &answer);
	return 0;
}

static int on_call(struct session *s, const struct fg_msg *m, int fd)
{
	return call_begin(s, m, fd);
}

static int on_end(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	return call_end(s, m);
}

static int on_take(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	return call_serve(s, m);
}

static int on_done(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	return call_done(s, m);
}

static int on_control(struct session *s, const struct fg_msg *m, int fd)
{
	(void)fd;
	return control_request(s, m);
}

#define R(role) (1U << (role))
#define R_CALLS (R(FG_APP) | R(FG_DRIVER) | R(FG_NVML))

/* Who may say what; everything else breaks the protocol. */
static const struct {
	unsigned int roles;
	unsigned int args; /* at least */
	int (*handle)(struct session *s, const struct fg_msg *m, int fd);
} handlers[FG_TYPE_END] = {
	[FG_HELLO] = { R(FG_ROLE_NONE), 3, on_hello },
	[FG_GPUS] = { R_CALLS | R(FG_RESTORER) | R(FG_CONTROL), 0, on_gpus },
	[FG_ALLOC] = { R(FG_APP), 4, on_alloc },
	[FG_FREE] = { R(FG_APP), 1, on_free },
	[FG_LAUNCH] = { R(FG_APP), 6, on_launch },
	[FG_SYNC] = { R(FG_APP), 0, on_sync },
	[FG_MAP] = { R(FG_APP), 1, on_map },
	[FG_DETACH] = { R(FG_APP), 0, on_detach },
	[FG_TAKE] = { R(FG_RESTORER), 1, on_take },
	[FG_DONE] = { R(FG_RESTORER), 2, on_done },
	[FG_CALL] = { R_CALLS, 4, on_call },
	[FG_END] = { R_CALLS, 2, on_end },
	[FG_PROCS] = { R(FG_NVML), 1, on_procs },
	[FG_CTL] = { R(FG_CONTROL), 0, on_control },
};

static int dispatch(struct session *s, const struct fg_msg *m)
{
	int fd = -1, r;

	if (!handlers[m->type].handle || !(handlers[m->type].roles & R(s->role)) ||
	    m->n < handlers[m->type].args)
		return -EBADMSG;
	if (m->type == FG_CALL)
		fd = TAKE_FD(s->in_fd);
	r = handlers[m->type].handle(s, m, fd);
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* ---- input ------------------------------------------------------------------------------ */

/* Returns bytes, 0 at the end, or -errno. */
static ssize_t receive(struct session *s)
{
	uint8_t *to = buf_reserve(&s->in, READ_STEP);
	struct iovec v = { .iov_base = to, .iov_len = READ_STEP };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} c;
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c,
			    .msg_controllen = sizeof(c.space) };
	ssize_t n;

	if (!to)
		return -errno;
	n = recvmsg(s->src.fd, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm)) {
		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		if (s->in_fd >= 0)
			(void)close(s->in_fd);
		memcpy(&s->in_fd, CMSG_DATA(cm), sizeof(int));
	}
	buf_commit(&s->in, (size_t)n);
	return n;
}

static void input(struct session *s)
{
	ssize_t n = receive(s);
	struct fg_msg m;
	size_t used;
	int r;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		session_end(s);
		return;
	}
	while (!s->ended) {
		struct bytes b = buf_bytes(&s->in);

		r = fg_decode(b.p, b.n, FG_REQUEST_MAX, &m, &used);
		if (r == FG_MORE)
			break;
		if (r == 0)
			r = dispatch(s, &m);
		if (r < 0) {
			log_warning("client cut off", F_INT("pid", s->pid), F_INT("role", s->role),
				    F_STR("error", strerror(-r)));
			session_end(s);
			break;
		}
		buf_consume(&s->in, used);
	}
	if (buf_len(&s->in) == 0)
		buf_done(&s->in);
}

static void ready(struct source *src, uint32_t events)
{
	struct session *s = container_of(src, struct session, src);

	if (s->ended) {
		source_want(src, 0);
		return;
	}
	if (events & EPOLLOUT)
		flush(s);
	if (!s->ended && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		input(s);
}

/* ---- birth and death -------------------------------------------------------------------- */

static void session_free(struct job *job)
{
	struct session *s = container_of(job, struct session, end);
	struct answer *a;

	while ((a = list_first(&s->out, struct answer, node)))
		drop_answer(s, a);
	if (s->in_fd >= 0)
		(void)close(s->in_fd);
	buf_done(&s->in);
	source_remove(&s->src);
	(void)close(s->src.fd);
	list_remove(&s->node);
	s->srv->n_sessions--;
	free(s);
}

void session_end(struct session *s)
{
	if (s->ended)
		return;
	s->ended = true;
	release_all(s);
	call_abandon(s);
	call_helper_gone(s);
	job_put_off(s->srv->loop, &s->end, session_free);
}

static int session_open(struct server *srv, int sock)
{
	struct session *s = NULL;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int r;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	/* 0: the peer is in a pid namespace beside or above ours, so that we could not watch it. */
	if (cred.pid <= 0 || srv->n_sessions >= SESSIONS_MAX)
		return -EUSERS;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->srv = srv;
	s->pid = cred.pid;
	s->in = BUF_LIMIT(FG_HEADER + FG_REQUEST_MAX + READ_STEP);
	s->in_fd = -1;
	list_init(&s->out);
	list_init(&s->vram);
	stream_init(&s->stream);
	call_init(&s->call);
	r = source_add(srv->loop, &s->src, sock, EPOLLIN, ready);
	if (r < 0) {
		free(s);
		return r;
	}
	list_append(&srv->sessions, &s->node);
	srv->n_sessions++;
	return 0;
}

static void accept_again(struct timer *t)
{
	struct server *srv = container_of(t, struct server, accept_again);

	source_want(&srv->listener, EPOLLIN);
}

void session_accept(struct source *listener, uint32_t events)
{
	struct server *srv = container_of(listener, struct server, listener);

	(void)events;
	for (int i = 0; i < ACCEPT_A_ROUND; i++) {
		int sock = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		int r = sock < 0 ? -errno : session_open(srv, sock);

		if (r == -EAGAIN)
			return;
		if (r == 0)
			continue;
		log_warning("connection refused", F_STR("error", strerror(-r)));
		if (sock >= 0) {
			(void)close(sock);
			continue;
		}
		/* It stays in the backlog: looked at again at once, it would keep us busy. */
		source_want(listener, 0);
		timer_set(srv->loop, &srv->accept_again, loop_now(srv->loop) + ACCEPT_PAUSE,
			  accept_again);
		return;
	}
}
