/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of an operation. Numbers of enum Phase in api/agent/v1/agent.proto. */
#ifndef KYB_CHECKPOINT_PHASE_H
#define KYB_CHECKPOINT_PHASE_H

#include <stdbool.h>

#include "base/time.h"

/* X(name, number, lower-case name: in logs, metrics, metadata.json and flow steps) */
#define PHASE_TABLE(X)                                                                             \
	X(NONE, 0, "none")                                                                         \
	X(PREFLIGHT, 1, "preflight")                                                               \
	X(QUIESCE, 2, "quiesce")                                                                   \
	X(LOCK, 3, "lock")                                                                         \
	X(VRAM_SAVE, 4, "vram_save")                                                               \
	X(CRIU_DUMP, 5, "criu_dump")                                                               \
	X(ROOTFS, 6, "rootfs")                                                                     \
	X(SEAL, 7, "seal")                                                                         \
	X(VRAM_RESTORE, 8, "vram_restore")                                                         \
	X(UNLOCK, 9, "unlock")                                                                     \
	X(EXIT, 10, "exit")                                                                        \
	X(CRIU_RESTORE, 11, "criu_restore")                                                        \
	X(VERIFY, 12, "verify")                                                                    \
	X(CREATE, 13, "create")                                                                    \
	X(FREEZE, 14, "freeze")

enum phase {
#define X(name, number, text) PHASE_##name = (number),
	PHASE_TABLE(X)
#undef X
};

#define PHASE_COUNT 15

/* "vram_save"; "?" for a number outside the enum. Never NULL. */
const char *phase_name(enum phase phase);
/* PHASE_NONE for a name that is none. */
enum phase phase_from_name(const char *name);

/* One phase that has ended, for the timeline of an operation. */
struct phase_time {
	enum phase phase;
	nsec_t start; /* since the operation began */
	nsec_t duration;
	uint64_t bytes;
	bool undo; /* it took something back */
};

#endif
