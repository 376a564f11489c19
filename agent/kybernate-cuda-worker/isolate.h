/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the worker gives up before it loads the driver: everything but its one socket and the
 * capabilities that the driver's checkpoint calls need. docs/decisions/ says why each is kept.
 */
#ifndef KYB_CUDA_WORKER_ISOLATE_H
#define KYB_CUDA_WORKER_ISOLATE_H

#include "base/error.h"

/*
 * Call first, with a single thread. fd is the agent's socket, the only descriptor above 2 that
 * stays open. From here on the process dies with the agent (parent is the agent's pid, 0 = not
 * known). Returns 0, or negative with err.
 */
int isolate(int fd, int parent, struct error *err);

#endif
