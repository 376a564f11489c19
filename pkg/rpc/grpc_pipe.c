/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/grpc_pipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A queued message, framed. */
struct chunk {
	struct list node;
	size_t n, sent;
	uint8_t bytes[];
};

bool grpc_budget_take(struct grpc_budget *b, size_t n)
{
	if (!b)
		return true;
	if (n > b->max - b->used || !grpc_budget_take(b->up, n))
		return false;
	b->used += n;
	return true;
}

void grpc_budget_give(struct grpc_budget *b, size_t n)
{
	for (; b; b = b->up)
		b->used -= n;
}

void grpc_pipe_init(struct grpc_pipe *p, struct loop *loop, struct grpc_budget *budget,
		    const struct grpc_pipe_ops *ops)
{
	*p = (struct grpc_pipe){ .ops = ops, .loop = loop, .budget = budget };
	list_init(&p->out);
}

void grpc_pipe_attach(struct grpc_pipe *p, struct h2 *h2, int32_t id)
{
	p->h2 = h2;
	p->id = id;
}

void grpc_pipe_detach(struct grpc_pipe *p)
{
	p->h2 = NULL;
}

static void free_chunk(struct grpc_pipe *p, struct chunk *c)
{
	list_remove(&c->node);
	p->unsent -= c->n - c->sent;
	grpc_budget_give(p->budget, sizeof(*c) + c->n);
	free(c);
}

void grpc_pipe_done(struct grpc_pipe *p)
{
	struct chunk *c;

	while ((c = list_first(&p->out, struct chunk, node)))
		free_chunk(p, c);
	grpc_pipe_close_input(p);
	job_cancel(&p->work);
	p->h2 = NULL;
}

/* Output ---------------------------------------------------------------------------------- */

static void resume_output(struct grpc_pipe *p)
{
	if (!p->h2)
		return;
	if (p->deferred) {
		p->deferred = false;
		(void)nghttp2_session_resume_data(p->h2->session, p->id);
	}
	h2_kick(p->h2);
}

int grpc_pipe_send(struct grpc_pipe *p, struct bytes msg)
{
	struct chunk *c;
	size_t n = GRPC_FRAME_HEAD + msg.n;

	if (p->out_end)
		return -EPIPE;
	if (msg.n > p->max_send || msg.n > UINT32_MAX)
		return -EMSGSIZE;
	if (p->unsent && (p->unsent > p->max_unsent || n > p->max_unsent - p->unsent))
		return -ENOBUFS;
	if (!grpc_budget_take(p->budget, sizeof(*c) + n))
		return -ENOBUFS;
	c = malloc(sizeof(*c) + n);
	if (!c) {
		grpc_budget_give(p->budget, sizeof(*c) + n);
		return -ENOMEM;
	}
	c->n = n;
	c->sent = 0;
	grpc_frame_head(c->bytes, (uint32_t)msg.n);
	if (msg.n)
		memcpy(c->bytes + GRPC_FRAME_HEAD, msg.p, msg.n);
	list_append(&p->out, &c->node);
	p->unsent += n;
	resume_output(p);
	return 0;
}

void grpc_pipe_end_output(struct grpc_pipe *p)
{
	if (p->out_end)
		return;
	p->out_end = true;
	resume_output(p);
}

static void work(struct job *job);

/* nghttp2 wants up to size bytes. */
static ssize_t read_output(nghttp2_session *session, int32_t id, uint8_t *to, size_t size,
			   uint32_t *flags, nghttp2_data_source *source, void *user)
{
	/* Not by source: the owner may have given the stream up. */
	struct grpc_pipe *p = nghttp2_session_get_stream_user_data(session, id);
	size_t n = 0;
	struct chunk *c;

	(void)source;
	(void)user;
	if (!p)
		return NGHTTP2_ERR_DEFERRED;
	while (n < size && (c = list_first(&p->out, struct chunk, node))) {
		size_t step = c->n - c->sent < size - n ? c->n - c->sent : size - n;

		memcpy(to + n, c->bytes + c->sent, step);
		n += step;
		c->sent += step;
		p->unsent -= step;
		if (c->sent == c->n)
			free_chunk(p, c);
	}
	if (!list_empty(&p->out))
		return (ssize_t)n;
	if (p->out_end) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (p->ops->output_end) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			if (p->ops->output_end(p) < 0)
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		}
		return (ssize_t)n;
	}
	if (n == 0) {
		p->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	p->tell_drained = true;
	job_put_off(p->loop, &p->work, work);
	return (ssize_t)n;
}

nghttp2_data_provider grpc_pipe_provider(void)
{
	return (nghttp2_data_provider){ .read_callback = read_output };
}

/* Input ----------------------------------------------------------------------------------- */

/* Books the memory that input holds. False: there is no more. */
static bool charge(struct grpc_pipe *p)
{
	size_t now = buf_len(&p->in.part) + buf_len(&p->held);

	if (now > p->charged && !grpc_budget_take(p->budget, now - p->charged))
		return false;
	if (now < p->charged)
		grpc_budget_give(p->budget, p->charged - now);
	p->charged = now;
	return true;
}

static void free_input(struct grpc_pipe *p)
{
	grpc_reader_done(&p->in);
	buf_done(&p->held);
	(void)charge(p);
}

void grpc_pipe_close_input(struct grpc_pipe *p)
{
	p->in_closed = true;
	if (!p->handing_out) /* else the receiver may still be reading its message */
		free_input(p);
}

static void broken(struct grpc_pipe *p, int e)
{
	static const struct {
		int e;
		enum rpc_code code;
		const char *text;
	} why[] = {
		{ -EMSGSIZE, RPC_RESOURCE_EXHAUSTED, "a message is larger than is allowed here" },
		{ -ENOTSUP, RPC_UNIMPLEMENTED, "compressed messages are not supported" },
		{ -EBADMSG, RPC_INTERNAL, "the stream of messages is malformed" },
		{ -ENOMEM, RPC_RESOURCE_EXHAUSTED, "out of memory" },
		{ -ENOBUFS, RPC_RESOURCE_EXHAUSTED, "too many unfinished messages" },
		{ -ENODATA, RPC_INTERNAL, "the last message is cut short" },
	};
	size_t i = 0;

	while (i + 1 < sizeof(why) / sizeof(why[0]) && why[i].e != e)
		i++;
	grpc_pipe_close_input(p);
	p->ops->broken(p, why[i].code, why[i].text);
}

static void give_window(struct grpc_pipe *p, size_t n)
{
	if (!p->h2 || n == 0)
		return;
	(void)nghttp2_session_consume_stream(p->h2->session, p->id, n);
	h2_kick(p->h2);
}

/* Everything was handed out: does the end follow? */
static void deliver_end(struct grpc_pipe *p)
{
	if (!p->in_end || p->in_closed || p->paused || buf_len(&p->held))
		return;
	if (grpc_reader_partial(&p->in)) {
		broken(p, -ENODATA);
		return;
	}
	p->in_closed = true;
	p->ops->input_end(p);
}

/* Hands out messages until b is empty, a pause, or the end. */
static int deliver(struct grpc_pipe *p, struct bytes *b)
{
	struct bytes msg;
	int r = 0;

	while (r == 0 && !p->paused && !p->in_closed) {
		r = grpc_reader_next(&p->in, b, &msg);
		if (r != 0)
			break;
		p->handing_out = true;
		p->ops->message(p, msg);
		p->handing_out = false;
	}
	if (p->in_closed)
		free_input(p);
	return r;
}

void grpc_pipe_input(struct grpc_pipe *p, struct bytes b)
{
	size_t n = b.n;
	int r = 0;

	if (p->h2)
		(void)nghttp2_session_consume_connection(p->h2->session, n);
	if (!buf_len(&p->held)) /* else it is not yet its turn */
		r = deliver(p, &b);
	if (p->in_closed)
		return;
	give_window(p, n - b.n);
	if (r >= 0 && b.n)
		r = buf_append(&p->held, b.p, b.n);
	if (r >= 0 && !charge(p))
		r = -ENOBUFS;
	if (r < 0)
		broken(p, r);
}

void grpc_pipe_input_end(struct grpc_pipe *p)
{
	p->in_end = true;
	deliver_end(p);
}

/* What came during a pause. */
static void deliver_held(struct grpc_pipe *p)
{
	struct bytes b = buf_bytes(&p->held);
	size_t n = b.n;
	int r = deliver(p, &b);

	if (p->in_closed)
		return;
	give_window(p, n - b.n);
	buf_consume(&p->held, n - b.n);
	if (buf_len(&p->held) == 0)
		buf_done(&p->held);
	if (r >= 0 && !charge(p))
		r = -ENOBUFS;
	if (r < 0)
		broken(p, r);
	else
		deliver_end(p);
}

static void work(struct job *job)
{
	struct grpc_pipe *p = container_of(job, struct grpc_pipe, work);
	bool tell = p->tell_drained;

	p->tell_drained = false;
	if (tell && list_empty(&p->out) && !p->out_end)
		p->ops->drained(p);
	if (!p->paused && !p->in_closed)
		deliver_held(p);
}

void grpc_pipe_pause(struct grpc_pipe *p, bool pause)
{
	if (p->paused == pause)
		return;
	p->paused = pause;
	if (!pause)
		job_put_off(p->loop, &p->work, work);
}
