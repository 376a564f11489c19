/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: a CUDA worker that lives in the test program, with processes that are only numbers,
 * and time that passes as fast as it can. It keeps the driver's rules (a call that does not fit a
 * process's state is refused) and breaks them where a fault says so.
 *
 * Replaces the worker's calls and procfs_start_time() by the linker's --wrap (fake_worker_args in
 * meson.build), time_now() as tests/clock.h.
 */
#ifndef KYB_CHECKPOINT_FAKE_WORKER_H
#define KYB_CHECKPOINT_FAKE_WORKER_H

#include "gpu/worker.h"
#include "tests/cmocka.h"

#define FAKE_MAX     1024
#define FAKE_PID     100000 /* of the first process */
#define FAKE_FAULTS  4
#define FAKE_DRIVER_VERSION "580.65.06"

enum fake_fault_kind {
	FAKE_FAIL,     /* nothing is done, and an error says so */
	FAKE_DID_FAIL, /* it is done, and yet there is an error: a worker that died too late */
	FAKE_LIE,      /* nothing is done, and that is called a success; STATE says lie_state */
	FAKE_HANG,     /* no answer by the deadline: -ETIMEDOUT, and nothing is done */
	FAKE_DID_HANG, /* the same, but it is done */
	FAKE_GONE,     /* the process exits */
};

struct fake_fault {
	unsigned int op; /* enum gpu_op; 0 = no fault */
	pid_t pid;       /* 0 = any */
	enum fake_fault_kind kind;
	unsigned int skip;  /* so many calls that fit go well first */
	unsigned int times; /* then so many are hit; 0 = all */
	int code;           /* of FAIL, DID_FAIL */
	enum reason reason;
	unsigned int lie_state;
};

struct fake_process {
	pid_t pid;
	uint64_t start_time;
	bool cuda, listed, gone, busy;
	unsigned int state;
};

struct fake_worker {
	struct loop *loop;
	struct fake_process procs[FAKE_MAX];
	size_t n;
	struct fake_fault faults[FAKE_FAULTS];
	uint64_t gpu_free; /* bytes, by NVML; 0 = it does not say */
	bool backwards; /* calls end in the opposite order */
	nsec_t ready_at; /* it is being started until then; NSEC_NEVER: for ever */
	int unusable;    /* what is wrong with its driver then; 0 = nothing */
	/* Called when a call has ended, before its owner hears of it. */
	void (*ended)(struct fake_worker *w, unsigned int op, const struct fake_process *p);

	unsigned int calls[GPU_OP_LAST + 1]; /* made */
	unsigned int refused;                /* because of the state */
	unsigned int listed;                 /* how often the processes were listed */
	int list_error;
	struct list open;
	struct timer tick;
};

/* The one of the running test; *w is emptied. */
void fake_worker_open(struct fake_worker *w, struct loop *loop);
/* No call may be open any more. */
void fake_worker_close(struct fake_worker *w);
struct gpu_worker *fake_worker_of(struct fake_worker *w);

/* One more process in the container; a CUDA process, RUNNING. */
struct fake_process *fake_process(struct fake_worker *w);
struct fake_process *fake_find(struct fake_worker *w, pid_t pid);
/* A gpu_group_lister; data is the worker. */
ssize_t fake_list(void *data, pid_t *pids, size_t max);
/* How many live in that state. */
unsigned int fake_count(const struct fake_worker *w, unsigned int state);

/* One round of the loop; a millisecond passes. */
void fake_round(struct fake_worker *w);

#endif
