/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream into a compressed file and back, in a process of its own, because both the disk and the
 * compression would hold up the agent's loop:
 *
 *	PROGRAM --spool-in   descriptor 3 (pipe) -> zstd -> descriptor 4 (new file), fsync
 *	PROGRAM --spool-out  descriptor 4 (file) -> unzstd -> descriptor 3 (pipe)
 */
#ifndef KYB_ARTIFACT_SPOOL_H
#define KYB_ARTIFACT_SPOOL_H

#include <stdbool.h>

#include "proc/command.h"

/* As worker_role(): to be called first in main(). */
bool spool_role(int argc, char *const *argv, int *ret_status);

/*
 * Starts one: pipe and file are borrowed. in: from the pipe into the file. Ends with done() like
 * any command; command_result() says how it went. Returns 0 or negative with err.
 */
int spool_start(struct command *c, struct loop *loop, struct reaper *reaper, bool in, int pipe,
		int file, nsec_t deadline, void (*done)(struct command *c), struct error *err);

#endif
