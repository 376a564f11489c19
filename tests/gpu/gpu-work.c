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
 * ms is what the GPU took for the step, by events. Options and exit status: workloads/workload.h.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cu.h"
#include "proto/fg_proto.h"
#include "workloads/workload.h"

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

struct work {
	const struct workload *o;
	struct cu cu;
	void *kernels[KERNELS], *stream, *graph, *begin, *end;
	uint64_t words, step;
	cu_ptr vram;
	cu_ptr cells;   /* the counter, then the two words of the checksum */
	uint64_t *back; /* pinned: the cells of the last step */
	uint64_t sum, weighted; /* of the pattern at step 0 */
};

/* ---- reports -------------------------------------------------------------------------------- */

static void report(const struct work *w, const char *result)
{
	workload_report(w->o, w->step, w->back ? w->back[0] : 0,
			w->back ? w->back[1] ^ w->back[2] : 0, result);
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

static int run(const struct workload *o, void *data)
{
	const bool *only_bandwidth = data;
	struct work w = { .o = o };
	int status = start(&w);

	if (*only_bandwidth)
		return status ? status : bandwidth(&w);
	while (status == 0 && (!o->steps || w.step < o->steps)) {
		status = step(&w);
		workload_sleep(o->interval_ms);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct workload o = WORKLOAD_DEFAULT;
	bool only_bandwidth = false;
	const struct workload_option more[] = { { "bandwidth", NULL, &only_bandwidth } };

	if (!workload_parse(&o, more, 1, argc, argv)) {
		(void)fputs("Usage: gpu-work [OPTION]...\n" WORKLOAD_USAGE
			    "  --bandwidth       only measures copies of that much VRAM\n",
			    stderr);
		return EXIT_USAGE;
	}
	return workload_run(&o, run, &only_bandwidth);
}
