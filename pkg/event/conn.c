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
	job_cancel(&c->offer);
	source_want(&c->src, 0);
	job_put_off(c->src.loop, &c->end, deliver_end);
}

static void update_want(struct conn *c)
{
	uint32_t want = 0;

	if (c->ended)
		return;
	if (!c->paused)
		want |= EPOLLIN;
	/* Once deaf, this round trip makes sure that receive() is called and finds the end. */
	if (c->blocked || c->tell || (c->deaf && !c->paused))
		want |= EPOLLOUT;
	/* A hang-up is reported whether wanted or not: once is enough. */
	if (c->paused && c->hung_up)
		want = EPOLLONESHOT;
	source_want(&c->src, want);
}

/* The peer takes nothing more. What it said before it left is still to be read. */
static void go_deaf(struct conn *c)
{
	c->deaf = true;
	c->blocked = c->tell = false;
	buf_done(&c->out);
}

static void flush(struct conn *c)
{
	c->blocked = false;
	while (buf_len(&c->out)) {
		struct bytes b = buf_bytes(&c->out);
		ssize_t n = send(c->src.fd, b.p, b.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->blocked = true;
			return;
		}
		if (n < 0) {
			go_deaf(c);
			return;
		}
		buf_consume(&c->out, (size_t)n);
	}
	buf_done(&c->out); /* an idle connection holds no memory */
}

/* Hands the input to the owner. False: the connection is closed or has ended. */
static bool offer(struct conn *c)
{
	int r = c->ops->input(c, &c->in);

	if (!c->src.loop)
		return false; /* the callback closed us */
	if (r < 0)
		end(c, r);
	return !c->ended;
}

static void receive(struct conn *c)
{
	for (int i = 0; i < READS_A_ROUND && !c->paused; i++) {
		uint8_t *to = buf_reserve(&c->in, READ_STEP);
		ssize_t n;

		if (!to) {
			end(c, -errno);
			return;
		}
		n = recv(c->src.fd, to, READ_STEP, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (c->deaf)
				end(c, -EPIPE);
			break;
		}
		if (n <= 0) {
			end(c, n < 0 ? -errno : 0);
			return;
		}
		buf_commit(&c->in, (size_t)n);
		if (!offer(c))
			return;
		if ((size_t)n < READ_STEP)
			break;
	}
	if (buf_len(&c->in) == 0)
		buf_done(&c->in);
}

static void offer_again(struct job *job)
{
	struct conn *c = container_of(job, struct conn, offer);

	if (!c->paused && !c->ended && buf_len(&c->in))
		(void)offer(c);
}

static void ready(struct source *src, uint32_t events)
{
	struct conn *c = container_of(src, struct conn, src);

	if (c->ended) {
		/* Only a hang-up can still be reported; there is nothing to wait for any more. */
		source_want(src, 0);
		return;
	}
	if (events & EPOLLOUT && c->blocked)
		flush(c);
	if (c->tell && !c->blocked) {
		c->tell = false;
		c->ops->drained(c);
		if (!src->loop || c->ended)
			return;
	}
	if (c->paused && events & (EPOLLHUP | EPOLLERR)) {
		c->hung_up = true;
		go_deaf(c);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) || c->deaf)
		receive(c);
	if (src->loop)
		update_want(c);
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

	if (!c->src.loop || c->ended || c->deaf)
		return -EPIPE;
	r = buf_append(&c->out, p, n);
	if (r < 0) {
		end(c, r);
		return r;
	}
	c->tell = c->ops->drained != NULL;
	if (!c->blocked)
		flush(c);
	update_want(c);
	return c->deaf ? -EPIPE : 0;
}

size_t conn_pending(const struct conn *c)
{
	return buf_len(&c->out);
}

void conn_pause_input(struct conn *c, bool pause)
{
	if (!c->src.loop || c->ended || c->paused == pause)
		return;
	c->paused = pause;
	update_want(c);
	if (!pause)
		job_put_off(c->src.loop, &c->offer, offer_again);
}

void conn_close(struct conn *c)
{
	if (!c->src.loop)
		return;
	job_cancel(&c->end);
	job_cancel(&c->offer);
	source_remove(&c->src);
	(void)close(c->src.fd);
	buf_done(&c->in);
	buf_done(&c->out);
}
