/* SPDX-License-Identifier: Apache-2.0 */
/* What the CUDA worker reads from the agent. */
#include <assert.h>
#include <string.h>

#include "gpu/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct gpu_request req;

	if (gpu_request_parse(bytes_of(data, n), &req) != 0)
		return 0;
	/* What is accepted is what came, and within the bounds that the worker counts on. */
	assert(n == sizeof(req) && memcmp(&req, data, n) == 0);
	assert(req.n_pairs <= GPU_DEVICES_MAX);
	assert(req.head.op != GPU_OP_LOCK || req.timeout_ms > 0);
	assert(!gpu_op_has_pid(req.head.op) || req.pid > 0);
	return 0;
}
