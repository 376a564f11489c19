/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the server: from the request's header fields to the trailers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/grpc_server_impl.h"
#include "wire/grpc_header.h"

/* What the request's header said: struct grpc_call.seen. */
enum {
	SEEN_POST = 1 << 0,
	SEEN_CONTENT_TYPE = 1 << 1,
	SEEN_TRAILERS = 1 << 2,
	BAD_ENCODING = 1 << 3,
	BAD_TIMEOUT = 1 << 4,
	TOO_LARGE = 1 << 5,
	NO_MEMORY = 1 << 6,
};

#define FIELD_OVERHEAD 32 /* how HTTP/2 counts: RFC 9113, 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE */

static const struct bytes no_bytes;

static struct grpc_call *call_of(struct grpc_pipe *p)
{
	return container_of(p, struct grpc_call, pipe);
}

static nghttp2_session *session_of(const struct grpc_call *call)
{
	return call->conn->h2.session;
}

void grpc_call_tell(struct grpc_call *call, enum grpc_end why)
{
	call->finished = true;
	grpc_pipe_close_input(&call->pipe);
	if (!call->method || call->told)
		return;
	call->told = true;
	if (call->method->ops->ended)
		call->method->ops->ended(call, why);
}

/* The answer ---------------------------------------------------------------------------------- */

/* The stream is given up; nghttp2 closes it, and grpc_call_stream_closed() follows. */
static void reset(struct grpc_call *call, uint32_t error)
{
	nghttp2_session *session = session_of(call);

	call->finished = true;
	grpc_pipe_close_input(&call->pipe);
	if (nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->pipe.id, error) != 0)
		h2_fail(&call->conn->h2, NGHTTP2_INTERNAL_ERROR, "out of memory");
	h2_kick(&call->conn->h2);
}

/* grpc-status and what belongs to it; returns how many fields. */
static size_t status_fields(const struct grpc_call *call, char code[12], nghttp2_nv nv[3])
{
	size_t n = 0;

	(void)snprintf(code, 12, "%d", (int)call->code);
	nv[n++] = h2_field("grpc-status", code);
	if (buf_len(&call->text))
		nv[n++] = h2_field("grpc-message", buf_str(&call->text));
	if (buf_len(&call->details))
		nv[n++] = h2_field("grpc-status-details-bin", buf_str(&call->details));
	return n;
}

static int submit_trailers(struct grpc_pipe *p)
{
	struct grpc_call *call = call_of(p);
	nghttp2_nv nv[3];
	char code[12];
	size_t n = status_fields(call, code, nv);

	return nghttp2_submit_trailer(session_of(call), p->id, nv, n) == 0 ? 0 : -ENOMEM;
}

/* An answer without messages: status and headers in one. */
static int submit_trailers_only(struct grpc_call *call, const char *http_status)
{
	nghttp2_nv nv[6];
	char code[12];
	size_t n = 0;
	int r;

	nv[n++] = h2_field(":status", http_status);
	nv[n++] = h2_field("content-type", "application/grpc");
	if (call->code == RPC_UNIMPLEMENTED)
		nv[n++] = h2_field("grpc-accept-encoding", "identity");
	n += status_fields(call, code, nv + n);
	r = nghttp2_submit_response(session_of(call), call->pipe.id, nv, n, NULL);
	return r == 0 ? 0 : -ENOMEM;
}

static int submit_headers(struct grpc_call *call)
{
	const nghttp2_nv nv[] = {
		h2_field(":status", "200"),
		h2_field("content-type", "application/grpc"),
	};
	nghttp2_data_provider provider = grpc_pipe_provider();

	if (nghttp2_submit_response(session_of(call), call->pipe.id, nv, 2, &provider) != 0)
		return -ENOMEM;
	call->headers_sent = true;
	return 0;
}

/* The text up to GRPC_MESSAGE_MAX bytes, not cut inside a character. */
static struct bytes cut_text(const char *text)
{
	size_t n = strlen(text);

	if (n > GRPC_MESSAGE_MAX)
		for (n = GRPC_MESSAGE_MAX; n && ((uint8_t)text[n] & 0xc0) == 0x80; n--)
			;
	return bytes_of(text, n);
}

/* From now on, some of the answer must be fetched every stall_timeout. */
static void watch_output(struct grpc_call *call)
{
	call->fetch_left = call->pipe.unsent;
	call->fetch_by = time_add(loop_now(call->pipe.loop),
				  call->conn->server->config.stall_timeout);
	grpc_conn_wake(call->conn, call->fetch_by);
}

static void finish(struct grpc_call *call, const char *http_status, enum rpc_code code,
		   const char *text, struct bytes details)
{
	int r;

	if (call->finished)
		return;
	call->finished = true;
	call->code = code;
	call->receive_by = NSEC_NEVER;
	grpc_pipe_close_input(&call->pipe);
	r = text ? grpc_percent_encode(cut_text(text), &call->text) : 0;
	if (r == 0 && details.n && details.n <= GRPC_DETAILS_MAX)
		r = grpc_base64_encode(details, &call->details);
	if (r == 0 && call->headers_sent)
		grpc_pipe_end_output(&call->pipe);
	else if (r == 0)
		r = submit_trailers_only(call, http_status);
	if (r < 0)
		reset(call, NGHTTP2_INTERNAL_ERROR);
	else if (call->pipe.unsent)
		watch_output(call);
	h2_kick(&call->conn->h2);
}

/* The peer broke a rule: the handler learns it at once, the peer with the answer. */
static void break_off(struct grpc_call *call, enum rpc_code code, const char *text)
{
	finish(call, "200", code, text, no_bytes);
	grpc_call_tell(call, GRPC_END_BROKEN);
}

void grpc_call_finish(struct grpc_call *call, enum rpc_code code, const char *text,
		      struct bytes details)
{
	finish(call, "200", code, text, details);
}

void grpc_call_reply(struct grpc_call *call, struct bytes msg)
{
	int r = grpc_call_send(call, msg);

	if (r == 0)
		finish(call, "200", RPC_OK, NULL, no_bytes);
	else if (r == -EMSGSIZE)
		finish(call, "200", RPC_RESOURCE_EXHAUSTED, "the answer is too large", no_bytes);
	else
		finish(call, "200", RPC_RESOURCE_EXHAUSTED, "no memory for the answer", no_bytes);
}

void grpc_call_fail(struct grpc_call *call, const struct error *err)
{
	finish(call, "200", error_rpc_code(err), error_text(err), no_bytes);
}

int grpc_call_send(struct grpc_call *call, struct bytes msg)
{
	int r;

	if (call->finished)
		return -EPIPE;
	r = grpc_pipe_send(&call->pipe, msg);
	if (r == 0 && !call->headers_sent && submit_headers(call) < 0) {
		reset(call, NGHTTP2_INTERNAL_ERROR);
		return -ENOMEM;
	}
	return r;
}

/* The request's messages ---------------------------------------------------------------------- */

static void got_message(struct grpc_pipe *p, struct bytes msg)
{
	struct grpc_call *call = call_of(p);

	if (call->method->kind == GRPC_BIDI) {
		call->receive_by = NSEC_NEVER;
		call->method->ops->message(call, msg);
		return;
	}
	if (call->has_request) {
		break_off(call, RPC_UNIMPLEMENTED, "more than one request message");
		return;
	}
	if (!grpc_budget_take(p->budget, msg.n)) {
		break_off(call, RPC_RESOURCE_EXHAUSTED, "too many requests of this size");
		return;
	}
	call->has_request = true;
	if (buf_append(&call->request, msg.p, msg.n) == 0)
		return;
	grpc_budget_give(p->budget, msg.n);
	break_off(call, RPC_RESOURCE_EXHAUSTED, "no memory for the request");
}

static void free_request(struct grpc_call *call)
{
	grpc_budget_give(call->pipe.budget, buf_len(&call->request));
	buf_done(&call->request);
}

static void got_end(struct grpc_pipe *p)
{
	struct grpc_call *call = call_of(p);

	call->receive_by = NSEC_NEVER;
	if (call->method->kind == GRPC_BIDI) {
		if (call->method->ops->half_closed)
			call->method->ops->half_closed(call);
		return;
	}
	if (!call->has_request) {
		break_off(call, RPC_UNIMPLEMENTED, "no request message");
		return;
	}
	call->method->ops->message(call, buf_bytes(&call->request));
	free_request(call);
}

static void got_broken(struct grpc_pipe *p, enum rpc_code code, const char *text)
{
	break_off(call_of(p), code, text);
}

static void got_drained(struct grpc_pipe *p)
{
	struct grpc_call *call = call_of(p);

	if (!call->finished && call->method->ops->drained)
		call->method->ops->drained(call);
}

static const struct grpc_pipe_ops pipe_ops = {
	.message = got_message,
	.input_end = got_end,
	.broken = got_broken,
	.output_end = submit_trailers,
	.drained = got_drained,
};

/* Starts the clock for a message that has begun to come. */
static void watch_input(struct grpc_call *call)
{
	if (call->receive_by != NSEC_NEVER || !grpc_pipe_partial(&call->pipe))
		return;
	call->receive_by = time_add(loop_now(call->pipe.loop),
				    call->conn->server->config.receive_timeout);
	grpc_conn_wake(call->conn, call->receive_by);
}

void grpc_call_data_in(struct grpc_call *call, struct bytes b)
{
	grpc_pipe_input(&call->pipe, b);
	if (!call->finished && !call->pipe.paused)
		watch_input(call);
}

void grpc_call_data_end(struct grpc_call *call)
{
	grpc_pipe_input_end(&call->pipe);
}

void grpc_call_pause(struct grpc_call *call, bool pause)
{
	if (call->finished || call->pipe.paused == pause)
		return;
	grpc_pipe_pause(&call->pipe, pause);
	/* The peer cannot go on meanwhile, so its time stands still. */
	call->receive_by = NSEC_NEVER;
	if (!pause)
		watch_input(call);
}

/* The request's header ------------------------------------------------------------------------ */

static int keep_field(struct grpc_call *call, struct bytes name, struct bytes value)
{
	int r = buf_append(&call->meta, name.p, name.n);

	if (r == 0)
		r = buf_append_u8(&call->meta, 0);
	if (r == 0)
		r = buf_append(&call->meta, value.p, value.n);
	if (r == 0)
		r = buf_append_u8(&call->meta, 0);
	return r;
}

void grpc_call_header(struct grpc_call *call, struct bytes name, struct bytes value)
{
	nsec_t timeout;

	call->headers_size += name.n + value.n + FIELD_OVERHEAD;
	if (call->headers_size > call->conn->server->config.max_headers)
		call->seen |= TOO_LARGE;
	if (call->header_done || call->seen & TOO_LARGE)
		return; /* trailers of a request mean nothing in gRPC */
	if (bytes_is(name, ":method")) {
		call->seen |= bytes_is(value, "POST") ? SEEN_POST : 0U;
	} else if (bytes_is(name, "content-type")) {
		call->seen |= grpc_content_type_ok(value) ? SEEN_CONTENT_TYPE : 0U;
	} else if (bytes_is(name, "te")) {
		call->seen |= bytes_is(value, "trailers") ? SEEN_TRAILERS : 0U;
	} else if (bytes_is(name, "grpc-encoding")) {
		call->seen |= bytes_is(value, "identity") ? 0U : BAD_ENCODING;
	} else if (bytes_is(name, "grpc-timeout")) {
		if (grpc_timeout_parse(value, &timeout) < 0)
			call->seen |= BAD_TIMEOUT;
		else
			call->deadline = time_add(loop_now(call->pipe.loop), timeout);
	} else if (bytes_is(name, "grpc-accept-encoding") || bytes_is(name, ":scheme") ||
		   bytes_is(name, ":authority")) {
		return;
	} else if (keep_field(call, name, value) < 0) {
		call->seen |= NO_MEMORY;
	}
}

static const struct grpc_method *find_method(const struct grpc_server *s, const char *path)
{
	for (size_t i = 0; path && i < s->n_methods; i++)
		if (strcmp(s->methods[i].path, path) == 0)
			return &s->methods[i];
	return NULL;
}

/* Answers a request that no method can take. True: it was one. */
static bool refuse(struct grpc_call *call, const struct grpc_method *method)
{
	uint32_t seen = call->seen;
	char text[256];

	/* An HTTP client that knows no gRPC must not take the answer for a success. */
	if (!(seen & TOO_LARGE) && !(seen & SEEN_POST))
		finish(call, "405", RPC_INTERNAL, "gRPC requests are POST", no_bytes);
	else if (!(seen & TOO_LARGE) && !(seen & SEEN_CONTENT_TYPE))
		finish(call, "415", RPC_INTERNAL, "content-type is not application/grpc", no_bytes);
	else if (!(seen & TOO_LARGE) && !(seen & SEEN_TRAILERS))
		finish(call, "400", RPC_INTERNAL, "te is not trailers", no_bytes);
	else if (seen & TOO_LARGE)
		finish(call, "200", RPC_RESOURCE_EXHAUSTED, "the request's header is too large",
		       no_bytes);
	else if (seen & NO_MEMORY)
		finish(call, "200", RPC_RESOURCE_EXHAUSTED, "out of memory", no_bytes);
	else if (seen & BAD_TIMEOUT)
		finish(call, "200", RPC_INTERNAL, "grpc-timeout is malformed", no_bytes);
	else if (seen & BAD_ENCODING)
		finish(call, "200", RPC_UNIMPLEMENTED, "grpc-encoding is not supported", no_bytes);
	else if (!method) {
		(void)snprintf(text, sizeof(text), "%.200s is not served here",
			       grpc_call_metadata(call, ":path"));
		finish(call, "200", RPC_UNIMPLEMENTED, text, no_bytes);
	}
	return call->finished;
}

static void start(struct grpc_call *call, const struct grpc_method *method)
{
	struct grpc_conn *conn = call->conn;

	call->method = method;
	if (conn->phase == CONN_NEW)
		conn->phase = CONN_OPEN;
	conn->server->stats.requests++;
	if (method->kind == GRPC_BIDI)
		call->receive_by = NSEC_NEVER;
	grpc_conn_wake(conn, call->deadline);
	if (method->ops->started)
		method->ops->started(call);
}

void grpc_call_headers_end(struct grpc_call *call, bool last)
{
	if (!call->header_done) {
		const struct grpc_method *method =
			find_method(call->conn->server, grpc_call_metadata(call, ":path"));

		call->header_done = true;
		if (grpc_budget_take(call->pipe.budget, buf_len(&call->meta)))
			call->meta_charged = buf_len(&call->meta);
		else
			call->seen |= NO_MEMORY;
		if (!refuse(call, method))
			start(call, method);
	}
	if (last)
		grpc_call_data_end(call);
}

/* Life ---------------------------------------------------------------------------------------- */

struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t id)
{
	const struct grpc_server_config *config = &conn->server->config;
	struct grpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	grpc_pipe_init(&call->pipe, conn->server->loop, &conn->budget, &pipe_ops);
	grpc_pipe_attach(&call->pipe, &conn->h2, id);
	call->pipe.in = GRPC_READER(config->max_message);
	call->pipe.max_send = config->max_send;
	call->pipe.max_unsent = config->max_unsent;
	call->request.max = config->max_message;
	call->conn = conn;
	call->deadline = call->fetch_by = NSEC_NEVER;
	call->receive_by = time_add(loop_now(conn->server->loop), config->receive_timeout);
	grpc_conn_wake(conn, call->receive_by);
	list_append(&conn->calls, &call->node);
	conn->n_calls++;
	conn->server->stats.calls++;
	return call;
}

void grpc_call_free(struct grpc_call *call)
{
	free_request(call);
	grpc_budget_give(call->pipe.budget, call->meta_charged);
	grpc_pipe_done(&call->pipe);
	list_remove(&call->node);
	call->conn->n_calls--;
	call->conn->server->stats.calls--;
	buf_done(&call->meta);
	buf_done(&call->text);
	buf_done(&call->details);
	free(call);
}

void grpc_call_stream_closed(struct grpc_call *call)
{
	if (call->sent_end)
		h2_credit(&call->conn->h2);
	grpc_call_tell(call, call->sent_end ? GRPC_END_DONE : GRPC_END_CANCELED);
	grpc_call_free(call);
}

nsec_t grpc_call_check(struct grpc_call *call, nsec_t now)
{
	nsec_t next;

	if (call->deadline <= now) {
		call->deadline = call->fetch_by = NSEC_NEVER;
		reset(call, NGHTTP2_CANCEL);
		grpc_call_tell(call, GRPC_END_DEADLINE);
	} else if (call->receive_by <= now && !call->header_done) {
		/* Until its header is whole, the connection is good for nothing else. */
		call->receive_by = NSEC_NEVER;
		h2_fail(&call->conn->h2, NGHTTP2_NO_ERROR, "half a header");
	} else if (call->receive_by <= now) {
		call->receive_by = NSEC_NEVER;
		break_off(call, RPC_DEADLINE_EXCEEDED, "the request was not complete in time");
	} else if (call->fetch_by <= now && call->pipe.unsent < call->fetch_left) {
		watch_output(call);
	} else if (call->fetch_by <= now) {
		call->fetch_by = NSEC_NEVER;
		reset(call, NGHTTP2_CANCEL);
		grpc_call_tell(call, GRPC_END_BROKEN);
	}
	next = call->deadline < call->receive_by ? call->deadline : call->receive_by;
	return next < call->fetch_by ? next : call->fetch_by;
}

void *grpc_call_arg(const struct grpc_call *call)
{
	return call->conn->server->arg;
}

void *grpc_call_data(const struct grpc_call *call)
{
	return call->data;
}

void grpc_call_set_data(struct grpc_call *call, void *data)
{
	call->data = data;
}

const struct grpc_method *grpc_call_method(const struct grpc_call *call)
{
	return call->method;
}

const struct ucred *grpc_call_peer(const struct grpc_call *call)
{
	return &call->conn->peer;
}

nsec_t grpc_call_deadline(const struct grpc_call *call)
{
	return call->deadline;
}

size_t grpc_call_unsent(const struct grpc_call *call)
{
	return call->pipe.unsent;
}

const char *grpc_call_metadata(const struct grpc_call *call, const char *name)
{
	struct bytes rest = buf_bytes(&call->meta), n, v;

	while (bytes_until(&rest, 0, &n) == 0 && bytes_until(&rest, 0, &v) == 0)
		if (bytes_is(n, name))
			return (const char *)v.p;
	return NULL;
}
