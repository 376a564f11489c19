/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent reads from the CUDA worker, and what it makes of it. */
#include <assert.h>
#include <string.h>

#include "gpu/outcome.h"
#include "gpu/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_memory(const struct gpu_memory *m)
{
	assert(m->n_devices <= GPU_DEVICES_MAX && m->n_processes <= GPU_PROCESSES_MAX);
	for (uint32_t i = 0; i < m->n_devices; i++)
		assert(strlen(m->devices[i].name) < sizeof(m->devices[i].name));
	for (uint32_t i = 0; i < m->n_processes; i++)
		assert(m->processes[i].device < m->n_devices && m->processes[i].pid > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error err = ERROR_NULL;
	union gpu_any_reply any;
	int r;

	if (gpu_reply_parse(bytes_of(data, n), &any) != 0)
		return 0;
	assert(n == gpu_reply_size(any.head.op) && memcmp(&any, data, n) == 0);
	if (any.head.op == GPU_OP_MEMORY)
		check_memory(&any.memory.memory);
	if (any.head.op == GPU_OP_HELLO)
		check_memory(&any.hello.hello.memory);
	r = gpu_outcome(4711, &any.reply, &err);
	assert(r == err.code && (r == 0) == (err.reason == REASON_NONE));
	return 0;
}
