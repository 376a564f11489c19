/* SPDX-License-Identifier: Apache-2.0 */
/* What agent, store worker and hash helper say to each other. The first byte says who hears. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "artifact/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void hear_job(struct bytes in)
{
	struct protocol_job job;

	while (protocol_get_job(&in, &job) == 0) {
		_cleanup_buf_ struct buf b = BUF_NULL;

		/* What was accepted may be sent. */
		assert(protocol_put_job(&b, &job) == 0);
	}
}

static void hear_reports(struct bytes in)
{
	struct protocol_report r;
	size_t before = in.n;

	while (protocol_get_report(&in, &r) == 0) {
		assert(in.n < before);
		before = in.n;
		if (r.type == PROTOCOL_PROGRESS)
			assert(r.done <= r.total);
		else
			assert((r.result.err.code == 0) == (r.result.err.reason == REASON_NONE) &&
			       strlen(r.result.damaged) < LAYOUT_PATH_MAX);
	}
}

static void hear_hashing(struct bytes in)
{
	static struct protocol_hashed reply;
	struct protocol_hash request;

	if (protocol_get_hash(in, &request) == 0)
		assert(protocol_hash_count(&request) >= 1 &&
		       protocol_hash_count(&request) <= PROTOCOL_HASH_CHUNKS);
	for (size_t n = 0; n <= 3; n++)
		if (protocol_get_hashed(in, n, &reply) == 0)
			assert(reply.n == (reply.code ? 0 : n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n);
	uint8_t who;

	if (bytes_u8(&in, &who) != 0)
		return 0;
	if (who % 3 == 0)
		hear_job(in);
	else if (who % 3 == 1)
		hear_reports(in);
	else
		hear_hashing(in);
	return 0;
}
