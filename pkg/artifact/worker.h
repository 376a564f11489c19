/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The roles that a program of ours plays when it is started again by itself, for work that blocks:
 *
 *	PROGRAM --store-worker   one job for the agent: seal, verify, sweep (protocol.h)
 *	PROGRAM --store-hasher   a helper of a worker: hashes ranges of open files
 *
 * Both find a socket as descriptor 3, the worker also a directory as descriptor 4. They hold no
 * other descriptor and die with whoever started them.
 */
#ifndef KYB_ARTIFACT_WORKER_H
#define KYB_ARTIFACT_WORKER_H

#include <stdbool.h>

/* What bulk.h runs unless it is told otherwise: this very program, even after an upgrade. */
#define WORKER_PROGRAM "/proc/self/exe"

/*
 * To be called first in main(), before anything is opened. False: no such role was asked for, go
 * on. True: the role was played, leave main() with *ret_status.
 */
bool worker_role(int argc, char *const *argv, int *ret_status);

#endif
