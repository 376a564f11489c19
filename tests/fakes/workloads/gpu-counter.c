/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-counter: a workload that notices whatever goes wrong. VRAM is filled with a pattern; every
 * step a kernel changes all of it, counters go up in VRAM and on the CPU, and both the counters and
 * the checksum of all of VRAM are compared with what they must be, computed here from the seed. One
 * line a step:
 *
 *	step=17 counter=17 checksum=5b1d... ok
 *
 * Exit status: 2 usage, 3 MISMATCH, 4 a GPU call failed, 143 SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fakecuda/fakecuda.h"

#define EXIT_USAGE    2
#define EXIT_MISMATCH 3
#define EXIT_GPU      4

#define PAGE_WORDS ((uint64_t)512) /* compared word by word each step */

struct options {
	uint64_t vram, seed, interval_ms, steps, procs, late_ms, kernel_ms, device;
	bool cpu_only, managed, forked_child, init_signal;
	const char *status;
};

struct counter {
	const struct options *o;
	int proc; /* -1 = the only one */
	uint64_t vram, words;
	uint64_t cells; /* address: the counter, then room for a result of two words */
	uint64_t step;  /* the CPU's counter */
	uint64_t sum, weighted; /* of the pattern at step 0 */
};

/* A closed, full or broken stdout is no reason to stop computing. */
static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char line[256];
	size_t at = 0, n;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	n = r < 0 ? 0 : (size_t)r < sizeof(line) ? (size_t)r : sizeof(line) - 1;
	while (at < n) {
		ssize_t put = write(STDOUT_FILENO, line + at, n - at);

		if (put > 0)
			at += (size_t)put;
		else if (errno != EINTR)
			return;
	}
}

/* All of it: a checkpoint and a restore interrupt a sleep, which must not end it. */
static void sleep_ms(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000 * 1000000) };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

static void write_status(const struct counter *c, const char *line)
{
	char path[512], new[520];
	int fd;

	if (!c->o->status)
		return;
	if (c->proc < 0)
		(void)snprintf(path, sizeof(path), "%s", c->o->status);
	else
		(void)snprintf(path, sizeof(path), "%s.%d", c->o->status, c->proc);
	(void)snprintf(new, sizeof(new), "%s.new", path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return; /* the line on stdout has to do */
	if (write(fd, line, strlen(line)) == (ssize_t)strlen(line))
		(void)rename(new, path);
	(void)close(fd);
}

static void report(const struct counter *c, const char *result, uint64_t counter, uint64_t checksum)
{
	char line[256], proc[32] = "";

	if (c->proc >= 0)
		(void)snprintf(proc, sizeof(proc), "proc=%d ", c->proc);
	(void)snprintf(line, sizeof(line),
		       "%sstep=%" PRIu64 " counter=%" PRIu64 " checksum=%016" PRIx64 " %s\n", proc,
		       c->step, counter, checksum, result);
	say("%s", line);
	write_status(c, line);
}

static int gpu_failed(const struct counter *c, const char *what, int code)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "ERROR %s: %s", what, fc_code_name(code));
	report(c, text, 0, 0);
	return EXIT_GPU;
}

static int mismatch(const struct counter *c, const char *what, uint64_t counter, uint64_t checksum)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "MISMATCH %s", what);
	report(c, text, counter, checksum);
	return EXIT_MISMATCH;
}

/* One page of VRAM, another each step, compared word by word with the pattern. */
static int look_at_page(const struct counter *c, const char **ret_what)
{
	uint64_t words[PAGE_WORDS], n = c->words < PAGE_WORDS ? c->words : PAGE_WORDS;
	uint64_t first = fg_pattern(c->o->seed, c->step) % (c->words - n + 1);
	int code = fc_memcpy_from(words, c->vram + first * 8, n * 8);

	for (uint64_t i = 0; code == FG_SUCCESS && i < n; i++)
		if (words[i] != fg_pattern(c->o->seed, first + i) + c->step)
			*ret_what = "page";
	return code;
}

static int compute(const struct counter *c, uint64_t *cells)
{
	int code = FG_SUCCESS;

	if (c->o->kernel_ms)
		code = fc_launch_sleep(c->o->kernel_ms);
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
	report(c, "ok", cells[0], cells[1] ^ cells[2]);
	return 0;
}

static int gpu_start(struct counter *c)
{
	uint64_t zero = 0;
	int code = fc_init();

	if (code != FG_SUCCESS)
		return gpu_failed(c, "cuInit", code);
	code = fc_set_device((int)c->o->device);
	c->words = c->o->vram / 8;
	if (code == FG_SUCCESS)
		code = (c->o->managed ? fc_malloc_managed : fc_malloc)(&c->vram, c->words * 8);
	if (code == FG_SUCCESS)
		code = fc_malloc(&c->cells, 4096);
	if (code != FG_SUCCESS)
		return gpu_failed(c, "malloc", code);
	code = fc_memcpy_to(c->cells, &zero, sizeof(zero));
	if (code == FG_SUCCESS)
		code = fc_launch_fill(c->vram, c->words, c->o->seed, 0);
	/* While the GPU fills: what must come out. */
	for (uint64_t i = 0; i < c->words; i++) {
		uint64_t word = fg_pattern(c->o->seed, i);

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

/* As PID 1 of a container there is no default action. */
static void on_term(int signo)
{
	_exit(128 + signo);
}

static void idle_child(void)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		sleep_ms(1000);
}

static int run(const struct options *o, int proc)
{
	struct counter c = { .o = o, .proc = proc };
	int status = 0;

	sleep_ms(o->late_ms);
	while (o->init_signal && !may_start)
		sleep_ms(10);
	if (!o->cpu_only)
		status = gpu_start(&c);
	if (status == 0 && o->forked_child && fork() == 0)
		idle_child();
	if (status == 0)
		say("%s", "ready\n");
	while (status == 0 && (!o->steps || c.step < o->steps)) {
		if (o->cpu_only) {
			c.step++;
			report(&c, "cpu", c.step, 0);
		} else {
			status = gpu_step(&c);
		}
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

static int usage(void)
{
	fputs("Usage: gpu-counter [OPTION]...\n"
	      "  --vram SIZE       VRAM of each process, as 64M (64M)\n"
	      "  --seed N          of the pattern (1)\n"
	      "  --interval MS     between steps (100)\n"
	      "  --steps N         then leave (0: never)\n"
	      "  --status PATH     the last line also goes there, renamed into place\n"
	      "                    (PATH.0, PATH.1, ... with --procs)\n"
	      "  --procs N         that many processes, each with CUDA of its own\n"
	      "  --device N        GPU to use (0)\n"
	      "  --late-init MS    cuInit only after that time\n"
	      "  --init-signal     cuInit only after SIGUSR1\n"
	      "  --kernel-ms N     each step also runs a kernel of that length\n"
	      "  --managed         managed memory, which cannot be checkpointed\n"
	      "  --forked-child    an idle child inherits all descriptors\n"
	      "  --cpu-only        no CUDA\n",
	      stderr);
	return EXIT_USAGE;
}

static bool size_of(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (end == text || errno || *text == '-')
		return false;
	switch (*end) {
	case 'K':
		*ret <<= 10;
		break;
	case 'M':
		*ret <<= 20;
		break;
	case 'G':
		*ret <<= 30;
		break;
	case '\0':
		return true;
	default:
		return false;
	}
	return end[1] == '\0';
}

static bool parse(int argc, char **argv, struct options *o)
{
	enum { VRAM, SEED, INTERVAL, STEPS, PROCS, LATE, KERNEL, DEVICE, STATUS, FLAG };
	static const char *const names[] = { "vram",	  "seed",      "interval", "steps", "procs",
					     "late-init", "kernel-ms", "device" };
	uint64_t *const numbers[] = { &o->vram,	 &o->seed,    &o->interval_ms, &o->steps,
				      &o->procs, &o->late_ms, &o->kernel_ms,   &o->device };
	struct option options[16] = { 0 };
	bool *const flags[] = { &o->cpu_only, &o->managed, &o->forked_child, &o->init_signal };
	static const char *const flag_names[] = { "cpu-only", "managed", "forked-child",
						  "init-signal" };
	int c, n = 0;

	for (; n < STATUS; n++)
		options[n] = (struct option){ names[n], required_argument, NULL, n };
	options[n++] = (struct option){ "status", required_argument, NULL, STATUS };
	for (int i = 0; i < 4; i++)
		options[n++] = (struct option){ flag_names[i], no_argument, NULL, FLAG + i };
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == '?' || (c < STATUS && !size_of(optarg, numbers[c])))
			return false;
		if (c == STATUS)
			o->status = optarg;
		if (c >= FLAG)
			*flags[c - FLAG] = true;
	}
	return optind == argc && o->vram >= 4096 && o->vram % 8 == 0;
}

int main(int argc, char **argv)
{
	struct options o = { .vram = (uint64_t)64 << 20, .seed = 1, .interval_ms = 100 };
	struct sigaction term = { .sa_handler = on_term }, usr1 = { .sa_handler = on_usr1 };

	if (!parse(argc, argv, &o))
		return usage();
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigaction(SIGTERM, &term, NULL);
	(void)sigaction(SIGUSR1, &usr1, NULL);
	return o.procs ? run_many(&o) : run(&o, -1);
}
