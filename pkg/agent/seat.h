/* SPDX-License-Identifier: Apache-2.0 */
/* A container's seat, as its specification at containerd has it: for doctor, which no shim tells. */
#ifndef KYB_AGENT_SEAT_H
#define KYB_AGENT_SEAT_H

#include "api/containerd/services.pb-c.h"
#include "checkpoint/operation.h"
#include "oci/bundle.h"

struct seat {
	struct bundle bundle;
	struct operation_request req; /* of which the preflight of a seat looks at; into bundle */
};

/*
 * Returns 0, or negative with err: SEAT_MISMATCH where environment and annotation disagree,
 * CONTAINERD_FAILED where there is no specification. Free with seat_done() in both cases.
 */
int seat_read(const Svc__Container *record, pid_t pid, struct seat *ret, struct error *err);
/* Harmless on a zeroed one. */
void seat_done(struct seat *s);

/* What is said of it, for a person. */
void seat_describe(const struct seat *s, char *buf, size_t size);

#endif
