/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/reply.h"

#define GO_ZERO_TIME ((int64_t)-62135596800) /* 0001-01-01T00:00:00Z */

Ctd__Timestamp *reply_time(nsec_t wall, Ctd__Timestamp *buf)
{
	ctd__timestamp__init(buf);
	buf->seconds = wall ? (int64_t)(wall / NSEC_PER_SEC) : GO_ZERO_TIME;
	buf->nanos = wall ? (int32_t)(wall % NSEC_PER_SEC) : 0;
	return buf;
}

Ctd__Timestamp *reply_exited_at(const struct process *p, Ctd__Timestamp *buf)
{
	return reply_time(p->exited_at, buf);
}
