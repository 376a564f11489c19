/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of the emulated GPU (tests/fakes): a stream of them, taken one by one. */
#include <assert.h>
#include <string.h>

#include "tests/fakes/proto/fg_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t head[FG_HEAD_MAX];
	struct fg_msg m;
	size_t used;

	while (fg_decode(data, n, FG_REQUEST_MAX, &m, &used) == 0) {
		assert(used >= FG_HEADER && used <= n);
		assert(m.n <= FG_ARGS_MAX && m.type && m.type < FG_TYPE_END && m.fd == -1);
		assert((const uint8_t *)m.data + m.len == data + used);
		/* What was read is written the same. */
		assert(fg_encode_head(&m, head) + m.len == used);
		assert(memcmp(head, data, used - m.len) == 0);
		data += used;
		n -= used;
	}
	return 0;
}
