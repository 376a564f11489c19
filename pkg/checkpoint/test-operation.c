/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole checkpoints, with a CUDA worker and a shim of the test, and one thing that goes wrong, for
 * each thing that can: who learns what, and above all in which state the container is left. The
 * files are real, so is the seal; time is the test's own.
 */
#include "checkpoint/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/worker.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/degraded.h"
#include "checkpoint/fake-worker.h"
#include "event/signals.h"
#include "tests/clock.h"

#define ROUNDS 400000

enum answer { WELL, BADLY, LEAVE, CANCEL_FIRST };

struct fixture {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct bulk_env bulk;
	struct fake_worker worker;
	struct cgroup_host cgroups;
	struct node node;
	char dir[64], proc[80], cgroup[80], images[80];
	/* the shim */
	struct operation *op;
	char log[128]; /* "quiesce dump thaw release " */
	enum order wrong; /* this order is answered so: */
	enum answer how;
	enum order pending;
	struct job answer;
	unsigned int finished;
	enum operation_status status;
	struct error err;
};

static void caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct fixture, signals)->reaper);
}

/* --- files ---------------------------------------------------------------------------------- */

static void put(const struct fixture *f, const char *name, const char *text)
{
	char path[PATH_MAX], *slash;

	assert_int_equal(PATH_PRINTF(path, "%s/%s", f->dir, name), 0);
	slash = strrchr(path, '/');
	*slash = 0;
	assert_int_equal(path_mkdirs(path, 0700), 0);
	*slash = '/';
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0600, FILE_PLAIN), 0);
}

static void set_frozen(const struct fixture *f, bool frozen)
{
	put(f, "cgroup/web/cgroup.freeze", frozen ? "1\n" : "0\n");
	put(f, "cgroup/web/cgroup.events", frozen ? "frozen 1\n" : "frozen 0\n");
}

static bool is_frozen(const struct fixture *f)
{
	char path[PATH_MAX], line[16];

	assert_int_equal(PATH_PRINTF(path, "%s/web/cgroup.freeze", f->cgroup), 0);
	assert_int_equal(file_read_line(AT_FDCWD, path, line, sizeof(line)), 0);
	return line[0] == '1';
}

static void list_processes(const struct fixture *f)
{
	_cleanup_buf_ struct buf list = BUF_NULL;

	for (size_t i = 0; i < f->worker.n; i++)
		assert_int_equal(buf_printf(&list, "%d\n", f->worker.procs[i].pid), 0);
	put(f, "cgroup/web/cgroup.procs", buf_str(&list));
}

static bool is_sealed(const struct fixture *f)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/kybernate.json", f->images), 0);
	return access(path, F_OK) == 0;
}

/* --- the shim ------------------------------------------------------------------------------- */

static const char *const order_names[] = { "none", "quiesce", "dump", "thaw", "exit",
					   "restore", "freeze", "release" };

static void carry_out(struct fixture *f, enum order order)
{
	switch (order) {
	case ORDER_DUMP:
		/* The one rule that everything else serves. */
		assert_int_equal(fake_count(&f->worker, CUDA_STATE_CHECKPOINTED), f->worker.n);
		set_frozen(f, true);
		put(f, "images/core-1.img", "registers");
		put(f, "images/pages-1.img", "memory");
		put(f, "images/inventory.img", "inventory");
		break;
	case ORDER_THAW:
		set_frozen(f, false);
		break;
	case ORDER_EXIT:
		assert_true(is_sealed(f));
		for (size_t i = 0; i < f->worker.n; i++)
			f->worker.procs[i].gone = true;
		set_frozen(f, false);
		break;
	default:
		break;
	}
}

static void answer(struct job *job)
{
	struct fixture *f = container_of(job, struct fixture, answer);
	enum order order = f->pending;
	struct error err = ERROR_NULL;

	f->pending = ORDER_NONE;
	if (order != f->wrong || f->how == WELL) {
		carry_out(f, order);
		operation_order_done(f->op, order, 0, NULL, 0);
	} else if (f->how == BADLY) {
		(void)error_reason(&err, REASON_RUNTIME_FAILED, -EIO, "as the test orders");
		if (order == ORDER_DUMP)
			set_frozen(f, true);
		operation_order_done(f->op, order, err.code, &err, 0);
	} else if (f->how == LEAVE) {
		if (order == ORDER_DUMP) /* CRIU was at work */
			set_frozen(f, true);
		operation_host_lost(f->op);
	} else {
		(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "nobody wants it any more");
		operation_cancel(f->op, &err);
		carry_out(f, order);
		operation_order_done(f->op, order, 0, NULL, 0);
	}
}

static void give_order(struct operation *op, enum order order)
{
	struct fixture *f = op->host_data;
	size_t n = strlen(f->log);

	if (order == ORDER_ABORT)
		return; /* the one under way is answered, this one is not */
	assert_int_equal(f->pending, ORDER_NONE);
	(void)snprintf(f->log + n, sizeof(f->log) - n, "%s ", order_names[order]);
	f->pending = order;
	job_put_off(f->loop, &f->answer, answer);
}

static void update(struct operation *op)
{
	(void)op;
}

static void finished(struct operation *op, enum operation_status status, const struct error *err)
{
	struct fixture *f = op->host_data;

	f->finished++;
	f->status = status;
	f->err = *err;
	f->op = NULL;
}

static const struct operation_host host = { .order = give_order, .update = update,
					    .finished = finished };

/* --- the node ------------------------------------------------------------------------------- */

static int setup(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	static struct fixture f;
	char name[64];

	f = (struct fixture){ .dir = "/tmp/test-operation-XXXXXX" };
	log_set_fd(-1);
	assert_non_null(mkdtemp(f.dir));
	assert_int_equal(PATH_PRINTF(f.proc, "%s/proc", f.dir), 0);
	assert_int_equal(PATH_PRINTF(f.cgroup, "%s/cgroup", f.dir), 0);
	assert_int_equal(PATH_PRINTF(f.images, "%s/images", f.dir), 0);
	assert_int_equal(PATH_PRINTF(name, "proc/%d/cgroup", FAKE_PID), 0);
	put(&f, name, "0::/web\n");
	reaper_init(&f.reaper);
	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(signals_open(f.loop, &f.signals, signos, caught), 0);
	assert_int_equal(cgroup_host_open(&f.cgroups, CGROUP_V2, f.cgroup, f.proc, NULL), 0);
	f.bulk = (struct bulk_env){ .loop = f.loop, .reaper = &f.reaper };
	f.node = (struct node){ .journal = JOURNAL_NULL,
				.loop = f.loop,
				.worker = fake_worker_of(&f.worker),
				.bulk = &f.bulk,
				.cgroups = &f.cgroups,
				.operation_timeout = 600 * NSEC_PER_SEC,
				.max_operations = 2 };
	for (int i = 0; i < PHASE_COUNT; i++)
		f.node.timeouts[i] = 20 * NSEC_PER_SEC;
	slots_init(&f.node.criu, f.loop, 1);
	list_init(&f.node.operations);
	list_init(&f.node.prepared);
	list_init(&f.node.degraded);
	list_init(&f.node.returning);
	fake_worker_open(&f.worker, f.loop);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_true(list_empty(&f->node.operations));
	degraded_free_all(&f->node);
	fake_worker_close(&f->worker);
	signals_close(&f->signals);
	loop_free(f->loop);
	cgroup_host_close(&f->cgroups);
	assert_int_equal(path_remove_tree(AT_FDCWD, f->dir), 0);
	return 0;
}

/* A container of n CUDA processes, and nothing that goes wrong yet. */
static void fresh(struct fixture *f, unsigned int n)
{
	degraded_free_all(&f->node);
	fake_worker_close(&f->worker);
	fake_worker_open(&f->worker, f->loop);
	for (unsigned int i = 0; i < n; i++)
		(void)fake_process(&f->worker);
	(void)path_remove_tree(AT_FDCWD, f->images);
	assert_int_equal(mkdir(f->images, 0700), 0);
	list_processes(f);
	set_frozen(f, false);
	f->log[0] = 0;
	f->wrong = f->pending = ORDER_NONE;
	f->finished = 0;
}

static void start(struct fixture *f, bool exit)
{
	struct operation_request req = { .kind = OPERATION_CHECKPOINT,
					 .container_id = "web",
					 .ns = "k8s.io",
					 .gpu = true,
					 .task_pid = FAKE_PID,
					 .exit = exit,
					 .image_path = f->images,
					 .work_path = f->dir };
	struct error err = ERROR_NULL;

	if (operation_start(&f->node, &req, &host, f, &f->op, &err) < 0)
		fail_msg("%s", err.text);
}

/* Processes that seal take their own time: the clock waits for them. */
static void run(struct fixture *f)
{
	for (int i = 0; i < ROUNDS && !f->finished; i++) {
		if (f->op && bulk_running(&f->op->bulk))
			assert_int_equal(loop_round(f->loop, time_now() + 5 * NSEC_PER_MSEC), 0);
		else
			fake_round(&f->worker);
	}
	assert_int_equal(f->finished, 1);
	assert_true(list_empty(&f->node.operations));
}

static void all_run(const struct fixture *f)
{
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_RUNNING), f->worker.n);
	assert_false(is_frozen(f));
	assert_true(list_empty(&f->node.criu.waiting));
}

static const unsigned int sizes[] = { 1, 2, 8 };

/* --- the shim's part ------------------------------------------------------------------------ */

static void nothing_goes_wrong(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		bool exit = i % 2;

		fresh(f, sizes[i / 2]);
		start(f, exit);
		run(f);
		if (f->status != OPERATION_OK)
			fail_msg("%s", f->err.text);
		assert_string_equal(f->log, exit ? "quiesce dump exit "
						 : "quiesce dump thaw release ");
		assert_true(is_sealed(f));
		if (!exit)
			all_run(f);
	}
}

struct wrong {
	enum order order;
	enum answer how;
	bool exit;
	enum operation_status status;
	enum reason reason;
	const char *log;
	bool sealed;
};

/* Section by section: up to the dump all is taken back; after it the container comes first. */
static const struct wrong wrongs[] = {
	{ ORDER_QUIESCE, BADLY, false, OPERATION_FAILED, REASON_RUNTIME_FAILED, "quiesce ", false },
	{ ORDER_QUIESCE, LEAVE, false, OPERATION_FAILED, REASON_SHIM_GONE, "quiesce ", false },
	{ ORDER_QUIESCE, CANCEL_FIRST, false, OPERATION_FAILED, REASON_CANCELED, "quiesce ", false },
	{ ORDER_DUMP, BADLY, false, OPERATION_FAILED, REASON_RUNTIME_FAILED, "quiesce dump thaw ",
	  false },
	{ ORDER_DUMP, LEAVE, false, OPERATION_FAILED, REASON_SHIM_GONE, "quiesce dump ", false },
	{ ORDER_DUMP, CANCEL_FIRST, false, OPERATION_FAILED, REASON_CANCELED, "quiesce dump thaw ",
	  false },
	{ ORDER_DUMP, BADLY, true, OPERATION_FAILED, REASON_RUNTIME_FAILED, "quiesce dump thaw ",
	  false },
	{ ORDER_DUMP, LEAVE, true, OPERATION_FAILED, REASON_SHIM_GONE, "quiesce dump ", false },
	/* The image is there: it is sealed, and the container is brought back by ourselves. */
	{ ORDER_THAW, BADLY, false, OPERATION_OK, 0, "quiesce dump thaw ", true },
	{ ORDER_THAW, LEAVE, false, OPERATION_OK, 0, "quiesce dump thaw ", true },
	{ ORDER_RELEASE, BADLY, false, OPERATION_OK, 0, "quiesce dump thaw release ", true },
	{ ORDER_RELEASE, LEAVE, false, OPERATION_OK, 0, "quiesce dump thaw release ", true },
	/* It could not be ended, so it runs on. */
	{ ORDER_EXIT, BADLY, true, OPERATION_FAILED, REASON_RUNTIME_FAILED, "quiesce dump exit ",
	  true },
	{ ORDER_EXIT, LEAVE, true, OPERATION_FAILED, REASON_SHIM_GONE, "quiesce dump exit ", true },
};

static void an_order_goes_wrong(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(wrongs) * ARRAY_SIZE(sizes); i++) {
		const struct wrong *w = &wrongs[i / ARRAY_SIZE(sizes)];

		fresh(f, sizes[i % ARRAY_SIZE(sizes)]);
		f->wrong = w->order;
		f->how = w->how;
		start(f, w->exit);
		run(f);
		if (f->status != w->status || (f->status != OPERATION_OK && f->err.reason != w->reason))
			fail_msg("%s, answer %d: status %d, %s", order_names[w->order], w->how,
				 f->status, f->err.text);
		assert_string_equal(f->log, w->log);
		assert_int_equal(is_sealed(f), w->sealed);
		all_run(f);
	}
}

/* --- the driver's part ---------------------------------------------------------------------- */

static void the_gpu_memory_cannot_be_saved(void **state)
{
	static const struct {
		unsigned int op;
		enum fake_fault_kind kind;
		int code;
		enum reason reason;
	} faults[] = {
		{ GPU_OP_PROBE, FAKE_FAIL, -EIO, REASON_WORKER_FAILED },
		{ GPU_OP_LOCK, FAKE_FAIL, -ETIMEDOUT, REASON_LOCK_TIMEOUT },
		{ GPU_OP_LOCK, FAKE_FAIL, -EOPNOTSUPP, REASON_CUDA_LOCK_FAILED },
		{ GPU_OP_LOCK, FAKE_HANG, 0, REASON_TIMEOUT },
		{ GPU_OP_LOCK, FAKE_LIE, 0, REASON_CUDA_STATE_WRONG },
		{ GPU_OP_CHECKPOINT, FAKE_FAIL, -ENOMEM, REASON_MEM_LIMIT },
		{ GPU_OP_CHECKPOINT, FAKE_DID_FAIL, -EIO, REASON_WORKER_FAILED },
		{ GPU_OP_CHECKPOINT, FAKE_HANG, 0, REASON_TIMEOUT },
		{ GPU_OP_CHECKPOINT, FAKE_LIE, 0, REASON_CUDA_STATE_WRONG },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(faults) * ARRAY_SIZE(sizes); i++) {
		size_t k = i / ARRAY_SIZE(sizes);
		unsigned int n = sizes[i % ARRAY_SIZE(sizes)];

		fresh(f, n);
		f->worker.faults[0] = (struct fake_fault){ .op = faults[k].op,
							   .pid = FAKE_PID + (pid_t)n - 1,
							   .kind = faults[k].kind,
							   .code = faults[k].code,
							   .reason = faults[k].reason };
		start(f, false);
		run(f);
		assert_int_equal(f->status, OPERATION_FAILED);
		if (f->err.reason != faults[k].reason)
			fail_msg("%s, fault %d: %s", gpu_op_name(faults[k].op), faults[k].kind,
				 f->err.text);
		assert_string_equal(f->log, "quiesce "); /* CRIU was not started */
		assert_false(is_sealed(f));
		all_run(f);
	}
}

/* The driver was busy with it, or it became a CUDA process just now. */
static void a_lock_that_may_succeed_later_is_tried_again(void **state)
{
	struct fixture *f = *state;

	fresh(f, 2);
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_LOCK, .pid = FAKE_PID + 1,
						   .kind = FAKE_FAIL, .times = 3, .code = -EAGAIN,
						   .reason = REASON_CUDA_LOCK_FAILED };
	start(f, false);
	run(f);
	assert_int_equal(f->status, OPERATION_OK);
	assert_int_equal(f->worker.calls[GPU_OP_LOCK], 8); /* both, four times */
	all_run(f);
	/* But not for ever: each attempt stops the workload for a moment. */
	fresh(f, 2);
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_LOCK, .kind = FAKE_FAIL,
						   .code = -EAGAIN,
						   .reason = REASON_CUDA_LOCK_FAILED };
	start(f, false);
	run(f);
	assert_int_equal(f->status, OPERATION_FAILED);
	assert_in_range(f->worker.calls[GPU_OP_LOCK], 4, 20);
	all_run(f);
}

/* A caller who leaves while a lock is tried again need not wait for the next attempt. */
static void a_cancel_ends_the_attempts_to_lock(void **state)
{
	struct fixture *f = *state;
	struct error why = ERROR_NULL;

	(void)error_reason(&why, REASON_CANCELED, -ECANCELED, "nobody wants it any more");
	for (int rounds = 1; rounds < 60; rounds += 2) {
		unsigned int locks;

		fresh(f, 2);
		f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_LOCK, .kind = FAKE_FAIL,
							   .code = -EAGAIN,
							   .reason = REASON_CUDA_LOCK_FAILED };
		start(f, false);
		while (!f->worker.calls[GPU_OP_LOCK])
			fake_round(&f->worker);
		for (int i = 0; i < rounds; i++)
			fake_round(&f->worker);
		locks = f->worker.calls[GPU_OP_LOCK];
		operation_cancel(f->op, &why);
		run(f);
		assert_int_equal(f->err.reason, REASON_CANCELED);
		assert_int_equal(f->worker.calls[GPU_OP_LOCK], locks);
		all_run(f);
	}
}

/* The worker has died, or the agent has just been started: a moment later all is well. */
static void a_worker_that_is_being_replaced_is_waited_for(void **state)
{
	struct fixture *f = *state;
	struct error why = ERROR_NULL;
	nsec_t begun;

	fresh(f, 2);
	f->worker.ready_at = time_now() + 3 * NSEC_PER_SEC;
	start(f, false);
	run(f);
	if (f->status != OPERATION_OK)
		fail_msg("%s", f->err.text);
	assert_true(time_now() >= f->worker.ready_at);
	assert_true(is_sealed(f));
	all_run(f);

	/* It does not come: refused, in time, and nothing was touched. */
	fresh(f, 2);
	f->worker.ready_at = NSEC_NEVER;
	begun = time_now();
	start(f, false);
	run(f);
	assert_int_equal(f->status, OPERATION_FAILED);
	assert_int_equal(f->err.reason, REASON_WORKER_FAILED);
	assert_in_range(time_now() - begun, 9 * NSEC_PER_SEC, 11 * NSEC_PER_SEC);
	assert_string_equal(f->log, "");
	assert_int_equal(f->worker.calls[GPU_OP_LOCK], 0);
	all_run(f);

	/* It comes, and finds no driver. */
	fresh(f, 2);
	f->worker.ready_at = time_now() + NSEC_PER_SEC;
	f->worker.unusable = -ENODEV;
	start(f, false);
	run(f);
	assert_int_equal(f->err.reason, REASON_DRIVER_UNAVAILABLE);
	assert_string_equal(f->log, "");

	/* Nobody wants it any more: not after the wait either. */
	fresh(f, 2);
	f->worker.ready_at = time_now() + NSEC_PER_SEC;
	start(f, false);
	for (int i = 0; i < 100; i++)
		fake_round(&f->worker);
	(void)error_reason(&why, REASON_CANCELED, -ECANCELED, "nobody wants it any more");
	operation_cancel(f->op, &why);
	run(f);
	assert_int_equal(f->err.reason, REASON_CANCELED);
	assert_string_equal(f->log, "");
	all_run(f);
}

static void a_hiccup_on_the_way_back_is_no_failure(void **state)
{
	static const enum fake_fault_kind kinds[] = { FAKE_FAIL, FAKE_DID_FAIL, FAKE_LIE };
	static const unsigned int ops[] = { GPU_OP_RESTORE, GPU_OP_UNLOCK };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(kinds) * ARRAY_SIZE(ops); i++) {
		fresh(f, 2);
		f->worker.faults[0] = (struct fake_fault){ .op = ops[i % 2], .pid = FAKE_PID + 1,
							   .kind = kinds[i / 2], .times = 3,
							   .code = -EIO,
							   .reason = REASON_WORKER_FAILED };
		start(f, false);
		run(f);
		assert_int_equal(f->status, OPERATION_OK);
		assert_true(is_sealed(f));
		all_run(f);
	}
}

/* Another process holds the memory: suspended, never killed, and tried again until it works. */
static void what_does_not_come_back_is_degraded(void **state)
{
	static const enum order failing[] = { ORDER_NONE, ORDER_DUMP };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(failing); i++) {
		fresh(f, 2);
		f->wrong = failing[i];
		f->how = BADLY;
		f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_RESTORE, .pid = FAKE_PID,
							   .kind = FAKE_FAIL, .code = -ENOMEM,
							   .reason = REASON_VRAM_SHORT };
		start(f, false);
		run(f);
		assert_int_equal(f->status, OPERATION_DEGRADED);
		assert_int_equal(is_sealed(f), failing[i] == ORDER_NONE);
		assert_non_null(degraded_find(&f->node, "k8s.io", "web"));
		assert_int_equal(fake_count(&f->worker, CUDA_STATE_CHECKPOINTED), 1);
		assert_int_equal(fake_count(&f->worker, CUDA_STATE_LOCKED), 1);
		for (int k = 0; k < 100000; k++) /* 100 s */
			fake_round(&f->worker);
		assert_non_null(degraded_find(&f->node, "k8s.io", "web"));
		f->worker.faults[0] = (struct fake_fault){ 0 }; /* it has ended */
		degraded_retry(degraded_find(&f->node, "k8s.io", "web"));
		for (int k = 0; k < 100000 && !list_empty(&f->node.degraded); k++)
			fake_round(&f->worker);
		assert_true(list_empty(&f->node.degraded));
		assert_int_equal(fake_count(&f->worker, CUDA_STATE_RUNNING), 2);
	}
}

/* --- the request ---------------------------------------------------------------------------- */

static void one_operation_at_a_time_for_a_container(void **state)
{
	struct fixture *f = *state;
	struct operation_request req = { .container_id = "web", .ns = "k8s.io" };
	struct error err = ERROR_NULL;
	struct operation *op;

	fresh(f, 1);
	start(f, false);
	assert_int_equal(operation_start(&f->node, &req, &host, f, &op, &err), -EBUSY);
	assert_int_equal(err.reason, REASON_BUSY);
	f->node.max_operations = 1;
	req.container_id = "other";
	assert_int_equal(operation_start(&f->node, &req, &host, f, &op, &err), -EBUSY);
	run(f);
	assert_int_equal(f->status, OPERATION_OK);
}

static void what_is_refused_touches_nothing(void **state)
{
	static const char *const seats[] = { "0", "1" }, *const devices[] = { "/dev/nvidia0" };
	static const char *const others[] = { "/dev/nvidia1" };
	static const char *const gpus[] = { "GPU-abc" }, *const visible[] = { "all", "gpu-a", "GPU-b" };
	static const struct seat_group group = { .name = "g0", .seats = seats, .n_seats = 2,
						 .device_paths = devices, .n_device_paths = 1,
						 .gpu_uuids = gpus, .n_gpu_uuids = 1 };
	struct fixture *f = *state;
	struct operation_request reqs[] = {
		{ .gpu_group = "g1", .gpu_seat = "0" },
		{ .gpu_group = "g0", .gpu_seat = "2" },
		{ .gpu_group = "", .gpu_seat = "0" },
		{ .gpu_group = "g0", .gpu_seat = "0", .group_annotation = "g1" },
		{ .gpu_group = "g0", .gpu_seat = "0", .seat_annotation = "1" },
		{ .gpu_group = "g0", .gpu_seat = "0", .device_paths = others, .n_device_paths = 1 },
		{ .gpu_group = "g0", .gpu_seat = "0", .visible_devices = visible,
		  .n_visible_devices = 3 },
	};

	f->node.groups = &group;
	f->node.n_groups = 1;
	for (size_t i = 0; i < ARRAY_SIZE(reqs); i++) {
		fresh(f, 1);
		reqs[i].container_id = "web";
		reqs[i].ns = "k8s.io";
		reqs[i].gpu = true;
		reqs[i].task_pid = FAKE_PID;
		reqs[i].image_path = f->images;
		reqs[i].work_path = f->dir;
		assert_int_equal(operation_start(&f->node, &reqs[i], &host, f, &f->op, NULL), 0);
		run(f);
		assert_int_equal(f->status, OPERATION_FAILED);
		assert_int_equal(f->err.reason, REASON_SEAT_MISMATCH);
		assert_string_equal(f->log, "");
		assert_int_equal(f->worker.calls[GPU_OP_PROBE], 0);
	}
}

static void slot_granted(struct slot *slot)
{
	assert_true(slot->held);
}

static void dumps_wait_for_their_slot(void **state)
{
	struct fixture *f = *state;
	struct slot mine = { 0 };
	struct error why = ERROR_NULL;

	fresh(f, 1);
	slot_request(&f->node.criu, &mine, slot_granted);
	start(f, false);
	for (int i = 0; i < 1000; i++)
		fake_round(&f->worker);
	assert_true(mine.held);
	assert_string_equal(f->log, "quiesce ");
	(void)error_reason(&why, REASON_CANCELED, -ECANCELED, "nobody wants it any more");
	operation_cancel(f->op, &why); /* who waits may leave */
	run(f);
	assert_int_equal(f->err.reason, REASON_CANCELED);
	all_run(f);
	fresh(f, 1);
	start(f, false);
	for (int i = 0; i < 1000; i++)
		fake_round(&f->worker);
	slot_release(&mine);
	run(f);
	assert_int_equal(f->status, OPERATION_OK);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(nothing_goes_wrong),
		T(an_order_goes_wrong),
		T(the_gpu_memory_cannot_be_saved),
		T(a_lock_that_may_succeed_later_is_tried_again),
		T(a_cancel_ends_the_attempts_to_lock),
		T(a_worker_that_is_being_replaced_is_waited_for),
		T(a_hiccup_on_the_way_back_is_no_failure),
		T(what_does_not_come_back_is_degraded),
		T(one_operation_at_a_time_for_a_container),
		T(what_is_refused_touches_nothing),
		T(dumps_wait_for_their_slot),
	};
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
