/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CreateCheckpoint: the operator's call, containerd's call to the shim, and the shim's stream back
 * to us may each end first, or not at all.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/test-rig.h"
#include "base/fd.h"

static void begin_create_for(struct rig *r, struct client_call *c, const char *ref,
			     uint64_t timeout_ms)
{
	Kybernate__Agent__V1__CreateCheckpointRequest req =
		KYBERNATE__AGENT__V1__CREATE_CHECKPOINT_REQUEST__INIT;

	req.containerd_namespace = (char *)RIG_NS;
	req.container_id = (char *)"web";
	req.checkpoint_ref = (char *)ref;
	req.timeout_ms = timeout_ms;
	client_begin(r, c, "CreateCheckpoint", &req.base);
}

static void begin_create(struct rig *r, struct client_call *c, const char *ref)
{
	begin_create_for(r, c, ref, 0);
}

static Kybernate__Agent__V1__Status last_status(const struct client_call *c, char *ref, size_t size)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__OperationUpdate *m = client_message(
		c, &kybernate__agent__v1__operation_update__descriptor, &mem);

	if (ref)
		(void)snprintf(ref, size, "%s", m->checkpoint_ref);
	return m->status;
}

static struct rig_shim *the_shim;

/* containerd hands the call on to the shim, which opens its stream. */
static void to_shim(struct rig *r, const char *what)
{
	if (strcmp(what, "Tasks.Checkpoint") == 0 && the_shim)
		shim_checkpoint(r, the_shim, "web", "my-ref");
}

static void with_shim(struct rig *r, struct rig_shim *s)
{
	*s = (struct rig_shim){ 0 };
	the_shim = s;
	r->on_call = to_shim;
	r->hold = "Tasks.Checkpoint";
}

/* The shim, whose stream has ended, answers containerd, and that us. */
static void containerd_answers(struct rig *r, enum rpc_code code)
{
	assert_non_null(r->held);
	if (code == RPC_OK)
		grpc_call_reply(r->held, bytes_of(NULL, 0));
	else
		grpc_call_finish(r->held, code, "as the test orders", bytes_of(NULL, 0));
}

static void a_checkpoint_is_made(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s;
	char ref[64];

	with_shim(r, &s);
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.call.ended);
	assert_int_equal(s.call.code, RPC_OK);
	assert_string_equal(s.log, "quiesce dump thaw release ");
	assert_int_equal(c.ended, 0);
	containerd_answers(r, RPC_OK);
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	assert_int_equal(last_status(&c, ref, sizeof(ref)),
			 KYBERNATE__AGENT__V1__STATUS__STATUS_OK);
	assert_string_equal(ref, "my-ref");
	assert_true(rig_has(r, "my-ref"));
	rig_is_idle(r);
	client_done(&c);
	shim_done(&s);
}

/* containerd gives the shim more, for undoing; what the caller asked for ends the operation. */
static void a_callers_patience_is_that_of_the_operation(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s;

	with_shim(r, &s);
	s.hold_order = ORDER_DUMP;
	begin_create_for(r, &c, "my-ref", 500);
	UNTIL(r, s.held == ORDER_DUMP);
	UNTIL(r, strstr(s.log, "abort"));
	shim_answer(r, &s, false);
	UNTIL(r, s.call.ended);
	containerd_answers(r, RPC_UNKNOWN);
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "TIMEOUT"));
	assert_false(rig_has(r, "my-ref"));
	rig_is_idle(r);
	client_done(&c);
	shim_done(&s);
}

/* containerd was restarted, or lost patience; the operation is none of its business. */
static void an_operation_outlives_containerds_call(void **state)
{
	static const enum rpc_code codes[] = { RPC_UNAVAILABLE, RPC_DEADLINE_EXCEEDED, RPC_OK };
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		Kybernate__Agent__V1__DeleteCheckpointRequest del =
			KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
		struct client_call c, d;
		struct rig_shim s;

		with_shim(r, &s);
		s.hold_order = ORDER_DUMP;
		begin_create(r, &c, "my-ref");
		UNTIL(r, s.held == ORDER_DUMP);
		containerd_answers(r, codes[i]);
		UNTIL(r, !r->held);
		assert_int_equal(c.ended, 0);
		shim_answer(r, &s, true);
		UNTIL(r, c.ended && s.call.ended);
		assert_int_equal(c.code, RPC_OK);
		assert_true(rig_has(r, "my-ref"));
		rig_is_idle(r);
		del.checkpoint_ref = (char *)"my-ref";
		assert_int_equal(client_run(r, &d, "DeleteCheckpoint", &del.base), RPC_OK);
		assert_false(rig_has(r, "my-ref"));
		client_done(&d);
		client_done(&c);
		shim_done(&s);
	}
}

static void a_failure_of_the_shim_is_told_with_its_reason(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s;

	with_shim(r, &s);
	s.fail_order = ORDER_DUMP;
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.call.ended);
	containerd_answers(r, RPC_UNKNOWN);
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "CRIU_DUMP_FAILED: as the test orders"));
	assert_int_equal(last_status(&c, NULL, 0), KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED);
	assert_string_equal(s.log, "quiesce dump thaw ");
	assert_false(rig_has(r, "my-ref"));
	rig_is_idle(r);
	client_done(&c);
	shim_done(&s);
}

/* The file that the text names: its content is that one. */
static void log_is_kept(const char *told, const char *text)
{
	_cleanup_buf_ struct buf kept = BUF_LIMIT(4096);
	const char *at = strstr(told, "; CRIU's log: ");
	char path[PATH_MAX];

	assert_non_null(at);
	assert_int_equal(sscanf(at, "; CRIU's log: %4000s", path), 1);
	assert_int_equal(file_read(AT_FDCWD, path, &kept), 0);
	assert_string_equal(buf_str(&kept), text);
}

/* Its folder goes with the unfinished checkpoint, or with the bundle. */
static void criu_s_log_is_kept(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__OperationUpdate *m;
	struct rig *r = *state;
	char path[PATH_MAX];
	struct client_call c;
	struct rig_shim s;

	with_shim(r, &s);
	assert_int_equal(PATH_PRINTF(path, "%s/dump.log", r->dir), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "Error: no\n", 10, 0600, FILE_PLAIN), 0);
	s.fail_order = ORDER_DUMP;
	s.detail = (char *)"Error: no";
	s.log_path = path;
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.call.ended);
	containerd_answers(r, RPC_UNKNOWN);
	UNTIL(r, c.ended);
	log_is_kept(c.text, "Error: no\n");
	log_is_kept(s.call.text, "Error: no\n");
	m = client_message(&c, &kybernate__agent__v1__operation_update__descriptor, &mem);
	assert_int_equal(m->error->n_detail, 1);
	assert_string_equal(m->error->detail[0], "Error: no");
	rig_is_idle(r);
	client_done(&c);
	shim_done(&s);
}

static void a_caller_who_leaves_ends_it(void **state)
{
	static const enum order orders[] = { ORDER_QUIESCE, ORDER_DUMP };
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		struct client_call c;
		struct rig_shim s;

		with_shim(r, &s);
		s.hold_order = orders[i];
		begin_create(r, &c, "my-ref");
		UNTIL(r, s.held == orders[i]);
		client_done(&c);
		/* What is under way at the shim is not torn off; a dump is asked to end. */
		for (int k = 0; k < 20; k++)
			assert_int_equal(loop_round(r->agent.loop, time_now() + NSEC_PER_MSEC), 0);
		assert_int_equal(s.call.ended, 0);
		assert_int_equal(strstr(s.log, "abort") != NULL, orders[i] == ORDER_DUMP);
		shim_answer(r, &s, true);
		UNTIL(r, s.call.ended);
		assert_non_null(strstr(s.call.text, "CANCELED"));
		containerd_answers(r, RPC_UNKNOWN);
		UNTIL(r, list_empty(&r->agent.creations));
		assert_false(rig_has(r, "my-ref"));
		rig_is_idle(r);
		shim_done(&s);
	}
}

static void a_caller_who_leaves_before_the_shim_comes(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s = { 0 };

	r->hold = "Tasks.Checkpoint";
	begin_create(r, &c, "my-ref");
	UNTIL(r, r->held);
	client_done(&c);
	UNTIL(r, list_empty(&r->agent.creations) && !r->held); /* containerd is told */
	/* A shim that comes now is told that nobody waits. */
	shim_checkpoint(r, &s, "web", "my-ref");
	UNTIL(r, s.call.ended);
	assert_non_null(strstr(s.call.text, "CANCELED"));
	assert_int_equal(s.orders, 0);
	rig_is_idle(r);
	shim_done(&s);
}

static void a_shim_that_dies_is_told(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s;

	with_shim(r, &s);
	s.hold_order = ORDER_DUMP;
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.held == ORDER_DUMP);
	shim_done(&s);
	UNTIL(r, list_empty(&r->agent.node.operations));
	containerd_answers(r, RPC_UNAVAILABLE);
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "SHIM_GONE"));
	assert_false(rig_has(r, "my-ref"));
	rig_is_idle(r);
	client_done(&c);
}

static void what_containerd_refuses_is_told(void **state)
{
	static const struct {
		const char *call;
		enum rpc_code code;
		const char *text;
	} cases[] = {
		{ "Containers.Get", RPC_NOT_FOUND, "CONTAINER_MISSING: there is no running" },
		{ "Containers.Get", RPC_INTERNAL, "refused by the test" },
		{ "Tasks.Get", RPC_NOT_FOUND, "CONTAINER_MISSING: there is no running" },
		{ "Tasks.Get", RPC_UNAVAILABLE, "refused by the test" },
		{ "Snapshots.Stat", RPC_NOT_FOUND, "refused by the test" },
		{ "Tasks.Checkpoint", RPC_UNKNOWN, "refused by the test" },
	};
	struct rig *r = *state;

	r->snapshot_key = "web";
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client_call c;

		r->refuse = cases[i].call;
		r->refuse_code = cases[i].code;
		begin_create(r, &c, "my-ref");
		UNTIL(r, c.ended);
		if (c.code == RPC_OK || !strstr(c.text, cases[i].text))
			fail_msg("%s: %s", cases[i].call, c.text);
		assert_int_equal(last_status(&c, NULL, 0),
				 KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED);
		client_done(&c);
	}
	rig_is_idle(r);
}

static void a_container_that_does_not_run_is_refused(void **state)
{
	static const int states[] = { 0, 1, 3, 5 }; /* unknown, created, stopped, pausing */
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct client_call c;

		r->task_status = states[i];
		begin_create(r, &c, "my-ref");
		UNTIL(r, c.ended);
		assert_non_null(strstr(c.text, "CONTAINER_MISSING"));
		client_done(&c);
	}
	assert_int_equal(rig_asked(r, "Tasks.Checkpoint"), 0);
}

/* containerd's own shim takes the call, and nobody comes to us. */
static void a_foreign_shim_is_noticed(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	begin_create(r, &c, "my-ref");
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "does not run under kybernate's shim"));
	rig_is_idle(r);
	client_done(&c);
}

static void two_checkpoints_of_one_container_are_one_too_many(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s, other = { 0 };

	with_shim(r, &s);
	s.hold_order = ORDER_QUIESCE;
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.held);
	shim_checkpoint(r, &other, "web", "");
	UNTIL(r, other.call.ended);
	assert_non_null(strstr(other.call.text, "BUSY"));
	shim_answer(r, &s, true);
	UNTIL(r, s.call.ended);
	assert_int_equal(s.call.code, RPC_OK);
	containerd_answers(r, RPC_OK);
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	client_done(&c);
	shim_done(&s);
	shim_done(&other);
}

static void a_ref_that_exists_is_refused(void **state)
{
	struct rig *r = *state;
	struct client_call c;
	struct rig_shim s;

	rig_checkpoint(r, "my-ref", true);
	with_shim(r, &s);
	begin_create(r, &c, "my-ref");
	UNTIL(r, s.call.ended);
	assert_int_equal(s.orders, 0); /* nothing was touched */
	containerd_answers(r, RPC_UNKNOWN);
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "REF_EXISTS"));
	assert_true(rig_has(r, "my-ref"));
	client_done(&c);
	shim_done(&s);
}

/* Nothing is on record: refused, and whatever its container was in the middle of is taken back. */
static void a_shim_that_comes_back_for_nothing(void **state)
{
	struct rig *r = *state;
	struct rig_shim s = { 0 };

	shim_return(r, &s, "c1");
	UNTIL(r, s.call.ended);
	assert_int_not_equal(s.call.code, RPC_OK);
	assert_non_null(strstr(s.call.text, "AGENT_UNAVAILABLE"));
	assert_int_equal(s.orders, 0);
	assert_non_null(operation_find(&r->agent.node, RIG_NS, "c1"));
	shim_done(&s);
	UNTIL(r, !operation_find(&r->agent.node, RIG_NS, "c1"));
	rig_is_idle(r);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_open, rig_close)
		T(a_checkpoint_is_made),
		T(a_callers_patience_is_that_of_the_operation),
		T(an_operation_outlives_containerds_call),
		T(a_failure_of_the_shim_is_told_with_its_reason),
		T(criu_s_log_is_kept),
		T(a_caller_who_leaves_ends_it),
		T(a_caller_who_leaves_before_the_shim_comes),
		T(a_shim_that_dies_is_told),
		T(what_containerd_refuses_is_told),
		T(a_container_that_does_not_run_is_refused),
		T(a_foreign_shim_is_noticed),
		T(two_checkpoints_of_one_container_are_one_too_many),
		T(a_ref_that_exists_is_refused),
		T(a_shim_that_comes_back_for_nothing),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
