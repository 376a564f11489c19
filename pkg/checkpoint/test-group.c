/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every driver call, going wrong in every way, for the first and the last of one, two and eight
 * processes: each time the failure is told, CRIU would not have been started, and all processes
 * that live are RUNNING again.
 */
#include "checkpoint/group.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "checkpoint/fake-worker.h"
#include "tests/clock.h"

#define TIME   (10 * NSEC_PER_SEC)
#define ROUNDS 200000 /* 200 s of the test's own time */

struct fixture {
	struct loop *loop;
	struct fake_worker worker;
	struct gpu_group *group;
	unsigned int done;
	int r;
	struct error err;
};

static int setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){ 0 };
	assert_int_equal(loop_new(&f.loop), 0);
	fake_worker_open(&f.worker, f.loop);
	assert_int_equal(gpu_group_new(&f.group, f.loop, fake_worker_of(&f.worker), fake_list,
				       &f.worker), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	gpu_group_free(f->group);
	fake_worker_close(&f->worker);
	loop_free(f->loop);
	return 0;
}

/* A fresh container of n processes, and a fresh group of them. */
static void fresh(struct fixture *f, unsigned int n)
{
	gpu_group_free(f->group);
	fake_worker_close(&f->worker);
	fake_worker_open(&f->worker, f->loop);
	assert_int_equal(gpu_group_new(&f->group, f->loop, fake_worker_of(&f->worker), fake_list,
				       &f->worker), 0);
	for (unsigned int i = 0; i < n; i++)
		(void)fake_process(&f->worker);
}

static void done(void *data, int r, const struct error *err)
{
	struct fixture *f = data;

	f->done++;
	f->r = r;
	f->err = *err;
	assert_int_equal(r, err->code);
}

/* Waits for the end of the call under way; returns its result. */
static int result(struct fixture *f)
{
	nsec_t begun = time_now();

	assert_int_equal(f->done, 0); /* never from inside the call */
	for (int i = 0; i < ROUNDS && !f->done; i++)
		fake_round(&f->worker);
	assert_int_equal(f->done, 1);
	/* Soon after its deadline, whatever has happened. */
	assert_true(time_now() - begun < 2 * TIME);
	for (int i = 0; i < 10; i++)
		fake_round(&f->worker);
	assert_int_equal(f->done, 1);
	f->done = 0;
	return f->r;
}

static int lock(struct fixture *f)
{
	gpu_group_lock(f->group, time_now() + TIME, done, f);
	return result(f);
}

static int save(struct fixture *f)
{
	gpu_group_save(f->group, time_now() + TIME, done, f);
	return result(f);
}

static int restore(struct fixture *f)
{
	gpu_group_restore(f->group, NULL, 0, time_now() + TIME, done, f);
	return result(f);
}

static int unlock(struct fixture *f)
{
	gpu_group_unlock(f->group, time_now() + TIME, done, f);
	return result(f);
}

static int recover(struct fixture *f)
{
	gpu_group_recover(f->group, time_now() + TIME, done, f);
	return result(f);
}

/* How many live. */
static unsigned int living(const struct fixture *f)
{
	unsigned int n = 0;

	for (size_t i = 0; i < f->worker.n; i++)
		n += !f->worker.procs[i].gone;
	return n;
}

static void all_are(const struct fixture *f, unsigned int state)
{
	assert_int_equal(fake_count(&f->worker, state), living(f));
}

/* --- when all goes well --------------------------------------------------------------------- */

static void there_and_back(void **state)
{
	static const unsigned int sizes[] = { 0, 1, 2, 8, 100 };
	struct fixture *f = *state;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		unsigned int n = sizes[i / 2];

		fresh(f, n);
		f->worker.backwards = i % 2;
		assert_int_equal(lock(f), 0);
		assert_int_equal(gpu_group_size(f->group), n);
		all_are(f, CUDA_STATE_LOCKED);
		assert_int_equal(f->worker.calls[GPU_OP_LOCK], n);
		assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], 0);
		assert_int_equal(gpu_group_vram_bytes(f->group), n * 1000ULL);
		assert_int_equal(save(f), 0);
		all_are(f, CUDA_STATE_CHECKPOINTED);
		assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], n);
		assert_int_equal(restore(f), 0);
		all_are(f, CUDA_STATE_LOCKED);
		assert_int_equal(unlock(f), 0);
		all_are(f, CUDA_STATE_RUNNING);
		assert_int_equal(f->worker.calls[GPU_OP_RESTORE], n);
		assert_int_equal(f->worker.calls[GPU_OP_UNLOCK], n);
		assert_int_equal(recover(f), 0); /* nothing to do, and nothing is done */
		assert_int_equal(f->worker.calls[GPU_OP_UNLOCK], n);
		assert_int_equal(f->worker.refused, 0);
	}
}

static void processes_without_cuda_are_left_alone(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 4; i++)
		fake_process(&f->worker)->cuda = i % 2;
	gpu_group_discover(f->group, time_now() + TIME, done, f);
	assert_int_equal(result(f), 0);
	assert_int_equal(gpu_group_size(f->group), 2);
	assert_int_equal(lock(f), 0);
	assert_int_equal(f->worker.calls[GPU_OP_LOCK], 2);
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_LOCKED), 2);
	assert_int_equal(gpu_group_member(f->group, 0)->pid, FAKE_PID + 1);
	assert_int_equal(gpu_group_member(f->group, 1)->pid, FAKE_PID + 3);
	assert_null(gpu_group_member(f->group, 2));
	assert_int_equal(recover(f), 0);
}

static void alone(struct fake_worker *w, unsigned int op, const struct fake_process *p)
{
	for (size_t i = 0; i < w->n && op != GPU_OP_PROBE; i++)
		assert_true(&w->procs[i] == p || !w->procs[i].busy);
}

/* A checkpoint job: the driver takes its processes one after the other. */
static void a_job_is_taken_in_turns(void **state)
{
	struct fixture *f = *state;

	fresh(f, 8);
	gpu_group_discover(f->group, time_now() + TIME, done, f);
	assert_int_equal(result(f), 0);
	gpu_group_set_job(f->group, 3, 1);
	assert_int_equal(gpu_group_member(f->group, 3)->job, 1);
	f->worker.ended = alone;
	for (int i = 0; i < 2; i++) {
		f->worker.backwards = i;
		assert_int_equal(lock(f), 0);
		all_are(f, CUDA_STATE_LOCKED);
		assert_int_equal(save(f), 0);
		all_are(f, CUDA_STATE_CHECKPOINTED);
		assert_int_equal(restore(f), 0);
		assert_int_equal(unlock(f), 0);
		all_are(f, CUDA_STATE_RUNNING);
	}
	/* Behind one that fails nobody else is touched; but on the way back they all are. */
	assert_int_equal(lock(f), 0);
	f->worker.calls[GPU_OP_CHECKPOINT] = 0;
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_CHECKPOINT,
						   .pid = FAKE_PID + 2,
						   .kind = FAKE_FAIL,
						   .code = -EIO,
						   .reason = REASON_CUDA_SAVE_FAILED };
	assert_true(save(f) < 0);
	assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], 3);
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_RESTORE,
						   .pid = FAKE_PID,
						   .kind = FAKE_FAIL,
						   .times = 1,
						   .code = -EIO,
						   .reason = REASON_CUDA_RESTORE_FAILED };
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
	f->worker.ended = NULL;
}

static unsigned int locked_when_saved;

static void count_locked(struct fake_worker *w, unsigned int op, const struct fake_process *p)
{
	(void)p;
	if (op == GPU_OP_CHECKPOINT && !locked_when_saved)
		locked_when_saved = fake_count(w, CUDA_STATE_LOCKED) +
				    fake_count(w, CUDA_STATE_CHECKPOINTED);
}

/* Processes that wait for each other: none may be saved while another still computes. */
static void all_are_locked_before_any_is_saved(void **state)
{
	struct fixture *f = *state;

	fresh(f, 8);
	f->worker.ended = count_locked;
	locked_when_saved = 0;
	assert_int_equal(lock(f), 0);
	assert_int_equal(save(f), 0);
	assert_int_equal(locked_when_saved, 8);
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

/* --- the table ------------------------------------------------------------------------------ */

/* All that gpu/outcome.h and gpu/worker.h know. */
static const struct {
	int code;
	enum reason reason;
} errors[] = {
	{ -ETIMEDOUT, REASON_LOCK_TIMEOUT },
	{ -ETIMEDOUT, REASON_TIMEOUT },
	{ -ENXIO, REASON_CUDA_STATE_WRONG },
	{ -EBUSY, REASON_CUDA_STATE_WRONG },
	{ -ENOMEM, REASON_VRAM_SHORT },
	{ -ENOMEM, REASON_MEM_LIMIT },
	{ -EOPNOTSUPP, REASON_UVM_IN_USE },
	{ -EPROTO, REASON_CUDA_STATE_WRONG },
	{ -ENODEV, REASON_DRIVER_UNAVAILABLE },
	{ -EIO, REASON_WORKER_FAILED },
	{ -EAGAIN, REASON_WORKER_FAILED },
	{ -EIO, REASON_CUDA_SAVE_FAILED },
};

static const unsigned int sizes[] = { 1, 2, 8 };

/* A fault of this kind of the first (0) or last (1) of n processes. */
static struct fake_fault fault_of(unsigned int op, enum fake_fault_kind kind, size_t error,
				  unsigned int n, unsigned int last)
{
	return (struct fake_fault){ .op = op,
				    .pid = FAKE_PID + (last ? (pid_t)n - 1 : 0),
				    .kind = kind,
				    .times = 1,
				    .code = errors[error].code,
				    .reason = errors[error].reason };
}

/* What the fault did not hit is as it would have been; then all is undone. */
static void undone(struct fixture *f, int r, const struct fake_fault *fault)
{
	if (r == 0)
		fail_msg("%s of process %d, fault %d: not noticed", gpu_op_name(fault->op),
			 fault->pid, fault->kind);
	assert_true(f->err.text[0]);
	memset(f->worker.faults, 0, sizeof(f->worker.faults));
	if (recover(f) != 0)
		fail_msg("%s of process %d, fault %d: %s", gpu_op_name(fault->op), fault->pid,
			 fault->kind, f->err.text);
	all_are(f, CUDA_STATE_RUNNING);
	/* And once more, from the start, with the same group. */
	assert_int_equal(lock(f), 0);
	assert_int_equal(save(f), 0);
	all_are(f, CUDA_STATE_CHECKPOINTED);
}

static void each_error(struct fixture *f, unsigned int op, enum fake_fault_kind kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors) * ARRAY_SIZE(sizes) * 2; i++) {
		unsigned int n = sizes[i / 2 % ARRAY_SIZE(sizes)];
		struct fake_fault fault =
			fault_of(op, kind, i / 2 / ARRAY_SIZE(sizes), n, i % 2);
		int r;

		fresh(f, n);
		f->worker.faults[0] = fault;
		r = lock(f);
		if (op != GPU_OP_CHECKPOINT) {
			assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], 0);
		} else {
			assert_int_equal(r, 0);
			r = save(f);
		}
		assert_int_equal(r, fault.code);
		assert_int_equal(f->err.reason, fault.reason);
		undone(f, r, &fault);
	}
}

static void a_call_that_fails(void **state)
{
	static const unsigned int ops[] = { GPU_OP_PROBE, GPU_OP_STATE, GPU_OP_LOCK,
					    GPU_OP_CHECKPOINT };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		each_error(*state, ops[i], FAKE_FAIL);
}

/* The worker died after the driver had done it: nobody knows, until the states are read. */
static void a_call_that_fails_but_is_done(void **state)
{
	each_error(*state, GPU_OP_LOCK, FAKE_DID_FAIL);
	each_error(*state, GPU_OP_CHECKPOINT, FAKE_DID_FAIL);
}

static void a_call_that_does_not_come_back(void **state)
{
	static const unsigned int ops[] = { GPU_OP_PROBE, GPU_OP_STATE, GPU_OP_LOCK,
					    GPU_OP_CHECKPOINT };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ops) * ARRAY_SIZE(sizes) * 4; i++) {
		unsigned int op = ops[i / 4 / ARRAY_SIZE(sizes)];
		unsigned int n = sizes[i / 4 % ARRAY_SIZE(sizes)];
		struct fake_fault fault =
			fault_of(op, i & 2 ? FAKE_HANG : FAKE_DID_HANG, 0, n, i & 1);
		int r;

		fresh(f, n);
		f->worker.faults[0] = fault;
		r = lock(f);
		if (op == GPU_OP_CHECKPOINT)
			r = save(f);
		assert_int_equal(r, -ETIMEDOUT);
		undone(f, r, &fault);
	}
}

static void a_driver_that_lies(void **state)
{
	static const struct {
		unsigned int op, lie_state, skip;
	} lies[] = {
		{ GPU_OP_LOCK, 0, 0 },
		{ GPU_OP_CHECKPOINT, 0, 0 },
		{ GPU_OP_STATE, CUDA_STATE_CHECKPOINTED, 0 }, /* before the lock */
		{ GPU_OP_STATE, CUDA_STATE_LOCKED, 0 },
		{ GPU_OP_STATE, CUDA_STATE_FAILED, 0 },
		{ GPU_OP_STATE, 4711, 0 },
		{ GPU_OP_STATE, CUDA_STATE_RUNNING, 1 }, /* after it */
		{ GPU_OP_STATE, CUDA_STATE_CHECKPOINTED, 1 },
		{ GPU_OP_STATE, 4711, 1 },
		{ GPU_OP_STATE, CUDA_STATE_RUNNING, 2 }, /* after the save */
		{ GPU_OP_STATE, CUDA_STATE_LOCKED, 2 },
		{ GPU_OP_STATE, CUDA_STATE_FAILED, 2 },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lies) * ARRAY_SIZE(sizes) * 2; i++) {
		size_t k = i / 2 / ARRAY_SIZE(sizes);
		unsigned int n = sizes[i / 2 % ARRAY_SIZE(sizes)];
		struct fake_fault fault = fault_of(lies[k].op, FAKE_LIE, 0, n, i % 2);
		int r;

		fault.lie_state = lies[k].lie_state;
		fault.skip = lies[k].skip;
		fresh(f, n);
		f->worker.faults[0] = fault;
		r = lock(f);
		if (lies[k].op == GPU_OP_CHECKPOINT || lies[k].skip == 2) {
			assert_int_equal(r, 0);
			r = save(f);
		} else {
			assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], 0);
		}
		assert_int_equal(f->err.reason, lies[k].lie_state == CUDA_STATE_FAILED
							? REASON_CUDA_STATE_LOST
							: REASON_CUDA_STATE_WRONG);
		assert_non_null(strstr(f->err.text, "process 1000"));
		undone(f, r, &fault);
	}
}

/* A process may exit at any moment; the others are checkpointed without it. */
static void a_process_that_exits_is_no_failure(void **state)
{
	static const unsigned int ops[] = { GPU_OP_PROBE, GPU_OP_STATE, GPU_OP_LOCK,
					    GPU_OP_CHECKPOINT, GPU_OP_RESTORE, GPU_OP_UNLOCK };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ops) * ARRAY_SIZE(sizes) * 3; i++) {
		unsigned int op = ops[i / 3 / ARRAY_SIZE(sizes)];
		unsigned int n = sizes[i / 3 % ARRAY_SIZE(sizes)];

		fresh(f, n);
		f->worker.faults[0] = fault_of(op, FAKE_GONE, 0, n, i % 2);
		if (op == GPU_OP_STATE)
			f->worker.faults[0].skip = i % 3;
		assert_int_equal(lock(f), 0);
		all_are(f, CUDA_STATE_LOCKED);
		assert_int_equal(save(f), 0);
		all_are(f, CUDA_STATE_CHECKPOINTED);
		assert_int_equal(restore(f), 0);
		assert_int_equal(unlock(f), 0);
		all_are(f, CUDA_STATE_RUNNING);
		assert_int_equal(living(f), n - 1);
	}
}

/* NVML only tells how much there is. */
static void memory_that_cannot_be_measured_decides_nothing(void **state)
{
	struct fixture *f = *state;

	fresh(f, 2);
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_MEMORY, .kind = FAKE_FAIL,
						   .code = -EIO, .reason = REASON_WORKER_FAILED };
	assert_int_equal(lock(f), 0);
	assert_int_equal(gpu_group_vram_bytes(f->group), 0);
	assert_int_equal(gpu_group_memory(f->group)->n_devices, 0);
	assert_int_equal(gpu_group_member(f->group, 0)->vram_bytes, GPU_BYTES_UNKNOWN);
	assert_int_equal(save(f), 0);
}

/* --- the way back --------------------------------------------------------------------------- */

static void checkpointed(struct fixture *f, unsigned int n)
{
	fresh(f, n);
	assert_int_equal(lock(f), 0);
	assert_int_equal(save(f), 0);
}

static void a_way_back_that_fails_is_told_and_recovered(void **state)
{
	static const enum fake_fault_kind kinds[] = { FAKE_FAIL, FAKE_DID_FAIL, FAKE_LIE, FAKE_HANG,
						      FAKE_DID_HANG };
	static const unsigned int ops[] = { GPU_OP_RESTORE, GPU_OP_UNLOCK, GPU_OP_STATE };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ops) * ARRAY_SIZE(kinds) * ARRAY_SIZE(sizes) * 2; i++) {
		unsigned int op = ops[i / 2 / ARRAY_SIZE(sizes) / ARRAY_SIZE(kinds)];
		unsigned int n = sizes[i / 2 % ARRAY_SIZE(sizes)];
		struct fake_fault fault = fault_of(
			op, kinds[i / 2 / ARRAY_SIZE(sizes) % ARRAY_SIZE(kinds)], 9, n, i % 2);
		int r;

		fault.lie_state = CUDA_STATE_CHECKPOINTED;
		checkpointed(f, n);
		f->worker.faults[0] = fault;
		r = restore(f);
		if (op == GPU_OP_UNLOCK) {
			assert_int_equal(r, 0);
			r = unlock(f);
		} else {
			assert_int_equal(f->worker.calls[GPU_OP_UNLOCK], 0);
		}
		undone(f, r, &fault);
	}
}

/* A recovery tries again what went wrong, whatever it was and however often. */
static void a_recovery_does_not_give_up(void **state)
{
	static const enum fake_fault_kind kinds[] = { FAKE_FAIL, FAKE_DID_FAIL, FAKE_LIE };
	static const unsigned int ops[] = { GPU_OP_STATE, GPU_OP_RESTORE, GPU_OP_UNLOCK };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ops) * ARRAY_SIZE(kinds) * ARRAY_SIZE(sizes) * 2; i++) {
		unsigned int n = sizes[i / 2 % ARRAY_SIZE(sizes)];
		struct fake_fault fault = fault_of(
			ops[i / 2 / ARRAY_SIZE(sizes) / ARRAY_SIZE(kinds)],
			kinds[i / 2 / ARRAY_SIZE(sizes) % ARRAY_SIZE(kinds)], 9, n, i % 2);

		checkpointed(f, n);
		fault.times = 5;
		fault.lie_state = 4711; /* a state from the future */
		f->worker.faults[0] = fault;
		if (recover(f) != 0)
			fail_msg("%s, fault %d: %s", gpu_op_name(fault.op), fault.kind,
				 f->err.text);
		all_are(f, CUDA_STATE_RUNNING);
	}
}

static unsigned int unlocked_early;

static void watch_unlocks(struct fake_worker *w, unsigned int op, const struct fake_process *p)
{
	(void)p;
	if (op == GPU_OP_UNLOCK && fake_count(w, CUDA_STATE_CHECKPOINTED))
		unlocked_early++;
}

/* Another process took the memory: they stay suspended, all of them, and none is harmed. */
static void what_cannot_be_restored_stays_safe(void **state)
{
	struct fixture *f = *state;
	unsigned int tries;

	checkpointed(f, 8);
	unlocked_early = 0;
	f->worker.ended = watch_unlocks;
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_RESTORE, .pid = FAKE_PID + 3,
						   .kind = FAKE_FAIL, .code = -ENOMEM,
						   .reason = REASON_VRAM_SHORT };
	assert_int_equal(recover(f), -ENOMEM);
	assert_int_equal(f->err.reason, REASON_VRAM_SHORT);
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_CHECKPOINTED), 1);
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_LOCKED), 7);
	tries = f->worker.calls[GPU_OP_RESTORE] - 7;
	assert_in_range(tries, 5, 20); /* with growing pauses */
	f->worker.faults[0] = (struct fake_fault){ 0 };
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
	assert_int_equal(unlocked_early, 0);
}

/* The driver's first out-of-memory would be final: it is not asked before there is room. */
static void without_room_the_driver_is_not_asked(void **state)
{
	struct fixture *f = *state;

	checkpointed(f, 2);
	f->worker.gpu_free = 1;
	assert_int_equal(restore(f), -ENOMEM);
	assert_int_equal(f->err.reason, REASON_VRAM_SHORT);
	assert_int_equal(recover(f), -ENOMEM);
	assert_int_equal(f->err.reason, REASON_VRAM_SHORT);
	assert_true(f->worker.calls[GPU_OP_MEMORY] > 5); /* a recovery looks again and again */
	assert_int_equal(f->worker.calls[GPU_OP_RESTORE], 0);
	all_are(f, CUDA_STATE_CHECKPOINTED);
	f->worker.gpu_free = 2000;
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

static void nobody(void *data, int r, const struct error *err)
{
	(void)err;
	*(int *)data = r;
}

/* What another group is bringing back is not there for this one, though NVML says so. */
static void what_is_promised_is_taken(void **state)
{
	struct fixture *f = *state;
	struct gpu_group *other;
	struct list returning;
	int others = 1;

	list_init(&returning);
	checkpointed(f, 1);
	gpu_group_share(f->group, &returning);
	f->worker.gpu_free = 1500; /* each has 1000 */
	assert_int_equal(gpu_group_new(&other, f->loop, fake_worker_of(&f->worker), fake_list,
				       &f->worker), 0);
	gpu_group_share(other, &returning);
	f->worker.procs[0].listed = false;
	(void)fake_process(&f->worker);
	gpu_group_lock(other, NSEC_NEVER, nobody, &others);
	while (others == 1)
		assert_true(loop_round(f->loop, NSEC_NEVER) >= 0);
	others = 1;
	gpu_group_save(other, NSEC_NEVER, nobody, &others);
	while (others == 1)
		assert_true(loop_round(f->loop, NSEC_NEVER) >= 0);
	assert_int_equal(others, 0);
	others = 1;
	gpu_group_restore(other, NULL, 0, NSEC_NEVER, nobody, &others);
	while (!f->worker.calls[GPU_OP_RESTORE])
		assert_true(loop_round(f->loop, NSEC_NEVER) >= 0);
	assert_int_equal(restore(f), -ENOMEM);
	assert_int_equal(f->err.reason, REASON_VRAM_SHORT);
	assert_int_equal(f->worker.calls[GPU_OP_RESTORE], 1);
	while (others == 1)
		assert_true(loop_round(f->loop, NSEC_NEVER) >= 0);
	assert_int_equal(others, 0);
	assert_int_equal(restore(f), 0); /* the other's is NVML's to count now */
	gpu_group_free(other);
}

/* One that is back needs no room any more, and a question that fails is no answer. */
static void what_is_not_known_of_the_room_decides_nothing(void **state)
{
	struct fixture *f = *state;

	checkpointed(f, 2);
	f->worker.gpu_free = 1;
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_MEMORY, .kind = FAKE_FAIL,
						   .code = -EIO, .reason = REASON_WORKER_FAILED };
	assert_int_equal(restore(f), 0);
	f->worker.faults[0] = (struct fake_fault){ 0 };
	assert_int_equal(recover(f), 0); /* all are LOCKED: there is nothing to bring back */
	all_are(f, CUDA_STATE_RUNNING);
}

/* One that the driver has lost cannot be helped; the others have a right to go on. */
static void one_that_is_lost_does_not_hold_the_others(void **state)
{
	static const unsigned int from[] = { CUDA_STATE_LOCKED, CUDA_STATE_CHECKPOINTED };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(from) * ARRAY_SIZE(sizes); i++) {
		unsigned int n = sizes[i % ARRAY_SIZE(sizes)];

		fresh(f, n);
		assert_int_equal(lock(f), 0);
		if (from[i / ARRAY_SIZE(sizes)] == CUDA_STATE_CHECKPOINTED)
			assert_int_equal(save(f), 0);
		f->worker.procs[0].state = CUDA_STATE_FAILED;
		assert_int_not_equal(recover(f), 0);
		assert_int_equal(f->err.reason, REASON_CUDA_STATE_LOST);
		assert_non_null(strstr(f->err.text, "process 100000"));
		assert_int_equal(fake_count(&f->worker, CUDA_STATE_RUNNING), n - 1);
	}
}

/* --- held ----------------------------------------------------------------------------------- */

/* The undo of a way back: from wherever they are to CHECKPOINTED. */
static void they_are_held_again(void **state)
{
	static const unsigned int from[] = { CUDA_STATE_RUNNING, CUDA_STATE_LOCKED,
					     CUDA_STATE_CHECKPOINTED };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(from) * ARRAY_SIZE(from); i++) {
		checkpointed(f, 2);
		f->worker.procs[0].state = from[i % ARRAY_SIZE(from)];
		f->worker.procs[1].state = from[i / ARRAY_SIZE(from)];
		gpu_group_hold(f->group, time_now() + TIME, done, f);
		assert_int_equal(result(f), 0);
		all_are(f, CUDA_STATE_CHECKPOINTED);
	}
}

static void a_hold_that_fails_is_told(void **state)
{
	static const unsigned int ops[] = { GPU_OP_STATE, GPU_OP_LOCK, GPU_OP_CHECKPOINT };
	static const enum fake_fault_kind kinds[] = { FAKE_FAIL, FAKE_DID_FAIL, FAKE_LIE, FAKE_HANG };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ops) * ARRAY_SIZE(kinds); i++) {
		struct fake_fault fault = fault_of(ops[i % ARRAY_SIZE(ops)],
						   kinds[i / ARRAY_SIZE(ops)], 9, 2, i % 2);

		checkpointed(f, 2);
		assert_int_equal(recover(f), 0);
		fault.lie_state = 4711;
		f->worker.faults[0] = fault;
		gpu_group_hold(f->group, time_now() + TIME, done, f);
		undone(f, result(f), &fault);
	}
}

/* What somebody wrote down who outlives the group. */
static void held_ones_are_adopted_and_confirmed(void **state)
{
	static const struct gpu_memory memory = { .n_devices = 1 };
	struct gpu_member members[2];
	struct gpu_held held = { members, 2, &memory };
	struct fixture *f = *state;

	fresh(f, 2);
	for (int i = 0; i < 2; i++)
		members[i] = (struct gpu_member){ .pid = f->worker.procs[i].pid,
						  .start_time = f->worker.procs[i].start_time,
						  .vram_bytes = 500, .devices = 1 };
	assert_int_equal(gpu_group_adopt(f->group, &held), 0);
	assert_int_equal(gpu_group_vram_bytes(f->group), 1000);
	f->worker.procs[1].gone = true;
	gpu_group_confirm(f->group, time_now() + TIME, done, f);
	assert_int_equal(result(f), 0);
	assert_false(gpu_group_member(f->group, 0)->gone);
	assert_true(gpu_group_member(f->group, 1)->gone);
	/* Nobody's state is asked: it cannot be, while they stand still. */
	assert_int_equal(f->worker.calls[GPU_OP_STATE], 0);
	(void)fake_process(&f->worker);
	gpu_group_confirm(f->group, time_now() + TIME, done, f);
	assert_int_equal(result(f), -EAGAIN); /* one that nobody has saved */
	assert_int_equal(f->err.reason, REASON_CUDA_LOCK_FAILED);
}

/* --- who is there --------------------------------------------------------------------------- */

static unsigned int births;

static void give_birth(struct fake_worker *w, unsigned int op, const struct fake_process *p)
{
	(void)p;
	if (op == GPU_OP_LOCK && births) {
		births--;
		(void)fake_process(w);
	}
}

static void a_process_born_during_the_lock_is_locked_too(void **state)
{
	struct fixture *f = *state;

	for (unsigned int n = 0; n < 6; n++) {
		fresh(f, 1);
		births = n;
		f->worker.ended = give_birth;
		assert_int_equal(lock(f), 0);
		assert_int_equal(gpu_group_size(f->group), n + 1);
		all_are(f, CUDA_STATE_LOCKED);
		assert_int_equal(save(f), 0);
		all_are(f, CUDA_STATE_CHECKPOINTED);
	}
}

static void processes_that_never_stop_coming_cannot_be_locked(void **state)
{
	struct fixture *f = *state;

	fresh(f, 1);
	births = 100;
	f->worker.ended = give_birth;
	assert_int_equal(lock(f), -EAGAIN);
	assert_int_equal(f->err.reason, REASON_CUDA_LOCK_FAILED);
	f->worker.ended = NULL;
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

static void be_born_late(struct fake_worker *w, unsigned int op, const struct fake_process *p)
{
	(void)p;
	if (op == GPU_OP_CHECKPOINT && births) {
		births--;
		(void)fake_process(w);
	}
}

/* Its GPU memory would not be in the image. */
static void a_process_born_during_the_save_spoils_it(void **state)
{
	struct fixture *f = *state;

	fresh(f, 2);
	births = 1;
	f->worker.ended = be_born_late;
	assert_int_equal(lock(f), 0);
	assert_int_equal(save(f), -EAGAIN);
	assert_int_equal(f->err.reason, REASON_CUDA_LOCK_FAILED);
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
	assert_int_equal(lock(f), 0); /* now it is known */
	assert_int_equal(save(f), 0);
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_CHECKPOINTED), 3);
}

static void a_number_used_again_is_another_process(void **state)
{
	struct fixture *f = *state;
	struct fake_process *p = fake_process(&f->worker);

	assert_int_equal(lock(f), 0);
	p->start_time++;
	p->state = CUDA_STATE_RUNNING;
	assert_int_equal(lock(f), 0);
	assert_int_equal(gpu_group_size(f->group), 2);
	assert_true(gpu_group_member(f->group, 0)->gone);
	assert_int_equal(p->state, CUDA_STATE_LOCKED);
	assert_int_equal(gpu_group_add(f->group, p->pid, p->start_time), 0); /* known */
	assert_int_equal(gpu_group_size(f->group), 2);
}

static void one_that_somebody_else_has_locked_is_refused(void **state)
{
	static const unsigned int states[] = { CUDA_STATE_LOCKED, CUDA_STATE_CHECKPOINTED,
					       CUDA_STATE_CHECKPOINTING, CUDA_STATE_RESTORING };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		fresh(f, 2);
		f->worker.procs[1].state = states[i];
		assert_int_equal(lock(f), -EBUSY);
		assert_int_equal(f->err.reason, REASON_CUDA_STATE_WRONG);
		assert_int_equal(f->worker.calls[GPU_OP_LOCK], 0);
		assert_int_equal(f->worker.procs[0].state, CUDA_STATE_RUNNING);
	}
}

static void a_list_that_cannot_be_read_is_no_empty_list(void **state)
{
	struct fixture *f = *state;

	fresh(f, 2);
	f->worker.list_error = -EXDEV;
	assert_int_equal(lock(f), -EXDEV);
	assert_int_equal(f->worker.calls[GPU_OP_LOCK], 0);
	f->worker.list_error = 0;
	assert_int_equal(lock(f), 0);
	f->worker.list_error = -E2BIG;
	assert_int_equal(save(f), -E2BIG); /* who came meanwhile cannot be known */
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

static void there_are_not_too_many(void **state)
{
	struct fixture *f = *state;

	fresh(f, GPU_GROUP_MAX);
	assert_int_equal(lock(f), 0);
	assert_int_equal(recover(f), 0);
	(void)fake_process(&f->worker);
	assert_int_equal(lock(f), -E2BIG);
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

/* --- canceling ------------------------------------------------------------------------------ */

/* Driver calls cannot be interrupted, but none is begun any more. */
static void a_canceled_call_begins_nothing_more(void **state)
{
	struct fixture *f = *state;
	static const unsigned int begun[] = { GPU_OP_PROBE, GPU_OP_STATE, GPU_OP_LOCK };

	for (size_t i = 0; i < ARRAY_SIZE(begun); i++) {
		unsigned int locks;

		fresh(f, 2);
		gpu_group_lock(f->group, time_now() + TIME, done, f);
		while (!f->worker.calls[begun[i]])
			fake_round(&f->worker);
		gpu_group_cancel(f->group);
		locks = f->worker.calls[GPU_OP_LOCK];
		assert_int_equal(result(f), -ECANCELED);
		assert_int_equal(f->err.reason, REASON_CANCELED);
		assert_int_equal(f->worker.calls[GPU_OP_LOCK], locks);
		assert_int_equal(recover(f), 0); /* that is another call */
		all_are(f, CUDA_STATE_RUNNING);
	}
	gpu_group_cancel(f->group); /* harmless */
}

static void a_canceled_save_is_over(void **state)
{
	struct fixture *f = *state;

	fresh(f, 2);
	assert_int_equal(lock(f), 0);
	gpu_group_save(f->group, time_now() + TIME, done, f);
	gpu_group_cancel(f->group); /* before it has begun */
	assert_int_equal(result(f), -ECANCELED);
	assert_int_equal(f->worker.calls[GPU_OP_CHECKPOINT], 0);
	assert_int_equal(recover(f), 0);
	all_are(f, CUDA_STATE_RUNNING);
}

static void a_canceled_recovery_ends_its_pause(void **state)
{
	struct fixture *f = *state;
	nsec_t at;

	checkpointed(f, 2);
	f->worker.faults[0] = (struct fake_fault){ .op = GPU_OP_RESTORE, .kind = FAKE_FAIL,
						   .code = -ENOMEM, .reason = REASON_VRAM_SHORT };
	gpu_group_recover(f->group, NSEC_NEVER, done, f);
	for (at = time_now(); time_now() - at < 30 * NSEC_PER_SEC;)
		fake_round(&f->worker);
	assert_int_equal(f->done, 0); /* without a deadline it goes on */
	at = time_now();
	gpu_group_cancel(f->group);
	assert_int_equal(result(f), -ENOMEM);
	assert_int_equal(fake_count(&f->worker, CUDA_STATE_CHECKPOINTED), 2);
	assert_true(time_now() - at < NSEC_PER_SEC);
	f->worker.faults[0] = (struct fake_fault){ 0 };
	assert_int_equal(recover(f), 0);
}

static void a_group_may_be_freed_at_any_time(void **state)
{
	struct fixture *f = *state;

	for (int rounds = 0; rounds < 20; rounds++) {
		fresh(f, 2);
		gpu_group_lock(f->group, time_now() + TIME, done, f);
		for (int i = 0; i < rounds && !f->done; i++)
			fake_round(&f->worker);
		gpu_group_free(f->group);
		f->group = NULL;
		assert_true(list_empty(&f->worker.open));
		for (int i = 0; i < 5; i++)
			fake_round(&f->worker);
		f->done = 0;
	}
}

static bool is_apart(const struct fixture *f, pid_t pid)
{
	for (size_t i = 0; i < gpu_group_size(f->group); i++)
		if (gpu_group_member(f->group, i)->pid == pid)
			return gpu_group_member(f->group, i)->apart;
	fail_msg("no member %d", pid);
	return false;
}

/* Real processes: this one, who has begun it, and one that does not exist. */
static void those_that_are_not_below_the_init_are_apart(void **state)
{
	const pid_t pids[] = { getpid(), getppid(), 0x7ffffffe };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
		assert_int_equal(gpu_group_add(f->group, pids[i], 1), 0);
	gpu_group_find_apart(f->group, getpid());
	assert_false(is_apart(f, getpid()));
	assert_true(is_apart(f, getppid()));
	assert_false(is_apart(f, 0x7ffffffe)); /* it has just gone, say */
	gpu_group_find_apart(f->group, getppid());
	assert_false(is_apart(f, getpid()));
	assert_false(is_apart(f, getppid()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(there_and_back),
		T(processes_without_cuda_are_left_alone),
		T(all_are_locked_before_any_is_saved),
		T(a_job_is_taken_in_turns),
		T(a_call_that_fails),
		T(a_call_that_fails_but_is_done),
		T(a_call_that_does_not_come_back),
		T(a_driver_that_lies),
		T(a_process_that_exits_is_no_failure),
		T(memory_that_cannot_be_measured_decides_nothing),
		T(a_way_back_that_fails_is_told_and_recovered),
		T(a_recovery_does_not_give_up),
		T(what_cannot_be_restored_stays_safe),
		T(without_room_the_driver_is_not_asked),
		T(what_is_promised_is_taken),
		T(what_is_not_known_of_the_room_decides_nothing),
		T(one_that_is_lost_does_not_hold_the_others),
		T(they_are_held_again),
		T(a_hold_that_fails_is_told),
		T(held_ones_are_adopted_and_confirmed),
		T(a_process_born_during_the_lock_is_locked_too),
		T(processes_that_never_stop_coming_cannot_be_locked),
		T(a_process_born_during_the_save_spoils_it),
		T(a_number_used_again_is_another_process),
		T(one_that_somebody_else_has_locked_is_refused),
		T(a_list_that_cannot_be_read_is_no_empty_list),
		T(there_are_not_too_many),
		T(a_canceled_call_begins_nothing_more),
		T(a_canceled_save_is_over),
		T(a_canceled_recovery_ends_its_pause),
		T(a_group_may_be_freed_at_any_time),
		T(those_that_are_not_below_the_init_are_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
