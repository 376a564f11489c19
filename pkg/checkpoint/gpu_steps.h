/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of operations that stop a container's work on the GPU, and their undo: what a checkpoint
 * and a suspend have in common. run(), undo() and cancel() of struct flow_step.
 */
#ifndef KYB_CHECKPOINT_GPU_STEPS_H
#define KYB_CHECKPOINT_GPU_STEPS_H

#include "checkpoint/operation.h"

/* Has the container CUDA processes, as far as is known by now? */
bool gpu_steps_needed(const struct operation *op);

/* Finds and locks all; where that may help, more than once. */
int gpu_step_lock(struct flow *f, struct error *err);
/* All GPU memory to host memory. Then, and also where there is none, op->cuda_done. */
int gpu_step_save(struct flow *f, struct error *err);
/* Of both. */
void gpu_step_cancel(struct flow *f);

/*
 * A gpu_group_done of gpu_group_restore(), data is the operation: all are back, but where? Then the
 * step ends.
 */
void gpu_step_restored(void *data, int r, const struct error *err);

/*
 * Whatever was locked or saved: back to RUNNING. The undo of both. What cannot be brought back now
 * becomes DEGRADED and is tried again in the background.
 */
int gpu_undo(struct flow *f, struct error *err);
/* The same for a container that may still be frozen (op->dumping), with a shim that may be gone. */
int gpu_undo_frozen(struct flow *f, struct error *err);

#endif
