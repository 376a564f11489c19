/* SPDX-License-Identifier: Apache-2.0 */
/* The process a checkpoint call is about, as the caller's /proc shows it. */
#ifndef FAKEGPU_TARGET_H
#define FAKEGPU_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct target {
	pid_t pid; /* the thread group; any of its threads may be named */
	int pidfd; /* -1 = no such process */
};

/* Always succeeds; free with target_done(). */
void target_open(struct target *t, int pid);
void target_done(struct target *t);
/* The restore thread. Returns its tid, 0 when there is none, or -errno (the process is gone). */
pid_t target_thread(const struct target *t);
/* May this caller look into the process as a debugger may? */
bool target_may_access(const struct target *t);
/* Wakes the restore thread. Returns 0 or -errno. */
int target_signal(const struct target *t, pid_t tid, uint64_t token);

#endif
