/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-work: gpu-counter on the driver's own API, for a real GPU (and the emulated one): VRAM is
 * filled with a pattern; every step a graph of kernels changes all of it, counts in VRAM and sums
 * it up, and the sums come back through pinned memory on a stream. Counters and checksums must be
 * what they must be, computed here from the seed; so must one page of VRAM, word by word. One line
 * a step, the same as gpu-counter's but for the last word:
 *
 *	step=17 counter=17 checksum=5b1d... ok ms=1.234
 *
 * ms is what the GPU took for the step, by events. Exit status: 2 usage, 3 MISMATCH, 4 a GPU call
 * failed, 143 SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cu.h"
#include "proto/fg_proto.h"

#define EXIT_USAGE    2
#define EXIT_MISMATCH 3
#define EXIT_GPU      4

#define PAGE_WORDS ((uint64_t)512) /* compared word by word each step */
#define BLOCK      256
#define GRID       1024

/* The kernels, as text that ends with a NUL. */
extern const char kernels[];
__asm__(".section .rodata\n"
	".global kernels\n"
	"kernels: .incbin \"" KERNELS_PTX "\"\n"
	".byte 0\n"
	".previous\n");

enum kernel { FILL, ADD, CHECKSUM, SPIN, KERNELS };
static const char *const kernel_names[KERNELS] = { "fill", "add", "checksum", "spin" };

struct options {
	uint64_t vram, seed, interval_ms, steps, procs, kernel_ms;
	const char *status;
	bool bandwidth;
};

struct work {
	const struct options *o;
	int proc; /* -1 = the only one */
	struct cu cu;
	void *kernels[KERNELS], *stream, *graph, *begin, *end;
	uint64_t words, step;
	cu_ptr vram;
	cu_ptr cells;   /* the counter, then the two words of the checksum */
	uint64_t *back; /* pinned: the cells of the last step */
	uint64_t sum, weighted; /* of the pattern at step 0 */
};

/* All of it: a checkpoint and a restore interrupt a sleep, which must not end it. */
static void sleep_ms(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000 * 1000000) };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* ---- reports -------------------------------------------------------------------------------- */

static void write_status(const struct work *w, const char *line)
{
	char path[512], new[520];
	int fd;

	if (!w->o->status)
		return;
	if (w->proc < 0)
		(void)snprintf(path, sizeof(path), "%s", w->o->status);
	else
		(void)snprintf(path, sizeof(path), "%s.%d", w->o->status, w->proc);
	(void)snprintf(new, sizeof(new), "%s.new", path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return; /* the line on stdout has to do */
	if (write(fd, line, strlen(line)) == (ssize_t)strlen(line))
		(void)rename(new, path);
	(void)close(fd);
}

static void report(const struct work *w, const char *result)
{
	char line[256], proc[32] = "";

	if (w->proc >= 0)
		(void)snprintf(proc, sizeof(proc), "proc=%d ", w->proc);
	(void)snprintf(line, sizeof(line),
		       "%sstep=%" PRIu64 " counter=%" PRIu64 " checksum=%016" PRIx64 " %s\n", proc,
		       w->step, w->back ? w->back[0] : 0,
		       w->back ? w->back[1] ^ w->back[2] : 0, result);
	/* A closed or broken stdout is no reason to stop computing. */
	(void)!write(STDOUT_FILENO, line, strlen(line));
	write_status(w, line);
}

static int gpu_failed(const struct work *w, const char *what, int code)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "ERROR %s: %s", what, cu_name(&w->cu, code));
	report(w, text);
	return EXIT_GPU;
}

/* ---- the GPU -------------------------------------------------------------------------------- */

static int launch(const struct work *w, enum kernel k, unsigned int blocks, unsigned int threads,
		  void **args)
{
	return w->cu.launch(w->kernels[k], blocks, 1, 1, threads, 1, 1, 0, w->stream, args, NULL);
}

/* A step's work: captured once, launched as a graph ever after. */
static int enqueue(struct work *w)
{
	cu_ptr sums = w->cells + 8;
	uint64_t one = 1, ns = w->o->kernel_ms * 1000000;
	void *add_all[] = { &w->vram, &w->words, &one }, *count[] = { &w->cells, &one, &one };
	void *sum[] = { &w->vram, &w->words, &sums }, *spin[] = { &ns };
	int r = 0;

	if (ns)
		r = launch(w, SPIN, 1, 1, spin);
	if (r == 0)
		r = launch(w, ADD, GRID, BLOCK, add_all);
	if (r == 0)
		r = launch(w, ADD, 1, 1, count);
	if (r == 0)
		r = w->cu.set32(sums, 0, 4, w->stream);
	if (r == 0)
		r = launch(w, CHECKSUM, GRID, BLOCK, sum);
	if (r == 0)
		r = w->cu.to_host_async(w->back, w->cells, 3 * sizeof(*w->back), w->stream);
	return r;
}

static int capture(struct work *w)
{
	void *graph = NULL;
	int r = w->cu.capture(w->stream, 2 /* CU_STREAM_CAPTURE_MODE_RELAXED */), ended;

	if (r)
		return r;
	r = enqueue(w);
	ended = w->cu.capture_end(w->stream, &graph);
	if (r == 0)
		r = ended;
	return r ? r : w->cu.instantiate(&w->graph, graph, 0);
}

static int open_gpu(struct work *w)
{
	void *context, *module;
	int device, r;

	/* A kernel that is loaded at its first launch must not be so while a graph is captured. */
	if (setenv("CUDA_MODULE_LOADING", "EAGER", 1) < 0)
		return FG_OUT_OF_MEMORY;
	r = w->cu.init(0);
	if (r == 0)
		r = w->cu.device_get(&device, 0);
	if (r == 0)
		r = w->cu.context(&context, device);
	if (r == 0)
		r = w->cu.set_current(context);
	if (r == 0)
		r = w->cu.load(&module, kernels);
	for (int i = 0; i < KERNELS && r == 0; i++)
		r = w->cu.function(&w->kernels[i], module, kernel_names[i]);
	if (r == 0)
		r = w->cu.stream(&w->stream, 1 /* CU_STREAM_NON_BLOCKING */);
	if (r == 0)
		r = w->cu.event(&w->begin, 0);
	return r ? r : w->cu.event(&w->end, 0);
}

static int allocate(struct work *w)
{
	void *back = NULL;
	int r = w->cu.alloc(&w->vram, w->words * 8);

	if (r == 0)
		r = w->cu.alloc(&w->cells, 4096);
	if (r == 0)
		r = w->cu.host_alloc(&back, 4096, 0);
	w->back = back;
	return r;
}

static int fill(struct work *w)
{
	uint64_t seed = w->o->seed, plus = 0;
	void *args[] = { &w->vram, &w->words, &seed, &plus };
	int r = w->cu.set32(w->cells, 0, 1024, w->stream);

	if (r == 0)
		r = launch(w, FILL, GRID, BLOCK, args);
	/* While the GPU fills: what must come out. */
	for (uint64_t i = 0; i < w->words; i++) {
		uint64_t word = fg_pattern(seed, i);

		w->sum += word;
		w->weighted += (2 * i + 1) * word;
	}
	return r ? r : w->cu.stream_wait(w->stream);
}

/* Returns 0 or the exit status. */
static int start(struct work *w)
{
	const char *missing;
	int r;

	if (cu_load(&w->cu, &missing) < 0) {
		(void)fprintf(stderr, "gpu-work: %s: %s\n", missing, "not found");
		return EXIT_GPU;
	}
	r = open_gpu(w);
	if (r)
		return gpu_failed(w, "start", r);
	w->words = w->o->vram / 8;
	r = allocate(w);
	if (r)
		return gpu_failed(w, "allocate", r);
	r = fill(w);
	if (r)
		return gpu_failed(w, "fill", r);
	r = capture(w);
	return r ? gpu_failed(w, "capture", r) : 0;
}

/* One page of VRAM, another each step, compared word by word with the pattern. */
static int look_at_page(const struct work *w, bool *ret_bad)
{
	uint64_t words[PAGE_WORDS], n = w->words < PAGE_WORDS ? w->words : PAGE_WORDS;
	uint64_t first = fg_pattern(w->o->seed, w->step) % (w->words - n + 1);
	int r = w->cu.to_host(words, w->vram + first * 8, n * 8);

	*ret_bad = false;
	for (uint64_t i = 0; r == 0 && i < n; i++)
		*ret_bad |= words[i] != fg_pattern(w->o->seed, first + i) + w->step;
	return r;
}

/* Returns 0 or the exit status. */
static int step(struct work *w)
{
	const char *what = NULL;
	float ms = 0;
	bool bad = false;
	char text[64];
	int r;

	w->step++;
	r = w->cu.event_record(w->begin, w->stream);
	if (r == 0)
		r = w->cu.graph_launch(w->graph, w->stream);
	if (r == 0)
		r = w->cu.event_record(w->end, w->stream);
	if (r == 0)
		r = w->cu.event_wait(w->end);
	if (r == 0)
		r = w->cu.event_ms(&ms, w->begin, w->end);
	if (r == 0)
		r = look_at_page(w, &bad);
	if (r)
		return gpu_failed(w, "step", r);
	if (w->back[0] != w->step)
		what = "MISMATCH counter";
	else if (w->back[1] != w->sum + w->step * w->words ||
		 w->back[2] != w->weighted + w->step * w->words * w->words)
		what = "MISMATCH checksum";
	else if (bad)
		what = "MISMATCH page";
	if (!what)
		(void)snprintf(text, sizeof(text), "ok ms=%.3f", (double)ms);
	report(w, what ? what : text);
	return what ? EXIT_MISMATCH : 0;
}

/* ---- the copy bandwidth ------------------------------------------------------------------- */

#define COPY_TIMES 8

static double seconds_now(void)
{
	struct timespec t = { 0 };

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* GB/s of host memory p from and to VRAM; the first copy of each is not counted. */
static int copy_rate(const struct work *w, void *p, double *ret_to_host, double *ret_to_device)
{
	double begin = 0, size = (double)w->o->vram * COPY_TIMES / 1e9;
	int r = 0;

	for (int i = -1; i < COPY_TIMES && r == 0; i++) {
		if (i == 0)
			begin = seconds_now();
		r = w->cu.to_host_async(p, w->vram, w->o->vram, w->stream);
		if (r == 0)
			r = w->cu.stream_wait(w->stream);
	}
	*ret_to_host = size / (seconds_now() - begin);
	for (int i = -1; i < COPY_TIMES && r == 0; i++) {
		if (i == 0)
			begin = seconds_now();
		r = w->cu.to_device_async(w->vram, p, w->o->vram, w->stream);
		if (r == 0)
			r = w->cu.stream_wait(w->stream);
	}
	*ret_to_device = size / (seconds_now() - begin);
	return r;
}

/* One line for pinned and one for ordinary memory. Returns the exit status. */
static int bandwidth(struct work *w)
{
	void *memory[2] = { NULL, malloc(w->o->vram) };
	double to_host, to_device;
	int r = w->cu.host_alloc(&memory[0], w->o->vram, 0);

	for (int i = 0; i < 2 && r == 0; i++) {
		r = memory[i] ? copy_rate(w, memory[i], &to_host, &to_device) : FG_OUT_OF_MEMORY;
		if (r == 0)
			(void)printf("%s to-host=%.2f to-device=%.2f GB/s\n",
				     i ? "pageable" : "pinned", to_host, to_device);
	}
	if (memory[0])
		(void)w->cu.host_free(memory[0]);
	free(memory[1]);
	return r ? gpu_failed(w, "copy", r) : 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

static int run(const struct options *o, int proc)
{
	struct work w = { .o = o, .proc = proc };
	int status = start(&w);

	if (o->bandwidth)
		return status ? status : bandwidth(&w);
	while (status == 0 && (!o->steps || w.step < o->steps)) {
		status = step(&w);
		sleep_ms(o->interval_ms);
	}
	return status;
}

/* Starts the processes and waits; the first that fails ends all. */
static int run_many(const struct options *o)
{
	uint64_t left = o->procs;
	int status;

	for (uint64_t i = 0; i < o->procs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return EXIT_FAILURE;
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(run(o, (int)i));
		}
	}
	while (left) {
		pid_t pid = waitpid(-1, &status, 0);

		if (pid < 0 && errno != EINTR)
			return EXIT_FAILURE;
		if (pid < 0)
			continue;
		if (!WIFEXITED(status))
			return 128 + WTERMSIG(status);
		if (WEXITSTATUS(status))
			return WEXITSTATUS(status);
		left--;
	}
	return 0;
}

/* As PID 1 of a container there is no default action. */
static void on_term(int signo)
{
	_exit(128 + signo);
}

static int usage(void)
{
	(void)fputs("Usage: gpu-work [OPTION]...\n"
		    "  --vram SIZE       VRAM of each process, as 64M (64M)\n"
		    "  --seed N          of the pattern (1)\n"
		    "  --interval MS     between steps (100)\n"
		    "  --steps N         then leave (0: never)\n"
		    "  --status PATH     the last line also goes there, renamed into place\n"
		    "                    (PATH.0, PATH.1, ... with --procs)\n"
		    "  --procs N         that many processes, each with CUDA of its own\n"
		    "  --kernel-ms N     each step also runs a kernel of that length\n"
		    "  --bandwidth       only measures copies of that much VRAM\n",
		    stderr);
	return EXIT_USAGE;
}

static bool size_of(const char *text, uint64_t *ret)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (end == text || errno || *text == '-')
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (!unit)
		return *end == '\0';
	*ret <<= 10 * (unit - units + 1);
	return end[1] == '\0';
}

static bool parse(int argc, char **argv, struct options *o)
{
	uint64_t *const numbers[] = { &o->vram,	 &o->seed,  &o->interval_ms,
				      &o->steps, &o->procs, &o->kernel_ms };
	static const struct option options[] = {
		{ "vram", required_argument, NULL, 0 },	  { "seed", required_argument, NULL, 1 },
		{ "interval", required_argument, NULL, 2 }, { "steps", required_argument, NULL, 3 },
		{ "procs", required_argument, NULL, 4 },
		{ "kernel-ms", required_argument, NULL, 5 },
		{ "status", required_argument, NULL, 6 },
		{ "bandwidth", no_argument, NULL, 7 },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 6)
			o->status = optarg;
		else if (c == 7)
			o->bandwidth = true;
		else if (c > 6 || !size_of(optarg, numbers[c]))
			return false;
	}
	return optind == argc && o->vram >= 4096 && o->vram % 8 == 0;
}

int main(int argc, char **argv)
{
	struct options o = { .vram = (uint64_t)64 << 20, .seed = 1, .interval_ms = 100 };
	struct sigaction term = { .sa_handler = on_term };

	if (!parse(argc, argv, &o))
		return usage();
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigaction(SIGTERM, &term, NULL);
	return o.procs ? run_many(&o) : run(&o, -1);
}
