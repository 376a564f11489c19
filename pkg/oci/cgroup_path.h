/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the OCI runtime puts a container on cgroup v2: linux.cgroupsPath of its spec, as a path below
 * the mount point. Sources: runtime-spec config-linux.md; runc libcontainer/cgroups
 * fs2/defaultpath.go, systemd/common.go (ExpandSlice, getUnitName); systemd.slice(5).
 */
#ifndef KYB_OCI_CGROUP_PATH_H
#define KYB_OCI_CGROUP_PATH_H

#include <stdbool.h>
#include <stddef.h>

/*
 * With the systemd driver "SLICE:PREFIX:NAME", otherwise a path. Returns 0; -ENOENT when the spec
 * leaves the place to the runtime or to where it is called from, so that nobody else can tell;
 * -EINVAL for one that no runtime takes; -ENAMETOOLONG.
 */
int cgroup_path_of_spec(const char *cgroups_path, bool systemd, char *buf, size_t size);

#endif
