/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's state, owned by main(): GPUs, connections, processes, rules for faults, and work
 * that is done a slice at a time so that nobody has to wait long for anybody else's.
 */
#ifndef FAKEGPUD_SERVER_H
#define FAKEGPUD_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/list.h"
#include "daemon/calllog.h"
#include "event/loop.h"
#include "event/signals.h"
#include "proto/fg_proto.h"

struct gpu {
	struct fg_gpu_info info; /* info.used is what allocations take; see reserved */
	uint64_t reserved;	 /* taken by `fakegpuctl reserve`, by nobody's process */
};

/* What `fakegpuctl set` can change and `reset` puts back. */
struct settings {
	uint64_t branch;	/* 550, 570, ... */
	uint64_t persistence;	/* 0 or 1 */
	uint64_t context;	/* bytes that a context takes on its GPU */
	uint64_t cuinit_ms;	/* how long cuInit takes */
	uint64_t not_cuda;	/* the code for a process without CUDA */
	uint64_t lock_outlives; /* 1: a Lock whose caller was killed is not taken back */
	uint64_t lock_expires;	/* 1: Lock on a stopped process ends at its time-out */
	uint64_t pool;		/* bytes of freed VRAM whose pages are kept for the next owner */
};

struct config {
	struct settings settings;
	char version[32]; /* "580.159.04"; "" = one that suits the branch */
	const char *socket;
	unsigned int socket_mode;
};

/* Something long: step() does a slice of it, once a round, until it calls work_stop(). */
struct work {
	struct list node;
	void (*step)(struct work *w);
};

struct server {
	struct loop *loop;
	struct signals signals;
	struct source listener;
	struct timer accept_again; /* after a pause, for want of descriptors */
	struct config config;
	struct settings settings;
	struct gpu gpus[FG_GPUS_MAX];
	unsigned int n_gpus;
	struct list sessions; /* struct session */
	unsigned int n_sessions;
	struct list processes; /* struct process */
	struct list rules;     /* struct rule */
	uint64_t last_rule;
	struct calllog log;
	struct list pool; /* struct vram that was freed, its pages kept */
	uint64_t pooled;  /* bytes in it */
	struct list work; /* struct work */
	struct timer work_timer;
	uint64_t next_address;
};

/* The driver's version as cuDriverGetVersion() tells it: 580 -> 13000. */
unsigned int server_cuda_version(const struct server *srv);
/* The driver's version as NVML tells it. */
const char *server_version(const struct server *srv);
/* Free for allocations, in bytes. */
uint64_t gpu_free(const struct gpu *gpu);
/* The GPU with that UUID, or NULL. */
struct gpu *server_gpu(struct server *srv, const uint8_t *uuid);

/* Has w's step() called from the next round on; harmless when it is already. w->node was
 * list_init()ed. */
void work_start(struct server *srv, struct work *w);
/* Harmless when not started. */
void work_stop(struct work *w);

#endif
