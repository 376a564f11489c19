/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent gives up what it will never need, whoever started it: the unit and the DaemonSet say
 * the same, but an agent that was started by hand should be no more powerful. Its children - the
 * CUDA worker, and itself in the roles that hash, pack and remove - inherit all of it.
 */
#ifndef KYB_AGENT_ISOLATE_H
#define KYB_AGENT_ISOLATE_H

#include "base/error.h"

/*
 * Capabilities: only those that the driver's calls may need of the worker are left, and SETPCAP, by
 * which that one drops more. System calls: those for mounts, modules, clocks, raw I/O, namespaces
 * and the like fail with EPERM. No new privileges by exec, no core dumps (they would hold what
 * shims say of containers), umask 077, as many descriptors as the hard limit allows.
 *
 * An agent that has less already keeps that. Returns 0 or negative with err: then it must not run.
 */
int isolate(struct error *err);

#endif
