/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/ttrpc_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/containerd/common.pb-c.h"
#include "api/containerd/ttrpc.pb-c.h"
#include "base/buf.h"
#include "base/log.h"
#include "event/conn.h"
#include "rpc/pb.h"
#include "wire/ttrpc_frame.h"

/* A decoded request takes more room than its bytes: pointers, lists, strings with their NULs. */
#define CALL_MEMORY_MAX  ((size_t)32 << 20)
#define CONN_OUT_MAX     ((size_t)16 << 20)
#define CONN_CALLS_MAX   4096 /* a Wait or two per process of a pod, and head room */
#define ACCEPTS_A_ROUND  16
#define ACCEPT_PAUSE     (100 * NSEC_PER_MSEC) /* when descriptors have run out */

struct ttrpc_server {
	struct loop *loop;
	struct source listener;
	struct timer accept_again;
	const struct ttrpc_service *services;
	size_t n_services;
	void *arg;
	struct list conns;
};

struct peer {
	struct ttrpc_server *server;
	struct conn conn;
	struct list node;
	struct list calls;
	unsigned int n_calls;
	uint32_t last_stream;
	uint32_t skip; /* bytes of an oversized frame still to be dropped */
};

struct ttrpc_call {
	struct ttrpc_server *server;
	struct peer *peer; /* NULL: the connection is gone */
	struct list node;
	uint32_t stream;
	nsec_t deadline;
	struct timer timer;
	struct arena arena;
	const Ttrpc__Request *envelope;
	void (*canceled)(struct ttrpc_call *call, enum rpc_code why, void *data);
	void *cancel_data;
};

static void peer_write(struct peer *p, uint32_t stream, const Ttrpc__Response *response)
{
	_cleanup_buf_ struct buf body = BUF_LIMIT(TTRPC_DATA_MAX);
	_cleanup_buf_ struct buf frame = BUF_LIMIT(TTRPC_DATA_MAX + TTRPC_HEADER_SIZE);

	if (pb_pack(&response->base, &body) < 0 ||
	    ttrpc_frame_put(&frame, stream, TTRPC_RESPONSE, buf_bytes(&body)) < 0) {
		Ctd__RpcStatus status = CTD__RPC_STATUS__INIT;
		Ttrpc__Response sorry = TTRPC__RESPONSE__INIT;

		/* Too large an answer (or no memory): the caller must not wait for ever. */
		if (response->status)
			return;
		status.code = RPC_RESOURCE_EXHAUSTED;
		status.message = (char *)"the answer is too large";
		sorry.status = &status;
		peer_write(p, stream, &sorry);
		return;
	}
	(void)conn_write(&p->conn, buf_bytes(&frame).p, buf_len(&frame));
}

static void peer_fail(struct peer *p, uint32_t stream, enum rpc_code code, const char *text)
{
	Ctd__RpcStatus status = CTD__RPC_STATUS__INIT;
	Ttrpc__Response response = TTRPC__RESPONSE__INIT;

	status.code = (int32_t)code;
	status.message = (char *)text;
	response.status = &status;
	peer_write(p, stream, &response);
}

static void call_cancel(struct ttrpc_call *call, enum rpc_code why)
{
	void (*canceled)(struct ttrpc_call *, enum rpc_code, void *) = call->canceled;

	call->canceled = NULL;
	if (canceled)
		canceled(call, why, call->cancel_data);
}

static void call_free(struct ttrpc_call *call)
{
	timer_cancel(&call->timer);
	if (call->peer) {
		list_remove(&call->node);
		call->peer->n_calls--;
	}
	arena_done(&call->arena);
	free(call);
}

static void call_expired(struct timer *t)
{
	call_cancel(container_of(t, struct ttrpc_call, timer), RPC_DEADLINE_EXCEEDED);
}

static const struct ttrpc_method *find_method(const struct ttrpc_server *s, const char *service,
					      const char *method)
{
	for (size_t i = 0; i < s->n_services; i++) {
		if (strcmp(s->services[i].name, service) != 0)
			continue;
		for (size_t j = 0; j < s->services[i].n_methods; j++)
			if (strcmp(s->services[i].methods[j].name, method) == 0)
				return &s->services[i].methods[j];
	}
	return NULL;
}

static void dispatch(struct ttrpc_call *call)
{
	const Ttrpc__Request *env = call->envelope;
	struct ttrpc_server *s = call->server;
	const struct ttrpc_method *m = find_method(s, env->service, env->method);
	struct error err = ERROR_NULL;
	void *request;

	if (!m) {
		/* This very code drives containerd's downgrades and feature probes. */
		(void)error_rpc(&err, RPC_UNIMPLEMENTED, -ENOSYS, "/%s/%s is not served here",
				env->service, env->method);
		ttrpc_call_fail(call, &err);
		return;
	}
	request = pb_unpack(m->request, bytes_of(env->payload.data, env->payload.len),
			    &call->arena);
	if (!request) {
		(void)error_rpc(&err, RPC_INVALID_ARGUMENT, -EBADMSG,
				"the request of /%s/%s cannot be decoded", env->service,
				env->method);
		ttrpc_call_fail(call, &err);
		return;
	}
	m->handle(s->arg, call, request);
}

static void begin_call(struct peer *p, uint32_t stream, struct bytes data)
{
	struct ttrpc_call *call;

	if (p->n_calls >= CONN_CALLS_MAX) {
		peer_fail(p, stream, RPC_RESOURCE_EXHAUSTED, "too many calls in flight");
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		peer_fail(p, stream, RPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	call->server = p->server;
	call->peer = p;
	call->stream = stream;
	call->deadline = NSEC_NEVER;
	call->arena = ARENA_LIMIT(CALL_MEMORY_MAX);
	list_append(&p->calls, &call->node);
	p->n_calls++;
	call->envelope = pb_unpack(&ttrpc__request__descriptor, data, &call->arena);
	if (!call->envelope) {
		peer_fail(p, stream, RPC_INVALID_ARGUMENT, "the request cannot be decoded");
		call_free(call);
		return;
	}
	if (call->envelope->timeout_nano > 0) {
		call->deadline = time_add(loop_now(p->server->loop),
					  (nsec_t)call->envelope->timeout_nano);
		timer_set(p->server->loop, &call->timer, call->deadline, call_expired);
	}
	dispatch(call);
}

static void handle_frame(struct peer *p, const struct ttrpc_frame *f, struct bytes data)
{
	switch (f->type) {
	case TTRPC_REQUEST:
		/* Clients use odd numbers, each once and rising. */
		if (f->stream % 2 == 0 || f->stream <= p->last_stream) {
			peer_fail(p, f->stream, RPC_INVALID_ARGUMENT,
				  f->stream % 2 == 0 ? "StreamID must be odd for client initiated streams"
						     : "StreamID cannot be re-used and must increment");
			return;
		}
		p->last_stream = f->stream;
		begin_call(p, f->stream, data);
		return;
	case TTRPC_DATA:
		peer_fail(p, f->stream, RPC_INVALID_ARGUMENT, "StreamID is no longer active");
		return;
	default:
		return; /* a type from the future, or a response nobody asked for */
	}
}

static void refuse_oversized(struct peer *p, const struct ttrpc_frame *f)
{
	if (f->type == TTRPC_REQUEST && f->stream % 2 == 1 && f->stream > p->last_stream)
		p->last_stream = f->stream;
	peer_fail(p, f->stream, RPC_RESOURCE_EXHAUSTED,
		  "message length exceeds maximum message size of 4194304");
	p->skip = f->length;
}

static int input(struct conn *c, struct buf *in)
{
	struct peer *p = container_of(c, struct peer, conn);

	while (buf_len(in)) {
		struct bytes b = buf_bytes(in), data;
		struct ttrpc_frame f;

		if (p->skip) {
			size_t n = b.n < p->skip ? b.n : p->skip;

			buf_consume(in, n);
			p->skip -= (uint32_t)n;
			continue;
		}
		if (ttrpc_frame_header(&b, &f))
			return 0;
		if (f.length > TTRPC_DATA_MAX) {
			buf_consume(in, TTRPC_HEADER_SIZE);
			refuse_oversized(p, &f);
			continue;
		}
		if (bytes_take(&b, f.length, &data))
			return 0;
		handle_frame(p, &f, data);
		buf_consume(in, TTRPC_HEADER_SIZE + f.length);
	}
	return 0;
}

static void peer_drop(struct peer *p)
{
	struct ttrpc_call *call;

	conn_close(&p->conn);
	list_remove(&p->node);
	while ((call = list_first(&p->calls, struct ttrpc_call, node))) {
		list_remove(&call->node);
		call->peer = NULL;
		timer_cancel(&call->timer);
		call_cancel(call, RPC_CANCELED);
	}
	free(p);
}

static void closed(struct conn *c, int r)
{
	(void)r; /* clients come and go; a task does not depend on any of them */
	peer_drop(container_of(c, struct peer, conn));
}

static const struct conn_ops conn_ops = { .input = input, .closed = closed };

/* containerd's rule (ttrpc unixcreds, UnixSocketRequireSameUser): same uid and gid as ours. */
static bool peer_is_us(int fd)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 &&
	       cred.uid == geteuid() && cred.gid == getegid();
}

static void peer_new(struct ttrpc_server *s, int fd)
{
	struct peer *p;

	if (!peer_is_us(fd)) {
		(void)close(fd);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		(void)close(fd);
		return;
	}
	p->server = s;
	list_init(&p->calls);
	if (conn_open(&p->conn, s->loop, fd, TTRPC_DATA_MAX + TTRPC_HEADER_SIZE, CONN_OUT_MAX,
		      &conn_ops) < 0) {
		free(p);
		return;
	}
	list_append(&s->conns, &p->node);
}

static void accept_again(struct timer *t)
{
	struct ttrpc_server *s = container_of(t, struct ttrpc_server, accept_again);

	if (s->listener.loop)
		source_want(&s->listener, EPOLLIN);
}

static void acceptable(struct source *src, uint32_t events)
{
	struct ttrpc_server *s = container_of(src, struct ttrpc_server, listener);

	(void)events;
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			peer_new(s, fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			/* Level-triggered: without a pause this would spin. */
			source_want(src, 0);
			timer_set(s->loop, &s->accept_again, time_now() + ACCEPT_PAUSE,
				  accept_again);
		}
		return;
	}
}

int ttrpc_server_new(struct ttrpc_server **ret, struct loop *loop, int listen_fd,
		     const struct ttrpc_service *services, size_t n_services, void *arg)
{
	struct ttrpc_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		(void)close(listen_fd);
		return -ENOMEM;
	}
	s->loop = loop;
	s->services = services;
	s->n_services = n_services;
	s->arg = arg;
	list_init(&s->conns);
	r = source_add(loop, &s->listener, listen_fd, EPOLLIN, acceptable);
	if (r < 0) {
		(void)close(listen_fd);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void ttrpc_server_stop(struct ttrpc_server *s)
{
	timer_cancel(&s->accept_again);
	if (!s->listener.loop)
		return;
	source_remove(&s->listener);
	(void)close(s->listener.fd);
}

bool ttrpc_server_flushed(const struct ttrpc_server *s)
{
	const struct peer *p;

	list_for_each(p, &s->conns, node)
		if (conn_pending(&p->conn))
			return false;
	return true;
}

void ttrpc_server_free(struct ttrpc_server *s)
{
	struct peer *p;

	if (!s)
		return;
	ttrpc_server_stop(s);
	while ((p = list_first(&s->conns, struct peer, node)))
		peer_drop(p);
	free(s);
}

struct arena *ttrpc_call_arena(struct ttrpc_call *call)
{
	return &call->arena;
}

nsec_t ttrpc_call_deadline(const struct ttrpc_call *call)
{
	return call->deadline;
}

const char *ttrpc_call_metadata(const struct ttrpc_call *call, const char *key)
{
	for (size_t i = 0; i < call->envelope->n_metadata; i++)
		if (strcmp(call->envelope->metadata[i]->key, key) == 0)
			return call->envelope->metadata[i]->value;
	return NULL;
}

void ttrpc_call_on_cancel(struct ttrpc_call *call,
			  void (*canceled)(struct ttrpc_call *call, enum rpc_code why, void *data),
			  void *data)
{
	call->canceled = canceled;
	call->cancel_data = data;
}

void ttrpc_call_reply(struct ttrpc_call *call, const ProtobufCMessage *msg)
{
	Ttrpc__Response response = TTRPC__RESPONSE__INIT;
	size_t n;
	uint8_t *payload;

	if (call->peer) {
		payload = pb_pack_arena(msg, &call->arena, &n);
		if (payload) {
			response.payload.data = payload;
			response.payload.len = n;
			peer_write(call->peer, call->stream, &response);
		} else {
			peer_fail(call->peer, call->stream, RPC_RESOURCE_EXHAUSTED,
				  "the answer is too large");
		}
	}
	call_free(call);
}

void ttrpc_call_reply_empty(struct ttrpc_call *call)
{
	Ctd__Empty empty = CTD__EMPTY__INIT;

	ttrpc_call_reply(call, &empty.base);
}

void ttrpc_call_fail(struct ttrpc_call *call, const struct error *err)
{
	if (call->peer)
		peer_fail(call->peer, call->stream, error_rpc_code(err), error_text(err));
	call_free(call);
}
