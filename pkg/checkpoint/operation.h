/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation on the GPU state of one container: checkpoint, restore, suspend. What all kinds
 * share: who asked, the order to the shim that is under way, deadlines, the timeline, the CUDA
 * processes, and the end. The kinds are tables of steps: checkpoint.c, restore.c, suspend.c.
 *
 * The agent conducts. What only the shim can do (freeze, run CRIU through the OCI runtime, end the
 * container) is ordered from the host, whoever that is; what only the agent's containerd client can
 * do (the changed files) likewise.
 */
#ifndef KYB_CHECKPOINT_OPERATION_H
#define KYB_CHECKPOINT_OPERATION_H

#include <sys/types.h>

#include "artifact/store.h"
#include "base/arena.h"
#include "base/backoff.h"
#include "base/mount_record.h"
#include "cgroup/cgroup.h"
#include "cgroup/freezer.h"
#include "checkpoint/group.h"
#include "checkpoint/journal.h"
#include "checkpoint/phase.h"
#include "checkpoint/slots.h"
#include "event/flow.h"

/* Numbers of enum Order in agent.proto. */
enum order {
	ORDER_NONE = 0,
	ORDER_QUIESCE = 1,
	ORDER_DUMP = 2,
	ORDER_THAW = 3,
	ORDER_EXIT = 4,
	ORDER_RESTORE = 5,
	ORDER_FREEZE = 6,
	ORDER_RELEASE = 7,
	ORDER_ABORT = 8, /* the one under way; has no answer of its own */
};

/* Numbers of enum Status. */
enum operation_status {
	OPERATION_WORKING = 1,
	OPERATION_OK = 2,
	OPERATION_FAILED = 3,
	OPERATION_DEGRADED = 4,
};

struct seat_group {
	const char *name;
	const char *const *seats;
	size_t n_seats;
	const char *const *gpu_uuids;
	size_t n_gpu_uuids;
	const char *const *device_paths;
	size_t n_device_paths;
};

/* What all operations of a node share. The agent owns it. */
struct node {
	struct loop *loop;
	struct gpu_worker *worker;
	struct store *store;
	const struct bulk_env *bulk;
	const struct cgroup_host *cgroups;
	nsec_t timeouts[PHASE_COUNT];
	nsec_t operation_timeout; /* where the caller sets none; also the most he may set */
	nsec_t shim_return; /* how long a shim may take to come back to an agent that restarted */
	struct journal journal; /* may be none */
	struct slots criu;
	const struct seat_group *groups;
	size_t n_groups;
	struct list operations;
	unsigned int max_operations;
	struct list prepared; /* checkpoints verified for a restore to come */
	struct list degraded; /* containers whose GPU memory could not be brought back yet */
	struct list returning; /* of gpu_group_share() */
};

struct operation;

/* Whoever carries out what the agent cannot: the shim at the other end of the stream. */
struct operation_host {
	/* Gives an order; operation_order_done() follows. Not called once the host is lost. */
	void (*order)(struct operation *op, enum order order);
	/* Phase or progress have changed; and twice a second in any case. */
	void (*update)(struct operation *op);
	/*
	 * Optional: saves the container's changed files into op->work, or puts those of op->pin
	 * back into the new container. Returns as a step's run() does; after FLOW_WAIT
	 * operation_rootfs_done() follows. NULL: somebody else does that.
	 */
	int (*rootfs)(struct operation *op, struct error *err);
	void (*rootfs_cancel)(struct operation *op);
	/* It is over. op is freed after this returns. */
	void (*finished)(struct operation *op, enum operation_status status,
			 const struct error *err);
};

enum operation_kind {
	OPERATION_CHECKPOINT,
	OPERATION_RESTORE,
	OPERATION_PREPARE,
	OPERATION_SUSPEND,
	OPERATION_RESUME,
};

/* Who asks for what. Strings are never NULL, "" = not known. */
struct operation_request {
	enum operation_kind kind;
	const char *container_id, *ns, *pod_uid, *pod_name, *pod_namespace, *sandbox_id,
		*container_name, *bundle, *runtime;
	const char *gpu_group, *gpu_seat, *group_annotation, *seat_annotation, *seat_generation;
	const char *const *device_paths;
	size_t n_device_paths;
	/* The GPUs that kubelet has given to the container; none = it has not said. */
	const char *const *pod_gpus;
	size_t n_pod_gpus;
	const char *const *visible_devices;
	size_t n_visible_devices;
	bool gpu;
	pid_t task_pid;
	pid_t shim_pid;      /* 0 = not known */
	uint64_t timeout_ms; /* 0 = the node's own */
	/*
	 * It has begun under an agent that is no more, and the shim has come back: the last order
	 * that it was given; its answer follows, or is known already.
	 */
	bool resume;
	enum order resume_order;
	/* The container is suspended, and this is what it has; NULL = it is not. Of a checkpoint and
	 * of a resume. */
	const struct gpu_held *held;
	/* checkpoint */
	bool exit, paused;
	const char *image_path, *work_path; /* image_path also for a restore */
	const char *ref;                    /* in the store; "" = image_path */
	const char *const *runtime_flags;
	size_t n_runtime_flags;
	struct mount_records mounts; /* to be kept with it */
	/* What is known from elsewhere (containerd) about the container, for the description. */
	const char *image, *image_digest, *snapshotter, *parent_chain_id, *runtime_type;
};

#define OPERATION_TIMES_MAX  64
#define OPERATION_DETAIL_MAX 32

struct operation {
	struct node *node;
	struct list node_link;
	struct operation_request req; /* in mem */
	struct arena mem;
	const struct operation_host *host;
	void *host_data;
	bool host_lost;
	const struct flow_ops *flows; /* of the kind */
	struct flow flow;
	nsec_t begun, deadline;
	nsec_t patience; /* deadline of the request, while deadline is out of force */
	enum phase phase;
	enum order order; /* under way */
	uint64_t bytes_done, bytes_total; /* progress of the present phase */
	struct phase_time times[OPERATION_TIMES_MAX];
	size_t n_times;
	bool cuda_done, criu_done;
	bool dumping; /* the order to dump or to freeze was given: the container may be frozen */
	struct gpu_group *group; /* NULL: no GPU to take care of */
	struct cgroup cgroup;
	struct freezer freezer;
	bool was_frozen; /* because containerd had paused it, when it was thawed without the host */
	void (*thawed)(struct operation *op, int r, const struct error *err);
	nsec_t criu_until; /* until when a CRIU without a shim may go on */
	struct slot slot;
	struct bulk bulk;
	struct timer timer;
	struct timer pulse; /* tells the host how far it is */
	bool watching;      /* op->image_path grows: its size is the progress */
	struct store_work work; /* checkpoint: what is being made; fd -1 = none */
	uint64_t image_size;    /* about how big it will be; 0 = not known yet */
	struct store_pin pin;   /* restore: what is being used */
	int image_fd;           /* restore from an image directory; -1 = none */
	bool restoring;         /* the order to restore was given */
	char image_path[PATH_MAX], work_path[PATH_MAX]; /* of the order to dump or restore */
	struct metadata metadata;   /* restore: of the checkpoint */
	struct arena metadata_mem;
	struct cuda_gpu_pair pairs[GPU_DEVICES_MAX];
	uint32_t n_pairs;
	struct gpu_memory memory;   /* what is free where, who uses what, as last asked */
	nsec_t look_until;          /* that is asked again until then */
	bool misplaced;             /* a process was restored onto a wrong GPU */
	struct gpu_call memory_call;
	int (*go_on)(struct operation *op, struct error *err); /* with a worker: preflight_driver() */
	pid_t task_pid;             /* restore: the new init */
	enum phase failed_phase;
	const char *detail[OPERATION_DETAIL_MAX]; /* last lines of the runtime or of CRIU */
	size_t n_detail;
	enum operation_status status;
	struct error outcome;
	struct error canceled; /* by operation_cancel() */
	struct error after;    /* checkpoint: what went wrong with the container since the dump */
	bool sealed;           /* checkpoint: there is a way back only from it */
	bool undoing;          /* it has failed */
	bool settled;          /* checkpoint: as in the journal's record */
	uint64_t task_start, shim_start;
	const char **cgroup_lines; /* in mem */
	size_t n_cgroup_lines;
	bool revived_held; /* as req.held says, of an operation that has no request of its own */
	struct revival *revival; /* begun by an agent before us: revive.h. NULL = by us */
	struct job end;
	unsigned int attempts;
	struct backoff backoff;
};

/*
 * Begins an operation; req is copied. host->finished() follows, never from inside here. Returns 0
 * or negative with err and a reason (BUSY: another one runs on this container); then finished()
 * is not called.
 */
int operation_start(struct node *node, const struct operation_request *req,
		    const struct operation_host *host, void *host_data, struct operation **ret,
		    struct error *err);

/* The host has carried out an order: r = 0, or negative with err. */
void operation_order_done(struct operation *op, enum order order, int r, const struct error *err,
			  pid_t task_pid);
void operation_rootfs_done(struct operation *op, int r, const struct error *err);
/* The host is gone: everything is undone as far as possible without it. */
void operation_host_lost(struct operation *op);
/* The caller does not want it any more. */
void operation_cancel(struct operation *op, const struct error *why);

/*
 * A new host for an operation that has none, and the request as it knows it. Returns 0 or -ENOMEM.
 */
int operation_adopt(struct operation *op, const struct operation_request *req,
		    const struct operation_host *host, void *host_data);

/* The operation on this container, or NULL. */
struct operation *operation_find(const struct node *node, const char *ns, const char *container_id);

/* Forgets all, without a word to their hosts; their records stay in the journal. */
void operation_free_all(struct node *node);

/* Keeps a line that explains the failure to a person; copied. */
void operation_add_detail(struct operation *op, const char *line);

/* --- for the kinds -------------------------------------------------------------------------- */

extern const struct flow_ops checkpoint_flow, checkpoint_exit_flow, checkpoint_held_flow,
	checkpoint_held_exit_flow, restore_flow, prepare_flow, suspend_flow, resume_flow;

struct operation *operation_of_flow(struct flow *f);

/* As operation_start(), with a course of its own, and without asking whether it may begin. */
int operation_begin(struct node *node, const struct operation_request *req,
		    const struct flow_ops *course, const struct operation_host *host,
		    void *host_data, struct operation **ret, struct error *err);
/*
 * checkpoint.c: goes on after a dump that has succeeded: the container goes on or ends, the image
 * is sealed where it is not yet.
 */
void checkpoint_goes_on(struct operation *op);

/* record.c: writes down what is about to be done. Returns 0 or negative with err. */
int record_write(struct operation *op, const char *phase, struct error *err);
/* It is over: there is nothing to be done after a crash any more. */
void record_remove(struct operation *op);

/* Gives an order and waits for its end: returns as a step's run() does. */
int operation_order(struct operation *op, enum order order, struct error *err);
/* The order under way is no longer wanted: its end, well or not, comes sooner. */
void operation_abort_order(struct operation *op);
/* Does the shim that asked still live? */
bool operation_shim_lives(const struct operation *op);
/* A gpu_group_done that ends the wait of the present step; data is the operation. */
void operation_group_done(void *data, int r, const struct error *err);
/* When the present step's time is over (absolute), and how much of it is left. */
nsec_t operation_step_deadline(const struct operation *op);
nsec_t operation_step_left(const struct operation *op);
/* flow_ops.timeout and .observe of all kinds. */
nsec_t operation_timeout(struct flow *f, const struct flow_step *step);
void operation_observe(struct flow *f, const struct flow_step *step, enum flow_event event,
		       const struct error *err);
/* Ends the operation at the end of this round: host->finished(), then it is freed. */
void operation_finish(struct operation *op, enum operation_status status,
		      const struct error *err);
/* How much lies in op->image_path. */
uint64_t operation_image_bytes(const struct operation *op);
/* Until the end of this step its progress is the size of op->image_path. */
void operation_watch_size(struct operation *op);

/* Lists a container's processes, for a group; data is its struct cgroup. */
ssize_t operation_list_pids(void *data, pid_t *pids, size_t max);
/* Finds op->cgroup and makes op->group, if a GPU is concerned. Returns 0 or negative with err. */
int operation_find_processes(struct operation *op, pid_t pid, struct error *err);

/*
 * The container is said to be suspended: op->group becomes what it has. Is it so? While it stands
 * still nobody can have changed it; else the driver is asked. Returns FLOW_WAIT, and flow_resume()
 * follows; or negative with err.
 */
int operation_confirm_held(struct operation *op, struct error *err);

/*
 * Thaws without the host's help, once no CRIU is at work; done() follows from the loop. A container
 * that is gone is fine.
 */
void operation_thaw(struct operation *op,
		    void (*done)(struct operation *op, int r, const struct error *err));

/* The device node of a GPU: this and its minor number. */
#define GPU_NODE "/dev/nvidia"

/*
 * Is this the node of one GPU? Control devices such as /dev/nvidiactl, /dev/nvidia-uvm,
 * /dev/nvidia-fs0 and /dev/nvidia-nvswitch0 are everybody's: those with a number behind a known GPU
 * prefix are one group's.
 */
bool preflight_is_gpu(const char *path);

/* preflight.c: checks that touch nothing. Returns 0 or negative with err. */
int preflight_seat(const struct node *node, const struct operation_request *req,
		   struct error *err);
/* The GPUs that the container's processes use, by what the driver and NVML say. */
int preflight_gpus(const struct node *node, const struct operation_request *req,
		   const struct gpu_group *group, struct error *err);
int preflight_pod(const struct operation_request *req, const struct cgroup *cg, struct error *err);
/*
 * Does the driver work, where the container has a GPU? Then go_on(), which returns as a step's run()
 * does, and so does this. A worker that is being replaced is waited for: half of the time that the step
 * has, for the rest of it wants to be looked at too. gpu_step_cancel() ends that.
 */
int preflight_driver(struct operation *op, int (*go_on)(struct operation *op, struct error *err),
		     struct error *err);
/* Until when such a worker is waited for (absolute). */
nsec_t preflight_worker_deadline(const struct operation *op);

#endif
