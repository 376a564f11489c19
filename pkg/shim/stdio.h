/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input, output and error of one process: what the OCI runtime is given, and what lies
 * between that and the client's FIFOs, files or logger. Source of the behaviour: containerd
 * cmd/containerd-shim-runc-v2/process/io.go (createIO, copyPipes).
 *
 * Life: stdio_prepare() -> the runtime is started with stdio_child() or stdio_console() ->
 * stdio_attach() -> stdio_exited() -> stdio_drain() -> stdio_close(). Close is legal at any time.
 */
#ifndef KYB_SHIM_STDIO_H
#define KYB_SHIM_STDIO_H

#include <sys/types.h>

#include "base/error.h"
#include "event/pump.h"
#include "event/reaper.h"
#include "proc/spawn.h"
#include "shim/console.h"
#include "shim/fifo.h"
#include "shim/logger.h"

struct stdio {
	struct loop *loop;
	struct reaper *reaper;
	char *path[3]; /* stdin, stdout, stderr as the client gave them; "" = none; owned */
	bool terminal;
	uid_t uid; /* owner of pipes, for user namespaces */
	gid_t gid;
	const char *ns, *id; /* for a logger; borrowed */

	char *target[3];      /* the paths without scheme; NULL = nothing to open; owned */
	int child[3];         /* the runtime's ends; -1 = /dev/null */
	int ours[3];          /* the ends of the pipes that we pump, until the pumps own them */
	int sink[3];          /* opened client ends, until the pumps own them */
	int stdin_holder;
	struct fifo_open opening[3];
	struct console console;
	struct logger logger;
	struct pump pump[3];
	struct timer drain;
	enum { STDIO_IDLE, STDIO_PREPARING, STDIO_ATTACHING, STDIO_DRAINING } busy;
	struct error err;
	void (*done)(struct stdio *io, int r, const struct error *err);
};

/*
 * The three URIs are copied; ns and id are borrowed. Nothing is opened yet.
 * Returns 0 or -ENOMEM.
 */
int stdio_init(struct stdio *io, struct loop *loop, struct reaper *reaper, const char *in,
	       const char *out, const char *err_path, bool terminal);

/*
 * Makes pipes, console socket or logger. Returns 0 (ready), 1 (done() will follow, from the
 * loop) or negative with err.
 */
int stdio_prepare(struct stdio *io, uid_t uid, gid_t gid, const char *ns, const char *id,
		  void (*done)(struct stdio *io, int r, const struct error *err),
		  struct error *err);

/* Gives the runtime its ends: as 0, 1 and 2. Nothing with a terminal. */
void stdio_child(const struct stdio *io, struct spawn *s);
/* The console socket for the runtime, or NULL without a terminal. */
const char *stdio_console(const struct stdio *io);

/*
 * The runtime has returned: drops its ends, opens the client's, starts to copy. done() is called
 * from the loop; -ETIMEDOUT when nobody reads the FIFOs, or no terminal comes, until deadline.
 */
void stdio_attach(struct stdio *io, nsec_t deadline,
		  void (*done)(struct stdio *io, int r, const struct error *err));

/* An attach under way waits no longer than until deadline, nor than before. Else harmless. */
void stdio_hurry(struct stdio *io, nsec_t deadline);

/* The process has exited: a terminal is emptied and closed, pipes go on to their end. */
void stdio_exited(struct stdio *io);

/*
 * Waits until all output has been handed on, until deadline at most; what is left then is given up.
 * A logger is then waited for, and helped to its end, see logger_stop(). done() is called from the
 * loop, with r = 0, or -ETIMEDOUT and err when output was given up.
 */
void stdio_drain(struct stdio *io, nsec_t deadline,
		 void (*done)(struct stdio *io, int r, const struct error *err));

/* CloseIO: our own writing end of stdin, so that the client's close is the end of file. */
void stdio_close_stdin(struct stdio *io);

/* Is nothing on its way from the process to the client? For quiescing before a checkpoint. */
bool stdio_quiet(const struct stdio *io);

/* Returns 0 (also without a terminal) or negative with err. */
int stdio_resize(struct stdio *io, unsigned int width, unsigned int height, struct error *err);

/* Frees all, at once. Harmless when not initialised (zeroed). */
void stdio_close(struct stdio *io);

#endif
