/* SPDX-License-Identifier: Apache-2.0 */
/* What worker.c, worker-call.c and worker-config.c share. Private to this layer. */
#ifndef KYB_GPU_WORKER_PRIVATE_H
#define KYB_GPU_WORKER_PRIVATE_H

#include "gpu/worker.h"

/* worker.c: takes a call whose private members are set; cancels, forgets one that is open. */
void worker_take(struct gpu_worker *w, struct gpu_call *call);
void worker_cancel(struct gpu_worker *w, struct gpu_call *call);
void worker_forget(struct gpu_worker *w, struct gpu_call *call);

/* A copy with strings of its own. Returns 0 or -ENOMEM; worker_config_done() in both cases. */
int worker_config_copy(struct gpu_worker_config *c, const struct gpu_worker_config *from);
void worker_config_done(struct gpu_worker_config *c);

#endif
