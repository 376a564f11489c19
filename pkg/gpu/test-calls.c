/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cmocka.h"

struct probe {
	struct gpu_call call;
	unsigned int done;
	struct gpu_call *forget; /* in done() */
	struct calls *again;     /* in done(): put it into the book once more */
};

struct fixture {
	struct loop *loop;
	struct calls calls;
	struct probe a, b, c;
};

static void done(struct gpu_call *call)
{
	struct probe *p = container_of(call, struct probe, call);

	p->done++;
	assert_false(gpu_call_open(call));
	assert_int_equal(call->result, call->err.code);
	if (p->forget)
		calls_forget(p->again, p->forget);
	else if (p->again)
		calls_add(p->again, call);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(loop_new(&f->loop), 0);
	calls_init(&f->calls, f->loop);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	calls_done(&f->calls);
	loop_free(f->loop);
	free(f);
	return 0;
}

static void add(struct fixture *f, struct probe *p, enum gpu_op op, pid_t pid, nsec_t deadline)
{
	p->call = (struct gpu_call){ .op = op, .pid = pid, .done = done, .deadline = deadline };
	p->call.timeout_ms = op == GPU_OP_LOCK;
	calls_add(&f->calls, &p->call);
}

/* Sends the next call; returns the id it has. */
static uint64_t send_next(struct fixture *f, const struct probe *expected)
{
	struct gpu_request req, ret;
	struct gpu_call *call = calls_next(&f->calls);

	assert_ptr_equal(call, &expected->call);
	calls_request(&f->calls, call, &req);
	assert_int_equal(gpu_request_parse(bytes_of(&req, sizeof(req)), &ret), 0);
	calls_sent(&f->calls, call, &req);
	return req.head.id;
}

static int reply_to(struct fixture *f, unsigned int op, uint64_t id, enum gpu_status status)
{
	union gpu_any_reply any = { 0 };
	struct error err = ERROR_NULL;

	gpu_reply_init(&any.reply, op, id);
	any.reply.status = status;
	any.reply.tid = 17;
	return calls_reply(&f->calls, &any, &err);
}

static void run_loop(struct fixture *f)
{
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_round(f->loop, 0), 0);
}

static void replies_find_their_calls(void **state)
{
	struct fixture *f = *state;
	uint64_t a, b;

	add(f, &f->a, GPU_OP_PROBE, 1, NSEC_NEVER);
	add(f, &f->b, GPU_OP_LOCK, 2, NSEC_NEVER);
	a = send_next(f, &f->a);
	b = send_next(f, &f->b);
	assert_null(calls_next(&f->calls));
	assert_true(b > a);
	assert_int_equal(reply_to(f, GPU_OP_LOCK, b, GPU_STATUS_OK), 0);
	assert_int_equal(f->a.done, 0);
	assert_int_equal(f->b.done, 1);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, a, GPU_STATUS_OK), 0);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->a.call.restore_tid, 17);
	assert_int_equal(f->calls.n_open, 0);
}

static void a_reply_to_nothing_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t a;

	add(f, &f->a, GPU_OP_PROBE, 1, NSEC_NEVER);
	a = send_next(f, &f->a);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, a + 1, GPU_STATUS_OK), -EPROTO);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, a + (1 << 16), GPU_STATUS_OK), -EPROTO);
	assert_int_equal(reply_to(f, GPU_OP_STATE, a, GPU_STATUS_OK), -EPROTO);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, UINT64_MAX, GPU_STATUS_OK), -EPROTO);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, 0, GPU_STATUS_OK), -EPROTO);
	assert_int_equal(f->a.done, 0);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, a, GPU_STATUS_OK), 0);
	assert_int_equal(reply_to(f, GPU_OP_PROBE, a, GPU_STATUS_OK), -EPROTO); /* twice */
	assert_int_equal(f->a.done, 1);
}

static void what_cannot_be_asked_ends_at_once(void **state)
{
	struct fixture *f = *state;

	add(f, &f->a, GPU_OP_STATE, 0, NSEC_NEVER);
	assert_int_equal(f->a.done, 0); /* never from inside */
	run_loop(f);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->a.call.result, -EINVAL);
	f->b.call = (struct gpu_call){
		.op = GPU_OP_RESTORE, .pid = 1, .n_pairs = GPU_DEVICES_MAX + 1, .done = done
	};
	calls_add(&f->calls, &f->b.call);
	run_loop(f);
	assert_int_equal(f->b.call.result, -EINVAL);
	assert_int_equal(f->b.call.err.reason, REASON_GPU_MISMATCH);
	assert_int_equal(f->calls.n_open, 0);
}

static void there_is_a_limit(void **state)
{
	struct fixture *f = *state;
	struct probe *many = calloc(GPU_CALLS_MAX, sizeof(*many));

	assert_non_null(many);
	for (int i = 0; i < GPU_CALLS_MAX; i++) {
		add(f, &many[i], GPU_OP_STATE, i + 1, NSEC_NEVER);
		if (i % 2)
			(void)send_next(f, &many[i / 2]);
	}
	add(f, &f->a, GPU_OP_STATE, 1, NSEC_NEVER);
	run_loop(f);
	assert_int_equal(f->a.call.result, -EAGAIN);
	assert_int_equal(f->a.call.err.reason, REASON_WORKER_FAILED);
	assert_int_equal(f->calls.n_open, GPU_CALLS_MAX);
	calls_done(&f->calls);
	for (int i = 0; i < GPU_CALLS_MAX; i++) {
		assert_int_equal(many[i].done, 0);
		assert_false(gpu_call_open(&many[i].call));
	}
	free(many);
}

static void a_queued_call_can_be_canceled(void **state)
{
	struct fixture *f = *state;

	add(f, &f->a, GPU_OP_LOCK, 1, NSEC_NEVER);
	assert_false(calls_cancel(&f->calls, &f->a.call));
	assert_int_equal(f->a.done, 0);
	run_loop(f);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->a.call.result, -ECANCELED);
	assert_int_equal(f->a.call.err.reason, REASON_CANCELED);
	assert_null(calls_next(&f->calls));
}

static void a_sent_one_is_canceled_by_the_worker(void **state)
{
	struct fixture *f = *state;
	struct gpu_request req;
	uint64_t a;

	add(f, &f->a, GPU_OP_LOCK, 1, NSEC_NEVER);
	a = send_next(f, &f->a);
	assert_false(calls_next_cancel(&f->calls, &req));
	assert_true(calls_cancel(&f->calls, &f->a.call));
	assert_true(calls_cancel(&f->calls, &f->a.call)); /* twice is once */
	assert_true(calls_next_cancel(&f->calls, &req));
	assert_int_equal(req.head.op, GPU_OP_CANCEL);
	assert_int_equal(req.target, a);
	calls_cancel_sent(&f->calls, &req);
	assert_false(calls_next_cancel(&f->calls, &req));
	assert_int_equal(reply_to(f, GPU_OP_LOCK, a, GPU_STATUS_CANCELED), 0);
	assert_int_equal(f->a.call.result, -ECANCELED);
	assert_int_equal(f->calls.n_cancel, 0);
}

static void a_forgotten_call_is_not_told(void **state)
{
	struct fixture *f = *state;
	uint64_t b;

	add(f, &f->a, GPU_OP_LOCK, 1, NSEC_NEVER);
	calls_forget(&f->calls, &f->a.call);
	add(f, &f->b, GPU_OP_LOCK, 2, NSEC_NEVER);
	b = send_next(f, &f->b);
	calls_forget(&f->calls, &f->b.call);
	memset(&f->b.call, 0xee, sizeof(f->b.call)); /* the memory is its owner's */
	assert_int_equal(f->calls.n_open, 1);        /* still watched */
	assert_int_equal(reply_to(f, GPU_OP_LOCK, b, GPU_STATUS_OK), 0);
	add(f, &f->c, GPU_OP_LOCK, 0, NSEC_NEVER);
	calls_forget(&f->calls, &f->c.call); /* one that has ended already */
	run_loop(f);
	assert_int_equal(f->a.done + f->b.done + f->c.done, 0);
	assert_int_equal(f->calls.n_open, 0);
}

static void an_owner_may_do_as_it_likes_in_done(void **state)
{
	struct fixture *f = *state;
	struct error why = { .code = -EIO, .text = "it fell over" };

	add(f, &f->a, GPU_OP_LOCK, 1, NSEC_NEVER);
	add(f, &f->b, GPU_OP_LOCK, 2, NSEC_NEVER);
	add(f, &f->c, GPU_OP_LOCK, 3, NSEC_NEVER);
	(void)send_next(f, &f->a);
	(void)send_next(f, &f->b);
	(void)send_next(f, &f->c);
	f->a.again = f->b.again = &f->calls;
	f->a.forget = &f->c.call; /* a forgets c, b begins anew */
	calls_fail_sent(&f->calls, &why);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->a.call.result, -EIO);
	assert_int_equal(f->a.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(f->a.call.err.text, "process 1: lock"));
	assert_non_null(strstr(f->a.call.err.text, "it fell over"));
	assert_int_equal(f->b.done, 1);
	assert_int_equal(f->c.done, 0);
	assert_ptr_equal(calls_next(&f->calls), &f->b.call);
	assert_int_equal(f->calls.n_open, 1);
}

/* One that fails at once and is tried again at once must not hold up the loop. */
static void trying_again_at_once_does_not_spin(void **state)
{
	struct fixture *f = *state;

	f->a.again = &f->calls;
	add(f, &f->a, GPU_OP_STATE, 0, NSEC_NEVER); /* no process: fails each time */
	assert_int_equal(loop_round(f->loop, 0), 0);
	assert_int_equal(loop_round(f->loop, 0), 0);
	assert_in_range(f->a.done, 1, 2);
}

static void queued_calls_end_at_their_deadline(void **state)
{
	struct fixture *f = *state;
	struct error down = { .code = -ENOENT, .text = "no such program" };

	add(f, &f->a, GPU_OP_STATE, 1, 100);
	add(f, &f->b, GPU_OP_MEMORY, 0, 200);
	assert_int_equal(calls_deadline(&f->calls, true), 100);
	calls_expire_queue(&f->calls, 150, &down);
	run_loop(f);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->a.call.result, -ETIMEDOUT);
	assert_int_equal(f->a.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(f->a.call.err.text, "no such program"));
	assert_int_equal(calls_deadline(&f->calls, false), 200);
	calls_expire_queue(&f->calls, 250, &(struct error){ 0 });
	run_loop(f);
	assert_non_null(strstr(f->b.call.err.text, "memory: no CUDA worker took the call"));
}

static void a_late_call_means_a_hang(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_NULL;

	add(f, &f->a, GPU_OP_LOCK, 1, 100);
	add(f, &f->b, GPU_OP_LOCK, 2, 300);
	(void)send_next(f, &f->a);
	(void)send_next(f, &f->b);
	assert_int_equal(calls_deadline(&f->calls, true), 100);
	assert_int_equal(calls_deadline(&f->calls, false), NSEC_NEVER);
	assert_false(calls_expire_sent(&f->calls, 99, &err));
	assert_true(calls_expire_sent(&f->calls, 100, &err));
	assert_int_equal(err.reason, REASON_TIMEOUT);
	assert_non_null(strstr(err.text, "process 1: cuCheckpointProcessLock did not return"));
	calls_fail_sent(&f->calls, &err);
	assert_int_equal(f->a.call.err.reason, REASON_TIMEOUT);
	assert_int_equal(f->a.call.result, -ETIMEDOUT);
	assert_int_equal(f->b.call.err.reason, REASON_WORKER_FAILED);
	assert_non_null(strstr(f->b.call.err.text, "process 1: cuCheckpointProcessLock did not"));
}

/* A question behind a long save is late, but no sign of a hang: the save must not be killed. */
static void waiting_for_ones_turn_is_no_hang(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_NULL;
	struct gpu_request req;
	uint64_t a, b;

	add(f, &f->a, GPU_OP_CHECKPOINT, 1, 1000);
	add(f, &f->b, GPU_OP_STATE, 1, 100);
	a = send_next(f, &f->a);
	b = send_next(f, &f->b);
	assert_false(calls_expire_sent(&f->calls, 100, &err));
	run_loop(f);
	assert_int_equal(f->b.done, 1);
	assert_int_equal(f->b.call.result, -ETIMEDOUT);
	assert_int_equal(f->b.call.err.reason, REASON_TIMEOUT);
	assert_non_null(strstr(f->b.call.err.text, "behind another call"));
	assert_true(calls_next_cancel(&f->calls, &req));
	assert_int_equal(req.target, b);
	assert_false(calls_expire_sent(&f->calls, 999, &err));
	/* If it is begun after all, and hangs, that is noticed in time. */
	assert_int_equal(reply_to(f, GPU_OP_CHECKPOINT, a, GPU_STATUS_OK), 0);
	assert_false(calls_expire_sent(&f->calls, 1001, &err));
	assert_true(calls_deadline(&f->calls, true) < 2 * NSEC_PER_SEC);
	assert_true(calls_expire_sent(&f->calls, 2 * NSEC_PER_SEC, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(replies_find_their_calls),
		T(a_reply_to_nothing_is_refused),
		T(what_cannot_be_asked_ends_at_once),
		T(there_is_a_limit),
		T(a_queued_call_can_be_canceled),
		T(a_sent_one_is_canceled_by_the_worker),
		T(a_forgotten_call_is_not_told),
		T(an_owner_may_do_as_it_likes_in_done),
		T(trying_again_at_once_does_not_spin),
		T(queued_calls_end_at_their_deadline),
		T(a_late_call_means_a_hang),
		T(waiting_for_ones_turn_is_no_hang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
