/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/h2.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_STEP      ((size_t)16 << 10)
#define READS_A_ROUND  16                  /* then other sources get their turn */
#define BATCH          ((size_t)4 << 10)   /* small frames are sent together */
#define WRITES_A_ROUND ((size_t)512 << 10) /* bytes; likewise */
#define CONN_WINDOW    (1 << 20)           /* given back at once: the streams' windows bound us */

/*
 * The meter: frames that cost us work and carry nothing are paid with tokens, which come back
 * with time and with frames that do carry something. Who has none left is disconnected. Covers
 * floods of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown frames (by their bytes,
 * for nghttp2 drops them silently), and streams opened only to be reset (CVE-2019-9511 to -9518,
 * CVE-2023-44487); nghttp2 itself limits CONTINUATION (CVE-2024-28182) and the acknowledgements
 * it queues.
 */
#define TOKENS_MAX       1000
#define TOKENS_A_SECOND  100
#define COST_FRAME       1
#define COST_RESET       2 /* and the stream's HEADERS before it */
#define IGNORED_BYTES    ((size_t)16 << 10) /* these cost a frame */
#define GAIN_DATA_IN     2
#define GAIN_DATA_OUT    4 /* each may rightly be followed by two WINDOW_UPDATEs and a PING */
#define GAIN_CREDIT      3

#define MAX_OUTBOUND_ACK 64
#define MAX_CONTINUATION 4
/* Frames that wait to be sent, DATA not counted: a peer that does not read piles them up. */
#define MAX_QUEUED       2000

/* The connection is over, as soon as nobody is on the call stack any more. */
static void finish(struct h2 *h, const char *why);

static void gain_tokens(struct h2 *h, uint64_t n)
{
	h->tokens = n > TOKENS_MAX - h->tokens ? TOKENS_MAX : h->tokens + (uint32_t)n;
}

/* False: not enough tokens are left. */
static bool metered(struct h2 *h, uint32_t cost)
{
	nsec_t step = NSEC_PER_SEC / TOKENS_A_SECOND;
	uint64_t gain = (loop_now(h->loop) - h->refilled) / step;

	gain_tokens(h, gain);
	h->refilled += gain * step;
	if (h->tokens < cost)
		return false;
	h->tokens -= cost;
	return true;
}

void h2_credit(struct h2 *h)
{
	gain_tokens(h, GAIN_CREDIT);
}

static void *stream_of(struct h2 *h, int32_t id)
{
	return nghttp2_session_get_stream_user_data(h->session, id);
}

/* What every callback returns: nghttp2 stops at once when the connection is over. */
static int go_on(const struct h2 *h)
{
	return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
	struct h2 *h = user;
	uint32_t cost = COST_FRAME;

	(void)session;
	h->told = true;
	if (hd->type == NGHTTP2_DATA && hd->flags & NGHTTP2_FLAG_END_STREAM)
		cost = 0;
	else if (hd->type == NGHTTP2_RST_STREAM)
		cost = COST_RESET;
	if (!metered(h, cost))
		h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "too many frames that carry nothing");
	return go_on(h);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;
	void *stream;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return go_on(h);
	stream = h->ops->request(h, frame->hd.stream_id);
	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	(void)nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
	return go_on(h);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t n_name, const uint8_t *value, size_t n_value, uint8_t flags, void *user)
{
	struct h2 *h = user;
	void *stream = stream_of(h, frame->hd.stream_id);

	(void)session;
	(void)flags;
	h->told = true;
	if (stream)
		h->ops->header(h, stream, bytes_of(name, n_name), bytes_of(value, n_value));
	return go_on(h);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
		   void *user)
{
	struct h2 *h = user;
	void *stream = stream_of(h, id);

	(void)flags;
	h->told = true;
	gain_tokens(h, GAIN_DATA_IN);
	if (stream)
		h->ops->data(h, stream, bytes_of(p, n));
	else
		(void)nghttp2_session_consume_connection(session, n);
	return go_on(h);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;
	bool last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	void *stream;

	(void)session;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		stream = stream_of(h, frame->hd.stream_id);
		if (stream)
			h->ops->headers_end(h, stream, last);
		break;
	case NGHTTP2_DATA:
		stream = stream_of(h, frame->hd.stream_id);
		if (stream && last)
			h->ops->data_end(h, stream);
		break;
	case NGHTTP2_SETTINGS:
		if (!h->established && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
			h->established = true;
			if (h->ops->established)
				h->ops->established(h);
		}
		break;
	case NGHTTP2_GOAWAY:
		if (h->ops->goaway)
			h->ops->goaway(h);
		break;
	default:
		break;
	}
	return go_on(h);
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;
	uint32_t error;
	void *stream;

	(void)session;
	switch (frame->hd.type) {
	case NGHTTP2_DATA:
		gain_tokens(h, GAIN_DATA_OUT);
		break;
	case NGHTTP2_RST_STREAM:
		error = frame->rst_stream.error_code;
		/* One of ours for something that the peer did wrong. */
		if (error != NGHTTP2_NO_ERROR && error != NGHTTP2_CANCEL && !metered(h, COST_RESET))
			h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "too many malformed requests");
		break;
	case NGHTTP2_GOAWAY:
		error = frame->goaway.error_code;
		if (error != NGHTTP2_NO_ERROR && !h->why[0])
			(void)snprintf(h->why, sizeof(h->why), "the peer broke HTTP/2: %s",
				       nghttp2_http2_strerror(error));
		break;
	default:
		break;
	}
	if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
	    frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
		stream = stream_of(h, frame->hd.stream_id);
		if (stream)
			h->ops->sent_end(h, stream);
	}
	return go_on(h);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
	struct h2 *h = user;
	void *stream = stream_of(h, id);

	(void)session;
	if (stream)
		h->ops->stream_closed(h, stream, error);
	return go_on(h);
}

static int new_callbacks(nghttp2_session_callbacks **ret)
{
	nghttp2_session_callbacks *c;

	if (nghttp2_session_callbacks_new(&c) != 0)
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(c, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
	nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
	*ret = c;
	return 0;
}

static int new_option(nghttp2_option **ret)
{
	nghttp2_option *o;

	if (nghttp2_option_new(&o) != 0)
		return -ENOMEM;
	nghttp2_option_set_no_auto_window_update(o, 1);
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_max_reserved_remote_streams(o, 0);
	nghttp2_option_set_max_outbound_ack(o, MAX_OUTBOUND_ACK);
	nghttp2_option_set_max_continuations(o, MAX_CONTINUATION);
	*ret = o;
	return 0;
}

static int submit_preface(struct h2 *h, const struct h2_config *config)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, config->window },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, config->max_headers },
		/* Priorities are of no use here, and keeping them is work that a peer decides. */
		{ NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
		config->server ? (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
							   config->max_streams }
			       : (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
	};

	if (nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
				    sizeof(settings) / sizeof(settings[0])) != 0 ||
	    nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW) !=
		    0)
		return -ENOMEM;
	return 0;
}

static int new_session(struct h2 *h, const struct h2_config *config)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	int r;

	if (new_callbacks(&callbacks) < 0)
		return -ENOMEM;
	if (new_option(&option) < 0) {
		nghttp2_session_callbacks_del(callbacks);
		return -ENOMEM;
	}
	if (config->server)
		r = nghttp2_session_server_new2(&h->session, callbacks, h, option);
	else
		r = nghttp2_session_client_new2(&h->session, callbacks, h, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	if (r != 0) {
		h->session = NULL;
		return -ENOMEM;
	}
	return submit_preface(h, config);
}

static void update_want(struct h2 *h)
{
	bool out = h->more || buf_len(&h->rest) || h->deaf; /* deaf: receive() finds the end */

	if (h->src.loop && !h->over)
		source_want(&h->src, out ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void stalled(struct timer *t)
{
	finish(container_of(t, struct h2, stall), "the peer does not read");
}

enum sent {
	SENT_ALL,
	SENT_PART,  /* the kernel takes no more for now */
	SENT_DEAF,  /* the peer reads no more */
	SENT_NOMEM,
};

/* Sends both pieces; what the kernel refuses goes to h->rest. */
static enum sent send_pieces(struct h2 *h, struct bytes a, struct bytes b)
{
	struct iovec iov[] = { { (void *)(uintptr_t)a.p, a.n }, { (void *)(uintptr_t)b.p, b.n } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct bytes gone;
	ssize_t n;

	do
		n = sendmsg(h->src.fd, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		return SENT_DEAF;
	if (n == (ssize_t)(a.n + b.n))
		return SENT_ALL;
	if (n < 0)
		n = 0;
	if (bytes_take(&a, (size_t)n < a.n ? (size_t)n : a.n, &gone) == 0)
		(void)bytes_take(&b, (size_t)n - gone.n, &gone);
	if (buf_append(&h->rest, a.p, a.n) < 0 || buf_append(&h->rest, b.p, b.n) < 0)
		return SENT_NOMEM;
	return SENT_PART;
}

/* What an earlier round could not send. */
static enum sent send_rest(struct h2 *h)
{
	while (buf_len(&h->rest)) {
		struct bytes b = buf_bytes(&h->rest);
		ssize_t n = send(h->src.fd, b.p, b.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? SENT_PART : SENT_DEAF;
		timer_cancel(&h->stall); /* it moves */
		buf_consume(&h->rest, (size_t)n);
	}
	buf_done(&h->rest);
	return SENT_ALL;
}

/* Pulls frames out of nghttp2 and sends them; stops after WRITES_A_ROUND. */
static enum sent send_new(struct h2 *h)
{
	uint8_t batch[BATCH];
	size_t have = 0, sum = 0;
	enum sent r = SENT_ALL;
	ssize_t n;

	do {
		const uint8_t *p;

		n = nghttp2_session_mem_send(h->session, &p);
		if (n < 0)
			return SENT_NOMEM; /* or a callback's end of it: h->over */
		if (n > 0 && (size_t)n <= sizeof(batch) - have) {
			memcpy(batch + have, p, (size_t)n);
			have += (size_t)n;
			continue;
		}
		if (have || n)
			r = send_pieces(h, bytes_of(batch, have), bytes_of(p, (size_t)n));
		sum += have + (size_t)n;
		have = 0;
	} while (n > 0 && r == SENT_ALL && sum < WRITES_A_ROUND);
	h->more = n > 0;
	return r;
}

/* After a flush: is it over, and if not, what is waited for? */
static void settle(struct h2 *h, enum sent r)
{
	if (r == SENT_NOMEM) {
		finish(h, "out of memory");
	} else if (r == SENT_DEAF) {
		/* What it said before it left - an answer, perhaps - is still to be read. */
		h->deaf = true;
		timer_cancel(&h->stall);
		buf_done(&h->rest);
	} else if (r == SENT_PART) {
		if (!h->stall.loop)
			timer_set(h->loop, &h->stall, time_add(h->flushed, h->stall_timeout),
				  stalled);
	} else if (!nghttp2_session_want_read(h->session) &&
		   !nghttp2_session_want_write(h->session)) {
		finish(h, "the connection was shut down");
	}
	update_want(h);
}

static void flush(struct h2 *h)
{
	enum sent r;

	h->flushed = loop_now(h->loop);
	h->more = false;
	if (h->deaf)
		return;
	r = send_rest(h);
	if (r == SENT_ALL) {
		h->busy = true;
		r = send_new(h);
		h->busy = false;
	}
	if (!h->over)
		settle(h, r);
}

static void flush_job(struct job *job)
{
	struct h2 *h = container_of(job, struct h2, flush);

	if (!h->over)
		flush(h);
}

void h2_kick(struct h2 *h)
{
	if (h->busy || h->over || !h->session)
		return; /* who is on the call stack flushes */
	if (h->flushed != loop_now(h->loop)) {
		job_put_off(h->loop, &h->flush, flush_job);
		return;
	}
	/* Once a round: a fast writer and a fast reader must not keep the others waiting. */
	h->more = true;
	update_want(h);
}

/* Bytes that nghttp2 took without a word. False: too many. */
static bool ignored(struct h2 *h, size_t n)
{
	uint32_t cost;

	h->ignored += n;
	cost = (uint32_t)(h->ignored / IGNORED_BYTES);
	h->ignored %= IGNORED_BYTES;
	return metered(h, cost);
}

/* Feeds nghttp2. False: the connection is over. */
static bool feed(struct h2 *h, const uint8_t *p, size_t n)
{
	ssize_t r;

	h->told = false;
	r = nghttp2_session_mem_recv(h->session, p, n);
	if (h->over)
		return false;
	if (r == NGHTTP2_ERR_BAD_CLIENT_MAGIC)
		h2_fail(h, NGHTTP2_PROTOCOL_ERROR, "the peer does not speak HTTP/2");
	else if (r == NGHTTP2_ERR_NOMEM)
		h2_fail(h, NGHTTP2_INTERNAL_ERROR, "out of memory");
	else if (r < 0)
		h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, nghttp2_strerror((int)r));
	else if (!h->told && !ignored(h, n))
		h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "too many frames of unknown types");
	else if (nghttp2_session_get_outbound_queue_size(h->session) > MAX_QUEUED)
		h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "the peer does not read our answers");
	return !h->over;
}

static void receive(struct h2 *h)
{
	uint8_t in[READ_STEP];

	for (int i = 0; i < READS_A_ROUND; i++) {
		ssize_t n = recv(h->src.fd, in, sizeof(in), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && !h->deaf)
			return;
		if (n <= 0) {
			finish(h, "the peer has closed the connection");
			return;
		}
		if (!feed(h, in, (size_t)n) || (size_t)n < sizeof(in))
			return;
	}
}

static void ready(struct source *src, uint32_t events)
{
	struct h2 *h = container_of(src, struct h2, src);

	if (h->over)
		return; /* ended() follows in this round */
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) || h->deaf) {
		h->busy = true;
		receive(h);
		h->busy = false;
	}
	if (!h->over)
		flush(h);
}

static void end(struct job *job)
{
	struct h2 *h = container_of(job, struct h2, end);

	h->ops->ended(h, h->why);
}

static void finish(struct h2 *h, const char *why)
{
	if (h->over)
		return;
	h->over = true;
	if (!h->why[0])
		(void)snprintf(h->why, sizeof(h->why), "%s", why);
	timer_cancel(&h->stall);
	job_cancel(&h->flush);
	source_want(&h->src, 0);
	job_put_off(h->loop, &h->end, end);
}

/*
 * The peer's farewell. By hand: nghttp2 may be on the call stack, or have given the session up.
 * Only between two frames, and only if the kernel takes it.
 */
static void say_goaway(struct h2 *h, uint32_t error)
{
	uint32_t last = (uint32_t)nghttp2_session_get_last_proc_stream_id(h->session);
	uint8_t frame[17] = { 0, 0, 8, NGHTTP2_GOAWAY, 0 };

	for (int i = 0; i < 4; i++) {
		frame[9 + i] = (uint8_t)(last >> (24 - 8 * i));
		frame[13 + i] = (uint8_t)(error >> (24 - 8 * i));
	}
	if (!buf_len(&h->rest) && !h->deaf)
		(void)send(h->src.fd, frame, sizeof(frame), MSG_NOSIGNAL); /* a courtesy */
}

void h2_fail(struct h2 *h, uint32_t error, const char *why)
{
	if (h->over || !h->session)
		return;
	h->why[0] = 0;
	say_goaway(h, error);
	finish(h, why);
}

int h2_open(struct h2 *h, struct loop *loop, int fd, const struct h2_config *config,
	    const struct h2_ops *ops)
{
	int r;

	*h = (struct h2){
		.ops = ops,
		.loop = loop,
		.stall_timeout = config->stall_timeout,
		.tokens = TOKENS_MAX,
		.refilled = loop_now(loop),
	};
	r = new_session(h, config);
	if (r == 0)
		r = source_add(loop, &h->src, fd, EPOLLIN, ready);
	if (r < 0) {
		nghttp2_session_del(h->session);
		h->session = NULL;
		(void)close(fd);
		return r;
	}
	h2_kick(h);
	return 0;
}

void h2_close(struct h2 *h)
{
	if (!h->session)
		return;
	assert(!h->busy);
	job_cancel(&h->flush);
	job_cancel(&h->end);
	timer_cancel(&h->stall);
	source_remove(&h->src);
	(void)close(h->src.fd);
	nghttp2_session_del(h->session);
	h->session = NULL;
	buf_done(&h->rest);
}

void h2_set_stream(struct h2 *h, int32_t id, void *stream)
{
	(void)nghttp2_session_set_stream_user_data(h->session, id, stream);
}

nghttp2_nv h2_field(const char *name, const char *value)
{
	return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
			     .value = (uint8_t *)(uintptr_t)value,
			     .namelen = strlen(name),
			     .valuelen = strlen(value) };
}
