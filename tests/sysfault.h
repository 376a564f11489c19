/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a function in a child process and decides on every file-system call that it makes: let it
 * happen, make it fail, or kill the child just before it. So "what if the disk is full here" and
 * "what if it dies here" can be asked of every single step, without hooks in the code under test.
 *
 * Made of seccomp's user notifications (Linux 5.5): no privilege, no dependence on the CPU, and
 * processes that the child starts are covered too.
 */
#ifndef KYB_TESTS_SYSFAULT_H
#define KYB_TESTS_SYSFAULT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sysfault_call {
	pid_t pid;
	int nr; /* SYS_... */
	uint64_t args[6];
};

#define SYSFAULT_KILL 1

struct sysfault {
	int (*run)(void *arg); /* in the child; its result is the exit status */
	/* In the parent. Returns 0 (go on), -errno (fails with that), or SYSFAULT_KILL. */
	int (*decide)(void *arg, const struct sysfault_call *call);
	void *arg;
};

/*
 * Returns 0 with the child's status as of waitpid(), or -errno when it cannot be done here
 * (a sandbox that forbids seccomp, for instance: skip the test then).
 */
int sysfault_run(const struct sysfault *f, int *ret_status);

/* What a call is about, read from the process that makes it. Return buf, "?" when unknown. */
const char *sysfault_text(const struct sysfault_call *call, int arg, char *buf, size_t size);
/* The path of a descriptor, AT_FDCWD included. */
const char *sysfault_fd_path(const struct sysfault_call *call, int arg, char *buf, size_t size);

#endif
