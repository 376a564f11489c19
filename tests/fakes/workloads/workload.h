/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gpu-counter and gpu-work (tests/gpu) have in common: the options, the processes, and the line
 * that each step reports:
 *
 *	step=17 counter=17 checksum=5b1d... ok
 *
 * Exit status: 2 usage, 3 MISMATCH, 4 a GPU call failed, 143 SIGTERM.
 */
#ifndef FAKES_WORKLOAD_H
#define FAKES_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_USAGE    2
#define EXIT_MISMATCH 3
#define EXIT_GPU      4

struct workload {
	uint64_t vram; /* bytes, of each process; at least 4096, in words of 8 */
	uint64_t seed, interval_ms, steps, procs, kernel_ms;
	const char *status; /* path, or NULL */
	int proc;           /* which of the processes; -1 = the only one */
};

#define WORKLOAD_DEFAULT                                                                           \
	{                                                                                          \
		.vram = (uint64_t)64 << 20, .seed = 1, .interval_ms = 100, .proc = -1              \
	}
#define WORKLOAD_USAGE                                                                             \
	"  --vram SIZE       VRAM of each process, as 64M (64M)\n"                                 \
	"  --seed N          of the pattern (1)\n"                                                 \
	"  --interval MS     between steps (100)\n"                                                \
	"  --steps N         then leave (0: never)\n"                                              \
	"  --status PATH     the last line also goes there, renamed into place\n"                  \
	"                    (PATH.0, PATH.1, ... with --procs)\n"                                 \
	"  --procs N         that many processes, each with CUDA of its own\n"                     \
	"  --kernel-ms N     each step also runs a kernel of that length\n"

/* An option of one program only: with a number or, where that is NULL, a flag to set. */
struct workload_option {
	const char *name;
	uint64_t *number;
	bool *flag;
};

/* False: the usage is to be shown. At most 8 more. */
bool workload_parse(struct workload *w, const struct workload_option *more, size_t n_more, int argc,
		    char **argv);

/*
 * Runs the function, in w->procs processes or in this one, and returns the exit status: of several
 * that of the first to fail. SIGTERM ends it also as PID 1 of a container.
 */
int workload_run(const struct workload *w, int (*run)(const struct workload *w, void *data),
		 void *data);

/* A step's line, to stdout and to the status file. What cannot be written is no reason to stop. */
void workload_report(const struct workload *w, uint64_t step, uint64_t counter, uint64_t checksum,
		     const char *result);
void workload_say(const char *text);

/* All of it: a checkpoint and a restore interrupt a sleep, which must not end it. */
void workload_sleep(uint64_t ms);

#endif
