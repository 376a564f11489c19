/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node agent. Internal to pkg/agent, but for agent_run().
 *
 *	agent.c     start up, shut down          streams.c   Checkpoint and Restore of shims
 *	service.c   the table of methods         convert.c   messages <-> plain structs
 *	verbs.c     list, get, delete, status    doctor.c    Doctor
 *	create.c    CreateCheckpoint             rebirth.c   RestoreContainer
 *	suspend.c   SuspendContainer, Resume...  report.c    what these say of the operation
 *	rootfs.c    changed files, by containerd kubelet.c   which GPUs a pod was given
 */
#ifndef KYB_AGENT_AGENT_H
#define KYB_AGENT_AGENT_H

#include "artifact/store.h"
#include "base/backoff.h"
#include "checkpoint/operation.h"
#include "conf/agent_settings.h"
#include "containerd/containerd.h"
#include "event/signals.h"
#include "rpc/grpc_server.h"

/* The largest answer: the files of a checkpoint, or some 100,000 checkpoints in a list. */
#define AGENT_MESSAGE_MAX ((size_t)64 << 20)

struct kubelet;

struct agent {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct agent_settings settings;
	struct bulk_env bulk;
	struct store *store;
	struct gpu_worker *worker;
	struct cgroup_host cgroups;
	struct containerd *containerd;
	struct kubelet *kubelet;
	struct grpc_server *server;
	struct node node;
	struct list creations; /* struct creation: CreateCheckpoint calls under way */
	struct list rebirths;  /* struct rebirth: RestoreContainer calls under way */
	struct list switchings; /* struct switching: SuspendContainer, ResumeContainer */
	struct list deletions; /* struct deletion: DeleteCheckpoint calls that wait for the room */
	bool leaving;
	nsec_t leave_by;
	struct timer left;
	struct timer clean; /* what others still held in the store when it was cleaned */
	struct backoff clean_pause;
};

/*
 * Runs the agent to its end (SIGTERM, SIGINT). settings_path: a file that must exist, or NULL for
 * the usual place. Returns 0, or negative with err.
 */
int agent_run(const char *settings_path, struct error *err);

/* How much longer than its deadline an operation may take to be undone. */
nsec_t agent_undo_time(const struct agent *agent);

/* --- service.c ------------------------------------------------------------------------------ */

extern const struct grpc_method agent_methods[];
extern const size_t agent_methods_size;

/* Sends a message on a call; failures end the call by themselves. */
void agent_send(struct grpc_call *call, const ProtobufCMessage *msg);
/* The one answer of a unary call. */
void agent_reply(struct grpc_call *call, const ProtobufCMessage *msg);
/* Unpacks a request, or answers the call with INVALID_ARGUMENT and returns NULL. */
void *agent_unpack(struct grpc_call *call, struct bytes msg,
		   const ProtobufCMessageDescriptor *type, struct arena *mem);
/* Answers with code, text, and the reason as details (google.rpc.ErrorInfo is too much for it:
 * the text begins with the reason's name). */
void agent_fail(struct grpc_call *call, const struct error *err);

/* --- streams.c ------------------------------------------------------------------------------ */

extern const struct grpc_method_ops checkpoint_stream, restore_stream, suspend_stream;

/*
 * An operator's call is over before the operation that reports to it: it reports to nobody any
 * more. what: its creation's, switching's or rebirth's address as the stream knows it.
 */
void streams_forget(struct agent *agent, const void *what);

/* --- verbs.c, doctor.c ---------------------------------------------------------------------- */

extern const struct grpc_method_ops list_verb, get_verb, delete_verb, status_verb, doctor_verb;

/* For store_on_swept(): answers the DeleteCheckpoint calls that wait; arg is the agent. */
void deletions_swept(void *arg, unsigned int n, int r, const struct error *err);
/* Nobody waits any more. */
void deletions_forget(struct agent *agent);

struct report;

/* --- suspend.c ------------------------------------------------------------------------------ */

extern const struct grpc_method_ops suspend_verb, resume_verb;

/* The operator's call that a Suspend stream belongs to, or NULL. */
struct report *switching_find(struct agent *agent, const char *ns, const char *container_id,
			      bool resume, uint64_t *ret_timeout_ms);

/* --- create.c, rebirth.c -------------------------------------------------------------------- */

extern const struct grpc_method_ops create_verb, rebirth_verb;

struct creation;
struct rootfs;

/* The CreateCheckpoint that an operation of a shim belongs to, or NULL. */
struct creation *creation_find(struct agent *agent, const char *ns, const char *container_id,
			       const char *ref);
/* Adds what is known of the container from containerd; strings live as long as the creation. */
void creation_describe(const struct creation *c, struct operation_request *req);
struct report *creation_report(struct creation *c);
/* Its operation is over, and has been reported. It may be gone after that. */
void creation_over(struct creation *c);

/*
 * A checkpoint that no operator asked for: the container is being stopped. Finds out at containerd
 * what creation_describe() tells, and makes up a ref; then ready(), once, and soon after
 * creation_cancel(). End with creation_free(), in ready() or later. NULL: out of memory.
 */
struct creation *creation_for_stop(struct agent *agent, const char *ns, const char *container_id,
				   void (*ready)(void *data, int r, const struct error *err),
				   void *data);
void creation_cancel(struct creation *c);
const char *creation_ref(const struct creation *c);
void creation_free(struct creation *c);

/* Saves the container's changed files, and the rest that only the creation knows, into op->work. */
int creation_save_rootfs(struct creation *c, struct operation *op, struct rootfs **ret,
			 struct error *err);

/* The same for a RestoreContainer. */
struct rebirth;
struct rebirth *rebirth_find(struct agent *agent, const char *ns, const char *container_id);
void rebirth_update(struct rebirth *b, const struct operation *op);
void rebirth_finished(struct rebirth *b, const struct operation *op, enum operation_status status,
		      const struct error *err);

/* --- rootfs.c ------------------------------------------------------------------------------- */

/*
 * Saves the changed files of a container's snapshot into op->work, or puts those of op->pin back into
 * the new container of op. Return as a step's run() does: 0 = nothing to do; after FLOW_WAIT
 * operation_rootfs_done() follows, and *ret is set.
 */
int rootfs_save(struct agent *agent, struct operation *op, const char *ns,
		const char *snapshotter, const char *key, struct rootfs **ret, struct error *err);
int rootfs_restore(struct agent *agent, struct operation *op, struct rootfs **ret,
		   struct error *err);
/* Brings op->bytes_done up to date. */
void rootfs_progress(struct rootfs *r);
/* Ends it soon; operation_rootfs_done() follows all the same. */
void rootfs_cancel(struct rootfs *r);
/* Forgets it: nothing follows. NULL is fine. */
void rootfs_free(struct rootfs *r);

#endif
