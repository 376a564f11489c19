/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application's side of the emulated GPU: as much of a CUDA runtime as test workloads need.
 * Functions return a CUresult (enum fg_code). Any thread may call; calls of one process are done
 * one at a time, and block while the process is locked or checkpointed.
 */
#ifndef FAKECUDA_H
#define FAKECUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/fg_proto.h"

/* cuInit: connects to the daemon and starts the restore thread. Again: nothing. */
int fc_init(void);
/* Has this process (not the parent it was forked from) done fc_init()? */
bool fc_ready(void);

/* The GPUs this process sees: those whose /dev/nvidiaN exists, if any does; else those that
 * NVIDIA_VISIBLE_DEVICES names, if it is set; else all. */
int fc_device_count(int *ret);
int fc_device_uuid(int device, uint8_t *ret);
/* The device that following calls use (0 at first). The first use of a device makes a context. */
int fc_set_device(int device);

int fc_malloc(uint64_t *ret, size_t bytes);
/* Managed memory, which cannot be checkpointed. */
int fc_malloc_managed(uint64_t *ret, size_t bytes);
int fc_free(uint64_t address);
int fc_memcpy_from(void *to, uint64_t from, size_t n);
int fc_memcpy_to(uint64_t to, const void *from, size_t n);

/* Kernels run in order, after the call has returned. What they compute: enum fg_kernel. */
int fc_launch_fill(uint64_t address, uint64_t words, uint64_t seed, uint64_t plus);
int fc_launch_add(uint64_t address, uint64_t words, uint64_t value);
int fc_launch_checksum(uint64_t address, uint64_t words, uint64_t result);
int fc_launch_verify(uint64_t address, uint64_t words, uint64_t seed, uint64_t plus,
		     uint64_t result);
int fc_launch_sleep(uint64_t ms);
/* Waits for all kernels. */
int fc_synchronize(void);

/* "OUT_OF_MEMORY" and so on. */
const char *fc_code_name(int code);

#endif
