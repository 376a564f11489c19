/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVML, NVIDIA's management library, loaded at run time: how much GPU memory is free, who uses it,
 * MIG, persistence mode, the device nodes' numbers. All of it is optional: without the library, or
 * on an older one that lacks a call, the figures concerned are "unknown" and nothing fails.
 *
 * Every function may block. nvml_fill() may be called from several threads at once.
 * Source: the NVML API reference; struct layouts as nvml.h of r515 and later has them.
 */
#ifndef KYB_GPU_NVML_H
#define KYB_GPU_NVML_H

#include "base/error.h"
#include "gpu/protocol.h"

#define NVML_LIBRARY "libnvidia-ml.so.1"

struct nvml;

/* Loads and initialises it (NULL = NVML_LIBRARY). Returns 0, or negative with why it is not
 * there; never unloaded. */
int nvml_open(const char *library, struct nvml **ret, struct error *err);

/* "580.159.04", the kernel module's; "" when it will not say. */
const char *nvml_driver_version(const struct nvml *nvml);

/*
 * Completes the devices in m, found by their UUID, appends those that only NVML knows, and lists
 * the processes that have a CUDA context and how much memory they use. A GPU that answers
 * nothing (fallen off the bus) is left out or left unknown. Pids are those of our pid namespace.
 */
void nvml_fill(const struct nvml *nvml, struct gpu_memory *m);

#endif
