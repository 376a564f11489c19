/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/ttrpc_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/ttrpc.pb-c.h"
#include "event/conn.h"
#include "rpc/pb.h"
#include "wire/ttrpc_frame.h"

#define ANSWER_MEMORY_MAX ((size_t)16 << 20)
#define CLIENT_OUT_MAX    ((size_t)16 << 20)

struct ttrpc_client {
	struct loop *loop;
	struct sockaddr_un addr;
	struct conn conn;
	uint32_t next_stream;
	struct list requests;
	struct list lost; /* those of a connection that is gone, until they have been told */
	bool in_callback; /* of our connection, which needs us for a moment longer */
	struct job free_job;
};

static void finish(struct ttrpc_request *req, int r, struct bytes payload)
{
	timer_cancel(&req->timer);
	job_cancel(&req->job);
	list_remove(&req->node);
	req->client = NULL;
	req->done(req, r, payload, &req->err);
}

static void answer(struct ttrpc_client *c, const struct ttrpc_frame *f, struct bytes data)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(ANSWER_MEMORY_MAX);
	struct ttrpc_request *req, *it;
	const Ttrpc__Response *response;
	int r = 0;

	req = NULL;
	list_for_each(it, &c->requests, node)
		if (it->stream == f->stream)
			req = it;
	if (!req || f->type != TTRPC_RESPONSE)
		return; /* an answer that came too late */
	response = pb_unpack(&ttrpc__response__descriptor, data, &arena);
	if (!response)
		r = error_rpc(&req->err, RPC_INTERNAL, -EBADMSG, "the answer cannot be decoded");
	else if (response->status && response->status->code != RPC_OK)
		r = error_rpc(&req->err, (enum rpc_code)response->status->code, -EREMOTEIO, "%s",
			      response->status->message);
	finish(req, r,
	       r == 0 ? bytes_of(response->payload.data, response->payload.len) : bytes_of(NULL, 0));
}

static int input(struct conn *conn, struct buf *in)
{
	struct ttrpc_client *c = container_of(conn, struct ttrpc_client, conn);
	int r = 0;

	c->in_callback = true;
	/* A done() may have freed the client, and with it closed the connection. */
	while (conn_is_open(conn)) {
		struct bytes b = buf_bytes(in), data;
		struct ttrpc_frame f;

		if (ttrpc_frame_header(&b, &f))
			break;
		if (f.length > TTRPC_DATA_MAX) {
			r = -EMSGSIZE;
			break;
		}
		if (bytes_take(&b, f.length, &data))
			break;
		answer(c, &f, data);
		if (conn_is_open(conn))
			buf_consume(in, TTRPC_HEADER_SIZE + f.length);
	}
	c->in_callback = false;
	return r;
}

static void closed(struct conn *conn, int r)
{
	struct ttrpc_client *c = container_of(conn, struct ttrpc_client, conn);
	struct ttrpc_request *req;

	c->in_callback = true;
	conn_close(conn);
	list_splice(&c->lost, &c->requests); /* done() may call again, on a new connection */
	while ((req = list_first(&c->lost, struct ttrpc_request, node))) {
		(void)error_rpc(&req->err, RPC_UNAVAILABLE, r ? r : -EPIPE, "%s: %s",
				c->addr.sun_path, r ? strerror(-r) : "connection closed");
		finish(req, req->err.code, bytes_of(NULL, 0));
	}
	c->in_callback = false;
}

static const struct conn_ops conn_ops = { .input = input, .closed = closed };

static int connect_now(struct ttrpc_client *c)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	/* On a Unix socket this either works at once or not at all (EAGAIN: backlog full). */
	if (connect(fd, (const struct sockaddr *)&c->addr, sizeof(c->addr)) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	c->next_stream = 1;
	return conn_open(&c->conn, c->loop, fd, TTRPC_DATA_MAX + TTRPC_HEADER_SIZE, CLIENT_OUT_MAX,
			 &conn_ops);
}

static void expired(struct timer *t)
{
	struct ttrpc_request *req = container_of(t, struct ttrpc_request, timer);
	int r = error_rpc(&req->err, RPC_DEADLINE_EXCEEDED, -ETIMEDOUT, "%s: no answer in time",
			  req->client->addr.sun_path);

	finish(req, r, bytes_of(NULL, 0));
}

static void fail_later(struct job *job)
{
	struct ttrpc_request *req = container_of(job, struct ttrpc_request, job);

	finish(req, req->err.code, bytes_of(NULL, 0));
}

static int send_request(struct ttrpc_client *c, struct ttrpc_request *req, const char *service,
			const char *method, const ProtobufCMessage *msg, const char *ns,
			nsec_t deadline)
{
	_cleanup_buf_ struct buf payload = BUF_LIMIT(TTRPC_DATA_MAX);
	_cleanup_buf_ struct buf body = BUF_LIMIT(TTRPC_DATA_MAX);
	_cleanup_buf_ struct buf frame = BUF_LIMIT(TTRPC_DATA_MAX + TTRPC_HEADER_SIZE);
	Ttrpc__Request env = TTRPC__REQUEST__INIT;
	Ttrpc__KeyValue kv = TTRPC__KEY_VALUE__INIT, *kvs[] = { &kv };
	nsec_t now = time_now();
	int r;

	r = pb_pack(msg, &payload);
	if (r < 0)
		return r;
	env.service = (char *)service;
	env.method = (char *)method;
	env.payload.data = payload.mem;
	env.payload.len = buf_len(&payload);
	env.timeout_nano = deadline == NSEC_NEVER ? 0 : deadline > now ? (int64_t)(deadline - now) : 1;
	if (ns) {
		kv.key = (char *)"containerd-namespace-ttrpc";
		kv.value = (char *)ns;
		env.metadata = kvs;
		env.n_metadata = 1;
	}
	r = pb_pack(&env.base, &body);
	if (r == 0)
		r = ttrpc_frame_put(&frame, req->stream, TTRPC_REQUEST, buf_bytes(&body));
	if (r == 0)
		r = conn_write(&c->conn, buf_bytes(&frame).p, buf_len(&frame));
	return r;
}

void ttrpc_client_call(struct ttrpc_client *c, struct ttrpc_request *req, const char *service,
		       const char *method, const ProtobufCMessage *msg, const char *ns,
		       nsec_t deadline,
		       void (*done)(struct ttrpc_request *req, int r, struct bytes payload,
				    const struct error *err))
{
	int r = 0;

	*req = (struct ttrpc_request){ .client = c, .done = done };
	list_append(&c->requests, &req->node);
	if (!conn_is_open(&c->conn))
		r = connect_now(c);
	if (r == 0) {
		req->stream = c->next_stream;
		c->next_stream += 2;
		r = send_request(c, req, service, method, msg, ns, deadline);
	}
	if (r == 0) {
		if (deadline != NSEC_NEVER)
			timer_set(c->loop, &req->timer, deadline, expired);
		return;
	}
	(void)error_rpc(&req->err, RPC_UNAVAILABLE, r, "%s: %s", c->addr.sun_path, strerror(-r));
	job_put_off(c->loop, &req->job, fail_later);
}

void ttrpc_request_cancel(struct ttrpc_request *req)
{
	if (!req->client)
		return;
	timer_cancel(&req->timer);
	job_cancel(&req->job);
	list_remove(&req->node);
	req->client = NULL;
}

int ttrpc_client_new(struct ttrpc_client **ret, struct loop *loop, const char *path)
{
	struct ttrpc_client *c;

	if (strlen(path) >= sizeof(c->addr.sun_path))
		return -ENAMETOOLONG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->addr.sun_family = AF_UNIX;
	(void)strcpy(c->addr.sun_path, path);
	list_init(&c->requests);
	list_init(&c->lost);
	*ret = c;
	return 0;
}

static void free_now(struct job *job)
{
	free(container_of(job, struct ttrpc_client, free_job));
}

void ttrpc_client_free(struct ttrpc_client *c)
{
	struct ttrpc_request *req;

	if (!c)
		return;
	while ((req = list_first(&c->requests, struct ttrpc_request, node)) ||
	       (req = list_first(&c->lost, struct ttrpc_request, node)))
		ttrpc_request_cancel(req);
	conn_close(&c->conn);
	if (c->in_callback)
		job_put_off(c->loop, &c->free_job, free_now);
	else
		free(c);
}
