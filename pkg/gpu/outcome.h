/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reply of the worker means: errno, reason and a sentence that names the process, the
 * driver's call, its error by name and number, and what is known to cause it.
 */
#ifndef KYB_GPU_OUTCOME_H
#define KYB_GPU_OUTCOME_H

#include <sys/types.h>

#include "base/error.h"
#include "gpu/protocol.h"

/*
 * Returns 0 when the driver did what was asked, else negative with err:
 *
 *	-ETIMEDOUT	LOCK_TIMEOUT: not locked in time, the process is RUNNING
 *	-ESRCH		the process has exited, or its number is another's by now
 *	-ENXIO		it has no CUDA state (any more)
 *	-EBUSY		ILLEGAL_STATE: the process is not in the state that the call needs
 *	-ENOMEM		VRAM_SHORT for a restore
 *	-EOPNOTSUPP	what the process or this driver has cannot be saved or restored
 *	-ENOTRECOVERABLE CUDA_STATE_LOST: STATE says FAILED
 *	-EPROTO		CUDA_STATE_WRONG: STATE says something that we cannot use
 *	-ENODEV		DRIVER_UNAVAILABLE
 *	-EIO, ...	anything else; the reason tells which call failed
 *
 * pid is the one of the request.
 */
int gpu_outcome(pid_t pid, const struct gpu_reply *reply, struct error *err);

/* The reason for a failure of op about which nothing more is known. */
enum reason gpu_op_reason(unsigned int op);
/* "cuCheckpointProcessLock" and so on; "the driver" where op is no call of it. */
const char *gpu_op_call(unsigned int op);

#endif
