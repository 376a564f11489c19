/* SPDX-License-Identifier: Apache-2.0 */
#include "event/conn.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_STEP ((size_t)16 << 10)
#define READS_A_ROUND 8 /* then other sources get their turn */

static void deliver_end(struct job *job)
{
	struct conn *c = container_of(job, struct conn, end);

	c->ops->closed(c, c->end_code);
}

static void end(struct conn *c, int r)
{
	if (c->ended)
		return;
	c->ended = true;
	c->end_code = r;
	source_want(&c->src, 0);
	job_put_off(c->src.loop, &c->end, deliver_end);
}

static void want(struct conn *c, uint32_t bit, bool on)
{
	if (!c->ended)
		source_want(&c->src, on ? c->src.want | bit : c->src.want & ~bit);
}

static void flush(struct conn *c)
{
	bool had = buf_len(&c->out) > 0;

	while (buf_len(&c->out)) {
		struct bytes b = buf_bytes(&c->out);
		ssize_t n = send(c->src.fd, b.p, b.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN)) {
			want(c, EPOLLOUT, true);
			return;
		}
		if (n < 0) {
			end(c, -errno);
			return;
		}
		buf_consume(&c->out, (size_t)n);
	}
	want(c, EPOLLOUT, false);
	if (had) {
		buf_done(&c->out); /* an idle connection holds no memory */
		if (c->ops->drained)
			c->ops->drained(c);
	}
}

static void receive(struct conn *c)
{
	for (int i = 0; i < READS_A_ROUND && !c->ended; i++) {
		uint8_t *to = buf_reserve(&c->in, READ_STEP);
		ssize_t n;
		int r;

		if (!to) {
			end(c, -errno);
			return;
		}
		n = recv(c->src.fd, to, READ_STEP, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN))
			break;
		if (n <= 0) {
			end(c, n < 0 ? -errno : 0);
			return;
		}
		buf_commit(&c->in, (size_t)n);
		r = c->ops->input(c, &c->in);
		if (!c->src.loop)
			return; /* the callback closed us */
		if (r < 0) {
			end(c, r);
			return;
		}
		if (!(c->src.want & EPOLLIN) || (size_t)n < READ_STEP)
			break;
	}
	if (buf_len(&c->in) == 0)
		buf_done(&c->in);
}

static void ready(struct source *src, uint32_t events)
{
	struct conn *c = container_of(src, struct conn, src);

	if (c->ended) {
		/* Only a hang-up can still be reported; there is nothing to wait for any more. */
		source_want(src, 0);
		return;
	}
	if (events & EPOLLOUT)
		flush(c);
	if (src->loop && !c->ended && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		receive(c);
}

int conn_open(struct conn *c, struct loop *loop, int fd, size_t in_max, size_t out_max,
	      const struct conn_ops *ops)
{
	int r;

	*c = (struct conn){ .ops = ops, .out = { .max = out_max } };
	c->in.max = in_max + READ_STEP; /* so that a message of in_max bytes can always be read */
	r = source_add(loop, &c->src, fd, EPOLLIN, ready);
	if (r < 0)
		(void)close(fd);
	return r;
}

int conn_write(struct conn *c, const void *p, size_t n)
{
	int r;

	if (!c->src.loop || c->ended)
		return -EPIPE;
	r = buf_append(&c->out, p, n);
	if (r < 0) {
		end(c, r);
		return r;
	}
	if (!(c->src.want & EPOLLOUT))
		flush(c);
	return c->ended ? -EPIPE : 0;
}

size_t conn_pending(const struct conn *c)
{
	return buf_len(&c->out);
}

void conn_pause_input(struct conn *c, bool pause)
{
	if (c->src.loop)
		want(c, EPOLLIN, !pause);
}

void conn_close(struct conn *c)
{
	if (!c->src.loop)
		return;
	job_cancel(&c->end);
	source_remove(&c->src);
	(void)close(c->src.fd);
	buf_done(&c->in);
	buf_done(&c->out);
}
