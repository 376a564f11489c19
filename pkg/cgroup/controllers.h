/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 2 accounts for a cgroup only what its parents pass on. containerd's shim switches all
 * controllers on down to the container after a create (cmd/containerd-shim-runc-v2/task/
 * service.go, containerd/cgroups ToggleControllers): statistics would be zeros else.
 */
#ifndef KYB_CGROUP_CONTROLLERS_H
#define KYB_CGROUP_CONTROLLERS_H

#include "base/error.h"
#include "cgroup/cgroup.h"

/*
 * For every cgroup from the root down to the parent, never for the container's own. What is on
 * already is not written again: the write waits for cgroups that are being removed. Nothing to do
 * under version 1. Returns 0, or the failure at the parent, which is the one that counts; the
 * caller logs it and goes on.
 */
int controllers_enable(const struct cgroup *cg, struct error *err);

#endif
