/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the server: who may have one, how long, and how it ends. */
#include "rpc/grpc_server.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "rpc/grpc_server_impl.h"

#define ACCEPTS_A_ROUND 64
#define ACCEPT_PAUSE    (100 * NSEC_PER_MSEC) /* when descriptors or memory have run out */
/* From "send no further requests" to the end: those already on their way are still taken. */
#define NOTICE_TIME     NSEC_PER_SEC

static struct grpc_conn *conn_of(struct h2 *h)
{
	return container_of(h, struct grpc_conn, h2);
}

static struct grpc_call *call_of(void *stream)
{
	return container_of((struct grpc_pipe *)stream, struct grpc_call, pipe);
}

/* A connection's time ------------------------------------------------------------------------- */

static void conn_timer(struct timer *t);

void grpc_conn_wake(struct grpc_conn *conn, nsec_t at)
{
	if (at != NSEC_NEVER && (!conn->timer.loop || at < conn->timer.at))
		timer_set(conn->server->loop, &conn->timer, at, conn_timer);
}

static void set_until(struct grpc_conn *conn, nsec_t in)
{
	conn->until = time_add(loop_now(conn->server->loop), in);
	grpc_conn_wake(conn, conn->until);
}

/* Asks the peer to send no further requests, and to close when it has none under way. */
static void conn_notice(struct grpc_conn *conn)
{
	if (conn->phase >= CONN_NOTICED)
		return;
	conn->phase = CONN_NOTICED;
	set_until(conn, NOTICE_TIME);
	if (nghttp2_submit_shutdown_notice(conn->h2.session) != 0)
		h2_fail(&conn->h2, NGHTTP2_INTERNAL_ERROR, "out of memory");
	h2_kick(&conn->h2);
}

/* The connection ends with the last of its calls. */
static void conn_goaway(struct grpc_conn *conn)
{
	nghttp2_session *session = conn->h2.session;

	conn->phase = CONN_CLOSING;
	conn->until = NSEC_NEVER;
	if (nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
				  nghttp2_session_get_last_proc_stream_id(session),
				  NGHTTP2_NO_ERROR, NULL, 0) != 0)
		h2_fail(&conn->h2, NGHTTP2_INTERNAL_ERROR, "out of memory");
	h2_kick(&conn->h2);
}

static void conn_expired(struct grpc_conn *conn)
{
	switch (conn->phase) {
	case CONN_NEW:
		if (conn->h2.established) {
			conn_notice(conn);
			break;
		}
		h2_fail(&conn->h2, NGHTTP2_NO_ERROR, "no request came in time");
		conn->until = NSEC_NEVER;
		break;
	case CONN_OPEN:
		conn_notice(conn);
		break;
	default:
		conn_goaway(conn);
		break;
	}
}

static bool until_counts(const struct grpc_conn *conn)
{
	return conn->phase != CONN_OPEN || conn->n_calls == 0;
}

static void conn_timer(struct timer *t)
{
	struct grpc_conn *conn = container_of(t, struct grpc_conn, timer);
	nsec_t now = loop_now(conn->server->loop), next = NSEC_NEVER;
	struct grpc_call *call;

	list_for_each(call, &conn->calls, node) {
		nsec_t at = grpc_call_check(call, now);

		next = at < next ? at : next;
	}
	if (until_counts(conn) && conn->until <= now)
		conn_expired(conn);
	if (until_counts(conn) && conn->until < next)
		next = conn->until;
	grpc_conn_wake(conn, next);
}

/* Events of a connection ---------------------------------------------------------------------- */

static void *on_request(struct h2 *h, int32_t id)
{
	struct grpc_call *call = grpc_call_new(conn_of(h), id);

	return call ? &call->pipe : NULL;
}

static void on_header(struct h2 *h, void *stream, struct bytes name, struct bytes value)
{
	(void)h;
	grpc_call_header(call_of(stream), name, value);
}

static void on_headers_end(struct h2 *h, void *stream, bool last)
{
	(void)h;
	grpc_call_headers_end(call_of(stream), last);
}

static void on_data(struct h2 *h, void *stream, struct bytes b)
{
	(void)h;
	grpc_call_data_in(call_of(stream), b);
}

static void on_data_end(struct h2 *h, void *stream)
{
	(void)h;
	grpc_call_data_end(call_of(stream));
}

static void on_sent_end(struct h2 *h, void *stream)
{
	struct grpc_call *call = call_of(stream);

	call->sent_end = true;
	/* The peer may be in the middle of its messages: nobody wants them any more. */
	if (!call->pipe.in_end)
		(void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, call->pipe.id,
						NGHTTP2_NO_ERROR);
}

static void on_stream_closed(struct h2 *h, void *stream, uint32_t error)
{
	struct grpc_conn *conn = conn_of(h);

	(void)error;
	grpc_call_stream_closed(call_of(stream));
	if (conn->n_calls == 0 && conn->phase == CONN_OPEN)
		set_until(conn, conn->server->config.idle_timeout);
}

static void conn_drop(struct grpc_conn *conn, enum grpc_end why)
{
	struct grpc_server *s = conn->server;
	struct grpc_call *call;

	while ((call = list_first(&conn->calls, struct grpc_call, node))) {
		grpc_call_tell(call, why);
		grpc_call_free(call);
	}
	timer_cancel(&conn->timer);
	h2_close(&conn->h2);
	list_remove(&conn->node);
	s->stats.connections--;
	free(conn);
}

static void shutdown_done(struct job *job)
{
	struct grpc_server *s = container_of(job, struct grpc_server, shutdown_job);

	timer_cancel(&s->shutdown_timer);
	s->shut_down(s, s->arg);
}

static void on_ended(struct h2 *h, const char *why)
{
	struct grpc_server *s = conn_of(h)->server;

	(void)why; /* peers come and go; no call depends on the reason */
	conn_drop(conn_of(h), GRPC_END_LOST);
	if (s->stopping && list_empty(&s->conns))
		job_put_off(s->loop, &s->shutdown_job, shutdown_done);
}

static const struct h2_ops h2_ops = {
	.request = on_request,
	.header = on_header,
	.headers_end = on_headers_end,
	.data = on_data,
	.data_end = on_data_end,
	.sent_end = on_sent_end,
	.stream_closed = on_stream_closed,
	.ended = on_ended,
};

/* Who may connect ----------------------------------------------------------------------------- */

/* 0, -EPERM or -EUSERS. */
static int admit(const struct grpc_server *s, const struct ucred *peer)
{
	const struct grpc_conn *conn;
	unsigned int same = 0;

	if (s->config.allow && !s->config.allow(s->arg, peer))
		return -EPERM;
	if (s->stats.connections >= s->config.max_connections)
		return -EUSERS;
	list_for_each(conn, &s->conns, node)
		same += conn->peer.uid == peer->uid;
	return same >= s->config.max_connections_per_uid ? -EUSERS : 0;
}

static int conn_open_for(struct grpc_server *s, int fd, const struct ucred *peer)
{
	const struct h2_config config = {
		.server = true,
		.max_streams = s->config.max_streams,
		.window = s->config.window,
		.max_headers = s->config.max_headers,
		.stall_timeout = s->config.stall_timeout,
	};
	struct grpc_conn *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn) {
		(void)close(fd);
		return -ENOMEM;
	}
	conn->server = s;
	conn->peer = *peer;
	conn->budget.max = s->config.max_memory_per_connection;
	conn->budget.up = &s->budget;
	list_init(&conn->calls);
	r = h2_open(&conn->h2, s->loop, fd, &config, &h2_ops);
	if (r < 0) {
		free(conn);
		return r;
	}
	list_append(&s->conns, &conn->node);
	s->stats.connections++;
	s->stats.accepted++;
	set_until(conn, s->config.first_timeout);
	return 0;
}

int grpc_server_adopt(struct grpc_server *s, int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	int r = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ? -errno : 0;

	if (r == 0)
		r = s->stopping ? -ESHUTDOWN : admit(s, &peer);
	if (r < 0) {
		s->stats.refused++;
		(void)close(fd);
		return r;
	}
	return conn_open_for(s, fd, &peer);
}

static void accept_again(struct timer *t)
{
	struct grpc_server *s = container_of(t, struct grpc_server, accept_again);

	if (s->listener.loop)
		source_want(&s->listener, EPOLLIN);
}

static void acceptable(struct source *src, uint32_t events)
{
	struct grpc_server *s = container_of(src, struct grpc_server, listener);

	(void)events;
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			(void)grpc_server_adopt(s, fd); /* a refused peer sees its connection end */
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN) {
			/* EMFILE and the like: level-triggered, this would spin. */
			source_want(src, 0);
			timer_set(s->loop, &s->accept_again,
				  time_add(loop_now(s->loop), ACCEPT_PAUSE), accept_again);
		}
		return;
	}
}

/* The server ---------------------------------------------------------------------------------- */

static void fill_defaults(struct grpc_server_config *c)
{
#define DEFAULT(field, value) c->field = c->field ? c->field : (value)
	DEFAULT(max_connections, 256);
	DEFAULT(max_connections_per_uid, 240);
	DEFAULT(max_streams, 100);
	DEFAULT(max_message, (size_t)4 << 20);
	DEFAULT(max_send, (size_t)4 << 20);
	DEFAULT(max_unsent, (size_t)8 << 20);
	DEFAULT(max_headers, 8 << 10);
	DEFAULT(window, 64 << 10);
	DEFAULT(max_memory_per_connection, (size_t)16 << 20);
	DEFAULT(max_memory, (size_t)64 << 20);
	DEFAULT(first_timeout, 10 * NSEC_PER_SEC);
	DEFAULT(receive_timeout, 30 * NSEC_PER_SEC);
	DEFAULT(idle_timeout, 300 * NSEC_PER_SEC);
	DEFAULT(stall_timeout, 60 * NSEC_PER_SEC);
#undef DEFAULT
	assert(c->window <= INT32_MAX); /* RFC 9113, 6.5.2 */
}

int grpc_server_new(struct loop *loop, int listen_fd, const struct grpc_server_config *config,
		    const struct grpc_method *methods, size_t n_methods, void *arg,
		    struct grpc_server **ret)
{
	struct grpc_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		(void)close(listen_fd);
		return -ENOMEM;
	}
	s->loop = loop;
	s->config = *config;
	fill_defaults(&s->config);
	s->methods = methods;
	s->n_methods = n_methods;
	s->arg = arg;
	s->budget.max = s->config.max_memory;
	list_init(&s->conns);
	r = fd_nonblock(listen_fd, true);
	if (r == 0)
		r = source_add(loop, &s->listener, listen_fd, EPOLLIN, acceptable);
	if (r < 0) {
		(void)close(listen_fd);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void stop_listening(struct grpc_server *s)
{
	timer_cancel(&s->accept_again);
	if (!s->listener.loop)
		return;
	source_remove(&s->listener);
	(void)close(s->listener.fd);
}

static void shutdown_now(struct timer *t)
{
	struct grpc_server *s = container_of(t, struct grpc_server, shutdown_timer);
	struct grpc_conn *conn;
	struct grpc_call *call;

	list_for_each(conn, &s->conns, node) {
		list_for_each(call, &conn->calls, node)
			grpc_call_tell(call, GRPC_END_SHUTDOWN);
		h2_fail(&conn->h2, NGHTTP2_NO_ERROR, "the server is shut down");
	}
}

void grpc_server_shutdown(struct grpc_server *s, nsec_t deadline,
			  void (*done)(struct grpc_server *s, void *arg))
{
	struct grpc_conn *conn;

	s->stopping = true;
	s->shut_down = done;
	stop_listening(s);
	list_for_each(conn, &s->conns, node)
		conn_notice(conn);
	if (list_empty(&s->conns))
		job_put_off(s->loop, &s->shutdown_job, shutdown_done);
	else if (deadline != NSEC_NEVER)
		timer_set(s->loop, &s->shutdown_timer, deadline, shutdown_now);
}

void grpc_server_free(struct grpc_server *s)
{
	struct grpc_conn *conn;

	if (!s)
		return;
	stop_listening(s);
	timer_cancel(&s->shutdown_timer);
	job_cancel(&s->shutdown_job);
	while ((conn = list_first(&s->conns, struct grpc_conn, node)))
		conn_drop(conn, GRPC_END_SHUTDOWN);
	free(s);
}

void grpc_server_stats(const struct grpc_server *s, struct grpc_server_stats *ret)
{
	*ret = s->stats;
	ret->memory = s->budget.used;
}
