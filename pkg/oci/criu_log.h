/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CRIU's log says of a dump or restore that failed. An RPC client of CRIU learns no more than
 * "failed"; the cause is a line or two among megabytes of its dump.log or restore.log. This finds
 * them, and knows what the common ones mean and what to do about them.
 *
 * Only the end of a log is read: CRIU gives up soon after the cause, but a log grows to hundreds of
 * megabytes (a restore from a truncated image writes one without end).
 * Sources: pr_err() and pr_perror() in criu/ of CRIU 3.17.1 to 4.2, and real logs of failures made
 * with 4.1.1 and 4.2.1: tests/golden/criu-log/.
 */
#ifndef KYB_OCI_CRIU_LOG_H
#define KYB_OCI_CRIU_LOG_H

#include "base/bytes.h"
#include "base/error.h"

#define CRIU_LOG_TAIL     ((size_t)4 << 20)
#define CRIU_LOG_LINES    8
#define CRIU_LOG_LINE_MAX 256 /* longer lines are cut */

enum criu_log_kind {
	CRIU_LOG_DUMP = 1,
	CRIU_LOG_RESTORE = 2,
};

struct criu_log_line {
	char text[CRIU_LOG_LINE_MAX]; /* printable ASCII, from "Error (" on */
};

struct criu_digest {
	enum criu_log_kind kind;
	enum reason
		reason; /* CRIU_DUMP_FAILED or CRIU_RESTORE_FAILED when nothing better is known */
	const char *advice;         /* for the cause, if it is a known one; else NULL. Static. */
	bool passes; /* a moment later it may be gone, if the container runs on meanwhile */
	struct criu_log_line cause; /* the line that tells it; "" when none does */
	/* The last errors, oldest first, and with them what explains the cause. */
	struct criu_log_line lines[CRIU_LOG_LINES];
	unsigned int n_lines;
};

/* Reading it piece by piece, however it is cut. */
struct criu_log {
	struct criu_digest digest;
	char line[1024]; /* the one that is being read; what is longer is dropped */
	size_t n;
	char mapping[CRIU_LOG_LINE_MAX]; /* the last mapping that CRIU looked at */
};

void criu_log_begin(struct criu_log *log, enum criu_log_kind kind);
void criu_log_feed(struct criu_log *log, struct bytes piece);
void criu_log_end(struct criu_log *log, struct criu_digest *ret);

/*
 * The digest of a file; dirfd may be AT_FDCWD. Blocks on disk, CRIU_LOG_TAIL at most. Returns 0,
 * -ENOENT or other -errno; *ret is then the digest of an empty log, good for criu_digest_error().
 */
int criu_log_read(int dirfd, const char *path, enum criu_log_kind kind, struct criu_digest *ret);

/*
 * The digest as an error: reason, and "CRIU could not dump the container: <cause, or else the last
 * error>; <advice>; see <path>". Returns -EIO.
 */
int criu_digest_error(const struct criu_digest *d, const char *path, struct error *err);

#endif
