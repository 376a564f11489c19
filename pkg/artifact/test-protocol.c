/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "artifact/protocol.h"
#include "tests/cmocka.h"

static struct protocol_job sample_job(void)
{
	return (struct protocol_job){
		.op = PROTOCOL_SEAL, .workers = 2, .background = true, .max_bytes = 1234567890123,
		.name = ".new-a", .description = bytes_of("{}", 2),
	};
}

static void a_job_goes_there_and_back(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_job in = sample_job(), out;
	struct bytes view;

	(void)state;
	assert_int_equal(protocol_put_job(&b, &in), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_job(&view, &out), 0);
	assert_int_equal(view.n, 0);
	assert_int_equal(out.op, PROTOCOL_SEAL);
	assert_int_equal(out.workers, 2);
	assert_true(out.background);
	assert_int_equal(out.max_bytes, 1234567890123);
	assert_string_equal(out.name, ".new-a");
	assert_int_equal(out.description.n, 2);
	assert_memory_equal(out.description.p, "{}", 2);
}

static void a_job_in_pieces_waits_for_the_rest(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_job in = sample_job(), out;

	(void)state;
	assert_int_equal(protocol_put_job(&b, &in), 0);
	for (size_t n = 0; n < buf_len(&b); n++) {
		struct bytes view = bytes_of(b.mem, n);

		assert_int_equal(protocol_get_job(&view, &out), BYTES_MORE);
		assert_int_equal(view.n, n);
	}
}

static void jobs_out_of_bounds_are_not_sent(void **state)
{
	static const char *const names[] = { "a/b", "..", ".", "/" };
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_job job = sample_job();

	(void)state;
	job.workers = 0;
	assert_int_equal(protocol_put_job(&b, &job), -EINVAL);
	job.workers = PROTOCOL_WORKERS_MAX + 1;
	assert_int_equal(protocol_put_job(&b, &job), -EINVAL);
	job = sample_job();
	job.op = PROTOCOL_OPS_END;
	assert_int_equal(protocol_put_job(&b, &job), -EINVAL);
	job = sample_job();
	job.description.n = METADATA_TEXT_MAX + 1;
	assert_int_equal(protocol_put_job(&b, &job), -EINVAL);
	for (size_t i = 0; i < 4; i++) {
		job = sample_job();
		(void)snprintf(job.name, sizeof(job.name), "%s", names[i]);
		assert_int_equal(protocol_put_job(&b, &job), -EINVAL);
	}
	assert_int_equal(buf_len(&b), 0);
}

/* Every byte of a job changed, one at a time: refused, or a job within bounds. */
static void a_garbled_job_is_refused_or_still_in_bounds(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_job in = sample_job(), out;
	unsigned int refused = 0;

	(void)state;
	assert_int_equal(protocol_put_job(&b, &in), 0);
	for (size_t i = 0; i < buf_len(&b); i++) {
		struct bytes view = buf_bytes(&b);
		int r;

		b.mem[i] ^= 0xff;
		r = protocol_get_job(&view, &out);
		refused += r < 0;
		if (r == 0) {
			assert_true(out.op >= PROTOCOL_SEAL && out.op < PROTOCOL_OPS_END);
			assert_true(out.workers >= 1 && out.workers <= PROTOCOL_WORKERS_MAX);
			assert_null(strchr(out.name, '/'));
		}
		b.mem[i] ^= 0xff;
	}
	assert_true(refused >= 10);
}

static void progress_goes_there_and_back(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_report got;
	struct bytes view;

	(void)state;
	assert_int_equal(protocol_put_progress(&b, 5, 10), 0);
	assert_int_equal(protocol_put_progress(&b, 10, 10), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), 0);
	assert_int_equal(got.type, PROTOCOL_PROGRESS);
	assert_int_equal(got.done, 5);
	assert_int_equal(protocol_get_report(&view, &got), 0);
	assert_int_equal(got.done, 10);
	assert_int_equal(protocol_get_report(&view, &got), BYTES_MORE);
}

static void more_progress_than_there_is_to_do_is_refused(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_report got;
	struct bytes view;

	(void)state;
	assert_int_equal(protocol_put_progress(&b, 11, 10), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
}

static void a_result_goes_there_and_back(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_result in = {
		.files = 7, .bytes = 99, .damaged = "criu/pages-1.img", .damaged_offset = 4096,
		.damaged_length = 12,
	};
	struct protocol_report got;
	struct bytes view;

	(void)state;
	(void)error_reason(&in.err, REASON_IMAGE_CORRUPT, -EBADMSG, "it is damaged");
	memset(&in.manifest, 0x77, sizeof(in.manifest));
	assert_int_equal(protocol_put_result(&b, &in), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), 0);
	assert_int_equal(got.type, PROTOCOL_RESULT);
	assert_int_equal(got.result.err.code, -EBADMSG);
	assert_int_equal(got.result.err.reason, REASON_IMAGE_CORRUPT);
	assert_string_equal(got.result.err.text, "it is damaged");
	assert_int_equal(got.result.files, 7);
	assert_int_equal(got.result.bytes, 99);
	assert_memory_equal(&got.result.manifest, &in.manifest, sizeof(in.manifest));
	assert_string_equal(got.result.damaged, "criu/pages-1.img");
	assert_int_equal(got.result.damaged_offset, 4096);
	assert_int_equal(got.result.damaged_length, 12);
}

static void a_result_has_a_reason_if_and_only_if_it_failed(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct protocol_result in = { 0 };
	struct protocol_report got;
	struct bytes view;

	(void)state;
	in.err.code = -EIO;
	assert_int_equal(protocol_put_result(&b, &in), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	buf_clear(&b);
	in.err.code = 0;
	in.err.reason = REASON_STORE_FULL;
	assert_int_equal(protocol_put_result(&b, &in), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	buf_clear(&b);
	in.err.code = -EIO;
	in.err.reason = (enum reason)9999;
	assert_int_equal(protocol_put_result(&b, &in), 0);
	view = buf_bytes(&b);
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	in.err.code = 17;
	assert_int_equal(protocol_put_result(&b, &in), -EINVAL);
}

static void a_report_of_another_kind_or_length_is_refused(void **state)
{
	static const uint8_t empty[] = { 0, 0, 0, 0 }, huge[] = { 0xff, 0xff, 0xff, 0x7f },
			     unknown[] = { 1, 0, 0, 0, 9 };
	struct protocol_report got;
	struct protocol_job job;
	struct bytes view;

	(void)state;
	view = bytes_of(empty, sizeof(empty));
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	view = bytes_of(huge, sizeof(huge));
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	view = bytes_of(unknown, sizeof(unknown));
	assert_int_equal(protocol_get_report(&view, &got), -EBADMSG);
	view = bytes_of(unknown, sizeof(unknown));
	assert_int_equal(protocol_get_job(&view, &job), -EBADMSG);
}

static void hashing_goes_there_and_back(void **state)
{
	const struct protocol_hash in = { 4096, 10000, 4096 };
	uint8_t packet[PROTOCOL_HASH_REPLY_MAX];
	struct protocol_hashed reply = { .n = 3 }, got;
	struct protocol_hash out;
	size_t n;

	(void)state;
	protocol_put_hash(packet, &in);
	assert_int_equal(protocol_get_hash(bytes_of(packet, PROTOCOL_HASH_REQUEST), &out), 0);
	assert_int_equal(out.offset, 4096);
	assert_int_equal(out.length, 10000);
	assert_int_equal(out.chunk_size, 4096);
	assert_int_equal(protocol_hash_count(&out), 3);
	memset(reply.digests, 0x33, 3 * DIGEST_SIZE);
	n = protocol_put_hashed(packet, &reply);
	assert_int_equal(protocol_get_hashed(bytes_of(packet, n), 3, &got), 0);
	assert_int_equal(got.n, 3);
	assert_memory_equal(got.digests, reply.digests, 3 * DIGEST_SIZE);
	/* More or fewer than were asked for. */
	assert_int_equal(protocol_get_hashed(bytes_of(packet, n), 2, &got), -EBADMSG);
	assert_int_equal(protocol_get_hashed(bytes_of(packet, n - 1), 3, &got), -EBADMSG);
	reply = (struct protocol_hashed){ .code = -EIO, .at = 77 };
	n = protocol_put_hashed(packet, &reply);
	assert_int_equal(protocol_get_hashed(bytes_of(packet, n), 3, &got), 0);
	assert_int_equal(got.code, -EIO);
	assert_int_equal(got.at, 77);
}

static void hash_requests_out_of_bounds_are_refused(void **state)
{
	static const struct protocol_hash wrong[] = {
		{ 0, 4096, 0 },
		{ 0, 65 * 4096, 4096 },
		{ UINT64_MAX, 2, 4096 },
		{ (uint64_t)INT64_MAX, 1, 4096 },
	};
	const struct protocol_hash empty = { 0, 0, 1 };
	uint8_t packet[PROTOCOL_HASH_REQUEST + 1] = { 0 };
	struct protocol_hash got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(protocol_hash_count(&wrong[i]), 0);
		protocol_put_hash(packet, &wrong[i]);
		assert_int_equal(protocol_get_hash(bytes_of(packet, PROTOCOL_HASH_REQUEST), &got),
				 -EBADMSG);
	}
	assert_int_equal(protocol_hash_count(&empty), 1);
	protocol_put_hash(packet, &empty);
	assert_int_equal(protocol_get_hash(bytes_of(packet, sizeof(packet)), &got), -EBADMSG);
	assert_int_equal(protocol_get_hash(bytes_of(packet, PROTOCOL_HASH_REQUEST - 1), &got),
			 -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_goes_there_and_back),
		cmocka_unit_test(a_job_in_pieces_waits_for_the_rest),
		cmocka_unit_test(jobs_out_of_bounds_are_not_sent),
		cmocka_unit_test(a_garbled_job_is_refused_or_still_in_bounds),
		cmocka_unit_test(progress_goes_there_and_back),
		cmocka_unit_test(more_progress_than_there_is_to_do_is_refused),
		cmocka_unit_test(a_result_goes_there_and_back),
		cmocka_unit_test(a_result_has_a_reason_if_and_only_if_it_failed),
		cmocka_unit_test(a_report_of_another_kind_or_length_is_refused),
		cmocka_unit_test(hashing_goes_there_and_back),
		cmocka_unit_test(hash_requests_out_of_bounds_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
