/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is being done to which container, on a file system: one file an operation, written before
 * each step. An agent that starts reads what a dead one has left here, and brings every container
 * back, or finishes: revive.h.
 *
 *	JOURNAL/NAMESPACE,CONTAINER,op	JSON, the format of artifact/doc.h
 *
 * It is about processes, so it is worth nothing after a reboot: the default place is on a tmpfs,
 * and each record names the boot that it belongs to. On a disk it is as good, but each step waits
 * for it.
 */
#ifndef KYB_CHECKPOINT_JOURNAL_H
#define KYB_CHECKPOINT_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

#define JOURNAL_MEMORY_MAX    ((size_t)4 << 20)
#define JOURNAL_PROCESSES_MAX 512
#define JOURNAL_DEVICES_MAX   64
#define JOURNAL_CGROUPS_MAX   64

struct journal_process {
	uint64_t pid, start_time; /* procfs_start_time() */
	uint64_t ns_pid;
	uint64_t vram_bytes; /* 0 = not known */
	uint64_t devices;    /* bit i: the record's device i */
	uint64_t job;	     /* as gpu_member.job */
	bool apart;	     /* as gpu_member.apart */
};

struct journal_device {
	const char *uuid, *chip;
	uint64_t memory_bytes; /* 0 = not known */
};

/* Strings are NULL where there is none, but for kind, phase, ns and container_id. */
struct journal_record {
	const char *kind;  /* "checkpoint", "suspend", "resume" */
	const char *phase; /* that was about to begin */
	const char *ns, *container_id, *pod_uid, *ref, *boot;
	uint64_t task_pid, task_start;
	uint64_t shim_pid, shim_start; /* 0 = not known */
	const char *const *cgroups;    /* lines of /proc/PID/cgroup */
	size_t n_cgroups;
	bool exit;   /* the container is to end */
	bool paused; /* containerd had paused it before */
	bool gpu;
	bool held;      /* it is suspended, and stays so */
	bool undoing;	/* it has failed, and is being taken back */
	bool dumping;	/* CRIU was or is at it */
	bool criu_done; /* the images are complete */
	bool settled;	/* the image has the job files, as job and apart of the processes say */
	bool sealed;	/* the checkpoint exists */
	bool degraded;	/* the shim has had its answer; only the GPU memory is still to come back */
	bool torn; /* not written: it could not be read, and ns and container_id are all there is */
	const struct journal_process *processes;
	size_t n_processes;
	const struct journal_device *devices;
	size_t n_devices;
};

/* All zero is none as well. */
struct journal {
	int fd;
	char boot[64]; /* "" = none is kept */
};

static inline bool journal_kept(const struct journal *j)
{
	return j->boot[0] != 0;
}

#define JOURNAL_NULL                                                                               \
	(struct journal)                                                                           \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/*
 * Creates the folder (0700) where it is missing. It has to belong to us and be closed to others.
 * Returns 0 or negative with err and a reason.
 */
int journal_open(struct journal *ret, const char *path, struct error *err);
/* Harmless on JOURNAL_NULL. */
void journal_close(struct journal *j);

/*
 * Puts a record in the place of the one that this container has, on the disk when it returns.
 * rec->boot is filled in. Returns 0 or negative with err: STORE_FULL, STORE_FAILED.
 */
int journal_write(struct journal *j, struct journal_record *rec, struct error *err);
/* Forgets it. None is fine. Returns 0 or -errno with err. */
int journal_remove(struct journal *j, const char *ns, const char *container_id, struct error *err);

/*
 * Hands every record to each(), valid for the call only. What is of another boot, or half
 * written, is removed; what cannot be read is told and renamed to *.bad, for a person to look at,
 * and handed on with what its name says (torn).
 * Returns 0, or -errno with err when the folder cannot be read.
 */
int journal_replay(struct journal *j, void (*each)(void *data, const struct journal_record *rec),
		   void *data, struct error *err);

/* A record's text; *ret leads into mem. Errors as doc_read(). */
int journal_parse(struct bytes text, struct journal_record *ret, struct arena *mem,
		  struct error *err);

#endif
