/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CUDA process knows of itself. All of it lies in ordinary memory, so that it survives a
 * CRIU dump; nothing in it is true only of the host that it was made on, but for conn and devices,
 * which a checkpoint closes.
 */
#ifndef FAKECUDA_STATE_H
#define FAKECUDA_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/fg_proto.h"

#define FC_ALLOCS_MAX  512
#define FC_DEVICES_MAX (FG_GPUS_MAX + 2) /* nvidiactl and nvidia-uvm too */

struct fc_gpu {
	struct fg_gpu_info info; /* as it was at the start, or after the last restore */
	unsigned int index;      /* among the daemon's */
	bool context;
};

struct fc_alloc {
	uint64_t address, bytes;
	unsigned int gpu; /* in fc.gpus */
	unsigned int flags;
	void *copy; /* while checkpointed: anonymous memory */
};

struct fc {
	pid_t pid; /* whose state this is: a forked child has none. 0 = not initialised */
	char socket[FG_PATH_MAX];
	char dev[64]; /* where device nodes are */

	/* The gate of API calls. */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	bool closed;
	unsigned int active; /* calls inside */

	/* Changed by the restore thread while the gate is closed and nobody inside, else by the
	 * one call that holds io. */
	pthread_mutex_t io;
	enum fg_state state;
	bool doomed; /* a restore ran out of memory: every later one fails, too */
	int conn;    /* -1 = none */
	uint64_t seq;
	struct fc_gpu gpus[FG_GPUS_MAX];
	unsigned int n_gpus, device;
	struct fc_alloc allocs[FC_ALLOCS_MAX];
	unsigned int n_allocs;
	bool has_nodes; /* there are /dev/nvidiaN to be opened */
	int devices[FC_DEVICES_MAX];
	unsigned int n_devices;
	uint64_t job_token; /* of the last checkpoint, in the file of the job; job.c */
};

extern struct fc fc;

/* One request on fc.conn and its answer, data and descriptor dropped. Returns the answer's code,
 * or FG_UNKNOWN when the daemon is gone. */
int fc_ask(struct fg_msg *m, uint64_t *ret_value, int timeout_ms);
/* The same for ALLOC. */
int fc_ask_alloc(unsigned int gpu_index, uint64_t bytes, uint64_t *address, unsigned int flags);
/* The memfd of an allocation, or a negative code: -FG_... */
int fc_ask_map(uint64_t address);

/* Closes the gate and waits until nobody is inside; deadline as of fg_now_ms(), negative = none.
 * false: it did not empty in time, and is open again. */
bool fc_gate_close(int64_t deadline);
void fc_gate_open(void);

/* Opens what device nodes there are for fc.gpus. FG_NOT_SUPPORTED: there were nodes before, and
 * now one is missing. */
int fc_open_devices(bool again);
void fc_close_devices(void);

/*
 * Checkpoint jobs: a process that was started with CUDA_CHECKPOINT_JOB_FILE. fc_job_enter(): one
 * call at a time for all processes of the job, else ILLEGAL_STATE; leave with the descriptor, which
 * is -1 where there is no job. A checkpoint writes down a token, without which, or with that of
 * another checkpoint, a restore is INVALID_VALUE.
 */
int fc_job_enter(int *ret_fd);
void fc_job_leave(int fd);
int fc_job_saved(int fd);
int fc_job_check(int fd);
int fc_job_restored(int fd);

/* Starts the restore thread. Returns a code. */
int fc_start_restorer(void);

#endif
