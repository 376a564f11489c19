/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a program: nothing of ours leaks into it. The child gets exactly the descriptors
 * named, default signal dispositions and an empty signal mask (both survive exec and would reach
 * the container), and is killed when we die if asked so.
 */
#ifndef KYB_PROC_SPAWN_H
#define KYB_PROC_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

#define SPAWN_FDS_MAX 16

struct spawn_fd {
	int fd; /* ours, borrowed; -1 = /dev/null */
	int as; /* the number it has in the child */
};

struct spawn {
	const char *program;     /* looked up in PATH without a '/'; NULL = argv[0] */
	const char *const *argv; /* NULL-terminated */
	const char *const *envp; /* NULL = our own environment, less NOTIFY_SOCKET */
	const char *cwd;         /* NULL = ours */
	struct spawn_fd fds[SPAWN_FDS_MAX];
	unsigned int n_fds;      /* 0, 1 and 2 are /dev/null unless named */
	bool new_group;          /* setpgid(0, 0) */
	bool die_with_parent;    /* PR_SET_PDEATHSIG, SIGKILL */
	bool own_mounts;         /* in a mount namespace: what it mounts does not come out */
	unsigned int umask;      /* 0 = keep ours */
	/*
	 * Executed from a read-only mount of the program's file alone, which nobody can see or
	 * change and which is gone with the process: whoever gets hold of its /proc/PID/exe cannot
	 * write to the file. As it always is where the kernel or our privileges do not allow that,
	 * or the program is a script.
	 */
	bool read_only;
};

/* Adds one descriptor to s. */
void spawn_fd(struct spawn *s, int fd, int as);

/*
 * Starts the program. When this returns 0, exec() has succeeded; a program that is missing or
 * cannot be executed is an error here, with a text as Go's os/exec has it
 * (exec: "no-runc": executable file not found in $PATH), which containerd's clients look for.
 */
int spawn(const struct spawn *s, pid_t *ret_pid, struct error *err);

/*
 * Our own environment with extra ("NAME=value", borrowed, may be NULL) in place of what it may
 * hold of that name, and without NOTIFY_SOCKET: with that, runc waits for an sd_notify() from the
 * container. free() the array, not the strings. NULL when out of memory.
 */
const char **spawn_environment(const char *extra);
/* The same with n variables, each of another name. */
const char **spawn_environment_with(const char *const *extra, size_t n);

/*
 * The path that spawn() would run for name. Returns 0, -ENAMETOOLONG, or -ENOENT when there is
 * no such executable.
 */
int spawn_lookup(const char *name, char *buf, size_t size);

#endif
