/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CRIU that has outlived whoever ordered it. It holds the container's processes by ptrace; the
 * driver cannot bring their memory back before it has let go.
 */
#ifndef KYB_CHECKPOINT_CRIU_H
#define KYB_CHECKPOINT_CRIU_H

#include <sys/types.h>

#include "cgroup/cgroup.h"

/*
 * The CRIU that traces a process of the cgroup: its pid, or 0 when there is none. Other tracers are
 * a person's affair: CRIU would not have got anywhere with one.
 */
pid_t criu_tracer(const struct cgroup *cg);

#endif
