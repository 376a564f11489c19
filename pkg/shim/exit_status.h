/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exit of a container's init, left in the bundle, so that `delete` can tell the true status of
 * a container that had ended before its shim died.
 */
#ifndef KYB_SHIM_EXIT_STATUS_H
#define KYB_SHIM_EXIT_STATUS_H

#include <sys/types.h>

#include "base/time.h"

#define EXIT_STATUS_FILE "exit-status" /* in the bundle: "PID STATUS NANOSECONDS\n" */

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

#endif
