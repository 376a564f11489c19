/* SPDX-License-Identifier: Apache-2.0 */
/* Does a checkpoint fit here: driver, GPUs, free GPU memory, processes? */
#ifndef KYB_CHECKPOINT_FIT_H
#define KYB_CHECKPOINT_FIT_H

#include "checkpoint/operation.h"

/* What a container may use. */
struct fit_scope {
	const struct node *node;
	const char *gpu_group;
	/* Its device nodes; where a GPU's is among them, those that it has not are out of reach. */
	const char *const *device_paths;
	size_t n_device_paths;
	/* What kubelet has given it; none = it has not said. */
	const char *const *pod_gpus;
	size_t n_pod_gpus;
};

/*
 * Where each GPU of a checkpoint goes: its own place first, then one of the same chip, that with the
 * most memory free. ret_target: as many as gpu->n_devices, into mem. ret_moved: not all are where
 * they were. Returns 0 or negative with err (GPU_MISMATCH).
 */
int fit_map(const struct metadata_gpu *gpu, const struct gpu_memory *mem,
	    const struct fit_scope *scope, const struct gpu_device **ret_target, bool *ret_moved,
	    struct error *err);

/*
 * Before anything is restored: the seat's GPUs, as op->memory has them now, and the driver against
 * op->metadata. What others were promised (node.returning) is not free. Fills op->pairs where GPUs
 * have to be mapped, and op->promise with what is needed where. Returns 0 or negative with err:
 * DRIVER_UNAVAILABLE, DRIVER_MISMATCH, GPU_MISMATCH, VRAM_SHORT.
 */
int fit_check(struct operation *op, struct error *err);

/*
 * Before a container that is held is given its GPU memory back: have its GPUs, as op->memory has
 * them now, room for what op->group holds, beyond what others were promised? Returns 0 or negative
 * with err: GPU_MISMATCH, VRAM_SHORT.
 */
int fit_held(struct operation *op, struct error *err);

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
