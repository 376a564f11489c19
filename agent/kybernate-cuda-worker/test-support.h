/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of the real worker program: a loop, a worker, and processes to call about. */
#ifndef KYB_CUDA_WORKER_TEST_SUPPORT_H
#define KYB_CUDA_WORKER_TEST_SUPPORT_H

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "event/signals.h"
#include "gpu/fake-setup.h"
#include "gpu/worker.h"

#define PATIENCE (30 * NSEC_PER_SEC) /* sanitizers and emulators are slow */

struct fixture {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct gpu_worker *worker;
	struct gpu_worker_config config;
	struct fake_file fake;
	const char *env[8];
	unsigned int readies, losses, restarted;
	char last[ERROR_TEXT_MAX];
};

struct probe {
	struct gpu_call call;
	unsigned int done;
	nsec_t at;
};

static inline void probe_done(struct gpu_call *call)
{
	struct probe *p = container_of(call, struct probe, call);

	p->done++;
	p->at = time_now();
}

static inline nsec_t in_ms(unsigned int ms)
{
	return time_now() + ms * NSEC_PER_MSEC;
}

static inline void fixture_sweep(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct fixture, signals)->reaper);
}

static inline void fixture_restarted(void *owner)
{
	((struct fixture *)owner)->restarted++;
}

static inline void fixture_changed(void *owner, enum gpu_worker_state state,
				   const struct error *why)
{
	struct fixture *f = owner;

	f->readies += state == GPU_WORKER_READY;
	f->losses += state == GPU_WORKER_DOWN && why;
	if (why)
		(void)snprintf(f->last, sizeof(f->last), "%s", why->text);
}

static inline void fixture_open(struct fixture *f)
{
	static const int signos[] = { SIGCHLD, 0 };

	memset(f, 0, sizeof(*f));
	fake_open(&f->fake);
	assert_int_equal(loop_new(&f->loop), 0);
	reaper_init(&f->reaper);
	assert_int_equal(signals_open(f->loop, &f->signals, signos, fixture_sweep), 0);
	f->config = GPU_WORKER_CONFIG_DEFAULT;
	f->config.program = WORKER_PROGRAM;
	f->config.libcuda = FAKE_CUDA;
	f->config.libnvml = FAKE_NVML;
	f->config.env = f->env;
	f->config.backoff_min = 2 * NSEC_PER_MSEC;
	f->config.backoff_max = 20 * NSEC_PER_MSEC;
	f->env[0] = f->fake.env;
	/* A race or an overflow in the worker must end it, so that tests fail. */
	f->env[1] = "TSAN_OPTIONS=halt_on_error=1:abort_on_error=1";
	f->env[2] = "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1";
	f->env[3] = "ASAN_OPTIONS=handle_segv=0";
}

static inline void fixture_start(struct fixture *f)
{
	static const struct gpu_worker_ops ops = { .restarted = fixture_restarted,
						   .changed = fixture_changed };

	assert_int_equal(gpu_worker_new(f->loop, &f->reaper, &f->config, &ops, f, &f->worker), 0);
	gpu_worker_start(f->worker);
}

static inline pid_t fixture_pid(const struct fixture *f)
{
	struct gpu_worker_health h;

	gpu_worker_health(f->worker, &h);
	return h.pid;
}

static inline void fixture_stop(struct fixture *f)
{
	pid_t pid = f->worker ? fixture_pid(f) : 0;

	gpu_worker_free(f->worker);
	f->worker = NULL;
	for (int i = 0; i < 1000 && pid && kill(pid, 0) == 0; i++)
		assert_int_equal(loop_round(f->loop, in_ms(10)), 0);
}

static inline void fixture_close(struct fixture *f)
{
	fixture_stop(f);
	signals_close(&f->signals);
	loop_free(f->loop);
	fake_close(&f->fake);
}

#define UNTIL(f, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + PATIENCE;                                               \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true; last: %s", #condition, (f)->last); \
			assert_int_equal(loop_round((f)->loop, time_now() + NSEC_PER_SEC), 0);     \
		}                                                                                  \
	} while (0)

/* A process that does nothing, for calls to be about. */
static inline pid_t sleeper_start(void)
{
	pid_t parent = getpid(), pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			(void)pause();
		_exit(0);
	}
	return pid;
}

/* The reaper of the fixture may take it first. */
static inline void sleeper_stop(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

#endif
