/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a program to its end without blocking: start, capture what it prints, a deadline, one
 * callback. For the OCI runtime and other helpers that come and go.
 */
#ifndef KYB_PROC_COMMAND_H
#define KYB_PROC_COMMAND_H

#include "base/buf.h"
#include "base/error.h"
#include "event/loop.h"
#include "event/reaper.h"
#include "proc/spawn.h"

#define COMMAND_OUTPUT_MAX ((size_t)1 << 20)

struct command {
	struct loop *loop;
	struct child child;
	struct source out_src, in_src;
	struct timer deadline;
	struct job ended;
	struct buf out;            /* captured stdout and stderr, mixed; cut at COMMAND_OUTPUT_MAX */
	struct buf in;             /* what is still to be written to its stdin */
	int status;                /* as of waitpid(), valid in done() */
	bool timed_out;
	bool group;                /* it leads a process group, and is killed with all of it */
	/* Called once, from the loop, when it has ended. The command may be freed in it. */
	void (*done)(struct command *c);
};

enum command_flags {
	COMMAND_CAPTURE_STDOUT = 1, /* into out; else what the spawn names, or /dev/null */
	COMMAND_CAPTURE_STDERR = 2,
};

/*
 * Starts it. deadline is absolute; at it the program is killed (SIGKILL). With spawn->new_group
 * that is its process group, which is killed as well when the program itself fails: nothing that it
 * has started goes on without it. input (may be NULL) is copied and fed to its stdin, which is then
 * closed. On failure nothing was started and done()
 * is not called.
 */
int command_start(struct command *c, struct loop *loop, struct reaper *reaper,
		  const struct spawn *spawn, enum command_flags flags, const struct bytes *input,
		  nsec_t deadline, void (*done)(struct command *c), struct error *err);

/* Sends a signal, to its process group where the spawn asked for one; harmless once it has ended. */
void command_kill(struct command *c, int signo);

/* 0, or negative with err: killed at the deadline, by a signal, or a non-zero exit status. */
int command_result(const struct command *c, const char *what, struct error *err);

/* Frees what the command holds. If it still runs, it is killed and forgotten: no done(). */
void command_release(struct command *c);

static inline bool command_running(const struct command *c)
{
	return c->child.pid != 0;
}

#endif
