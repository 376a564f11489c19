/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the OCI runtime puts a container on cgroup v2, as a path below the mount point: by
 * linux.cgroupsPath of its spec, and what runc and crun make of it. Sources: runtime-spec
 * config-linux.md; runc libcontainer/specconv (CreateCgroupConfig), cgroups fs2/defaultpath.go,
 * systemd/common.go (ExpandSlice, getUnitName); crun cgroup-systemd.c
 * (get_systemd_scope_and_slice, find_systemd_subgroup); systemd.slice(5).
 */
#ifndef KYB_OCI_CGROUP_PATH_H
#define KYB_OCI_CGROUP_PATH_H

#include <stddef.h>

#include "oci/bundle.h"
#include "oci/runtime.h"

/*
 * With the systemd driver "SLICE:PREFIX:NAME" in the spec, or the scope of the runtime's own name,
 * and of crun the cgroup that it makes in a scope; otherwise a path. Returns 0; -ENOENT when the spec
 * leaves the place to where the runtime is called from, so that nobody else can tell; -EINVAL for
 * one that no runtime takes; -ENAMETOOLONG.
 */
int cgroup_path_of(const struct runtime *rt, const struct bundle *b, char *buf, size_t size);

#endif
