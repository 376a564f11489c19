/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The short-lived calls of a shim's binary: start, delete, -info. Each prints its answer to stdout
 * and ends. Source: containerd pkg/shim/shim.go, cmd/containerd-shim-runc-v2/manager/.
 */
#ifndef KYB_SHIM_BOOTSTRAP_H
#define KYB_SHIM_BOOTSTRAP_H

#include "base/error.h"
#include "shim/args.h"

/* Starts the daemon of a pod, or finds the one it has. Returns 0 or negative with err. */
int bootstrap_start(const struct args *args, struct error *err);

/* Cleans up after a shim that died: containers are killed, mounts undone. */
int bootstrap_delete(const struct args *args, struct error *err);

/* Tells containerd (2.0+) what this runtime can do. */
int bootstrap_info(struct error *err);

#endif
