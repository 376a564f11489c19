/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-counter: a workload that notices whatever goes wrong. VRAM is filled with a pattern; every
 * step a kernel changes all of it, counters go up in VRAM and on the CPU, and both the counters and
 * the checksum of all of VRAM are compared with what they must be, computed here from the seed. One
 * line a step, as workload.h says.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fakecuda/fakecuda.h"
#include "workload.h"

#define PAGE_WORDS ((uint64_t)512) /* compared word by word each step */

struct options {
	uint64_t late_ms, device;
	bool cpu_only, managed, forked_child, init_signal;
};

struct counter {
	const struct workload *w;
	const struct options *o;
	uint64_t vram, words;
	uint64_t cells; /* address: the counter, then room for a result of two words */
	uint64_t step;  /* the CPU's counter */
	uint64_t sum, weighted; /* of the pattern at step 0 */
};

static int gpu_failed(const struct counter *c, const char *what, int code)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "ERROR %s: %s", what, fc_code_name(code));
	workload_report(c->w, c->step, 0, 0, text);
	return EXIT_GPU;
}

static int mismatch(const struct counter *c, const char *what, uint64_t counter, uint64_t checksum)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "MISMATCH %s", what);
	workload_report(c->w, c->step, counter, checksum, text);
	return EXIT_MISMATCH;
}

/* One page of VRAM, another each step, compared word by word with the pattern. */
static int look_at_page(const struct counter *c, const char **ret_what)
{
	uint64_t words[PAGE_WORDS], n = c->words < PAGE_WORDS ? c->words : PAGE_WORDS;
	uint64_t first = fg_pattern(c->w->seed, c->step) % (c->words - n + 1);
	int code = fc_memcpy_from(words, c->vram + first * 8, n * 8);

	for (uint64_t i = 0; code == FG_SUCCESS && i < n; i++)
		if (words[i] != fg_pattern(c->w->seed, first + i) + c->step)
			*ret_what = "page";
	return code;
}

static int compute(const struct counter *c, uint64_t *cells)
{
	int code = FG_SUCCESS;

	if (c->w->kernel_ms)
		code = fc_launch_sleep(c->w->kernel_ms);
	if (code == FG_SUCCESS)
		code = fc_launch_add(c->vram, c->words, 1);
	if (code == FG_SUCCESS)
		code = fc_launch_add(c->cells, 1, 1);
	if (code == FG_SUCCESS)
		code = fc_launch_checksum(c->vram, c->words, c->cells + 8);
	if (code == FG_SUCCESS)
		code = fc_synchronize();
	if (code == FG_SUCCESS)
		code = fc_memcpy_from(cells, c->cells, 3 * sizeof(*cells));
	return code;
}

/* Returns 0 or the exit status. */
static int gpu_step(struct counter *c)
{
	const char *what = NULL;
	uint64_t cells[3];
	int code;

	c->step++;
	code = compute(c, cells);
	if (code == FG_SUCCESS)
		code = look_at_page(c, &what);
	if (code != FG_SUCCESS)
		return gpu_failed(c, "step", code);
	if (cells[0] != c->step)
		what = "counter";
	else if (cells[1] != c->sum + c->step * c->words ||
		 cells[2] != c->weighted + c->step * c->words * c->words)
		what = "checksum";
	if (what)
		return mismatch(c, what, cells[0], cells[1] ^ cells[2]);
	workload_report(c->w, c->step, cells[0], cells[1] ^ cells[2], "ok");
	return 0;
}

static int gpu_start(struct counter *c)
{
	uint64_t zero = 0;
	int code = fc_init();

	if (code != FG_SUCCESS)
		return gpu_failed(c, "cuInit", code);
	code = fc_set_device((int)c->o->device);
	c->words = c->w->vram / 8;
	if (code == FG_SUCCESS)
		code = (c->o->managed ? fc_malloc_managed : fc_malloc)(&c->vram, c->words * 8);
	if (code == FG_SUCCESS)
		code = fc_malloc(&c->cells, 4096);
	if (code != FG_SUCCESS)
		return gpu_failed(c, "malloc", code);
	code = fc_memcpy_to(c->cells, &zero, sizeof(zero));
	if (code == FG_SUCCESS)
		code = fc_launch_fill(c->vram, c->words, c->w->seed, 0);
	/* While the GPU fills: what must come out. */
	for (uint64_t i = 0; i < c->words; i++) {
		uint64_t word = fg_pattern(c->w->seed, i);

		c->sum += word;
		c->weighted += (2 * i + 1) * word;
	}
	if (code == FG_SUCCESS)
		code = fc_synchronize();
	return code == FG_SUCCESS ? 0 : gpu_failed(c, "fill", code);
}

static volatile sig_atomic_t may_start;

static void on_usr1(int signo)
{
	(void)signo;
	may_start = 1;
}

static void idle_child(void)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		workload_sleep(1000);
}

static int run(const struct workload *w, void *data)
{
	const struct options *o = data;
	struct counter c = { .w = w, .o = o };
	int status = 0;

	workload_sleep(o->late_ms);
	while (o->init_signal && !may_start)
		workload_sleep(10);
	if (!o->cpu_only)
		status = gpu_start(&c);
	if (status == 0 && o->forked_child && fork() == 0)
		idle_child();
	if (status == 0)
		workload_say("ready\n");
	while (status == 0 && (!w->steps || c.step < w->steps)) {
		if (o->cpu_only) {
			c.step++;
			workload_report(w, c.step, c.step, 0, "cpu");
		} else {
			status = gpu_step(&c);
		}
		workload_sleep(w->interval_ms);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct workload w = WORKLOAD_DEFAULT;
	struct options o = { 0 };
	const struct workload_option more[] = {
		{ "device", &o.device, NULL },
		{ "late-init", &o.late_ms, NULL },
		{ "init-signal", NULL, &o.init_signal },
		{ "managed", NULL, &o.managed },
		{ "forked-child", NULL, &o.forked_child },
		{ "cpu-only", NULL, &o.cpu_only },
	};
	struct sigaction usr1 = { .sa_handler = on_usr1 };

	if (!workload_parse(&w, more, sizeof(more) / sizeof(*more), argc, argv)) {
		(void)fputs("Usage: gpu-counter [OPTION]...\n" WORKLOAD_USAGE
			    "  --device N        GPU to use (0)\n"
			    "  --late-init MS    cuInit only after that time\n"
			    "  --init-signal     cuInit only after SIGUSR1\n"
			    "  --managed         managed memory, which cannot be checkpointed\n"
			    "  --forked-child    an idle child inherits all descriptors\n"
			    "  --cpu-only        no CUDA\n",
			    stderr);
		return EXIT_USAGE;
	}
	(void)sigaction(SIGUSR1, &usr1, NULL);
	return workload_run(&w, run, &o);
}
