/* SPDX-License-Identifier: Apache-2.0 */
/* The values of gRPC's header fields: what is read is written and read again the same. */
#include <assert.h>
#include <string.h>

#include "wire/grpc_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int same(struct bytes a, struct bytes b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n);
	struct buf text = BUF_NULL, back = BUF_NULL;
	char timeout[GRPC_TIMEOUT_MAX];
	nsec_t t, again;

	if (grpc_timeout_parse(in, &t) == 0 && t != NSEC_NEVER) {
		grpc_timeout_format(t, timeout);
		assert(grpc_timeout_parse(bytes_of(timeout, strlen(timeout)), &again) == 0);
		assert(again >= t);
	}
	assert(grpc_base64_encode(in, &text) == 0);
	assert(grpc_base64_decode(buf_bytes(&text), &back) == 0);
	assert(same(buf_bytes(&back), in));
	buf_clear(&text);
	buf_clear(&back);
	assert(grpc_percent_encode(in, &text) == 0);
	assert(grpc_metadata_value_ok(buf_bytes(&text)));
	assert(grpc_percent_decode(buf_bytes(&text), &back) == 0);
	assert(same(buf_bytes(&back), in) || memchr(data, 0, n));
	buf_clear(&text);
	(void)grpc_percent_decode(in, &text);
	assert(!buf_len(&text) || strlen(buf_str(&text)) == buf_len(&text));
	buf_clear(&text);
	(void)grpc_base64_decode(in, &text);
	(void)grpc_status_parse(in);
	(void)grpc_content_type_ok(in);
	buf_done(&text);
	buf_done(&back);
	return 0;
}
