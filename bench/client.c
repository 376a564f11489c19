/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/ttrpc.pb-c.h"
#include "rpc/pb.h"
#include "wire/ttrpc_frame.h"

#define SERVICE   "containerd.task.v2.Task"
#define READ_STEP ((size_t)64 << 10)

void client_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fputs("shim-bench: ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		client_die("%s: too long", path);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return addr;
}

static int new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		client_die("socket: %s", strerror(errno));
	return fd;
}

void client_init(struct client *c, const char *ttrpc_path)
{
	*c = (struct client){ .shim = { .fd = -1 }, .next_stream = 1, .listener = -1 };
	for (int i = 0; i < CLIENT_SINKS_MAX; i++)
		c->sinks[i].fd = -1;
	if (ttrpc_path) {
		struct sockaddr_un addr = address(ttrpc_path);

		c->listener = new_socket();
		(void)unlink(ttrpc_path);
		if (bind(c->listener, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		    listen(c->listener, CLIENT_SINKS_MAX) < 0)
			client_die("listen on %s: %s", ttrpc_path, strerror(errno));
	}
}

static void drop(struct peer *p)
{
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
	buf_done(&p->in);
}

void client_done(struct client *c)
{
	drop(&c->shim);
	for (int i = 0; i < CLIENT_SINKS_MAX; i++)
		drop(&c->sinks[i]);
	if (c->listener >= 0)
		(void)close(c->listener);
}

void client_connect(struct client *c, const char *path)
{
	struct sockaddr_un addr = address(strncmp(path, "unix://", 7) == 0 ? path + 7 : path);

	c->shim.fd = new_socket();
	if (connect(c->shim.fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		client_die("connect to %s: %s", path, strerror(errno));
}

static void write_all(int fd, struct bytes b)
{
	while (b.n) {
		ssize_t n = send(fd, b.p, b.n, MSG_NOSIGNAL);

		if (n < 0)
			client_die("send: %s", strerror(errno));
		b.p += n;
		b.n -= (size_t)n;
	}
}

/* False at the end of the connection. */
static bool read_more(struct peer *p)
{
	uint8_t *to = buf_reserve(&p->in, READ_STEP);
	ssize_t n = to ? recv(p->fd, to, READ_STEP, 0) : -1;

	if (n < 0 && errno != ECONNRESET)
		client_die("receive: %s", strerror(errno));
	if (n <= 0)
		return false;
	buf_commit(&p->in, (size_t)n);
	return true;
}

/* The next whole frame that has been read; its data stays until the next read. */
static bool next_frame(struct peer *p, struct ttrpc_frame *f, struct bytes *data)
{
	struct bytes b = buf_bytes(&p->in);

	if (ttrpc_frame_header(&b, f) || bytes_take(&b, f->length, data))
		return false;
	buf_consume(&p->in, TTRPC_HEADER_SIZE + f->length);
	return true;
}

/* --- events --------------------------------------------------------------------------------- */

static void take_events(struct client *c, struct peer *p)
{
	static const struct bytes empty = { (const uint8_t *)"", 0 };
	struct ttrpc_frame f;
	struct bytes data;

	if (!read_more(p)) {
		drop(p);
		return;
	}
	while (next_frame(p, &f, &data)) {
		_cleanup_buf_ struct buf out = BUF_NULL;

		if (ttrpc_frame_put(&out, f.stream, TTRPC_RESPONSE, empty) < 0)
			client_die("out of memory");
		write_all(p->fd, buf_bytes(&out));
		c->events++;
	}
}

static void take_sink(struct client *c)
{
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; i < CLIENT_SINKS_MAX && fd >= 0; i++) {
		if (c->sinks[i].fd < 0) {
			c->sinks[i].fd = fd;
			return;
		}
	}
	client_die("too many connections for events");
}

/* Serves events until fd is readable. */
static void wait_readable(struct client *c, int fd)
{
	for (;;) {
		struct pollfd p[2 + CLIENT_SINKS_MAX] = { { fd, POLLIN, 0 },
							  { c->listener, POLLIN, 0 } };

		for (int i = 0; i < CLIENT_SINKS_MAX; i++)
			p[2 + i] = (struct pollfd){ c->sinks[i].fd, POLLIN, 0 };
		if (poll(p, 2 + CLIENT_SINKS_MAX, CLIENT_TIME_MAX / NSEC_PER_MSEC) <= 0)
			client_die("no answer in time");
		if (p[1].revents)
			take_sink(c);
		for (int i = 0; i < CLIENT_SINKS_MAX; i++)
			if (p[2 + i].revents)
				take_events(c, &c->sinks[i]);
		if (p[0].revents)
			return;
	}
}

/* --- calls ---------------------------------------------------------------------------------- */

uint32_t client_send(struct client *c, const char *method, const ProtobufCMessage *request)
{
	_cleanup_buf_ struct buf payload = BUF_NULL, body = BUF_NULL, frame = BUF_NULL;
	Ttrpc__Request envelope = TTRPC__REQUEST__INIT;
	uint32_t stream = c->next_stream;

	if (pb_pack(request, &payload) < 0)
		client_die("out of memory");
	envelope.service = (char *)SERVICE;
	envelope.method = (char *)method;
	envelope.payload.data = (uint8_t *)(uintptr_t)buf_bytes(&payload).p;
	envelope.payload.len = buf_len(&payload);
	if (pb_pack(&envelope.base, &body) < 0 ||
	    ttrpc_frame_put(&frame, stream, TTRPC_REQUEST, buf_bytes(&body)) < 0)
		client_die("out of memory");
	write_all(c->shim.fd, buf_bytes(&frame));
	c->next_stream += 2;
	return stream;
}

static void check(struct bytes data)
{
	Ttrpc__Response *r = ttrpc__response__unpack(NULL, data.n, data.p);

	if (!r)
		client_die("an answer that cannot be decoded");
	if (r->status && r->status->code)
		client_die("the shim answers: %d %s", r->status->code, r->status->message);
	ttrpc__response__free_unpacked(r, NULL);
}

uint32_t client_wait_any(struct client *c)
{
	struct ttrpc_frame f;
	struct bytes data;

	while (!next_frame(&c->shim, &f, &data)) {
		if (c->listener >= 0)
			wait_readable(c, c->shim.fd);
		if (!read_more(&c->shim))
			client_die("the shim has closed the connection");
	}
	check(data);
	return f.stream;
}

void client_wait(struct client *c, uint32_t stream)
{
	while (client_wait_any(c) != stream)
		;
}

void client_call(struct client *c, const char *method, const ProtobufCMessage *request)
{
	client_wait(c, client_send(c, method, request));
}

void client_wait_closed(struct client *c)
{
	do
		wait_readable(c, c->shim.fd);
	while (read_more(&c->shim));
	drop(&c->shim);
}

void client_read_all(struct client *c, int fd, struct buf *out)
{
	for (;;) {
		uint8_t *to = buf_reserve(out, READ_STEP);
		ssize_t n;

		wait_readable(c, fd);
		n = to ? read(fd, to, READ_STEP) : -1;
		if (n < 0)
			client_die("read: %s", strerror(errno));
		if (n == 0)
			break;
		buf_commit(out, (size_t)n);
	}
	(void)close(fd);
}
