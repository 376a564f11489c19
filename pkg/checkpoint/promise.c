/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/promise.h"

#include <assert.h>
#include <string.h>

void gpu_promise_init(struct gpu_promise *p)
{
	list_init(&p->node);
	p->n = 0;
}

void gpu_promise_clear(struct gpu_promise *p)
{
	p->n = 0;
}

void gpu_promise_add(struct gpu_promise *p, const struct cuda_uuid *gpu, uint64_t bytes)
{
	if (!bytes)
		return;
	assert(p->n < GPU_DEVICES_MAX);
	p->shares[p->n].gpu = *gpu;
	p->shares[p->n++].bytes = bytes;
}

uint64_t gpu_promised(const struct list *promises, const struct gpu_promise *but,
		      const struct cuda_uuid *gpu)
{
	const struct gpu_promise *p;
	uint64_t sum = 0;

	list_for_each(p, promises, node)
		for (uint32_t i = 0; p != but && i < p->n; i++)
			if (memcmp(&p->shares[i].gpu, gpu, sizeof(*gpu)) == 0 &&
			    __builtin_add_overflow(sum, p->shares[i].bytes, &sum))
				return UINT64_MAX;
	return sum;
}
