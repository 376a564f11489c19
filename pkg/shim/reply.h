/* SPDX-License-Identifier: Apache-2.0 */
/* Small pieces of answers and events. */
#ifndef KYB_SHIM_REPLY_H
#define KYB_SHIM_REPLY_H

#include "api/containerd/common.pb-c.h"
#include "shim/task.h"

/*
 * When p exited, or Go's zero time: an omitted field would decode to 1970, and containerd's
 * clients would believe in an exit. buf is filled and returned.
 */
Ctd__Timestamp *reply_exited_at(const struct process *p, Ctd__Timestamp *buf);

/* As above for a wall-clock time; 0 = the zero time. */
Ctd__Timestamp *reply_time(nsec_t wall, Ctd__Timestamp *buf);

#endif
