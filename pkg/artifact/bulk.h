/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on big files in a child process, so that the agent's loop never waits for a disk: sealing,
 * verifying, and removing for good. Start, hear of the progress, get one result; cancel any time.
 *
 * The child is this program in the role of a store worker (worker.h). It gets the directory as an
 * open descriptor, and the job and its result travel over a socket.
 */
#ifndef KYB_ARTIFACT_BULK_H
#define KYB_ARTIFACT_BULK_H

#include <stdint.h>

#include "artifact/protocol.h"
#include "base/error.h"
#include "event/conn.h"
#include "event/loop.h"
#include "event/reaper.h"

struct bulk;

/* What every job of a program needs. Borrowed for as long as jobs run. */
struct bulk_env {
	struct loop *loop;
	struct reaper *reaper;
	const char *program; /* NULL = WORKER_PROGRAM */
};

struct bulk_ops {
	/* Optional: called from the loop, a few times a second. b must not be freed in it. */
	void (*progress)(struct bulk *b, uint64_t done, uint64_t total);
	/*
	 * It is over: r = 0, or negative with err. Called once, from the loop, never from inside
	 * bulk_start(); b->result holds the rest, and b may be freed in it.
	 */
	void (*done)(struct bulk *b, int r, const struct error *err);
};

struct bulk {
	const struct bulk_env *env; /* NULL = not running */
	const struct bulk_ops *ops;
	struct conn conn;
	struct child child;
	struct timer deadline, grace;
	struct job end;
	struct protocol_result result;
	struct error err;      /* why it was stopped, or cannot be understood */
	bool has_result, killed, exited, closed;
	int status;
};

/*
 * Starts job in dirfd (borrowed). deadline is absolute (NSEC_NEVER = none); at it the child is
 * killed. On failure nothing was started and done() is not called:
 * -errno with REASON_STORE_FAILED, or -EINVAL with REASON_INTERNAL.
 *
 * Reasons of the result: what seal.h, verify.h and sweep.h say; TIMEOUT after the deadline;
 * STORE_FAILED when the child died.
 */
int bulk_start(struct bulk *b, const struct bulk_env *env, const struct protocol_job *job,
	       int dirfd, nsec_t deadline, const struct bulk_ops *ops, struct error *err);

/*
 * The next job for a worker that was started with PROTOCOL_FOLLOW and runs; the directory is the
 * same. From now on as after bulk_start(). When nothing comes of it, -errno, the worker is no more.
 */
int bulk_go_on(struct bulk *b, const struct protocol_job *job, nsec_t deadline,
	       const struct bulk_ops *ops, struct error *err);

/* Ends it soon: done() follows with REASON_CANCELED, or with the result if that was faster. */
void bulk_cancel(struct bulk *b);

/* Kills and forgets it: no done(). Harmless when not running. */
void bulk_release(struct bulk *b);

static inline bool bulk_running(const struct bulk *b)
{
	return b->env != NULL;
}

#endif
