/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the client: from the request's header fields to the server's trailers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "rpc/grpc_client_impl.h"
#include "wire/grpc_header.h"

#define FIELDS_MAX     32 /* of the caller's */
#define OWN_FIELDS     8
#define FIELD_OVERHEAD 32 /* as HTTP/2 counts: RFC 9113, 6.5.2 */

static const struct bytes no_bytes;

static struct grpc_stream *stream_of(struct grpc_pipe *p)
{
	return container_of(p, struct grpc_stream, pipe);
}

/* The end ------------------------------------------------------------------------------------- */

void grpc_stream_free(struct grpc_stream *stream)
{
	grpc_pipe_done(&stream->pipe);
	job_cancel(&stream->free_job);
	timer_cancel(&stream->timer);
	list_remove(&stream->node);
	buf_done(&stream->fields);
	buf_done(&stream->text);
	buf_done(&stream->details);
	buf_done(&stream->reply);
	free(stream);
}

static void free_later(struct job *job)
{
	grpc_stream_free(container_of(job, struct grpc_stream, free_job));
}

/* Takes the stream off its connection; whatever is still under way there is reset. */
static void leave_link(struct grpc_stream *stream)
{
	struct grpc_link *link = stream->link;
	struct grpc_pipe *p = &stream->pipe;

	list_remove(&stream->node);
	list_append(&stream->client->others, &stream->node);
	stream->link = NULL;
	if (!link)
		return;
	if (p->h2) {
		/* When both sides have ended it closes by itself. */
		if (!p->in_end || !stream->sent_end)
			(void)nghttp2_submit_rst_stream(p->h2->session, NGHTTP2_FLAG_NONE, p->id,
							p->in_end ? NGHTTP2_NO_ERROR
								  : NGHTTP2_CANCEL);
		h2_set_stream(p->h2, p->id, NULL);
		h2_kick(p->h2);
	}
	grpc_pipe_detach(p);
	if (list_empty(&link->streams))
		grpc_link_idle(link);
}

/* From here on nothing calls back. The memory stays until nobody can be on the call stack. */
static void give_up(struct grpc_stream *stream)
{
	stream->over = true;
	timer_cancel(&stream->timer);
	stream->pipe.out_end = true;
	grpc_pipe_close_input(&stream->pipe);
	leave_link(stream);
	job_put_off(stream->client->loop, &stream->free_job, free_later);
}

static void end(struct grpc_stream *stream, enum rpc_code code, const char *text,
		struct bytes details)
{
	struct grpc_status status = { code, text ? text : "", details };

	if (stream->over)
		return;
	/* A server's clock may be faster than ours: it is the deadline all the same. */
	if (code == RPC_CANCELED && stream->deadline <= time_now())
		status = (struct grpc_status){ RPC_DEADLINE_EXCEEDED, "the deadline has passed",
					       no_bytes };
	give_up(stream);
	if (!stream->done) {
		stream->ops->ended(stream, stream->arg, &status);
		return;
	}
	if (status.code == RPC_OK && stream->n_replies != 1)
		status = (struct grpc_status){ RPC_UNIMPLEMENTED,
					       stream->n_replies ? "more than one answer"
								 : "no answer",
					       no_bytes };
	if (status.code != RPC_OK)
		buf_done(&stream->reply);
	stream->done(stream->arg, &status, buf_bytes(&stream->reply));
}

void grpc_stream_lost(struct grpc_stream *stream, const char *why)
{
	grpc_pipe_detach(&stream->pipe);
	if (stream->pipe.in_end && stream->pipe.paused) {
		leave_link(stream); /* all has come; it is handed out after the pause */
		return;
	}
	end(stream, RPC_UNAVAILABLE, why, no_bytes);
}

void grpc_stream_closed(struct grpc_stream *stream, uint32_t error)
{
	char text[GRPC_TEXT_MAX];

	grpc_pipe_detach(&stream->pipe);
	if (stream->pipe.in_end) {
		leave_link(stream);
		return;
	}
	(void)snprintf(text, sizeof(text), "the server reset the stream: %s",
		       nghttp2_http2_strerror(error));
	end(stream, grpc_code_of_h2_error(error), text, no_bytes);
}

static void expired(struct timer *t)
{
	end(container_of(t, struct grpc_stream, timer), RPC_DEADLINE_EXCEEDED,
	    "the deadline has passed", no_bytes);
}

/* The server's answer ------------------------------------------------------------------------- */

/* The value of one of the answer's fields, decoded; what does not decode is left out. */
static void keep_value(struct buf *to, struct bytes value,
		       int (*decode)(struct bytes text, struct buf *out))
{
	buf_clear(to);
	if (decode(value, to) < 0)
		buf_clear(to);
}

void grpc_stream_header(struct grpc_stream *stream, struct bytes name, struct bytes value)
{
	uint64_t number;

	stream->headers_size += name.n + value.n + FIELD_OVERHEAD;
	if (stream->headers_size > stream->client->config.max_headers) {
		stream->too_large = true;
	} else if (bytes_is(name, ":status")) {
		if (num_parse_n((const char *)value.p, value.n, 999, &number) == 0)
			stream->http_status = (unsigned int)number;
	} else if (bytes_is(name, "content-type")) {
		stream->is_grpc = grpc_content_type_ok(value);
	} else if (bytes_is(name, "grpc-status")) {
		stream->has_status = true;
		stream->code = grpc_status_parse(value);
	} else if (bytes_is(name, "grpc-message")) {
		keep_value(&stream->text, value, grpc_percent_decode);
	} else if (bytes_is(name, "grpc-status-details-bin")) {
		keep_value(&stream->details, value, grpc_base64_decode);
	}
}

/* What the answer says when it is no gRPC. */
static void end_as_http(struct grpc_stream *stream)
{
	char text[GRPC_TEXT_MAX];

	(void)snprintf(text, sizeof(text), "the answer is not gRPC (HTTP status %u)",
		       stream->http_status);
	end(stream, grpc_code_of_http_status(stream->http_status), text, no_bytes);
}

void grpc_stream_headers_end(struct grpc_stream *stream, bool last)
{
	stream->headers_size = 0;
	if (stream->too_large) {
		end(stream, RPC_RESOURCE_EXHAUSTED, "the answer's header is too large", no_bytes);
		return;
	}
	if (stream->http_status / 100 == 1 && !last)
		return; /* informational; the header proper follows */
	if (!stream->header_done) {
		stream->header_done = true;
		if ((stream->http_status != 200 || !stream->is_grpc) && !stream->has_status) {
			stream->pipe.in_end = last;
			end_as_http(stream);
			return;
		}
	}
	if (last)
		grpc_pipe_input_end(&stream->pipe);
}

void grpc_stream_data_in(struct grpc_stream *stream, struct bytes b)
{
	grpc_pipe_input(&stream->pipe, b);
}

static void got_message(struct grpc_pipe *p, struct bytes msg)
{
	struct grpc_stream *stream = stream_of(p);

	if (!stream->done) {
		stream->ops->message(stream, stream->arg, msg);
		return;
	}
	if (stream->n_replies++ == 0 && buf_append(&stream->reply, msg.p, msg.n) < 0)
		end(stream, RPC_RESOURCE_EXHAUSTED, "no memory for the answer", no_bytes);
}

static void got_end(struct grpc_pipe *p)
{
	struct grpc_stream *stream = stream_of(p);

	if (stream->has_status)
		end(stream, stream->code, buf_str(&stream->text), buf_bytes(&stream->details));
	else
		end_as_http(stream);
}

static void got_broken(struct grpc_pipe *p, enum rpc_code code, const char *text)
{
	end(stream_of(p), code, text, no_bytes);
}

static void got_drained(struct grpc_pipe *p)
{
	struct grpc_stream *stream = stream_of(p);

	if (!stream->over && stream->ops && stream->ops->drained)
		stream->ops->drained(stream, stream->arg);
}

static const struct grpc_pipe_ops pipe_ops = {
	.message = got_message,
	.input_end = got_end,
	.broken = got_broken,
	.drained = got_drained,
};

/* The request --------------------------------------------------------------------------------- */

void grpc_stream_submit(struct grpc_stream *stream, struct grpc_link *link)
{
	const struct grpc_client *c = stream->client;
	nghttp2_data_provider provider = grpc_pipe_provider();
	struct bytes rest = buf_bytes(&stream->fields), name, value;
	nghttp2_nv nv[OWN_FIELDS + FIELDS_MAX];
	char timeout[GRPC_TIMEOUT_MAX];
	nsec_t now = time_now();
	size_t n = 0;
	int32_t id;

	nv[n++] = h2_field(":method", "POST");
	nv[n++] = h2_field(":scheme", "http");
	nv[n++] = h2_field(":authority", c->authority);
	nv[n++] = h2_field(":path", "");
	if (stream->deadline != NSEC_NEVER) {
		grpc_timeout_format(stream->deadline > now ? stream->deadline - now : 1, timeout);
		nv[n++] = h2_field("grpc-timeout", timeout);
	}
	nv[n++] = h2_field("te", "trailers");
	nv[n++] = h2_field("content-type", "application/grpc");
	nv[n++] = h2_field("user-agent", c->user_agent);
	while (bytes_until(&rest, 0, &name) == 0 && bytes_until(&rest, 0, &value) == 0) {
		if (bytes_is(name, ":path"))
			nv[3] = h2_field(":path", (const char *)value.p);
		else
			nv[n++] = h2_field((const char *)name.p, (const char *)value.p);
	}
	id = nghttp2_submit_request(link->h2.session, NULL, nv, n, &provider, &stream->pipe);
	list_remove(&stream->node);
	list_append(&link->streams, &stream->node);
	stream->link = link;
	buf_done(&stream->fields);
	if (id < 0) {
		/* Out of memory, or after 2^30 streams: the next one gets a new connection. */
		stream->client->current = NULL;
		end(stream, RPC_UNAVAILABLE, nghttp2_strerror(id), no_bytes);
		return;
	}
	if (link->h2.established)
		timer_cancel(&link->timer);
	grpc_pipe_attach(&stream->pipe, &link->h2, id);
	h2_kick(&link->h2);
}

static int add_field(struct buf *fields, const char *name, struct bytes value)
{
	int r = buf_append(fields, name, strlen(name) + 1);

	if (r == 0 && grpc_metadata_is_bin(bytes_of(name, strlen(name))))
		r = grpc_base64_encode(value, fields);
	else if (r == 0)
		r = buf_append(fields, value.p, value.n);
	return r == 0 ? buf_append_u8(fields, 0) : r;
}

static int add_fields(struct buf *out, const char *method, const struct grpc_field *fields,
		      size_t n_fields)
{
	struct bytes path = bytes_of(method, strlen(method));
	int r;

	if (method[0] != '/' || !grpc_metadata_value_ok(path) || n_fields > FIELDS_MAX)
		return -EINVAL;
	r = add_field(out, ":path", path);
	for (size_t i = 0; r == 0 && i < n_fields; i++) {
		struct bytes name = bytes_of(fields[i].name, strlen(fields[i].name));

		if (!grpc_metadata_name_ok(fields[i].name) ||
		    !(grpc_metadata_is_bin(name) || grpc_metadata_value_ok(fields[i].value)))
			return -EINVAL;
		r = add_field(out, fields[i].name, fields[i].value);
	}
	return r;
}

int grpc_stream_open(struct grpc_client *c, const char *method, const struct grpc_field *fields,
		     size_t n_fields, nsec_t deadline, const struct grpc_stream_ops *ops, void *arg,
		     struct grpc_stream **ret)
{
	struct grpc_stream *stream = calloc(1, sizeof(*stream));
	int r;

	if (!stream)
		return -ENOMEM;
	r = add_fields(&stream->fields, method, fields, n_fields);
	if (r < 0) {
		buf_done(&stream->fields);
		free(stream);
		return r;
	}
	grpc_pipe_init(&stream->pipe, c->loop, &c->budget, &pipe_ops);
	stream->pipe.in = GRPC_READER(c->config.max_message);
	stream->pipe.max_send = c->config.max_send;
	stream->pipe.max_unsent = c->config.max_unsent;
	stream->reply.max = c->config.max_message;
	stream->client = c;
	stream->ops = ops;
	stream->arg = arg;
	stream->deadline = deadline;
	list_append(&c->waiting, &stream->node);
	if (deadline != NSEC_NEVER)
		timer_set(c->loop, &stream->timer, deadline, expired);
	grpc_client_start(c);
	*ret = stream;
	return 0;
}

int grpc_stream_send(struct grpc_stream *stream, struct bytes msg)
{
	return grpc_pipe_send(&stream->pipe, msg);
}

size_t grpc_stream_unsent(const struct grpc_stream *stream)
{
	return stream->pipe.unsent;
}

void grpc_stream_half_close(struct grpc_stream *stream)
{
	grpc_pipe_end_output(&stream->pipe);
}

void grpc_stream_pause(struct grpc_stream *stream, bool pause)
{
	grpc_pipe_pause(&stream->pipe, pause);
}

void grpc_stream_cancel(struct grpc_stream *stream)
{
	if (!stream->over)
		give_up(stream);
}

int grpc_unary(struct grpc_client *c, const char *method, const struct grpc_field *fields,
	       size_t n_fields, struct bytes request, nsec_t deadline,
	       void (*done)(void *arg, const struct grpc_status *status, struct bytes reply),
	       void *arg, struct grpc_stream **ret)
{
	struct grpc_stream *stream;
	int r = grpc_stream_open(c, method, fields, n_fields, deadline, NULL, arg, &stream);

	if (r < 0)
		return r;
	stream->done = done;
	r = grpc_pipe_send(&stream->pipe, request);
	if (r < 0) {
		grpc_stream_cancel(stream);
		return r == -ENOBUFS ? -ENOMEM : r;
	}
	grpc_pipe_end_output(&stream->pipe);
	if (ret)
		*ret = stream;
	return 0;
}
