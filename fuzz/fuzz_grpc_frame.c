/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message framing, in pieces: the reader must find the same messages, and the same end, as
 * one look at the whole. The first byte says how long a piece is.
 */
#include <assert.h>
#include <string.h>

#include "wire/grpc_frame.h"

#define MESSAGE_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct grpc_reader r = GRPC_READER(MESSAGE_MAX);
	struct bytes in = bytes_of(data, n), whole, piece, got, want;
	int end, e = BYTES_MORE;
	uint8_t step;

	if (bytes_u8(&in, &step) != 0)
		return 0;
	whole = in;
	while (in.n && e == BYTES_MORE) {
		(void)bytes_take(&in, step && step < in.n ? step : in.n, &piece);
		while ((e = grpc_reader_next(&r, &piece, &got)) == 0) {
			assert(grpc_frame_take(&whole, MESSAGE_MAX, &want) == 0);
			assert(got.n == want.n);
			assert(got.n == 0 || memcmp(got.p, want.p, got.n) == 0);
		}
		assert(e < 0 || piece.n == 0);
	}
	end = grpc_frame_take(&whole, MESSAGE_MAX, &want);
	assert(end == e);
	grpc_reader_done(&r);
	return 0;
}
