/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that uses the GPU or is the target of a call, known by a pidfd. Its CUDA state lives
 * in the process itself; here is only what it last told.
 */
#ifndef FAKEGPUD_PROCESS_H
#define FAKEGPUD_PROCESS_H

#include "daemon/server.h"

struct process {
	struct list node;
	struct server *srv;
	pid_t pid;
	int pidfd;
	struct source exit;
	bool cuda;         /* it said HELLO as an application or a restore thread */
	int state;         /* last told, enum fg_state; -1 = never */
	pid_t tid;         /* its restore thread, in its own pid namespace; 0 = never seen */
	struct list calls; /* struct call, that wait for its restore thread */
};

/* The process pid (which we see alive), made known if it is not. NULL: dead, or out of memory. */
struct process *process_get(struct server *srv, pid_t pid);
/* The same for the process that pidfd (borrowed) stands for. */
struct process *process_of_pidfd(struct server *srv, int pidfd);
void process_free(struct process *p);

#endif
