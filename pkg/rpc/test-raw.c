/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/test-raw.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/cmocka.h"
#include "wire/grpc_frame.h"

#define FRAME_HEAD 9

void raw_init(struct raw *r, int fd)
{
	*r = (struct raw){ .fd = fd };
	assert_int_equal(nghttp2_hd_inflate_new(&r->inflater), 0);
}

void raw_done(struct raw *r)
{
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = -1;
	buf_done(&r->in);
	buf_done(&r->fields);
	buf_done(&r->data);
	nghttp2_hd_inflate_del(r->inflater);
	r->inflater = NULL;
}

bool raw_send(struct raw *r, const void *p, size_t n)
{
	ssize_t sent = send(r->fd, p, n, MSG_NOSIGNAL);

	return sent == (ssize_t)n;
}

bool raw_frame(struct raw *r, uint8_t type, uint8_t flags, uint32_t id, const void *p, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	assert_int_equal(buf_append_be32(&b, (uint32_t)n << 8 | type), 0);
	assert_int_equal(buf_append_u8(&b, flags), 0);
	assert_int_equal(buf_append_be32(&b, id), 0);
	assert_int_equal(buf_append(&b, p, n), 0);
	return raw_send(r, buf_bytes(&b).p, buf_len(&b));
}

void raw_preface(struct raw *r)
{
	assert_true(raw_send(r, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN));
	assert_true(raw_frame(r, NGHTTP2_SETTINGS, 0, 0, NULL, 0));
}

static void put_string(struct buf *to, const char *s, size_t n)
{
	/* A length of RFC 7541, 5.1 with a prefix of 7 bits; no Huffman coding. */
	if (n < 127) {
		assert_int_equal(buf_append_u8(to, (uint8_t)n), 0);
	} else {
		size_t rest = n - 127;

		assert_int_equal(buf_append_u8(to, 127), 0);
		for (; rest >= 128; rest /= 128)
			assert_int_equal(buf_append_u8(to, (uint8_t)(rest % 128 + 128)), 0);
		assert_int_equal(buf_append_u8(to, (uint8_t)rest), 0);
	}
	assert_int_equal(buf_append(to, s, n), 0);
}

void raw_block(struct buf *to, const char *fields)
{
	while (*fields) {
		const char *colon = strchr(fields + 1, ':'), *end = strchr(fields, '\n');

		assert_non_null(colon);
		assert_non_null(end);
		assert_int_equal(buf_append_u8(to, 0), 0); /* literal, never indexed */
		put_string(to, fields, (size_t)(colon - fields));
		put_string(to, colon + 2, (size_t)(end - colon) - 2);
		fields = end + 1;
	}
}

bool raw_headers(struct raw *r, uint32_t id, const char *fields, bool end_stream)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	raw_block(&b, fields);
	return raw_frame(r, NGHTTP2_HEADERS,
			 NGHTTP2_FLAG_END_HEADERS | (end_stream ? NGHTTP2_FLAG_END_STREAM : 0), id,
			 buf_bytes(&b).p, buf_len(&b));
}

bool raw_request(struct raw *r, uint32_t id, const char *path, bool end_stream)
{
	char fields[512];

	(void)snprintf(fields, sizeof(fields), RAW_REQUEST("%s"), path);
	return raw_headers(r, id, fields, end_stream);
}

bool raw_message(struct raw *r, uint32_t id, uint8_t flag, const char *text, bool end_stream)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	assert_int_equal(buf_append_u8(&b, flag), 0);
	assert_int_equal(buf_append_be32(&b, (uint32_t)strlen(text)), 0);
	assert_int_equal(buf_append_str(&b, text), 0);
	return raw_frame(r, NGHTTP2_DATA, end_stream ? NGHTTP2_FLAG_END_STREAM : 0, id,
			 buf_bytes(&b).p, buf_len(&b));
}

static void inflate(struct raw *r, struct bytes b)
{
	int flags = 0;

	while (b.n || !(flags & NGHTTP2_HD_INFLATE_FINAL)) {
		nghttp2_nv nv;
		ssize_t n = nghttp2_hd_inflate_hd2(r->inflater, &nv, &flags, b.p, b.n, 1);

		assert_true(n >= 0);
		b = bytes_of(b.p + n, b.n - (size_t)n);
		if (flags & NGHTTP2_HD_INFLATE_EMIT)
			assert_int_equal(buf_printf(&r->fields, "%s: %s\n", (char *)nv.name,
						    (char *)nv.value), 0);
	}
	assert_int_equal(nghttp2_hd_inflate_end_headers(r->inflater), 0);
}

static void take_frame(struct raw *r, struct raw_frame *f, struct bytes payload)
{
	uint32_t skip;

	r->frames[f->type % 16]++;
	switch (f->type) {
	case NGHTTP2_HEADERS:
		assert_true(f->flags & NGHTTP2_FLAG_END_HEADERS);
		inflate(r, payload);
		break;
	case NGHTTP2_DATA:
		assert_int_equal(buf_append(&r->data, payload.p, payload.n), 0);
		break;
	case NGHTTP2_RST_STREAM:
		assert_int_equal(bytes_be32(&payload, &f->error), 0);
		r->rst = *f;
		break;
	case NGHTTP2_GOAWAY:
		assert_int_equal(bytes_be32(&payload, &skip), 0);
		assert_int_equal(bytes_be32(&payload, &f->error), 0);
		r->goaway = *f;
		break;
	default:
		break;
	}
}

void raw_receive(struct raw *r)
{
	uint8_t block[65536];
	ssize_t n;

	while ((n = recv(r->fd, block, sizeof(block), 0)) > 0)
		assert_int_equal(buf_append(&r->in, block, (size_t)n), 0);
	if (n == 0 || errno != EAGAIN)
		r->closed = true;
	while (buf_len(&r->in) >= r->skip) {
		struct bytes b, payload;
		struct raw_frame f = { 0 };
		uint32_t head;

		buf_consume(&r->in, r->skip);
		r->skip = 0;
		b = buf_bytes(&r->in);
		if (bytes_be32(&b, &head) || bytes_u8(&b, &f.flags) || bytes_be32(&b, &f.id))
			break;
		f.length = head >> 8;
		f.type = (uint8_t)head;
		if (bytes_take(&b, f.length, &payload))
			break;
		take_frame(r, &f, payload);
		buf_consume(&r->in, FRAME_HEAD + f.length);
	}
}

bool raw_got(const struct raw *r, const char *field)
{
	return strstr(buf_str(&r->fields), field) != NULL;
}
