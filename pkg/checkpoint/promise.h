/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GPU memory that somebody was promised who does not hold it yet: NVML still counts it as free. All
 * promises of a node are in one list; one that is in it counts. It is written down nowhere: with the
 * agent everything ends that was promised something, and what the next one brings back it promises
 * anew.
 */
#ifndef KYB_CHECKPOINT_PROMISE_H
#define KYB_CHECKPOINT_PROMISE_H

#include "base/list.h"
#include "gpu/worker.h"

struct gpu_promise {
	struct list node; /* in the list of promises, or in none */
	struct {
		struct cuda_uuid gpu;
		uint64_t bytes;
	} shares[GPU_DEVICES_MAX];
	uint32_t n;
};

/* Of nothing, and in no list. */
void gpu_promise_init(struct gpu_promise *p);
/* Of nothing again; in the list or not as before. */
void gpu_promise_clear(struct gpu_promise *p);
/* At most GPU_DEVICES_MAX times; 0 bytes are left out. */
void gpu_promise_add(struct gpu_promise *p, const struct cuda_uuid *gpu, uint64_t bytes);
/* What all but one (it may be in the list or not) were promised of a GPU. */
uint64_t gpu_promised(const struct list *promises, const struct gpu_promise *but,
		      const struct cuda_uuid *gpu);

#endif
