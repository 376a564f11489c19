/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why an OCI runtime failed, from the log that it was given (--log FILE --log-format json). The
 * file only grows over the life of a container, so each command remembers where it began and
 * blames no older entry. runc and older crun write an entry in one line, crun from about 1.15 on
 * spreads it over several.
 * Sources: containerd cmd/containerd-shim-runc-v2/process/utils.go and init.go (texts); runc
 * logging.go; crun src/libcrun/error.c.
 */
#ifndef KYB_OCI_RUNTIME_LOG_H
#define KYB_OCI_RUNTIME_LOG_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

/* Of what a command appended, this much is looked at, at the end. */
#define RUNTIME_LOG_TAIL        ((size_t)256 << 10)
/* Longest message that is kept. */
#define RUNTIME_LOG_MESSAGE_MAX ((size_t)16 << 10)

/* Where the log ends now; 0 when there is none yet. Call before the command is started. */
off_t runtime_log_mark(int bundle_fd, const char *name);

/*
 * Appends the message of the last entry of level "error" since mark to out, trimmed and cut at
 * RUNTIME_LOG_MESSAGE_MAX; nothing when there is none. Returns 0, -ENOENT and other -errno of the
 * file, or -EBADMSG: something was written, and none of it is a log entry.
 */
int runtime_log_last_error(int bundle_fd, const char *name, off_t mark, struct buf *out);
/* The same from a text. */
int runtime_log_parse(struct bytes text, struct buf *out);

/*
 * The error of a command that failed, as clients of containerd know it: "OCI runtime create failed:
 * <the log's message>"; without one "<what>: <how>"; with an unreadable log "<what>: unable to
 * retrieve OCI runtime error (<why>): <how>". what is "OCI runtime create failed" and the like;
 * how says how the command ended ("runc did not terminate successfully: exit status 1"). Sets err
 * and returns -EIO.
 */
int runtime_log_failure(int bundle_fd, const char *name, off_t mark, const char *what,
			const char *how, struct error *err);

#endif
