/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request carried out: the worker's half of the protocol without its sockets and threads.
 * Everything here may block in the driver.
 */
#ifndef KYB_GPU_EXECUTE_H
#define KYB_GPU_EXECUTE_H

#include "base/error.h"
#include "gpu/driver.h"
#include "gpu/nvml.h"
#include "gpu/protocol.h"

/* What requests are carried out with. Zero-initialised but for the two paths. */
struct gpu_backend {
	const char *libcuda, *libnvml; /* NULL = the usual names */
	struct driver *driver;         /* NULL: not there, why says it */
	struct nvml *nvml;             /* NULL: not there */
	struct error why;              /* why the driver cannot be used; code 0 = it can */
	struct gpu_memory devices;     /* what the driver lists; no figures, no processes */
};

/*
 * Carries out a request that gpu_request_parse() has accepted, and fills reply, which is
 * gpu_reply_size() bytes and has been initialised. HELLO opens driver and NVML: once, before all
 * others, and alone. The others may run at the same time in several threads, but only one for
 * any process. PING and CANCEL are not for here.
 */
void gpu_execute(struct gpu_backend *b, const struct gpu_request *req, struct gpu_reply *reply);

#endif
