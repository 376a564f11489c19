/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator's call is told of the operation that it has brought about. The call is the
 * agent's own client at containerd; containerd asks the shim, and the shim's stream begins the
 * operation, which from then on reports here.
 */
#ifndef KYB_AGENT_REPORT_H
#define KYB_AGENT_REPORT_H

#include "agent/convert.h"
#include "rpc/grpc_server.h"

struct report {
	struct grpc_call *call;  /* NULL: the caller has left */
	const char *ref, *id;    /* of the checkpoint ("" = none), of the container; borrowed */
	struct operation *op;    /* while it runs */
	bool begun, over;
	enum operation_status status;
	enum phase failed_phase;
	struct error outcome;
	struct arena mem; /* of what follows */
	pb_phase_time **timeline;
	size_t n_timeline;
	char **detail;
	size_t n_detail;
};

void report_init(struct report *r, struct grpc_call *call);
void report_done(struct report *r);

/* The operation has begun; its phase or progress changed; it is over (op NULL: never begun). */
void report_begun(struct report *r, struct operation *op);
void report_update(struct report *r, const struct operation *op);
void report_finished(struct report *r, const struct operation *op, enum operation_status status,
		     const struct error *err);

/*
 * The last word, and the end of the call: result and err are those of the call to containerd, the
 * operation knows better where there was one.
 */
void report_answer(struct report *r, int result, const struct error *err);

#endif
