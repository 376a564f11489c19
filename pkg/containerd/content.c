/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content.Read and Content.Write, between containerd's content store and a pipe. The pipe's other
 * end is a process that does what may block: files and compression. Source: containerd
 * core/content/proxy.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "api/containerd/services.pb-c.h"
#include "base/fd.h"
#include "containerd/internal.h"
#include "rpc/pb.h"

#define CHUNK ((size_t)1 << 20) /* of a write; containerd reads in chunks of 1 MiB itself */
#define STAT   0
#define WRITE  1
#define COMMIT 2

static void close_pipe(struct containerd_copy *copy)
{
	if (copy->src.loop)
		source_remove(&copy->src);
	if (copy->src.fd >= 0)
		(void)close(copy->src.fd);
	copy->src.fd = -1;
}

static void tell(struct job *job)
{
	struct containerd_copy *copy = container_of(job, struct containerd_copy, job);

	copy->done(copy, copy->err.code, &copy->err);
}

static void finish(struct containerd_copy *copy)
{
	if (copy->stream)
		grpc_stream_cancel(copy->stream);
	copy->stream = NULL;
	close_pipe(copy);
	buf_done(&copy->held);
	job_put_off(copy->loop, &copy->job, tell);
}

static void fail_sys(struct containerd_copy *copy, int r, const char *what)
{
	(void)error_sys(&copy->err, r, "%s", what);
	copy->err.reason = REASON_CONTAINERD_FAILED;
	finish(copy);
}

void containerd_copy_cancel(struct containerd_copy *copy)
{
	if (!copy->loop)
		return;
	job_cancel(&copy->job);
	if (copy->stream)
		grpc_stream_cancel(copy->stream);
	copy->stream = NULL;
	close_pipe(copy);
	buf_done(&copy->held);
}

static int begin(struct containerd *c, struct containerd_copy *copy, struct loop *loop, int fd,
		 void (*done)(struct containerd_copy *copy, int r, const struct error *err),
		 struct error *err)
{
	int r = fd_nonblock(fd, true);

	*copy = (struct containerd_copy){ .c = c, .loop = loop, .done = done, .src = { .fd = fd } };
	return r < 0 ? error_sys(err, r, "prepare a pipe") : 0;
}

/* --- read ----------------------------------------------------------------------------------- */

static void flush_held(struct containerd_copy *copy)
{
	while (buf_len(&copy->held)) {
		struct bytes b = buf_bytes(&copy->held);
		ssize_t n = write(copy->src.fd, b.p, b.n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return; /* writable() goes on */
		if (n < 0) {
			fail_sys(copy, -errno, "hand on containerd's content");
			return;
		}
		buf_consume(&copy->held, (size_t)n);
	}
	source_want(&copy->src, 0);
	if (copy->ended)
		finish(copy);
	else
		grpc_stream_pause(copy->stream, false);
}

static void writable(struct source *src, uint32_t events)
{
	struct containerd_copy *copy = container_of(src, struct containerd_copy, src);

	if (events & EPOLLERR)
		fail_sys(copy, -EPIPE, "hand on containerd's content");
	else
		flush_held(copy);
}

static void read_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT((size_t)64 << 20);
	struct containerd_copy *copy = arg;
	const Svc__ContentReadResponse *m =
		pb_unpack(&svc__content_read_response__descriptor, msg, &arena);

	if (!m || m->offset != copy->offset) {
		fail_sys(copy, -EBADMSG, "read containerd's content");
		return;
	}
	copy->offset += (int64_t)m->data.len;
	if (buf_append(&copy->held, m->data.data, m->data.len) < 0) {
		fail_sys(copy, -ENOMEM, "read containerd's content");
		return;
	}
	grpc_stream_pause(stream, true);
	source_want(&copy->src, EPOLLOUT);
}

static void read_ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct containerd_copy *copy = arg;

	(void)stream;
	copy->stream = NULL;
	copy->ended = true;
	if (status->code != RPC_OK) {
		(void)containerd_error(status, "Content.Read", &copy->err);
		finish(copy);
	} else if (!buf_len(&copy->held)) {
		finish(copy);
	}
}

int containerd_read(struct containerd *c, struct containerd_copy *copy, struct loop *loop,
		    const char *ns, const char *digest, int fd, nsec_t deadline,
		    void (*done)(struct containerd_copy *copy, int r, const struct error *err),
		    struct error *err)
{
	static const struct grpc_stream_ops ops = { .message = read_message, .ended = read_ended };
	struct grpc_field fields[] = { CONTAINERD_NAMESPACE(ns) };
	_cleanup_buf_ struct buf packed = BUF_NULL;
	Svc__ContentReadRequest request = SVC__CONTENT_READ_REQUEST__INIT;
	int r = begin(c, copy, loop, fd, done, err);

	request.digest = (char *)digest;
	if (r == 0)
		r = source_add(loop, &copy->src, fd, 0, writable);
	if (r == 0)
		r = pb_pack(&request.base, &packed);
	if (r == 0)
		r = grpc_stream_open(c->client, CTD_CONTENT "Read", fields, ARRAY_SIZE(fields),
				     deadline, &ops, copy, &copy->stream);
	if (r == 0)
		r = grpc_stream_send(copy->stream, buf_bytes(&packed));
	if (r < 0) {
		containerd_copy_cancel(copy);
		return error_reason(err, REASON_CONTAINERD_FAILED, r, "containerd: Content.Read");
	}
	grpc_stream_half_close(copy->stream);
	return 0;
}

/* --- write ---------------------------------------------------------------------------------- */

static int send_part(struct containerd_copy *copy, int action, const char *ref)
{
	_cleanup_buf_ struct buf packed = BUF_NULL;
	Svc__ContentWriteRequest m = SVC__CONTENT_WRITE_REQUEST__INIT;
	struct bytes b = buf_bytes(&copy->held);
	int r;

	m.action = action;
	m.ref = (char *)ref;
	m.offset = copy->offset;
	if (action == WRITE) {
		m.data.data = (uint8_t *)b.p;
		m.data.len = b.n;
	}
	if (action == COMMIT)
		m.total = copy->offset;
	r = pb_pack(&m.base, &packed);
	if (r == 0)
		r = grpc_stream_send(copy->stream, buf_bytes(&packed));
	if (r == 0 && action == WRITE) {
		copy->offset += (int64_t)b.n;
		buf_clear(&copy->held);
	}
	return r;
}

static void write_more(struct containerd_copy *copy)
{
	int r = 0;

	if (copy->committing || !copy->stream)
		return;
	if (grpc_stream_unsent(copy->stream) > 2 * CHUNK) {
		if (!copy->ended)
			source_want(&copy->src, 0);
		return; /* drained() goes on */
	}
	if (buf_len(&copy->held) >= CHUNK || (copy->ended && buf_len(&copy->held)))
		r = send_part(copy, WRITE, "");
	if (r == 0 && copy->ended) {
		copy->committing = true;
		r = send_part(copy, COMMIT, "");
	}
	if (r < 0)
		fail_sys(copy, r, "containerd: Content.Write");
	else if (!copy->ended)
		source_want(&copy->src, EPOLLIN);
}

static void readable(struct source *src, uint32_t events)
{
	struct containerd_copy *copy = container_of(src, struct containerd_copy, src);
	uint8_t *to = buf_reserve(&copy->held, CHUNK);
	ssize_t n = to ? read(src->fd, to, CHUNK) : -1;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		fail_sys(copy, -errno, "read what is to be stored");
		return;
	}
	if (n == 0) {
		copy->ended = true;
		close_pipe(copy);
	} else {
		buf_commit(&copy->held, (size_t)n);
	}
	write_more(copy);
}

static void write_drained(struct grpc_stream *stream, void *arg)
{
	(void)stream;
	write_more(arg);
}

static void write_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT((size_t)1 << 20);
	struct containerd_copy *copy = arg;
	const Svc__ContentWriteResponse *m =
		pb_unpack(&svc__content_write_response__descriptor, msg, &arena);

	(void)stream;
	if (!m) {
		fail_sys(copy, -EBADMSG, "containerd: Content.Write");
		return;
	}
	/* Of what has been written so far. */
	(void)snprintf(copy->digest, sizeof(copy->digest), "%s", m->digest);
	copy->acknowledged = m->offset;
	if (m->action == COMMIT)
		finish(copy);
}

static void write_ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct containerd_copy *copy = arg;

	(void)stream;
	copy->stream = NULL;
	if (status->code == RPC_OK) {
		fail_sys(copy, -EPIPE, "containerd: Content.Write ended without a commit");
		return;
	}
	/* It had it already, and the lease holds that now: metadata/content.go, Commit(). */
	if (status->code == RPC_ALREADY_EXISTS && copy->committing &&
	    copy->acknowledged == copy->offset && *copy->digest) {
		finish(copy);
		return;
	}
	(void)containerd_error(status, "Content.Write", &copy->err);
	finish(copy);
}

int containerd_write(struct containerd *c, struct containerd_copy *copy, struct loop *loop,
		     const char *ns, const char *lease, const char *ref, int fd, nsec_t deadline,
		     void (*done)(struct containerd_copy *copy, int r, const struct error *err),
		     struct error *err)
{
	static const struct grpc_stream_ops ops = { .message = write_message,
						    .drained = write_drained,
						    .ended = write_ended };
	struct grpc_field fields[] = { CONTAINERD_NAMESPACE(ns),
				       CONTAINERD_LEASE(lease) };
	int r = begin(c, copy, loop, fd, done, err);

	if (r == 0)
		r = source_add(loop, &copy->src, fd, EPOLLIN, readable);
	if (r == 0)
		r = grpc_stream_open(c->client, CTD_CONTENT "Write", fields, ARRAY_SIZE(fields),
				     deadline, &ops, copy, &copy->stream);
	if (r == 0)
		r = send_part(copy, STAT, ref);
	if (r < 0) {
		containerd_copy_cancel(copy);
		return error_reason(err, REASON_CONTAINERD_FAILED, r, "containerd: Content.Write");
	}
	return 0;
}
