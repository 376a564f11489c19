/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What went wrong, from wherever it is known: the Error of the agent's last message, the status
 * of the call, or this program itself. One form for people, one for programs, and the exit status.
 */
#ifndef KYB_CTL_FAULT_H
#define KYB_CTL_FAULT_H

#include <jansson.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "rpc/grpc_client.h"
#include "screen.h"
#include "text.h"

/* Documented in kybernatectl(1). A signal that ends us gives 128 and its number. */
enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILED = 1,      /* the operation failed, and was undone */
	CTL_USAGE = 2,       /* wrong arguments */
	CTL_UNREACHABLE = 3, /* no agent, or it went away */
	CTL_NOT_FOUND = 4,   /* no such checkpoint or container */
	CTL_REFUSED = 5,     /* nothing was touched: a check before, or permission */
	CTL_DEGRADED = 6,    /* held in host memory until its GPU memory can be brought back */
	CTL_TIMEOUT = 7,
	CTL_SIGNAL = 128,
};

#define FAULT_DETAIL_MAX 64

struct fault {
	int exit;      /* enum ctl_exit; CTL_OK = nothing went wrong */
	int reason;    /* number of enum Reason; REASON_NONE where there is none */
	const char *code; /* name of the gRPC code, where there is no reason; or NULL */
	int phase;     /* number of enum Phase; 0 = not in a phase */
	bool transient;
	bool degraded;
	const char *message;
	const char *detail[FAULT_DETAIL_MAX];
	size_t n_detail;
	const char *hint; /* NULL: the reason's own advice, if any */
	struct arena mem;
};

#define FAULT_MEMORY_MAX ((size_t)1 << 20)

#define FAULT_NULL                                                                                 \
	(struct fault)                                                                             \
	{                                                                                          \
		.mem = ARENA_LIMIT(FAULT_MEMORY_MAX)                                               \
	}

void fault_done(struct fault *f);

/* All of these replace what f held, copy their text, and return f->exit, which is never CTL_OK. */

/* Something that this program found out itself. */
int fault_set(struct fault *f, int exit, enum reason reason, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The status of a call that ended with another code than RPC_OK. */
int fault_from_status(struct fault *f, const struct grpc_status *status);
/* The Error of an update or a reply; e may be NULL. */
int fault_from_error(struct fault *f, Kybernate__Agent__V1__Status status,
		     const Kybernate__Agent__V1__Error *e);

/* hint: a constant, in place of the reason's own advice. */
int fault_hint(struct fault *f, const char *hint);

/*
 * For people:
 *	kybernatectl: checkpoint failed in phase lock: LOCK_TIMEOUT: <message>
 *	    <detail>
 *	hint: <advice>
 */
void fault_print(const struct fault *f, const char *what, bool colour, struct text *out);

/* {"reason", "phase", "message", "detail", "transient", "hint", "exit_status"}; NULL: no memory. */
json_t *fault_doc(const struct fault *f);

/* The advice that goes with it, or NULL. */
const char *fault_advice(const struct fault *f);

#define _cleanup_fault_ _cleanup_(fault_done)

#endif
