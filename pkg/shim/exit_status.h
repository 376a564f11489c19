/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exit of a container's init, left in the bundle, so that `delete` can tell the true status of
 * a container that had ended before its shim died.
 */
#ifndef KYB_SHIM_EXIT_STATUS_H
#define KYB_SHIM_EXIT_STATUS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/time.h"

#define EXIT_STATUS_FILE "exit-status" /* in the bundle: "PID STATUS NANOSECONDS\n" */
/* What it is called once the container has been deleted in an orderly way. */
#define EXIT_STATUS_SETTLED "exit-status.deleted"

struct exit_status {
	pid_t pid;
	unsigned int status;
	nsec_t exited_at; /* wall clock */
};

/* bundle: path of the folder. Failures are logged: the answer is then 137. */
void exit_status_write(const char *bundle, const struct exit_status *st);

/*
 * What was written; or, where nothing was, what containerd's own shim says: killed (137), now,
 * with the pid of init.pid, 0 if there is none.
 */
void exit_status_read(int bundle_fd, struct exit_status *ret);

/*
 * Delete has done it all: nothing is left for `delete`, which containerd calls whenever the
 * connection to a shim ends, after an orderly Shutdown, too, and waits for.
 */
void exit_status_settle(const char *bundle);
/* Was it? Then *ret is set. */
bool exit_status_settled(int bundle_fd, struct exit_status *ret);
/* A container is created in this bundle (again). */
void exit_status_forget(int bundle_fd);

#endif
