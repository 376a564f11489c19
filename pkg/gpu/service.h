/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's main thread: takes requests off the socket, hands them to the pool, sends what
 * comes back. It never calls the driver and never blocks, so PING is answered whatever hangs.
 * Requests for one process are carried out one after the other, in their order.
 */
#ifndef KYB_GPU_SERVICE_H
#define KYB_GPU_SERVICE_H

#include "base/error.h"

struct gpu_service_config {
	const char *libcuda, *libnvml; /* NULL = the usual names */
};

/*
 * Serves fd, a SOCK_SEQPACKET socket (borrowed), until the agent closes its end. Returns 0 then,
 * or negative with err: the agent sent what is no request, or the system failed. Driver calls may
 * still run when it returns: leave by _exit().
 */
int gpu_service_run(int fd, const struct gpu_service_config *config, struct error *err);

#endif
