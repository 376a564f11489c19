/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A developer's hand on the CUDA worker: starts one as the agent does and makes calls through it,
 * one after the other. For real GPUs and emulated ones; not installed.
 *
 *	try-worker build/agent/kybernate-cuda-worker/kybernate-cuda-worker \
 *		info lock:4711:5000 checkpoint:4711 memory restore:4711 unlock:4711 state:4711
 *
 * Options come first: --libcuda=FILE, --libnvml=FILE, --env=NAME=VALUE (of the worker; repeatable),
 * --deadline=MS. Exit status: 0 all calls succeeded, 1 one did not, 2 wrong usage.
 */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "event/signals.h"
#include "gpu/capability.h"
#include "gpu/uuid.h"
#include "gpu/worker.h"

#define ENV_MAX 16

struct try {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct gpu_worker *worker;
	struct gpu_worker_config config;
	const char *env[ENV_MAX + 1];
	unsigned int n_env;
	char program[PATH_MAX];
	nsec_t deadline;
	struct gpu_call call;
	struct gpu_memory memory;
	struct cuda_gpu_pair pairs[GPU_DEVICES_MAX];
	bool ready, done;
};

static void sweep(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct try, signals)->reaper);
}

static void changed(void *owner, enum gpu_worker_state state, const struct error *why)
{
	struct try *t = owner;

	t->ready |= state == GPU_WORKER_READY;
	if (why)
		(void)printf("worker %s: %s\n", gpu_worker_state_name(state), error_text(why));
}

static void call_done(struct gpu_call *call)
{
	container_of(call, struct try, call)->done = true;
}

static void print_devices(const struct gpu_memory *m)
{
	char uuid[GPU_UUID_TEXT_MAX];

	for (uint32_t i = 0; i < m->n_devices; i++) {
		const struct gpu_device *d = &m->devices[i];

		(void)printf("  %s %s: cuda %d, nvml %d, minor %d, flags 0x%x, free %" PRIu64
			     " of %" PRIu64 " MiB\n",
			     gpu_uuid_format(&d->uuid, uuid), d->name, d->cuda_index,
			     d->nvml_index, d->minor, d->flags, d->free >> 20, d->total >> 20);
	}
	for (uint32_t i = 0; i < m->n_processes; i++)
		(void)printf("  process %d on device %u: %" PRIu64 " MiB\n", m->processes[i].pid,
			     m->processes[i].device, m->processes[i].bytes >> 20);
}

static bool print_info(const struct try *t)
{
	const struct gpu_hello *h = gpu_worker_info(t->worker);

	(void)printf("worker %d: CUDA %d, driver '%s', %s, opened in %" PRIu64 " ms, NVML: %s\n",
		     h->worker_pid, h->cuda_version, h->driver_version, h->library,
		     h->open_ns / NSEC_PER_MSEC, h->nvml ? "yes" : h->nvml_text);
	(void)printf("  can:");
	for (uint32_t cap = 1; cap & GPU_CAP_ALL; cap <<= 1)
		if (h->caps & cap)
			(void)printf(" %s", gpu_cap_name((enum gpu_cap)cap));
	(void)printf("\n");
	print_devices(&h->memory);
	return gpu_worker_usable(t->worker, NULL) == 0;
}

/* "OLD=NEW,OLD=NEW" */
static bool parse_pairs(struct try *t, char *text, uint32_t *ret_n)
{
	uint32_t n = 0;

	for (char *pair = strtok(text, ","); pair; pair = strtok(NULL, ",")) {
		char *equals = strchr(pair, '=');

		if (!equals || n == GPU_DEVICES_MAX)
			return false;
		*equals = 0;
		if (gpu_uuid_parse(pair, &t->pairs[n].old_gpu) < 0 ||
		    gpu_uuid_parse(equals + 1, &t->pairs[n].new_gpu) < 0)
			return false;
		n++;
	}
	*ret_n = n;
	return true;
}

/* Begins the call; false when the words make no sense. */
static bool begin(struct try *t, const char *op, uint64_t pid, char *more)
{
	nsec_t deadline = time_add(time_now(), t->deadline);
	uint64_t ms;
	uint32_t n = 0;

	t->call = (struct gpu_call){ 0 };
	t->done = false;
	if (strcmp(op, "memory") == 0 && !pid)
		gpu_worker_memory(t->worker, &t->call, &t->memory, deadline, call_done);
	else if (strcmp(op, "probe") == 0 && !more)
		gpu_worker_probe(t->worker, &t->call, (pid_t)pid, deadline, call_done);
	else if (strcmp(op, "state") == 0 && !more)
		gpu_worker_state_of(t->worker, &t->call, (pid_t)pid, deadline, call_done);
	else if (strcmp(op, "lock") == 0 && more && num_parse(more, UINT32_MAX, &ms) == 0)
		gpu_worker_lock(t->worker, &t->call, (pid_t)pid, ms * NSEC_PER_MSEC, deadline,
				call_done);
	else if (strcmp(op, "checkpoint") == 0 && !more)
		gpu_worker_checkpoint(t->worker, &t->call, (pid_t)pid, deadline, call_done);
	else if (strcmp(op, "restore") == 0 && (!more || parse_pairs(t, more, &n)))
		gpu_worker_restore(t->worker, &t->call, (pid_t)pid, t->pairs, n, deadline,
				   call_done);
	else if (strcmp(op, "unlock") == 0 && !more)
		gpu_worker_unlock(t->worker, &t->call, (pid_t)pid, deadline, call_done);
	else
		return false;
	return true;
}

static void print_result(const struct try *t, const char *op, uint64_t pid, nsec_t took)
{
	const struct gpu_call *call = &t->call;

	(void)printf("%s", op);
	if (pid)
		(void)printf(" %" PRIu64, pid);
	(void)printf(": %.1f ms, of it %.1f ms in the driver: ", (double)took / 1e6,
		     (double)call->took / 1e6);
	if (call->result < 0)
		(void)printf("%s, %s: %s\n", reason_name(call->err.reason),
			     strerror(-call->result), error_text(&call->err));
	else if (strcmp(op, "state") == 0)
		(void)printf("%s\n", gpu_state_name(call->state));
	else if (strcmp(op, "probe") == 0 && !call->restore_tid)
		(void)printf("no CUDA\n");
	else if (strcmp(op, "probe") == 0)
		(void)printf("CUDA, restore thread %d\n", call->restore_tid);
	else
		(void)printf("ok\n");
	if (call->result == 0 && strcmp(op, "memory") == 0)
		print_devices(&t->memory);
	(void)fflush(stdout);
}

/* Returns an exit status. */
static int make_call(struct try *t, char *words)
{
	char *op = strsep(&words, ":"), *number = strsep(&words, ":");
	nsec_t start = time_now();
	uint64_t pid = 0;

	if (strcmp(op, "info") == 0 && !number)
		return print_info(t) ? 0 : 1;
	if ((number && num_parse(number, INT_MAX, &pid) < 0) || !begin(t, op, pid, words)) {
		(void)fprintf(stderr, "try-worker: what is '%s'?\n", op);
		return 2;
	}
	while (!t->done)
		if (loop_round(t->loop, NSEC_NEVER) < 0)
			return 1;
	print_result(t, op, pid, time_now() - start);
	return t->call.result < 0;
}

static int parse_options(struct try *t, int argc, char **argv)
{
	static const struct option known[] = { { "libcuda", required_argument, NULL, 'c' },
					       { "libnvml", required_argument, NULL, 'n' },
					       { "env", required_argument, NULL, 'e' },
					       { "deadline", required_argument, NULL, 'd' },
					       { 0 } };
	uint64_t ms;
	int c;

	while ((c = getopt_long(argc, argv, "+", known, NULL)) != -1) {
		if (c == 'c')
			t->config.libcuda = optarg;
		else if (c == 'n')
			t->config.libnvml = optarg;
		else if (c == 'e' && t->n_env < ENV_MAX)
			t->env[t->n_env++] = optarg;
		else if (c == 'd' && num_parse(optarg, UINT32_MAX, &ms) == 0)
			t->deadline = ms * NSEC_PER_MSEC;
		else
			return 2;
	}
	if (argc - optind < 2) {
		(void)fprintf(stderr, "usage: try-worker [OPTION]... WORKER CALL...\n");
		return 2;
	}
	/* It is started in the root folder. */
	if (!realpath(argv[optind++], t->program)) {
		perror("try-worker: the worker");
		return 2;
	}
	t->config.program = t->program;
	return 0;
}

static int run(struct try *t, char **calls)
{
	static const struct gpu_worker_ops ops = { .changed = changed };
	int status = 0;

	if (gpu_worker_new(t->loop, &t->reaper, &t->config, &ops, t, &t->worker) < 0)
		return 1;
	gpu_worker_start(t->worker);
	while (!t->ready)
		if (loop_round(t->loop, NSEC_NEVER) < 0)
			return 1;
	for (; *calls && status != 2; calls++) {
		int r = make_call(t, *calls);

		status = r > status ? r : status;
	}
	gpu_worker_free(t->worker);
	return status;
}

int main(int argc, char **argv)
{
	static const int signos[] = { SIGCHLD, 0 };
	static struct try t;
	int status;

	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	t.config = GPU_WORKER_CONFIG_DEFAULT;
	t.config.env = t.env;
	t.deadline = 60 * NSEC_PER_SEC;
	status = parse_options(&t, argc, argv);
	if (status)
		return status;
	reaper_init(&t.reaper);
	if (loop_new(&t.loop) < 0 || signals_open(t.loop, &t.signals, signos, sweep) < 0)
		return 1;
	status = run(&t, argv + optind);
	signals_close(&t.signals);
	loop_free(t.loop);
	return status;
}
