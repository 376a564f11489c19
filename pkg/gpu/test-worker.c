/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's side against workers that misbehave: this very program, started again with
 * PEER=<how> in its environment. The real worker is tested in agent/kybernate-cuda-worker.
 */
#include "gpu/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "event/signals.h"
#include "tests/cmocka.h"

#define PATIENCE (20 * NSEC_PER_SEC) /* sanitizers and emulators are slow */

/*
 * The peer
 */

static void say(const void *p, size_t n)
{
	if (send(GPU_WORKER_FD, p, n, MSG_NOSIGNAL) < 0)
		_exit(3);
}

static void answer(const struct gpu_packet *to, unsigned int op, uint64_t id, uint32_t status)
{
	static union gpu_any_reply any;

	memset(&any, 0, sizeof(any));
	(void)to;
	gpu_reply_init(&any.reply, op, id);
	any.reply.status = status;
	any.reply.tid = op == GPU_OP_PROBE ? 77 : 0;
	if (op == GPU_OP_HELLO)
		any.hello.hello.cuda_version = 13000;
	if (op == GPU_OP_MEMORY)
		any.memory.memory.n_devices = 1;
	if (status == GPU_STATUS_UNAVAILABLE)
		GPU_TEXT_SET(any.reply.text, "no driver in this test");
	say(&any, gpu_reply_size(op));
}

static struct gpu_request hear(void)
{
	struct gpu_request req;
	ssize_t n;

	do
		n = recv(GPU_WORKER_FD, &req, sizeof(req), 0);
	while (n < 0 && (errno == EINTR || errno == EAGAIN) && usleep(1000) == 0);
	if (n != (ssize_t)sizeof(req))
		_exit(0);
	return req;
}

/* What is said in place of the answer to HELLO. False: the right one. */
static bool bad_hello(const char *how, const struct gpu_request *req)
{
	static char big[sizeof(union gpu_any_reply) + 1];
	struct gpu_packet head = req->head;

	if (strcmp(how, "silent") == 0) {
		for (;;)
			(void)hear();
	} else if (strcmp(how, "garbage") == 0) {
		say("What?", 5);
	} else if (strcmp(how, "short") == 0) {
		say(&head, sizeof(head));
	} else if (strcmp(how, "long") == 0) {
		memcpy(big, &head, sizeof(head));
		say(big, sizeof(big));
	} else if (strcmp(how, "version") == 0) {
		head.version++;
		say(&head, sizeof(head));
	} else if (strcmp(how, "pong") == 0) {
		answer(&head, GPU_OP_PING, head.id, GPU_STATUS_OK);
	} else if (strcmp(how, "busy") == 0) {
		answer(&head, GPU_OP_HELLO, head.id, GPU_STATUS_BUSY);
	} else {
		return false;
	}
	return true;
}

static void answer_call(const char *how, const struct gpu_request *req)
{
	const struct gpu_packet *head = &req->head;

	if (strcmp(how, "mute") == 0 && head->op != GPU_OP_PING)
		return;
	if (strcmp(how, "crash") == 0 && head->op != GPU_OP_PING) {
		(void)signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would talk */
		(void)raise(SIGSEGV);
	}
	if (strcmp(how, "stranger") == 0 && head->op != GPU_OP_PING) {
		answer(head, head->op, head->id + (1 << 20), GPU_STATUS_OK);
		return;
	}
	if (strcmp(how, "nonsense") == 0 && head->op != GPU_OP_PING) {
		say("nonsense", 8);
		return;
	}
	answer(head, head->op, head->id, GPU_STATUS_OK);
	if (strcmp(how, "twice") == 0 && head->op != GPU_OP_PING)
		answer(head, head->op, head->id, GPU_STATUS_OK);
	if (strcmp(how, "last-words") == 0 && head->op != GPU_OP_PING)
		_exit(5);
}

static int peer(const char *how)
{
	struct gpu_request req;
	const char *file = getenv("DRIVER_FILE");
	bool fit = !file || access(file, F_OK) == 0;

	if (strcmp(how, "exit") == 0)
		return 7;
	req = hear();
	if (req.head.op != GPU_OP_HELLO)
		return 4;
	if (bad_hello(how, &req))
		for (;;)
			(void)pause();
	answer(&req.head, GPU_OP_HELLO, req.head.id,
	       fit ? GPU_STATUS_OK : GPU_STATUS_UNAVAILABLE);
	if (strcmp(how, "deaf") == 0)
		for (;;)
			(void)pause();
	if (strcmp(how, "eof") == 0) {
		(void)close(GPU_WORKER_FD);
		for (;;)
			(void)pause();
	}
	for (;;) {
		req = hear();
		answer_call(how, &req);
	}
}

/*
 * The test
 */

struct fixture {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct gpu_worker *worker;
	struct gpu_worker_config config;
	char program[PATH_MAX], how[64], driver_file[96];
	const char *env[4];
	unsigned int restarted, readies, losses;
	pid_t pids[512]; /* of the workers, in order */
	unsigned int n_pids;
	char last[ERROR_TEXT_MAX]; /* why, of the last change */
	enum reason last_reason;
	struct probe *ask_when_restarted;
};

struct probe {
	struct gpu_call call;
	struct fixture *f;
	unsigned int done, order;
};

static unsigned int order;

static void sweep(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct fixture, signals)->reaper);
}

static void done(struct gpu_call *call)
{
	struct probe *p = container_of(call, struct probe, call);

	p->done++;
	p->order = ++order;
}

static void restarted(void *owner)
{
	struct fixture *f = owner;

	f->restarted++;
	if (f->ask_when_restarted)
		gpu_worker_state_of(f->worker, &f->ask_when_restarted->call, 1, NSEC_NEVER, done);
}

static void changed(void *owner, enum gpu_worker_state state, const struct error *why)
{
	struct fixture *f = owner;
	struct gpu_worker_health h;

	gpu_worker_health(f->worker, &h);
	assert_int_equal(h.state, state);
	f->readies += state == GPU_WORKER_READY;
	f->losses += state == GPU_WORKER_DOWN && why;
	if (why) {
		assert_int_not_equal(why->code, 0);
		(void)snprintf(f->last, sizeof(f->last), "%s", why->text);
		f->last_reason = why->reason;
	}
	if (state != GPU_WORKER_STARTING)
		return;
	/* Never two at a time: the one before has been reaped. */
	if (f->n_pids)
		assert_int_equal(kill(f->pids[f->n_pids - 1], 0), -1);
	assert_true(f->n_pids < ARRAY_SIZE(f->pids));
	f->pids[f->n_pids++] = h.pid;
}

static const struct gpu_worker_ops ops = { .restarted = restarted, .changed = changed };

static int setup(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	struct fixture *f = calloc(1, sizeof(*f));
	ssize_t n;

	assert_non_null(f);
	n = readlink("/proc/self/exe", f->program, sizeof(f->program) - 1);
	assert_true(n > 0);
	assert_int_equal(loop_new(&f->loop), 0);
	reaper_init(&f->reaper);
	assert_int_equal(signals_open(f->loop, &f->signals, signos, sweep), 0);
	f->config = GPU_WORKER_CONFIG_DEFAULT;
	f->config.program = f->program;
	f->config.env = f->env;
	f->config.backoff_min = 5 * NSEC_PER_MSEC;
	f->config.backoff_max = 40 * NSEC_PER_MSEC;
	f->env[0] = f->how;
	*state = f;
	return 0;
}

static void stop(struct fixture *f)
{
	gpu_worker_free(f->worker);
	f->worker = NULL;
	/* The process that was killed with it is reaped as a child nobody knows. */
	for (int i = 0; i < 1000 && f->n_pids && kill(f->pids[f->n_pids - 1], 0) == 0; i++)
		assert_int_equal(loop_round(f->loop, time_now() + 10 * NSEC_PER_MSEC), 0);
	f->n_pids = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop(f);
	signals_close(&f->signals);
	loop_free(f->loop);
	free(f);
	return 0;
}

static void start(struct fixture *f, const char *how)
{
	(void)snprintf(f->how, sizeof(f->how), "PEER=%s", how);
	assert_int_equal(gpu_worker_new(f->loop, &f->reaper, &f->config, &ops, f, &f->worker), 0);
	assert_null(gpu_worker_info(f->worker));
	gpu_worker_start(f->worker);
	gpu_worker_start(f->worker); /* once is enough */
}

#define UNTIL(f, condition)                                                                        \
	do {                                                                                       \
		nsec_t end_ = time_now() + PATIENCE;                                               \
		while (!(condition)) {                                                             \
			if (time_now() > end_)                                                     \
				fail_msg("%s did not come true", #condition);                      \
			assert_int_equal(loop_round((f)->loop, time_now() + NSEC_PER_SEC), 0);     \
		}                                                                                  \
	} while (0)

static void run_for(struct fixture *f, nsec_t time)
{
	for (nsec_t end = time_now() + time; time_now() < end;)
		assert_int_equal(loop_round(f->loop, end), 0);
}

static nsec_t in_ms(unsigned int ms)
{
	return time_now() + ms * NSEC_PER_MSEC;
}

static void a_good_one_answers(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 }, b = { 0 }, c = { 0 };
	struct gpu_memory *m = calloc(1, sizeof(*m));
	struct gpu_worker_health h;

	assert_non_null(m);
	start(f, "good");
	/* Before it is there, too. */
	gpu_worker_probe(f->worker, &a.call, 1, in_ms(20000), done);
	gpu_worker_lock(f->worker, &b.call, 1, 1, in_ms(20000), done);
	gpu_worker_memory(f->worker, &c.call, m, in_ms(20000), done);
	assert_int_equal(gpu_worker_usable(f->worker, NULL), -EAGAIN);
	UNTIL(f, a.done && b.done && c.done);
	assert_int_equal(a.call.result, 0);
	assert_int_equal(a.call.restore_tid, 77);
	assert_int_equal(b.call.result, 0);
	assert_int_equal(m->n_devices, 1);
	assert_true(a.order < b.order && b.order < c.order);
	assert_int_equal(gpu_worker_usable(f->worker, NULL), 0);
	assert_int_equal(gpu_worker_info(f->worker)->cuda_version, 13000);
	gpu_worker_health(f->worker, &h);
	assert_int_equal(h.state, GPU_WORKER_READY);
	assert_int_equal(h.starts, 1);
	assert_int_equal(h.losses, 0);
	assert_int_equal(h.open, 0);
	assert_int_equal(f->restarted, 0); /* the first start replaces nobody */
	free(m);
}

/* Each of these never gets ready: it is killed, and the calls that wait are told. */
static void a_bad_start_is_reported(void **state)
{
	static const struct {
		const char *how, *word;
	} bad[] = {
		{ "silent", "did not open the driver in 300 ms" },
		{ "garbage", "malformed" },
		{ "short", "malformed" },
		{ "long", "malformed" },
		{ "version", "another version" },
		{ "pong", "something else" },
		{ "busy", "something else" },
		{ "exit", "exit status 7" },
	};
	struct fixture *f = *state;

	f->config.backoff_min = f->config.backoff_max = 3600 * NSEC_PER_SEC;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct probe a = { 0 }, b = { 0 };
		struct error err = ERROR_NULL;

		f->losses = 0;
		if (i == 0)
			f->config.start_timeout = 300 * NSEC_PER_MSEC;
		else
			f->config.start_timeout = PATIENCE;
		start(f, bad[i].how);
		gpu_worker_state_of(f->worker, &a.call, 1, NSEC_NEVER, done);
		UNTIL(f, f->losses && a.done);
		if (!strstr(f->last, bad[i].word))
			fail_msg("%s: '%s' is not in: %s", bad[i].how, bad[i].word, f->last);
		assert_int_equal(f->last_reason, REASON_WORKER_FAILED);
		assert_int_equal(a.call.err.reason, REASON_WORKER_FAILED);
		assert_string_equal(a.call.err.text, f->last);
		/* and those that come now need not wait for their deadline */
		gpu_worker_state_of(f->worker, &b.call, 1, NSEC_NEVER, done);
		assert_int_equal(b.done, 0);
		UNTIL(f, b.done);
		assert_string_equal(b.call.err.text, f->last);
		assert_int_equal(gpu_worker_usable(f->worker, &err), -EIO);
		assert_non_null(strstr(err.text, bad[i].word));
		assert_int_equal(f->readies, 0);
		stop(f);
	}
}

static void a_missing_program_is_reported(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 };

	f->config.program = "/nonexistent/kybernate-cuda-worker";
	start(f, "good");
	gpu_worker_state_of(f->worker, &a.call, 1, NSEC_NEVER, done);
	UNTIL(f, a.done);
	assert_int_equal(a.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(a.call.err.text, "/nonexistent/kybernate-cuda-worker"));
	assert_int_equal(f->n_pids, 0);
}

/* Tried again and again, but ever more slowly: 5, 10, 20, 40, 40 ... ms. */
static void one_that_dies_at_once_does_not_make_us_spin(void **state)
{
	struct fixture *f = *state;
	struct gpu_worker_health h;

	start(f, "exit");
	run_for(f, NSEC_PER_SEC);
	gpu_worker_health(f->worker, &h);
	assert_in_range(h.starts, 4, 4 + 1000 / 40);
	assert_int_equal(h.losses, f->losses);
	assert_true(h.losses >= h.starts - 1);
	assert_non_null(strstr(h.last.text, "exit status 7"));
	if (h.state == GPU_WORKER_DOWN)
		assert_true(h.next_start > 0);
}

/* How long it is until the next one, after this one has been killed. */
static nsec_t pause_after_death(struct fixture *f)
{
	struct gpu_worker_health h;
	nsec_t now;

	UNTIL(f, gpu_worker_usable(f->worker, NULL) == 0);
	gpu_worker_health(f->worker, &h);
	assert_int_equal(kill(h.pid, SIGKILL), 0);
	UNTIL(f, (gpu_worker_health(f->worker, &h), h.state == GPU_WORKER_DOWN));
	now = time_now();
	return h.next_start > now ? h.next_start - now : 0;
}

static void one_that_lived_well_begins_a_new_count(void **state)
{
	struct fixture *f = *state;

	f->config.backoff_min = 20 * NSEC_PER_MSEC;
	f->config.backoff_max = 320 * NSEC_PER_MSEC;
	start(f, "good");
	for (int i = 0; i < 4; i++)
		(void)pause_after_death(f);
	assert_true(pause_after_death(f) > 100 * NSEC_PER_MSEC); /* 320 but for what has passed */
	UNTIL(f, gpu_worker_usable(f->worker, NULL) == 0);
	run_for(f, f->config.backoff_max + 10 * NSEC_PER_MSEC);
	assert_true(pause_after_death(f) <= 20 * NSEC_PER_MSEC);
}

/* Each of these is ready, then does something that no worker does. */
static void one_that_breaks_the_rules_is_replaced(void **state)
{
	static const struct {
		const char *how, *word;
	} bad[] = {
		{ "crash", "killed by signal 11" },
		{ "stranger", "which was not asked" },
		{ "nonsense", "malformed" },
		{ "eof", "closed its socket" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct probe a = { 0 };

		f->restarted = f->losses = 0;
		start(f, bad[i].how);
		gpu_worker_lock(f->worker, &a.call, 4711, NSEC_PER_SEC, NSEC_NEVER, done);
		UNTIL(f, a.done && f->restarted);
		assert_int_equal(a.call.result, -EIO);
		assert_int_equal(a.call.err.reason, REASON_WORKER_FAILED);
		assert_non_null(strstr(a.call.err.text, "process 4711: lock"));
		/* "eof" is killed for it, so its death by signal 9 may be the reason given */
		if (!strstr(a.call.err.text, bad[i].word) && !strstr(a.call.err.text, "signal 9"))
			fail_msg("%s: '%s' is not in: %s", bad[i].how, bad[i].word,
				 a.call.err.text);
		stop(f);
	}
}

static void a_second_answer_is_one_too_many(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 };

	start(f, "twice");
	gpu_worker_lock(f->worker, &a.call, 1, NSEC_PER_SEC, NSEC_NEVER, done);
	UNTIL(f, a.done && f->restarted);
	assert_int_equal(a.call.result, 0); /* the first one counts */
	assert_non_null(strstr(f->last, "which was not asked"));
}

static void an_answer_given_before_death_counts(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 };

	start(f, "last-words");
	gpu_worker_lock(f->worker, &a.call, 1, NSEC_PER_SEC, NSEC_NEVER, done);
	UNTIL(f, a.done && f->restarted);
	assert_int_equal(a.call.result, 0);
	assert_non_null(strstr(f->last, "exit status 5"));
}

static void a_call_that_is_late_costs_the_worker_its_life(void **state)
{
	struct fixture *f = *state;
	struct probe late = { 0 }, other = { 0 }, asked = { 0 }, queued = { 0 };
	struct gpu_worker_health h;

	f->ask_when_restarted = &asked;
	start(f, "mute");
	gpu_worker_lock(f->worker, &late.call, 1, NSEC_PER_MSEC, in_ms(2000), done);
	gpu_worker_checkpoint(f->worker, &other.call, 2, NSEC_NEVER, done);
	UNTIL(f, late.done);
	assert_int_equal(late.call.result, -ETIMEDOUT);
	assert_int_equal(late.call.err.reason, REASON_TIMEOUT);
	assert_non_null(strstr(late.call.err.text, "process 1: cuCheckpointProcessLock"));
	assert_int_equal(other.done, 1);
	assert_int_equal(other.call.result, -EIO);
	assert_int_equal(other.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(other.call.err.text, "process 2: checkpoint"));
	gpu_worker_health(f->worker, &h);
	assert_int_equal(h.losses, 1);
	/* What comes in now waits for the next worker, behind what restarted() asks. */
	gpu_worker_unlock(f->worker, &queued.call, 2, in_ms(1500), done);
	UNTIL(f, f->restarted == 1);
	UNTIL(f, queued.done);
	assert_int_equal(f->restarted, 1);
	assert_int_equal(queued.call.result, -ETIMEDOUT); /* it is mute, too */
	gpu_call_forget(&asked.call);
}

static void states_are_asked_before_anything_else(void **state)
{
	struct fixture *f = *state;
	struct probe asked = { 0 }, queued = { 0 };
	struct gpu_worker_health h;

	start(f, "good");
	UNTIL(f, f->readies == 1);
	f->ask_when_restarted = &asked;
	gpu_worker_health(f->worker, &h);
	assert_int_equal(kill(h.pid, SIGKILL), 0);
	UNTIL(f, f->losses == 1);
	gpu_worker_unlock(f->worker, &queued.call, 2, in_ms(20000), done);
	UNTIL(f, queued.done && asked.done);
	assert_int_equal(asked.call.result, 0);
	assert_int_equal(queued.call.result, 0);
	assert_true(asked.order < queued.order);
	assert_non_null(strstr(f->last, "signal 9"));
}

static void a_call_is_not_kept_waiting_past_its_deadline(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 };

	start(f, "silent"); /* and has plenty of time to start */
	gpu_worker_state_of(f->worker, &a.call, 4711, in_ms(50), done);
	UNTIL(f, a.done);
	assert_int_equal(a.call.result, -ETIMEDOUT);
	assert_int_equal(a.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(a.call.err.text, "process 4711: state: no CUDA worker took"));
	assert_int_equal(f->losses, 0); /* its own fault it is not */
}

static void a_main_thread_that_hangs_is_noticed(void **state)
{
	struct fixture *f = *state;

	f->config.ping_interval = 20 * NSEC_PER_MSEC;
	f->config.ping_timeout = 200 * NSEC_PER_MSEC;
	start(f, "deaf");
	UNTIL(f, f->restarted);
	assert_non_null(strstr(f->last, "does not answer"));
}

static void pings_go_back_and_forth(void **state)
{
	struct fixture *f = *state;

	f->config.ping_interval = 2 * NSEC_PER_MSEC;
	f->config.ping_timeout = 10 * NSEC_PER_SEC;
	start(f, "mute"); /* that one answers pings */
	UNTIL(f, f->readies);
	run_for(f, 300 * NSEC_PER_MSEC);
	assert_int_equal(f->losses, 0);
}

/* We were stopped, or starved: the answers have been there all along. */
static void our_own_delay_is_not_held_against_it(void **state)
{
	struct fixture *f = *state;
	struct probe p[4] = { 0 };

	f->config.ping_interval = 2 * NSEC_PER_MSEC;
	f->config.ping_timeout = 400 * NSEC_PER_MSEC;
	start(f, "good");
	UNTIL(f, f->readies);
	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		gpu_worker_lock(f->worker, &p[i].call, 1, 1, in_ms(400), done);
		(void)usleep(600 * 1000);
		UNTIL(f, p[i].done);
		assert_int_equal(p[i].call.result, 0);
	}
	assert_int_equal(f->losses, 0);
}

/* The driver may be installed later than we are. */
static void a_driver_that_comes_later_is_found(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_NULL;
	char path[] = "/tmp/kyb-driver-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	(void)close(fd);
	(void)unlink(path);
	(void)snprintf(f->driver_file, sizeof(f->driver_file), "DRIVER_FILE=%s", path);
	f->env[1] = f->driver_file;
	f->config.recheck = 20 * NSEC_PER_MSEC;
	start(f, "good");
	UNTIL(f, f->readies >= 3); /* it looks again and again */
	assert_true(gpu_worker_usable(f->worker, &err) < 0);
	if (err.reason != REASON_DRIVER_UNAVAILABLE) /* it may be between two workers */
		assert_int_equal(err.reason, REASON_WORKER_FAILED);
	assert_int_equal(f->last_reason, REASON_DRIVER_UNAVAILABLE);
	assert_string_equal(f->last, "no driver in this test");
	assert_int_equal(mkdir(path, 0700), 0);
	UNTIL(f, gpu_worker_usable(f->worker, NULL) == 0);
	assert_int_equal(f->losses, 0); /* none of this was a failure */
	assert_int_equal(f->restarted, 0);
	assert_int_equal(rmdir(path), 0);
}

static void canceling_and_forgetting(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 }, b = { 0 }, c = { 0 };

	gpu_call_cancel(&a.call); /* harmless when not open */
	gpu_call_forget(&a.call);
	start(f, "good");
	gpu_worker_lock(f->worker, &a.call, 1, 1, NSEC_NEVER, done);
	gpu_worker_lock(f->worker, &b.call, 2, 1, NSEC_NEVER, done);
	gpu_call_cancel(&a.call);
	gpu_call_forget(&b.call);
	assert_int_equal(a.done, 0);
	gpu_worker_lock(f->worker, &c.call, 3, 1, NSEC_NEVER, done);
	UNTIL(f, a.done && c.done);
	assert_int_equal(a.call.result, -ECANCELED);
	assert_int_equal(b.done, 0);
	assert_int_equal(c.call.result, 0);
}

#define FREEZER "/sys/fs/cgroup/freezer/kyb-test-worker"

/*
 * One that SIGKILL does not end, as when a thread is held in the kernel's driver. A frozen task of
 * the old freezer is such a one.
 */
static void one_that_does_not_die_has_no_successor(void **state)
{
	struct fixture *f = *state;
	struct probe a = { 0 }, b = { 0 };
	struct gpu_worker_health h;
	char pid[16];

	if (mkdir(FREEZER, 0755) < 0 && errno != EEXIST)
		skip();
	if (access(FREEZER "/freezer.state", W_OK) < 0) {
		(void)rmdir(FREEZER);
		skip();
	}
	f->config.kill_timeout = 200 * NSEC_PER_MSEC;
	start(f, "mute");
	UNTIL(f, f->readies == 1);
	(void)snprintf(pid, sizeof(pid), "%d", f->pids[0]);
	assert_int_equal(file_put(AT_FDCWD, FREEZER "/cgroup.procs", pid), 0);
	assert_int_equal(file_put(AT_FDCWD, FREEZER "/freezer.state", "FROZEN"), 0);
	gpu_worker_lock(f->worker, &a.call, 1, 1, in_ms(50), done);
	UNTIL(f, a.done);
	gpu_worker_health(f->worker, &h);
	assert_true(h.stuck);
	assert_int_equal(h.state, GPU_WORKER_DYING);
	assert_non_null(strstr(f->last, "does not die"));
	/* Meanwhile calls fail at once. */
	gpu_worker_lock(f->worker, &b.call, 1, 1, NSEC_NEVER, done);
	UNTIL(f, b.done);
	assert_non_null(strstr(b.call.err.text, "does not die"));
	assert_int_equal(f->n_pids, 1);
	assert_int_equal(file_put(AT_FDCWD, FREEZER "/freezer.state", "THAWED"), 0);
	UNTIL(f, f->restarted == 1);
	gpu_worker_health(f->worker, &h);
	assert_false(h.stuck);
	assert_int_equal(h.losses, 1);
	assert_int_equal(rmdir(FREEZER), 0);
}

int main(void)
{
	const char *how = getenv("PEER");
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_good_one_answers),
		T(a_bad_start_is_reported),
		T(a_missing_program_is_reported),
		T(one_that_dies_at_once_does_not_make_us_spin),
		T(one_that_lived_well_begins_a_new_count),
		T(one_that_breaks_the_rules_is_replaced),
		T(a_second_answer_is_one_too_many),
		T(an_answer_given_before_death_counts),
		T(a_call_that_is_late_costs_the_worker_its_life),
		T(states_are_asked_before_anything_else),
		T(a_call_is_not_kept_waiting_past_its_deadline),
		T(a_main_thread_that_hangs_is_noticed),
		T(pings_go_back_and_forth),
		T(our_own_delay_is_not_held_against_it),
		T(a_driver_that_comes_later_is_found),
		T(canceling_and_forgetting),
		T(one_that_does_not_die_has_no_successor),
	};

	if (how)
		return peer(how);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
