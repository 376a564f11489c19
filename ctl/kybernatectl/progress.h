/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation under way, for people: on a terminal one line a phase, drawn again in place at most
 * ten times a second; anywhere else one plain line a phase, once it has ended. And its timeline
 * when it is over. Nothing is written here: all text goes to a struct text.
 */
#ifndef KYB_CTL_PROGRESS_H
#define KYB_CTL_PROGRESS_H

#include "api/agent/v1/agent.pb-c.h"
#include "base/time.h"
#include "screen.h"
#include "text.h"

#define PROGRESS_INTERVAL (100 * NSEC_PER_MSEC)

struct progress {
	bool live, colour;
	int phase;       /* number of enum Phase; 0: none yet */
	nsec_t since;    /* it began, as far as we were told */
	uint64_t done, total;
	uint32_t processes;
	nsec_t drawn;    /* last time */
	bool on_line;    /* the cursor stands behind a line that is not finished */
};

void progress_init(struct progress *p, const struct screen *screen);

/* The agent says where it is. columns: of the terminal, when live. */
void progress_update(struct progress *p, nsec_t now, size_t columns,
		     const Kybernate__Agent__V1__OperationUpdate *u, struct text *out);
/* Draws the line again, if it is time. */
void progress_tick(struct progress *p, nsec_t now, size_t columns, struct text *out);
/* The last phase is over, or (how not NULL) left in the middle: "failed", "interrupted". */
void progress_end(struct progress *p, nsec_t now, const char *how, struct text *out);

/*
 * The table of all phases with their durations and bytes; what took something back is marked, and
 * so is the phase that failed (0: none).
 */
void progress_timeline(Kybernate__Agent__V1__PhaseTime *const *times, size_t n, int failed_phase,
		       bool colour, struct text *out);

/* From the beginning of the first to the end of the last of them. */
nsec_t progress_total(Kybernate__Agent__V1__PhaseTime *const *times, size_t n);

/* Microseconds of the agent's, which may be any number. */
nsec_t progress_usec(uint64_t usec);

#endif
