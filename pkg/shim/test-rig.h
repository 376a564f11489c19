/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shim without containerd: the Task service over its real socket, real processes, and a sink for
 * its events. The OCI runtime is the test program itself, started again (rig_main()), and does
 * what a file in the bundle named after the verb says, a line each:
 *
 *	wait		until the test says rig_go()
 *	early N		the process that it makes exits with N, and has been reaped, before it returns
 *	fail TEXT	ends with an error in its log, after all of that
 *	no-pid		writes no pid file
 *	nothing		kill: does not
 *
 * Of `update` it keeps what comes on stdin, in the file stdin; of `checkpoint` and `restore`, in the
 * file seen, whether the container was frozen and where CRIU was told to look for plugins.
 */
#ifndef KYB_SHIM_TEST_RIG_H
#define KYB_SHIM_TEST_RIG_H

#include "api/containerd/task.pb-c.h"
#include "rpc/ttrpc_client.h"
#include "shim/task.h"
#include "tests/cmocka.h"

#define RIG_EVENTS_MAX 64
#define RIG_PATIENCE   (30 * NSEC_PER_SEC)

struct rig {
	struct shim shim;
	struct ttrpc_server *containerd; /* takes the events */
	struct ttrpc_client *client;
	char dir[64], self[PATH_MAX], cgroup[80], proc[80];
	/* "/tasks/exit web web 137" and so on, in order */
	char events[RIG_EVENTS_MAX][160];
	unsigned int n_events;
	char freezing[64]; /* the one with a cgroup */
	struct timer freezer;
	bool freezer_stuck; /* it does as little as one with a process in the kernel */
	bool fd_leaks; /* do not look for leaks: the test says why */
	unsigned int fds;
};

int rig_open(void **state);
int rig_close(void **state);

/* In main(), first: acts as the runtime, or returns -1. */
int rig_main(int argc, char **argv);

/* --- bundles -------------------------------------------------------------------------------- */

#define RIG_SPEC(annotations, more)                                                                \
	"{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"/x\"],\"cwd\":\"/\",\"env\":[]},"       \
	"\"root\":{\"path\":\"rootfs\"},\"annotations\":{" annotations "},\"linux\":{" more "}}"
#define RIG_OWN_PIDS "\"namespaces\":[{\"type\":\"pid\"}]"

/* A bundle with that config.json; returns its path, which stays. */
const char *rig_bundle(struct rig *r, const char *id, const char *spec);
/* Gives a container to come a cgroup that can be frozen: files, and somebody who acts on them. */
void rig_cgroup(struct rig *r, const char *id);
bool rig_frozen(const struct rig *r, const char *id);
/* As a runtime's pause and resume do. */
void rig_freeze(struct rig *r, const char *id);
void rig_thaw(struct rig *r, const char *id);
/* What the runtime is to do when it is called with this verb. */
void rig_script(const struct rig *r, const char *id, const char *verb, const char *lines);
/* Lets a runtime go on that waits. */
void rig_go(const struct rig *r, const char *id, const char *verb);
/* How often the runtime was called with this verb. Its calls: "create ID", "kill --all ID 9". */
unsigned int rig_calls(const struct rig *r, const char *id, const char *call);
void rig_file(const struct rig *r, const char *id, const char *name, char *buf, size_t size);

/* --- calls ---------------------------------------------------------------------------------- */

struct answer {
	struct ttrpc_request req;
	unsigned int done;
	int r;
	struct error err;
	struct buf payload;
};

/* Begins a call; method may be that of any message of the Task service. */
void rig_begin(struct rig *r, struct answer *a, const char *method, const ProtobufCMessage *msg);
void rig_begin_service(struct rig *r, struct answer *a, const char *service, const char *method,
		       const ProtobufCMessage *msg);
void rig_begin_until(struct rig *r, struct answer *a, const char *method,
		     const ProtobufCMessage *msg, nsec_t deadline);
void rig_begin_create(struct rig *r, struct answer *a, const char *id);
/* ... of what is in images, a folder; "" = of nothing. */
void rig_begin_create_from(struct rig *r, struct answer *a, const char *id, const char *images);
/* ... and waits for its end. Returns its code, RPC_OK on success. */
enum rpc_code rig_call(struct rig *r, struct answer *a, const char *method,
		       const ProtobufCMessage *msg);
void rig_answer_done(struct answer *a);
/* The answer's message; lives as long as mem. */
void *rig_message(const struct answer *a, const ProtobufCMessageDescriptor *type,
		  struct arena *mem);

/* The usual ones; stdio is /dev/null. These return the code, and leave err in *err (may be NULL). */
enum rpc_code rig_create(struct rig *r, const char *id, struct error *err);
enum rpc_code rig_start(struct rig *r, const char *id, const char *exec_id, struct error *err);
enum rpc_code rig_exec(struct rig *r, const char *id, const char *exec_id, struct error *err);
enum rpc_code rig_kill(struct rig *r, const char *id, const char *exec_id, unsigned int signo);
enum rpc_code rig_delete(struct rig *r, const char *id, const char *exec_id, struct error *err);
/* Calls that only name the container. */
enum rpc_code rig_simple(struct rig *r, const char *method, const char *id, struct error *err);
void rig_begin_simple(struct rig *r, struct answer *a, const char *method, const char *id);
/* TASK__STATUS__...; fails the test when there is no such process. */
Task__Status rig_state(struct rig *r, const char *id, const char *exec_id);

/* A container that runs, made of RIG_OWN_PIDS. */
struct container *rig_running(struct rig *r, const char *id);

/* --- the loop ------------------------------------------------------------------------------- */

#define UNTIL(r, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + RIG_PATIENCE;                                           \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((r)->shim.loop,                                \
						    time_now() + 10 * NSEC_PER_MSEC), 0);          \
		}                                                                                  \
	} while (0)

void rig_run_for(struct rig *r, nsec_t time);
/* Waits for the n-th event (from 0) and compares. */
void rig_event(struct rig *r, unsigned int n, const char *want);
/* There are n events, and no more come for a moment. */
void rig_events_end(struct rig *r, unsigned int n);

#endif
