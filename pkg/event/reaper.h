/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that calls waitpid(). Call reaper_sweep() on SIGCHLD.
 *
 * A process that we started ourselves is watched from its birth on: spawning and sweeping happen
 * in the same thread, so its exit cannot be missed. A container's processes are different: they
 * become our children by re-parenting (we are a subreaper), can die before the OCI runtime has
 * told us their pid, and their pid can even be used again. So while a hold is in place - one for
 * each runtime command that may bring forth a process - exits of unknown pids are kept, in order,
 * and claimed with reaper_claim() once the pid is known. Rules 2 and 3 of
 * containerd's exit ordering (containerd PRs 9828, 10603, 10651).
 */
#ifndef KYB_EVENT_REAPER_H
#define KYB_EVENT_REAPER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/time.h"

struct exit_record {
	pid_t pid;
	int status;  /* as of waitpid() */
	nsec_t wall; /* when it was reaped */
};

/* The status containers report: the exit code, or 128 + the signal. */
unsigned int exit_record_code(const struct exit_record *rec);

struct child {
	pid_t pid; /* 0 = not watched */
	void (*exited)(struct child *child, const struct exit_record *rec);
	struct list node;
};

/* Keeps exits of unknown pids that happen from now on. */
struct reaper_hold {
	struct list early; /* struct early, oldest first */
	struct list node;
};

struct reaper {
	struct list children;
	struct list holds;
};

void reaper_init(struct reaper *r);

/* Collects all that have exited and calls back. Several children may watch one pid (a reused
 * pid whose first exit is still on its way): all are told. */
void reaper_sweep(struct reaper *r);

/* From now on exited() is called once, and the watch ends with it. */
void reaper_watch(struct reaper *r, struct child *child, pid_t pid,
		  void (*exited)(struct child *child, const struct exit_record *rec));
/* Harmless when not watched. */
void reaper_unwatch(struct child *child);

void reaper_hold(struct reaper *r, struct reaper_hold *hold);
/* Has pid exited since the hold began? Then true, and *ret holds the record. False without a
 * hold. */
bool reaper_claim(const struct reaper_hold *hold, pid_t pid, struct exit_record *ret);
/* Ends a hold; harmless when not held. */
void reaper_release(struct reaper_hold *hold);

#endif
