/* SPDX-License-Identifier: Apache-2.0 */
/* Does a checkpoint fit here: driver, GPUs, free GPU memory, processes? */
#ifndef KYB_CHECKPOINT_FIT_H
#define KYB_CHECKPOINT_FIT_H

#include "checkpoint/operation.h"

/*
 * Before anything is restored: the seat's GPUs, as op->memory has them now, and the driver against
 * op->metadata. Fills op->pairs where GPUs have to be mapped. Returns 0 or negative with err: DRIVER_UNAVAILABLE,
 * DRIVER_MISMATCH, GPU_MISMATCH, VRAM_SHORT.
 */
int fit_check(struct operation *op, struct error *err);

/*
 * Before a container that is held is given its GPU memory back: have its GPUs, as op->memory has
 * them now, room for what op->group holds? Returns 0 or negative with err: GPU_MISMATCH,
 * VRAM_SHORT.
 */
int fit_held(const struct operation *op, struct error *err);

/*
 * What NVML says, in op->memory, against what the driver says. Has every process that was saved
 * given its GPU memory back? Is every one that was restored on the GPU it was to be on? Without NVML
 * both are taken for true. Return 0 or negative with err (CUDA_STATE_WRONG).
 */
int fit_freed(const struct operation *op, struct error *err);
int fit_placed(const struct operation *op, struct error *err);

/*
 * After CRIU: are the CUDA processes found, in op->group, those of the checkpoint, and all of them
 * CHECKPOINTED? Returns 0 or negative with err (CUDA_STATE_WRONG).
 */
int fit_processes(const struct operation *op, struct error *err);

#endif
