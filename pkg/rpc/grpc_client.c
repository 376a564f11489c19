/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the client: made when needed, shared, given up when idle. */
#include "rpc/grpc_client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/grpc_client_impl.h"

#define CONNECT_AGAIN (10 * NSEC_PER_MSEC) /* when the server's backlog is full */
#define USER_AGENT    "grpc-c-kybernate/" KYB_VERSION

static struct grpc_link *link_of(struct h2 *h)
{
	return container_of(h, struct grpc_link, h2);
}

static struct grpc_stream *stream_of(void *stream)
{
	return container_of((struct grpc_pipe *)stream, struct grpc_stream, pipe);
}

static void link_free(struct grpc_link *link)
{
	if (link->client->current == link)
		link->client->current = NULL;
	timer_cancel(&link->timer);
	h2_close(&link->h2);
	list_remove(&link->node);
	free(link);
}

static void link_timer(struct timer *t)
{
	struct grpc_link *link = container_of(t, struct grpc_link, timer);

	if (!link->h2.established) {
		h2_fail(&link->h2, NGHTTP2_NO_ERROR, "no answer in time");
	} else if (list_empty(&link->streams)) {
		if (link->client->current == link)
			link->client->current = NULL;
		if (nghttp2_session_terminate_session(link->h2.session, NGHTTP2_NO_ERROR) != 0)
			h2_fail(&link->h2, NGHTTP2_NO_ERROR, "out of memory");
		h2_kick(&link->h2);
	}
}

void grpc_link_idle(struct grpc_link *link)
{
	struct grpc_client *c = link->client;

	if (!link->h2.established)
		return; /* the other limit is still on */
	timer_set(c->loop, &link->timer, time_add(loop_now(c->loop), c->config.idle_timeout),
		  link_timer);
	h2_kick(&link->h2); /* after a GOAWAY it is over now */
}

/* Events of a connection ---------------------------------------------------------------------- */

static void on_header(struct h2 *h, void *stream, struct bytes name, struct bytes value)
{
	(void)h;
	grpc_stream_header(stream_of(stream), name, value);
}

static void on_headers_end(struct h2 *h, void *stream, bool last)
{
	(void)h;
	grpc_stream_headers_end(stream_of(stream), last);
}

static void on_data(struct h2 *h, void *stream, struct bytes b)
{
	(void)h;
	grpc_stream_data_in(stream_of(stream), b);
}

static void on_data_end(struct h2 *h, void *stream)
{
	(void)h;
	grpc_pipe_input_end(stream);
}

static void on_sent_end(struct h2 *h, void *stream)
{
	(void)h;
	stream_of(stream)->sent_end = true;
}

static void on_stream_closed(struct h2 *h, void *stream, uint32_t error)
{
	(void)h;
	grpc_stream_closed(stream_of(stream), error);
}

static void on_established(struct h2 *h)
{
	struct grpc_link *link = link_of(h);

	timer_cancel(&link->timer);
	if (list_empty(&link->streams))
		grpc_link_idle(link);
}

static void on_goaway(struct h2 *h)
{
	struct grpc_link *link = link_of(h);

	if (link->client->current == link)
		link->client->current = NULL; /* the next stream makes a new connection */
}

static void on_ended(struct h2 *h, const char *why)
{
	struct grpc_link *link = link_of(h);
	struct grpc_client *c = link->client;
	struct grpc_stream *stream;
	char text[GRPC_TEXT_MAX];

	if (c->current == link)
		c->current = NULL; /* ended() may open a stream */
	(void)snprintf(text, sizeof(text), "%s: %s", c->addr.sun_path, why);
	while ((stream = list_first(&link->streams, struct grpc_stream, node)))
		grpc_stream_lost(stream, text);
	link_free(link);
}

static const struct h2_ops h2_ops = {
	.header = on_header,
	.headers_end = on_headers_end,
	.data = on_data,
	.data_end = on_data_end,
	.sent_end = on_sent_end,
	.stream_closed = on_stream_closed,
	.established = on_established,
	.goaway = on_goaway,
	.ended = on_ended,
};

/* Connecting ---------------------------------------------------------------------------------- */

/* On a Unix socket it works at once, or not at all: EAGAIN is a full backlog. */
static int connect_unix(const struct sockaddr_un *addr)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int link_new(struct grpc_client *c)
{
	const struct h2_config config = {
		.window = c->config.window,
		.max_headers = c->config.max_headers,
		.stall_timeout = c->config.stall_timeout,
	};
	struct grpc_link *link;
	int r, fd;

	fd = c->config.connect ? c->config.connect(c->config.connect_arg) : connect_unix(&c->addr);
	if (fd < 0)
		return fd;
	link = calloc(1, sizeof(*link));
	if (!link) {
		(void)close(fd);
		return -ENOMEM;
	}
	link->client = c;
	list_init(&link->streams);
	r = h2_open(&link->h2, c->loop, fd, &config, &h2_ops);
	if (r < 0) {
		free(link);
		return r;
	}
	list_append(&c->links, &link->node);
	timer_set(c->loop, &link->timer,
		  time_add(loop_now(c->loop), c->config.connect_timeout), link_timer);
	c->current = link;
	return 0;
}

static void fail_waiting(struct grpc_client *c, int e)
{
	char text[GRPC_TEXT_MAX];
	struct grpc_stream *stream;
	struct list failed;

	(void)snprintf(text, sizeof(text), "%s: %s", c->addr.sun_path, strerror(-e));
	list_init(&failed);
	list_splice(&failed, &c->waiting); /* ended() may open a stream */
	while ((stream = list_first(&failed, struct grpc_stream, node)))
		grpc_stream_lost(stream, text);
}

/* Finds, or makes, a connection for the streams that wait for one. */
static void start(struct timer *t)
{
	struct grpc_client *c = container_of(t, struct grpc_client, start);
	struct grpc_stream *stream;
	int r = 0;

	while ((stream = list_first(&c->waiting, struct grpc_stream, node))) {
		if (c->current && c->current->h2.over)
			c->current = NULL; /* its end is about to be told */
		if (!c->current)
			r = link_new(c);
		if (r < 0)
			break;
		c->connect_by = 0;
		grpc_stream_submit(stream, c->current);
	}
	if (r == 0)
		return;
	if (!c->connect_by)
		c->connect_by = time_add(loop_now(c->loop), c->config.connect_timeout);
	if (r == -EAGAIN && loop_now(c->loop) < c->connect_by) {
		timer_set(c->loop, &c->start, time_add(loop_now(c->loop), CONNECT_AGAIN), start);
		return;
	}
	c->connect_by = 0;
	fail_waiting(c, r);
}

void grpc_client_start(struct grpc_client *c)
{
	/* A timer: what it calls may open a stream again, which then waits for the next round. */
	if (!c->start.loop)
		timer_set(c->loop, &c->start, 0, start);
}

/* The client ---------------------------------------------------------------------------------- */

static void fill_defaults(struct grpc_client_config *c)
{
#define DEFAULT(field, value) c->field = c->field ? c->field : (value)
	DEFAULT(max_message, (size_t)4 << 20);
	DEFAULT(max_send, (size_t)4 << 20);
	DEFAULT(max_unsent, (size_t)8 << 20);
	DEFAULT(max_memory, (size_t)64 << 20);
	DEFAULT(max_headers, 8 << 10);
	DEFAULT(window, 64 << 10);
	DEFAULT(connect_timeout, 5 * NSEC_PER_SEC);
	DEFAULT(idle_timeout, 30 * NSEC_PER_SEC);
	DEFAULT(stall_timeout, 60 * NSEC_PER_SEC);
#undef DEFAULT
	assert(c->window <= INT32_MAX); /* RFC 9113, 6.5.2 */
}

int grpc_client_open(struct loop *loop, const char *path, const struct grpc_client_config *config,
		     struct grpc_client **ret)
{
	struct grpc_client *c;

	if (strlen(path) >= sizeof(c->addr.sun_path))
		return -ENAMETOOLONG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->addr.sun_family = AF_UNIX;
	(void)snprintf(c->addr.sun_path, sizeof(c->addr.sun_path), "%s", path);
	c->config = *config;
	fill_defaults(&c->config);
	c->budget.max = c->config.max_memory;
	list_init(&c->links);
	list_init(&c->waiting);
	list_init(&c->others);
	c->authority = strdup(config->authority ? config->authority : "localhost");
	c->user_agent = strdup(config->user_agent ? config->user_agent : USER_AGENT);
	if (!c->authority || !c->user_agent) {
		grpc_client_free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

static void free_streams(struct list *streams)
{
	struct grpc_stream *stream;

	while ((stream = list_first(streams, struct grpc_stream, node)))
		grpc_stream_free(stream);
}

void grpc_client_free(struct grpc_client *c)
{
	struct grpc_link *link;

	if (!c)
		return;
	timer_cancel(&c->start);
	free_streams(&c->waiting);
	free_streams(&c->others);
	while ((link = list_first(&c->links, struct grpc_link, node))) {
		free_streams(&link->streams);
		link_free(link);
	}
	free(c->authority);
	free(c->user_agent);
	free(c);
}
