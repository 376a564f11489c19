/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shim keeps: containers, each with an init process and execs. Internal to pkg/shim.
 *
 *	shim.c       the whole: start up, shut down      service.c    Task API: decode, encode
 *	container.c  birth, look-up, reference counts    process.c    one process: state, waiters
 *	op.c         one call on a container             exit.c       exits, in containerd's order
 *	create.c     Create                              start.c      Start of init
 *	exec.c       Exec, Start of an exec              delete.c     Delete
 *	control.c    Kill, Pause, Resume, Update, ...    stats.c      Pids, Stats
 *	checkpoint.c Checkpoint                          restore.c    Start of a checkpoint
 *	orphan.c     what containerd has forgotten
 *	gpu_checkpoint.c, gpu_suspend.c, gpu.c  the GPU side, with the agent (hooks/)
 */
#ifndef KYB_SHIM_TASK_H
#define KYB_SHIM_TASK_H

#include "base/buf.h"
#include "cgroup/cgroup.h"
#include "cgroup/forewarn.h"
#include "cgroup/oom.h"
#include "conf/shim_settings.h"
#include "event/flow.h"
#include "event/gate.h"
#include "event/lane.h"
#include "event/reaper.h"
#include "event/signals.h"
#include "oci/bundle.h"
#include "oci/options.h"
#include "oci/runtime.h"
#include "rpc/ttrpc_server.h"
#include "shim/events.h"
#include "shim/socket.h"
#include "shim/stdio.h"

/* Looks now and then, less often each time. */
struct orphan {
	struct timer timer;
	nsec_t pause;
};

struct shim {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct ttrpc_server *server;
	struct publisher *publisher;
	struct shim_settings settings;
	struct cgroup_host cgroups;
	struct forewarn forewarn;
	const char *ns, *id, *grpc_address;
	struct list containers;
	unsigned int n_ops; /* calls under way, see op_new(), and Creates */
	const char *socket_path; /* "" = not ours to remove */
	struct socket_id socket_id;
	struct timer leave;
	nsec_t leave_by; /* 0 = not leaving */
	struct orphan orphan; /* without containers: is there anybody who knows of it? */
};

enum process_state {
	PROCESS_CREATED,
	PROCESS_CREATED_CHECKPOINT, /* Start restores it */
	PROCESS_RUNNING,
	PROCESS_PAUSED, /* init only */
	PROCESS_STOPPED,
	PROCESS_DELETED,
};

struct container;
struct checkpoint;
struct suspend;

struct process {
	struct container *c; /* for an exec: a counted reference */
	unsigned int refs;   /* execs only; the init lives and dies with its container */
	struct list node;    /* in the container's execs */
	char *id;            /* the exec's, or the container's */
	bool init;
	enum process_state state;
	pid_t pid; /* 0 = none yet */
	struct child child;
	struct reaper_hold hold;
	bool starting; /* an exit is kept back until the start event is out */
	bool exit_kept;
	struct exit_record exit;
	unsigned int exit_status;
	nsec_t exited_at;  /* wall clock; 0 = has not exited */
	bool start_failed; /* exec: Wait does not wait for it any more */
	struct stdio io;
	struct flow *io_flow; /* which flow waits for io */
	struct list waiters;
	bool sigkilled;           /* init: somebody has asked for it */
	unsigned int kills;       /* init: under way at the runtime */
	struct flow *kills_flow;  /* waits until there is none */
	void (*exit_hook)(struct process *p); /* told of the exit, inside the shim */
	void *exit_data;
	struct lane lane; /* verbs that must not overlap */
	struct buf spec;  /* exec: JSON of its OCI Process until it is started */
};

struct container {
	struct shim *shim;
	unsigned int refs;
	struct list node;
	bool ready; /* Create has succeeded; before that nobody can see it */
	char *id, *path; /* path: the bundle's folder */
	struct bundle bundle;   /* what its config.json says */
	struct bundle_intent intent;
	struct runtime_options options;
	struct runtime rt;
	struct cgroup cgroup;
	struct oom_watch oom;
	unsigned int ooms_untold; /* kills before the start of init has been told */
	struct process init;
	struct list execs;
	struct gate exec_gate; /* closed while the container is dumped */
	struct checkpoint *checkpointing; /* by the agent; NULL = not */
	struct suspend *suspending;       /* by the agent, or resuming; NULL = not */
	struct buf held; /* suspended: what the agent wrote down; empty = not suspended */
	bool stopping; /* its stop has become a checkpoint: once only */
	bool pausing;
	bool mounted;
	bool init_reaped; /* no exec may start any more */
	bool init_waits;  /* its exit is told once the last exec is gone */
	struct orphan orphan; /* without a process: is its bundle still there? */
	unsigned int running_execs;
	char *checkpoint; /* images to restore from, or NULL */
	bool restore;     /* Start restores: from checkpoint, or from intent.restore_from */
};

/* --- process.c ------------------------------------------------------------------------------ */

/* Returns 0 or -ENOMEM. */
int process_init(struct process *p, struct container *c, const char *id, bool init,
		 const char *in, const char *out, const char *err, bool terminal);
void process_done(struct process *p);
struct process *process_ref(struct process *p);
void process_unref(struct process *p);
/* An exec is gone: its container's reference is dropped. Harmless when that has happened. */
void process_retire(struct process *p);

/* "created", "running", ... as containerd's error texts have them. */
const char *process_state_name(const struct process *p);
/* The only writer of p->state; logs each change. */
void process_set_state(struct process *p, enum process_state state);

/* Answers a Wait call, now or when it exits. Consumes the call. */
void process_wait(struct process *p, struct ttrpc_call *call);
/* The process is stopped: status and time are set, everybody who waits is answered. */
void process_set_exited(struct process *p, const struct exit_record *rec);
/* Answers everybody who waits, although there is no exit: its start has failed. */
void process_release_waiters(struct process *p);

/* stdio_prepare() and stdio_attach() as steps of a flow: return as a step's run() does. */
int process_prepare_stdio(struct process *p, struct flow *f, struct error *err);
int process_attach_stdio(struct process *p, struct flow *f);
/* Its container is gone: an attach under way does not wait much longer for its client. */
void process_hurry_stdio(struct process *p);

/* Reads a pid file that the runtime wrote. Returns 0 or negative with err. */
int process_read_pid(const char *dir, const char *name, pid_t *ret, struct error *err);

/* --- container.c ---------------------------------------------------------------------------- */

/* A container that is not yet in the shim's list; one reference is the caller's. */
int container_new(struct container **ret, struct shim *shim, const char *id, const char *path,
		  struct error *err);
struct container *container_ref(struct container *c);
void container_unref(struct container *c);

/* By id. NULL with err (RPC_NOT_FOUND) when there is none, or it is not ready. */
struct container *container_find(struct shim *shim, const char *id, struct error *err);
/* exec_id "" is the init. NULL with err (RPC_NOT_FOUND). */
struct process *container_process(struct container *c, const char *exec_id, struct error *err);

/* Finds the cgroup of the init, for statistics, pids, freezing and OOM events; a container may
 * do without. */
void container_find_cgroup(struct container *c);
/* Kills by the kernel that were seen while init was being started: its start event comes first. */
void container_tell_ooms(struct container *c);

/* The container shows to the world: it has been created. */
void container_publish(struct container *c);
/* ... and is gone, with the execs that nobody has deleted: the list's reference is dropped. */
void container_retire(struct container *c);

/* --- op.c ----------------------------------------------------------------------------------- */

/*
 * One call on a process of a container: holds references to both, waits for its turn in the
 * process's lane, answers the call exactly once. call NULL: an op of our own, which nobody waits for.
 */
struct op {
	struct ttrpc_call *call;
	struct container *c;
	struct process *p;
	struct lane_op lane;
	void (*begin)(struct op *op);
};

/* size: of the struct that has op as its first member; zeroed. NULL: out of memory, and the call
 * has been answered. */
void *op_new(size_t size, struct ttrpc_call *call, struct process *p);
/* Calls begin() when no other op of the process's lane is under way. */
void op_enter(struct op *op, void (*begin)(struct op *op));
/* Both, for a call that names its process (exec_id "": the init); one that does not exist is
 * answered NotFound. */
void op_call(struct shim *shim, struct ttrpc_call *call, const char *id, const char *exec_id,
	     void (*begin)(struct op *op));
/* These answer the call, leave the lane and free the op. */
void op_reply(struct op *op, const ProtobufCMessage *msg);
void op_reply_empty(struct op *op);
void op_fail(struct op *op, const struct error *err);
/* r < 0: op_fail(); else op_reply_empty(). */
void op_end(struct op *op, int r, const struct error *err);

/* Answers with what containerd can make sense of: a GPU reason in front of the text, and never a
 * NOT_FOUND that does not mean the task itself. Consumes the call. */
void call_fail(struct ttrpc_call *call, const struct error *err);

/* Is verb allowed now? states: a set of IN(state). Returns 0 or negative with err. */
#define IN(state) (1U << (PROCESS_##state))
int process_allow(const struct process *p, const char *verb, unsigned int states,
		  struct error *err);

/* --- the verbs ------------------------------------------------------------------------------ */

void do_create(void *arg, struct ttrpc_call *call, const void *request);
void do_start(void *arg, struct ttrpc_call *call, const void *request);
void do_exec(void *arg, struct ttrpc_call *call, const void *request);
void do_delete(void *arg, struct ttrpc_call *call, const void *request);
void do_kill(void *arg, struct ttrpc_call *call, const void *request);
void do_pause(void *arg, struct ttrpc_call *call, const void *request);
void do_resume(void *arg, struct ttrpc_call *call, const void *request);
void do_update(void *arg, struct ttrpc_call *call, const void *request);
void do_pids(void *arg, struct ttrpc_call *call, const void *request);
void do_stats(void *arg, struct ttrpc_call *call, const void *request);
void do_checkpoint(void *arg, struct ttrpc_call *call, const void *request);

/* How a Pause and a Resume end, and a Pause that only freezes; of control.c. */
void pause_end(struct op *op, int r, const struct error *err);
void resume_end(struct op *op, int r, const struct error *err);
void pause_plainly(struct op *op);
/* With the agent; gpu_suspend.c. The op is in its lane, and is answered by these. */
void gpu_pause(struct op *op);
void gpu_resume(struct op *op);

/*
 * kybernate.io/on-stop: may this signal to the init become a checkpoint with exit? Then it does, and
 * is delivered only if that fails; checkpoint.c.
 */
bool stop_by_checkpoint(struct container *c, unsigned int signo);

/* Start, by what is to be started. The op is in its lane, and is answered by these. */
void start_init(struct op *op);    /* start.c */
void start_exec(struct op *op);    /* exec.c */
void start_restore(struct op *op); /* restore.c */

/* Where the runtime writes the pid of an exec, and it stays until Delete; exec.c. */
int exec_pid_path(const struct process *p, char *buf, size_t size);

/* --- exit.c --------------------------------------------------------------------------------- */

/*
 * From now on p's exit is handled: at once if it has happened while p->hold was in place. Call
 * after the event that announces the process. Ends the hold.
 */
void exit_watch(struct process *p);
/* Has p exited, whether or not that has been told? */
bool exit_has_come(const struct process *p);
/* Keeps an exit of p back (it is kept in p->exit) until exit_watch(). */
void exit_keep(struct process *p);
/* An exec that was counted as running was not started after all. */
void exit_exec_gone(struct container *c);

/* --- orphan.c ------------------------------------------------------------------------------- */

/*
 * It has no process: its init has exited, or is in a checkpoint and was not started. When its
 * bundle goes without a Delete, it is dropped, without an event.
 */
void orphan_watch(struct container *c);
/* It is being started. */
void orphan_unwatch(struct container *c);
/* It has no container: when its bundle, in which it was started, goes without a Shutdown, it leaves. */
void orphan_watch_shim(struct shim *shim);

/* --- shim.c --------------------------------------------------------------------------------- */

/*
 * The OCI runtime is about to move a process into a cgroup: in this call, or in the next that
 * containerd makes. To be called as early as that is known.
 */
void shim_expect_moves(struct shim *shim);
/* Publishes an event of this shim. topic and type are constants. */
void shim_publish(struct shim *shim, const char *topic, const char *type,
		  const ProtobufCMessage *event);
/* Orderly end: no new connections, events flushed, the socket removed, the loop stopped. */
void shim_leave(struct shim *shim);

#endif
