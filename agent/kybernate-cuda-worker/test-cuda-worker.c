/* SPDX-License-Identifier: Apache-2.0 */
/* Agent's side, program and a scripted driver together. */
#include "test-support.h"

#include <dirent.h>
#include <malloc.h>

#include "base/fd.h"
#include "gpu/capability.h"
#include "proc/procfs.h"

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_open(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_close(*state);
	free(*state);
	return 0;
}

static void start_ready(struct fixture *f)
{
	fixture_start(f);
	UNTIL(f, f->readies);
}

static void it_says_what_it_has_found(void **state)
{
	struct fixture *f = *state;
	const struct gpu_hello *h;
	struct gpu_memory *m = calloc(1, sizeof(*m));
	struct probe p = { 0 };

	assert_non_null(m);
	start_ready(f);
	h = gpu_worker_info(f->worker);
	assert_int_equal(h->worker_pid, fixture_pid(f));
	assert_int_equal(h->cuda_version, 13000);
	assert_true(h->caps & GPU_CAP_GPU_PAIRS);
	assert_string_equal(h->driver_version, "580.159.04");
	assert_non_null(strstr(h->library, "fakecuda"));
	assert_int_equal(h->memory.n_devices, 2);
	assert_int_equal(gpu_worker_usable(f->worker, NULL), 0);
	gpu_worker_memory(f->worker, &p.call, m, in_ms(20000), probe_done);
	UNTIL(f, p.done);
	assert_int_equal(p.call.result, 0);
	assert_true(m->devices[1].free == 69ULL << 30);
	assert_int_equal(m->n_processes, 2);
	free(m);
}

static void a_process_goes_all_the_way_round(void **state)
{
	struct fixture *f = *state;
	struct cuda_gpu_pair pairs[2];
	struct probe p[8] = { 0 };
	pid_t pid = sleeper_start();
	nsec_t end = in_ms(20000);

	memset(pairs, 0x42, sizeof(pairs));
	(void)fake_add(f->fake.cuda, pid);
	start_ready(f);
	/* All at once: those of one process come in order. */
	gpu_worker_probe(f->worker, &p[0].call, pid, end, probe_done);
	gpu_worker_lock(f->worker, &p[1].call, pid, 1500 * NSEC_PER_MSEC, end, probe_done);
	gpu_worker_checkpoint(f->worker, &p[2].call, pid, end, probe_done);
	gpu_worker_state_of(f->worker, &p[3].call, pid, end, probe_done);
	gpu_worker_restore(f->worker, &p[4].call, pid, pairs, 2, end, probe_done);
	gpu_worker_unlock(f->worker, &p[5].call, pid, end, probe_done);
	gpu_worker_state_of(f->worker, &p[6].call, pid, end, probe_done);
	gpu_worker_probe(f->worker, &p[7].call, getpid(), end, probe_done);
	for (int i = 0; i < 8; i++) {
		UNTIL(f, p[i].done);
		assert_int_equal(p[i].call.result, 0);
	}
	assert_int_equal(p[0].call.restore_tid, pid + 1);
	assert_int_equal(p[3].call.state, CUDA_STATE_CHECKPOINTED);
	assert_int_equal(p[6].call.state, CUDA_STATE_RUNNING);
	assert_int_equal(p[7].call.restore_tid, 0); /* we have no CUDA */
	assert_int_equal(f->fake.cuda->last_timeout_ms, 1500);
	assert_int_equal(f->fake.cuda->n_pairs, 2);
	assert_memory_equal(f->fake.cuda->pairs, pairs, sizeof(pairs));
	assert_int_equal(f->fake.cuda->overlaps, 0);
	assert_int_equal(f->fake.cuda->bad_args, 0);
	sleeper_stop(pid);
}

static void make(struct fixture *f, struct probe *p, enum gpu_op op, pid_t pid, nsec_t deadline)
{
	memset(p, 0, sizeof(*p));
	switch (op) {
	case GPU_OP_PROBE:
		gpu_worker_probe(f->worker, &p->call, pid, deadline, probe_done);
		break;
	case GPU_OP_STATE:
		gpu_worker_state_of(f->worker, &p->call, pid, deadline, probe_done);
		break;
	case GPU_OP_LOCK:
		gpu_worker_lock(f->worker, &p->call, pid, NSEC_PER_SEC, deadline, probe_done);
		break;
	case GPU_OP_CHECKPOINT:
		gpu_worker_checkpoint(f->worker, &p->call, pid, deadline, probe_done);
		break;
	case GPU_OP_RESTORE:
		gpu_worker_restore(f->worker, &p->call, pid, NULL, 0, deadline, probe_done);
		break;
	default:
		gpu_worker_unlock(f->worker, &p->call, pid, deadline, probe_done);
		break;
	}
}

static void every_call_with_every_code(void **state)
{
	static const int codes[] = { 0, 1, 2, 3, 100, 304, 401, 600, 801, 999, 12345 };
	struct fixture *f = *state;
	pid_t pid = sleeper_start();

	(void)fake_add(f->fake.cuda, pid);
	start_ready(f);
	for (enum gpu_op op = GPU_OP_PROBE; op <= GPU_OP_UNLOCK; op++) {
		for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
			struct probe p;
			bool fine = codes[i] == 0 ||
				    (op == GPU_OP_PROBE && (codes[i] == 1 || codes[i] == 3));

			f->fake.cuda->scripts[op].code = codes[i];
			make(f, &p, op, pid, in_ms(20000));
			UNTIL(f, p.done);
			assert_int_equal(p.call.result == 0, fine);
			assert_int_equal(p.call.err.reason == REASON_NONE, fine);
			if (fine)
				continue;
			assert_int_equal(p.call.code, codes[i]);
			assert_false(p.call.gone);
		}
		f->fake.cuda->scripts[op].code = -1;
	}
	assert_int_equal(f->losses, 0);
	sleeper_stop(pid);
}

static void processes_are_locked_at_the_same_time(void **state)
{
	enum { N = 40 };
	struct fixture *f = *state;
	struct probe p[N];
	pid_t pids[N];

	for (int i = 0; i < N; i++) {
		pids[i] = sleeper_start();
		(void)fake_add(f->fake.cuda, pids[i]);
	}
	start_ready(f);
	/* None returns before all of them are there: as with a collective. */
	f->fake.cuda->scripts[GPU_OP_LOCK].hang = 1;
	for (int i = 0; i < N; i++)
		make(f, &p[i], GPU_OP_LOCK, pids[i], in_ms(25000));
	UNTIL(f, (loop_round(f->loop, in_ms(5)),
		  __atomic_load_n(&f->fake.cuda->inside, __ATOMIC_RELAXED) == N));
	__atomic_store_n(&f->fake.cuda->scripts[GPU_OP_LOCK].hang, 0, __ATOMIC_RELAXED);
	for (int i = 0; i < N; i++) {
		UNTIL(f, p[i].done);
		assert_int_equal(p[i].call.result, 0);
		sleeper_stop(pids[i]);
	}
	assert_int_equal(f->fake.cuda->most_inside, N);
	assert_int_equal(f->fake.cuda->overlaps, 0);
}

static void five_hundred_calls_at_a_time(void **state)
{
	enum { N = 500 };
	struct fixture *f = *state;
	struct probe *p = calloc(2 * N, sizeof(*p));
	pid_t pids[N];

	assert_non_null(p);
	for (int i = 0; i < N; i++) {
		pids[i] = sleeper_start();
		(void)fake_add(f->fake.cuda, pids[i]);
	}
	start_ready(f);
	f->fake.cuda->scripts[GPU_OP_LOCK].hang = 1;
	for (int i = 0; i < N; i++) {
		make(f, &p[i], GPU_OP_LOCK, pids[i], in_ms(25000));
		make(f, &p[N + i], GPU_OP_STATE, pids[i], in_ms(25000));
	}
	UNTIL(f, (loop_round(f->loop, in_ms(5)),
		  __atomic_load_n(&f->fake.cuda->inside, __ATOMIC_RELAXED) == N));
	__atomic_store_n(&f->fake.cuda->scripts[GPU_OP_LOCK].hang, 0, __ATOMIC_RELAXED);
	for (int i = 0; i < 2 * N; i++) {
		UNTIL(f, p[i].done);
		assert_int_equal(p[i].call.result, 0);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(p[N + i].call.state, CUDA_STATE_LOCKED);
		sleeper_stop(pids[i]);
	}
	assert_int_equal(f->fake.cuda->most_inside, N);
	assert_int_equal(f->fake.cuda->overlaps, 0);
	free(p);
}

static void a_call_that_hangs(void **state)
{
	struct fixture *f = *state;
	struct probe hangs = { 0 }, waits = { 0 }, other = { 0 }, after = { 0 };
	pid_t a = sleeper_start(), b = sleeper_start(), first;
	struct fake_process *pa = fake_add(f->fake.cuda, a);

	(void)fake_add(f->fake.cuda, b);
	pa->script_op = GPU_OP_LOCK;
	pa->script.hang = 1;
	f->config.ping_interval = 20 * NSEC_PER_MSEC; /* and pings are answered all along */
	start_ready(f);
	first = fixture_pid(f);
	make(f, &hangs, GPU_OP_LOCK, a, in_ms(1500));
	make(f, &waits, GPU_OP_STATE, a, in_ms(20000));
	make(f, &other, GPU_OP_LOCK, b, in_ms(20000));
	UNTIL(f, other.done); /* one hangs, others do not notice */
	assert_int_equal(other.call.result, 0);
	UNTIL(f, hangs.done && waits.done);
	assert_int_equal(hangs.call.err.reason, REASON_TIMEOUT);
	assert_int_equal(waits.call.err.reason, REASON_WORKER_FAILED);
	assert_int_equal(f->losses, 1);
	assert_int_equal(kill(first, 0), -1); /* dead and buried when the calls end */
	UNTIL(f, f->restarted == 1);
	assert_int_not_equal(fixture_pid(f), first);
	make(f, &after, GPU_OP_STATE, b, in_ms(20000));
	UNTIL(f, after.done);
	assert_int_equal(after.call.state, CUDA_STATE_LOCKED); /* it was done after all */
	sleeper_stop(a);
	sleeper_stop(b);
}

static void a_driver_that_crashes(void **state)
{
	struct fixture *f = *state;
	struct probe p = { 0 };
	pid_t pid = sleeper_start();

	(void)fake_add(f->fake.cuda, pid);
	f->fake.cuda->scripts[GPU_OP_CHECKPOINT].crash = 1;
	start_ready(f);
	make(f, &p, GPU_OP_CHECKPOINT, pid, in_ms(20000));
	UNTIL(f, p.done && f->restarted);
	assert_int_equal(p.call.result, -EIO);
	assert_int_equal(p.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(p.call.err.text, "killed by signal 11"));
	sleeper_stop(pid);
}

static void a_driver_that_hangs_at_its_start(void **state)
{
	struct fixture *f = *state;

	f->config.start_timeout = 1500 * NSEC_PER_MSEC;
	f->fake.cuda->scripts[FAKE_INIT].hang = 1;
	fixture_start(f);
	UNTIL(f, f->losses);
	assert_non_null(strstr(f->last, "did not open the driver in 1500 ms"));
	__atomic_store_n(&f->fake.cuda->scripts[FAKE_INIT].hang, 0, __ATOMIC_RELAXED);
	UNTIL(f, f->readies);
}

static void expect_unfit(struct fixture *f, enum reason reason, const char *word)
{
	struct error err = ERROR_NULL;
	struct probe p;

	start_ready(f);
	assert_true(gpu_worker_usable(f->worker, &err) < 0);
	assert_int_equal(err.reason, reason);
	if (!strstr(err.text, word))
		fail_msg("'%s' is not in: %s", word, err.text);
	make(f, &p, GPU_OP_PROBE, getpid(), in_ms(20000));
	UNTIL(f, p.done);
	assert_int_equal(p.call.err.reason, reason);
	assert_string_equal(p.call.err.text, err.text);
	assert_int_equal(f->losses, 0);
}

static void without_a_driver(void **state)
{
	struct fixture *f = *state;

	f->config.libcuda = "/nonexistent/libcuda.so.1";
	expect_unfit(f, REASON_DRIVER_UNAVAILABLE, "/nonexistent/libcuda.so.1");
}

static void with_an_old_driver(void **state)
{
	struct fixture *f = *state;

	f->config.libcuda = FAKE_CUDA_OLD;
	f->fake.cuda->cuda_version = 12040;
	expect_unfit(f, REASON_DRIVER_TOO_OLD, "CUDA 12.4");
}

static void with_a_driver_that_has_no_gpu(void **state)
{
	struct fixture *f = *state;

	f->fake.cuda->scripts[FAKE_INIT].code = CUDA_CODE_NO_DEVICE;
	expect_unfit(f, REASON_DRIVER_UNAVAILABLE, "CUDA_ERROR_NO_DEVICE (100)");
}

/* CUDA 12.8: the same restore, without pairs; with them it is refused before the driver sees it. */
static void the_older_restore(void **state)
{
	struct fixture *f = *state;
	struct cuda_gpu_pair pair = { 0 };
	struct probe p = { 0 }, q = { 0 };
	pid_t pid = sleeper_start();

	f->fake.cuda->cuda_version = 12080;
	fake_add(f->fake.cuda, pid)->state = CUDA_STATE_CHECKPOINTED;
	start_ready(f);
	gpu_worker_restore(f->worker, &p.call, pid, &pair, 1, in_ms(20000), probe_done);
	UNTIL(f, p.done);
	assert_int_equal(p.call.result, -EOPNOTSUPP);
	assert_int_equal(p.call.err.reason, REASON_GPU_MISMATCH);
	make(f, &q, GPU_OP_RESTORE, pid, in_ms(20000));
	UNTIL(f, q.done);
	assert_int_equal(q.call.result, 0);
	assert_int_equal(f->fake.cuda->bad_args, 0);
	sleeper_stop(pid);
}

static void canceling(void **state)
{
	struct fixture *f = *state;
	struct probe front, behind;
	pid_t pid = sleeper_start();

	(void)fake_add(f->fake.cuda, pid);
	f->fake.cuda->scripts[GPU_OP_LOCK].hang = 1;
	start_ready(f);
	make(f, &front, GPU_OP_LOCK, pid, in_ms(20000));
	make(f, &behind, GPU_OP_CHECKPOINT, pid, in_ms(20000));
	UNTIL(f, (loop_round(f->loop, in_ms(5)),
		  __atomic_load_n(&f->fake.cuda->inside, __ATOMIC_RELAXED) == 1));
	gpu_call_cancel(&front.call); /* too late */
	gpu_call_cancel(&behind.call);
	UNTIL(f, behind.done);
	assert_int_equal(behind.call.result, -ECANCELED);
	assert_int_equal(front.done, 0);
	__atomic_store_n(&f->fake.cuda->scripts[GPU_OP_LOCK].hang, 0, __ATOMIC_RELAXED);
	UNTIL(f, front.done);
	assert_int_equal(front.call.result, 0);
	assert_int_equal(f->fake.cuda->calls[GPU_OP_CHECKPOINT], 0);
	sleeper_stop(pid);
}

/* What was given up is still in front of what comes after. */
static void forgetting_keeps_the_order(void **state)
{
	struct fixture *f = *state;
	struct probe lock, unlock;
	pid_t pid = sleeper_start();

	(void)fake_add(f->fake.cuda, pid);
	f->fake.cuda->scripts[GPU_OP_LOCK].delay_ms = 100;
	start_ready(f);
	make(f, &lock, GPU_OP_LOCK, pid, in_ms(20000));
	gpu_call_forget(&lock.call);
	make(f, &unlock, GPU_OP_UNLOCK, pid, in_ms(20000));
	UNTIL(f, unlock.done);
	assert_int_equal(unlock.call.result, 0); /* else it would not have been LOCKED yet */
	assert_int_equal(lock.done, 0);
	assert_int_equal(f->fake.cuda->overlaps, 0);
	sleeper_stop(pid);
}

static int count_fds(pid_t pid)
{
	char path[32];
	DIR *dir;
	int n = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void a_hundred_restarts_leak_nothing(void **state)
{
	struct fixture *f = *state;
	struct probe p;
	size_t used = 0;
	int fds = 0;

	f->config.backoff_max = f->config.backoff_min;
	start_ready(f);
	for (unsigned int i = 0; i < 100; i++) {
		if (i == 10) { /* when every cache is filled */
			fds = count_fds(getpid());
			used = mallinfo2().uordblks;
		}
		make(f, &p, GPU_OP_PROBE, getpid(), in_ms(20000));
		assert_int_equal(kill(fixture_pid(f), SIGKILL), 0);
		UNTIL(f, p.done && f->restarted == i + 1);
	}
	assert_int_equal(count_fds(getpid()), fds);
	assert_int_equal(mallinfo2().uordblks, used);
	assert_int_equal(f->losses, 100);
}

static void many_calls_leak_nothing_in_the_worker(void **state)
{
	struct fixture *f = *state;
	struct probe p;
	int fds;

	start_ready(f);
	make(f, &p, GPU_OP_PROBE, getpid(), in_ms(20000));
	UNTIL(f, p.done);
	fds = count_fds(fixture_pid(f));
	for (int i = 0; i < 200; i++) {
		make(f, &p, i % 2 ? GPU_OP_PROBE : GPU_OP_LOCK, getpid(), in_ms(20000));
		UNTIL(f, p.done);
	}
	assert_int_equal(count_fds(fixture_pid(f)), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(it_says_what_it_has_found),
		T(a_process_goes_all_the_way_round),
		T(every_call_with_every_code),
		T(processes_are_locked_at_the_same_time),
		T(five_hundred_calls_at_a_time),
		T(a_call_that_hangs),
		T(a_driver_that_crashes),
		T(a_driver_that_hangs_at_its_start),
		T(without_a_driver),
		T(with_an_old_driver),
		T(with_a_driver_that_has_no_gpu),
		T(the_older_restore),
		T(canceling),
		T(forgetting_keeps_the_order),
		T(a_hundred_restarts_leak_nothing),
		T(many_calls_leak_nothing_in_the_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
