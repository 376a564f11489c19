/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GPU UUIDs: 16 bytes to the CUDA driver, "GPU-8-4-4-4-12" in lower-case hex to NVML, nvidia-smi,
 * the device plugin and people. The bytes are in the order they are printed.
 */
#ifndef KYB_GPU_UUID_H
#define KYB_GPU_UUID_H

#include "gpu/cuda_abi.h"

#define GPU_UUID_TEXT_MAX 41 /* "GPU-" + 36 + NUL */

/* Writes the text form; returns buf. */
const char *gpu_uuid_format(const struct cuda_uuid *uuid, char buf[GPU_UUID_TEXT_MAX]);

/*
 * Reads it: "GPU-…", or "MIG-…" in the form that is a plain UUID, hex digits of either case.
 * Returns 0 or -EINVAL.
 */
int gpu_uuid_parse(const char *text, struct cuda_uuid *ret);

#endif
