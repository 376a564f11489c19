/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What checkpoint, restore, suspend and resume have in common: a call whose answers are a stream of updates, shown
 * as they come, with a verdict at the end. The call is the lease on the operation: when it ends
 * early, because of Ctrl-C for instance, the agent undoes what it has done.
 */
#ifndef KYB_CTL_OPERATION_H
#define KYB_CTL_OPERATION_H

#include "api/agent/v1/agent.pb-c.h"
#include "ctl.h"

struct operation_call {
	const char *method; /* CLIENT_METHOD(...) */
	const ProtobufCMessage *request;
	nsec_t timeout;         /* of the whole operation; 0 = the agent's own limit */
	const char *subject;    /* what it is done to, for messages: "web" */
	/* By these it is found in the agent's status; "" = not known. */
	const char *container_id, *checkpoint_ref;
	/* It is done: what is printed for it, a line, or with quiet the name of what was made. */
	void (*done)(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		     struct text *out);
	const void *arg;
	const char *kept; /* after a failure that was undone: "the container runs on" */
};

/* The options that all of them have, as rows of the verb's own table. */
#define OPERATION_NAMESPACE(type)                                                                  \
	{ "namespace", 'n', "NS", "the container's namespace at containerd\n(default: k8s.io)",    \
	  offsetof(type, ns), option_id }
#define OPERATION_TIMEOUT(type)                                                                    \
	{ "timeout", 't', "TIME", "of the whole, such as 90s or 5m (default and\n"                  \
				  "maximum: the agent's timeouts.operation)",                      \
	  offsetof(type, timeout), option_duration }

/* A field of a request. NULL is "". */
char *operation_text(const char *s);
uint64_t operation_ms(nsec_t timeout);
/* ", after 1.2s" with those words before the time; nothing when the agent told no times. */
void operation_took(struct text *out, const char *before,
		    const Kybernate__Agent__V1__OperationUpdate *last);

/* Returns the exit status; everything has been printed. */
int operation_run(struct ctl *ctl, const struct operation_call *call);

#endif
