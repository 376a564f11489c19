/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A logger process of the user's ("binary://"): reads the container's stdout and stderr directly.
 * Source: containerd core/runtime/v2/logging and cmd/containerd-shim-runc-v2/process/io.go:
 * descriptor 3 = stdout, 4 = stderr, 5 = closed or written to when it is ready; environment
 * CONTAINER_ID and CONTAINER_NAMESPACE and nothing else.
 */
#ifndef KYB_SHIM_LOGGER_H
#define KYB_SHIM_LOGGER_H

#include "base/error.h"
#include "event/loop.h"
#include "event/reaper.h"
#include "shim/uri.h"

struct logger {
	struct loop *loop; /* NULL = none */
	struct child child;
	struct source ready_src;
	struct timer timer;
	bool v2, ready, killed;
	void (*done)(struct logger *l, int r);    /* ready, or why not */
	void (*stopped)(struct logger *l);
};

/*
 * Starts it. *ret_out and *ret_err are the writing ends, the caller's from now on. done() is
 * called from the loop when it has said that it is ready (0), or -ETIMEDOUT, -EPIPE (a
 * binary-v2 logger that ended). Returns 0 or negative with err; then done() is not called.
 */
int logger_start(struct logger *l, struct loop *loop, struct reaper *reaper,
		 const struct uri *uri, const char *ns, const char *id, int *ret_out, int *ret_err,
		 void (*done)(struct logger *l, int r), struct error *err);

/*
 * All writing ends are closed: waits until it has gone, helped by SIGTERM and in the end by
 * SIGKILL; one that is held in the kernel even then is forgotten. stopped() is called from the
 * loop.
 */
void logger_stop(struct logger *l, void (*stopped)(struct logger *l));

/* Kills and forgets. Harmless when there is none. */
void logger_close(struct logger *l);

#endif
