/* SPDX-License-Identifier: Apache-2.0 */
/* fakegpuctl's requests: JSON in, JSON out. README.md, "fakegpuctl", lists them. */
#ifndef FAKEGPUD_CONTROL_H
#define FAKEGPUD_CONTROL_H

#include "daemon/session.h"

/* FG_CTL. Returns 0, or -EBADMSG/-ENOMEM to cut the client off; a bad request is an answer. */
int control_request(struct session *s, const struct fg_msg *m);

#endif
