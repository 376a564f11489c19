/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent without a node: its service over its real socket, a real store, and in the same loop a
 * containerd and a shim that do what the test orders. There is no GPU: containers are those that
 * have none, which takes every way but the driver's.
 */
#ifndef KYB_AGENT_TEST_RIG_H
#define KYB_AGENT_TEST_RIG_H

#include "agent/agent.h"
#include "agent/convert.h"
#include "rpc/grpc_client.h"
#include "tests/cmocka.h"

#define RIG_PATIENCE  (30 * NSEC_PER_SEC)
#define RIG_CALLS_MAX 64
#define RIG_NS        "k8s.io"

struct rig;

/* A call of the agent's own service, as its caller sees it. */
struct client_call {
	struct rig *rig;
	struct grpc_stream *stream; /* NULL: over */
	unsigned int messages, ended;
	enum rpc_code code;
	char text[ERROR_TEXT_MAX];
	struct buf last; /* message */
};

/* A shim's stream. Every order is answered well, but for hold_order, or fail_order. */
struct rig_shim {
	struct client_call call;
	bool restore; /* else a checkpoint */
	enum order hold_order, fail_order;
	enum order held; /* not answered yet */
	char *detail;    /* of a failure, */
	char *log_path;  /* and where the log is */
	unsigned int orders;
	char log[256]; /* "quiesce dump thaw " */
};

struct rig {
	struct agent agent;
	char dir[64], ctd_path[80], agent_path[80], proc[80], cgroup[80], store[80];
	struct grpc_server *containerd;
	struct grpc_client *client;
	/* What containerd was asked: "Tasks.Get" and so on. */
	char asked[RIG_CALLS_MAX][40];
	unsigned int n_asked;
	const char *refuse; /* this call fails, with refuse_code */
	enum rpc_code refuse_code;
	const char *hold;   /* this one is not answered; see held */
	struct grpc_call *held;
	const char *snapshot_key; /* of the container */
	int task_status;
	/* Called when Tasks.Create, Start or Checkpoint comes, before it is answered. */
	void (*on_call)(struct rig *r, const char *what);
};

int rig_open(void **state);
int rig_close(void **state);
/* In main(), first: acts as a worker of the store, or returns -1. */
int rig_main(int argc, char **argv);

#define UNTIL(r, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + RIG_PATIENCE;                                           \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((r)->agent.loop,                               \
						    time_now() + 5 * NSEC_PER_MSEC), 0);           \
		}                                                                                  \
	} while (0)

/* Calls a method of the agent: "ListCheckpoints". End with client_done(). */
void client_begin(struct rig *r, struct client_call *c, const char *method,
		  const ProtobufCMessage *request);
/* With a deadline (absolute), of which the agent is told. */
void client_begin_by(struct rig *r, struct client_call *c, const char *method,
		     const ProtobufCMessage *request, nsec_t deadline);
/* Begins, and waits for its end. Returns its code. */
enum rpc_code client_run(struct rig *r, struct client_call *c, const char *method,
			 const ProtobufCMessage *request);
void client_done(struct client_call *c);
/* The last message; lives as long as mem. */
void *client_message(const struct client_call *c, const ProtobufCMessageDescriptor *type,
		     struct arena *mem);

/* A shim begins its checkpoint of a container into the store (ref), or its restore. */
void shim_checkpoint(struct rig *r, struct rig_shim *s, const char *id, const char *ref);
/* One comes back whose agent has died while it dumped. */
void shim_return(struct rig *r, struct rig_shim *s, const char *id);
void shim_restore(struct rig *r, struct rig_shim *s, const char *id, const char *ref, bool prepare);
/* Answers the order that is held. */
void shim_answer(struct rig *r, struct rig_shim *s, bool ok);
void shim_done(struct rig_shim *s);

/* A checkpoint by that name in the store, of a container without a GPU. */
void rig_checkpoint(struct rig *r, const char *ref, bool with_record);
bool rig_has(const struct rig *r, const char *ref);
/* Nothing is being made, and no operation is under way. */
void rig_is_idle(const struct rig *r);
unsigned int rig_asked(const struct rig *r, const char *what);

#endif
