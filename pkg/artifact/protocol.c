/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/protocol.h"

#include <errno.h>
#include <string.h>

#define ERRNO_MAX 4095 /* as the kernel has it */

/* -- the pieces ------------------------------------------------------------------------------ */

static uint8_t *store_le32(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		*to++ = (uint8_t)(v >> (8 * i));
	return to;
}

static uint8_t *store_le64(uint8_t *to, uint64_t v)
{
	return store_le32(store_le32(to, (uint32_t)v), (uint32_t)(v >> 32));
}

static int put_u32(struct buf *out, uint32_t v)
{
	uint8_t raw[4];

	(void)store_le32(raw, v);
	return buf_append(out, raw, sizeof(raw));
}

static int put_u64(struct buf *out, uint64_t v)
{
	uint8_t raw[8];

	(void)store_le64(raw, v);
	return buf_append(out, raw, sizeof(raw));
}

static int put_blob(struct buf *out, struct bytes b)
{
	int r = put_u32(out, (uint32_t)b.n);

	return r < 0 ? r : buf_append(out, b.p, b.n);
}

static int put_text(struct buf *out, const char *s)
{
	return put_blob(out, bytes_of(s, strlen(s)));
}

static int get_blob(struct bytes *in, size_t max, struct bytes *ret)
{
	uint32_t n;

	if (bytes_le32(in, &n) != 0 || n > max || bytes_take(in, n, ret) != 0)
		return -EBADMSG;
	return 0;
}

/* Text into an array of size bytes. */
static int get_text(struct bytes *in, char *to, size_t size)
{
	struct bytes b;

	if (get_blob(in, size - 1, &b) < 0 || (b.n && memchr(b.p, 0, b.n)))
		return -EBADMSG;
	if (b.n)
		memcpy(to, b.p, b.n);
	to[b.n] = 0;
	return 0;
}

/* Appends the body as a frame. */
static int put_frame(struct buf *out, enum protocol_type type, const struct buf *body)
{
	int r = put_u32(out, (uint32_t)(buf_len(body) + 1));

	if (r == 0)
		r = buf_append_u8(out, (uint8_t)type);
	return r < 0 ? r : buf_append(out, buf_bytes(body).p, buf_len(body));
}

static int get_frame(struct bytes *in, size_t max, enum protocol_type *ret_type,
		     struct bytes *ret_body)
{
	struct bytes at = *in;
	uint32_t n;
	uint8_t type;

	if (bytes_le32(&at, &n) != 0)
		return BYTES_MORE;
	if (n == 0 || n > max)
		return -EBADMSG;
	if (bytes_take(&at, n, ret_body) != 0)
		return BYTES_MORE;
	(void)bytes_u8(ret_body, &type);
	*ret_type = (enum protocol_type)type;
	*in = at;
	return 0;
}

/* -- jobs ------------------------------------------------------------------------------------ */

/* A name in the directory, and nothing that leads out of it. */
static bool name_valid(const char *name)
{
	return !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool job_valid(const struct protocol_job *job)
{
	return job->op >= PROTOCOL_SEAL && job->op < PROTOCOL_OPS_END && job->workers >= 1 &&
	       job->workers <= PROTOCOL_WORKERS_MAX && job->description.n <= METADATA_TEXT_MAX &&
	       name_valid(job->name);
}

int protocol_put_job(struct buf *out, const struct protocol_job *job)
{
	_cleanup_buf_ struct buf body = BUF_LIMIT(PROTOCOL_JOB_MAX);
	int r;

	if (!job_valid(job))
		return -EINVAL;
	r = buf_append_u8(&body, (uint8_t)job->op);
	if (r == 0)
		r = buf_append_u8(&body, job->background);
	if (r == 0)
		r = put_u32(&body, job->workers);
	if (r == 0)
		r = put_u64(&body, job->max_bytes);
	if (r == 0)
		r = put_text(&body, job->name);
	if (r == 0)
		r = put_blob(&body, job->description);
	return r < 0 ? r : put_frame(out, PROTOCOL_JOB, &body);
}

int protocol_get_job(struct bytes *in, struct protocol_job *ret)
{
	struct protocol_job job = { 0 };
	enum protocol_type type;
	uint8_t op, background;
	struct bytes body;
	int r = get_frame(in, PROTOCOL_JOB_MAX, &type, &body);

	if (r != 0)
		return r;
	if (type != PROTOCOL_JOB || bytes_u8(&body, &op) != 0 ||
	    bytes_u8(&body, &background) != 0 || background > 1 ||
	    bytes_le32(&body, &job.workers) != 0 || bytes_le64(&body, &job.max_bytes) != 0 ||
	    get_text(&body, job.name, sizeof(job.name)) < 0 ||
	    get_blob(&body, METADATA_TEXT_MAX, &job.description) < 0 || body.n != 0)
		return -EBADMSG;
	job.op = (enum protocol_op)op;
	job.background = background;
	if (!job_valid(&job))
		return -EBADMSG;
	*ret = job;
	return 0;
}

/* -- reports --------------------------------------------------------------------------------- */

int protocol_put_progress(struct buf *out, uint64_t done, uint64_t total)
{
	_cleanup_buf_ struct buf body = BUF_LIMIT(PROTOCOL_REPORT_MAX);
	int r = put_u64(&body, done);

	if (r == 0)
		r = put_u64(&body, total);
	return r < 0 ? r : put_frame(out, PROTOCOL_PROGRESS, &body);
}

int protocol_put_result(struct buf *out, const struct protocol_result *result)
{
	_cleanup_buf_ struct buf body = BUF_LIMIT(PROTOCOL_REPORT_MAX);
	int code = -result->err.code, r;

	if (code < 0 || code > ERRNO_MAX)
		return -EINVAL;
	r = put_u32(&body, (uint32_t)code);
	if (r == 0)
		r = put_u32(&body, (uint32_t)result->err.reason);
	if (r == 0)
		r = put_text(&body, result->err.text);
	if (r == 0)
		r = put_u64(&body, result->files);
	if (r == 0)
		r = put_u64(&body, result->bytes);
	if (r == 0)
		r = buf_append(&body, result->manifest.byte, DIGEST_SIZE);
	if (r == 0)
		r = put_text(&body, result->damaged);
	if (r == 0)
		r = put_u64(&body, result->damaged_offset);
	if (r == 0)
		r = put_u64(&body, result->damaged_length);
	return r < 0 ? r : put_frame(out, PROTOCOL_RESULT, &body);
}

static int get_result(struct bytes body, struct protocol_result *ret)
{
	uint32_t code, reason;
	struct bytes digest;

	*ret = (struct protocol_result){ 0 };
	if (bytes_le32(&body, &code) != 0 || code > ERRNO_MAX ||
	    bytes_le32(&body, &reason) != 0 ||
	    get_text(&body, ret->err.text, sizeof(ret->err.text)) < 0 ||
	    bytes_le64(&body, &ret->files) != 0 || bytes_le64(&body, &ret->bytes) != 0 ||
	    bytes_take(&body, DIGEST_SIZE, &digest) != 0 ||
	    get_text(&body, ret->damaged, sizeof(ret->damaged)) < 0 ||
	    bytes_le64(&body, &ret->damaged_offset) != 0 ||
	    bytes_le64(&body, &ret->damaged_length) != 0 || body.n != 0)
		return -EBADMSG;
	ret->err.code = -(int)code;
	ret->err.reason = (enum reason)reason;
	/* A failure has a reason that exists, and success has none. */
	if (strcmp(reason_name(ret->err.reason), "REASON_?") == 0 ||
	    (code == 0) != (ret->err.reason == REASON_NONE))
		return -EBADMSG;
	memcpy(ret->manifest.byte, digest.p, DIGEST_SIZE);
	return 0;
}

int protocol_get_report(struct bytes *in, struct protocol_report *ret)
{
	struct bytes body;
	int r = get_frame(in, PROTOCOL_REPORT_MAX, &ret->type, &body);

	if (r != 0)
		return r;
	if (ret->type == PROTOCOL_RESULT)
		return get_result(body, &ret->result);
	if (ret->type != PROTOCOL_PROGRESS || bytes_le64(&body, &ret->done) != 0 ||
	    bytes_le64(&body, &ret->total) != 0 || body.n != 0 || ret->done > ret->total)
		return -EBADMSG;
	return 0;
}

/* -- hashing --------------------------------------------------------------------------------- */

size_t protocol_hash_count(const struct protocol_hash *h)
{
	uint64_t n, end;

	if (h->chunk_size == 0 || __builtin_add_overflow(h->offset, h->length, &end) ||
	    end > INT64_MAX)
		return 0;
	if (h->length == 0)
		return 1;
	n = digest_chunk_count(h->length, h->chunk_size);
	return n > PROTOCOL_HASH_CHUNKS ? 0 : (size_t)n;
}

void protocol_put_hash(uint8_t *to, const struct protocol_hash *h)
{
	(void)store_le64(store_le64(store_le64(to, h->offset), h->length), h->chunk_size);
}

size_t protocol_put_hashed(uint8_t *to, const struct protocol_hashed *h)
{
	uint8_t *at = store_le32(to, (uint32_t)-h->code);

	at = store_le64(at, h->at);
	at = store_le32(at, (uint32_t)h->n);
	memcpy(at, h->digests, h->n * DIGEST_SIZE);
	return (size_t)(at - to) + h->n * DIGEST_SIZE;
}

int protocol_get_hash(struct bytes packet, struct protocol_hash *ret)
{
	if (bytes_le64(&packet, &ret->offset) != 0 || bytes_le64(&packet, &ret->length) != 0 ||
	    bytes_le64(&packet, &ret->chunk_size) != 0 || packet.n != 0)
		return -EBADMSG;
	return protocol_hash_count(ret) ? 0 : -EBADMSG;
}

int protocol_get_hashed(struct bytes packet, size_t n_expected, struct protocol_hashed *ret)
{
	struct bytes digests;
	uint32_t code, n;

	if (bytes_le32(&packet, &code) != 0 || code > ERRNO_MAX ||
	    bytes_le64(&packet, &ret->at) != 0 || bytes_le32(&packet, &n) != 0 ||
	    n > PROTOCOL_HASH_CHUNKS || bytes_take(&packet, n * DIGEST_SIZE, &digests) != 0 ||
	    packet.n != 0 || n != (code ? 0 : n_expected))
		return -EBADMSG;
	ret->code = -(int)code;
	ret->n = n;
	if (n)
		memcpy(ret->digests, digests.p, digests.n);
	return 0;
}
