/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RestoreContainer: what is made at containerd, what is removed again when something fails, and
 * what must not be removed because it runs.
 */
#include <stdio.h>
#include <string.h>

#include "agent/test-rig.h"

static void begin_restore(struct rig *r, struct client_call *c, const char *id, const char *ref)
{
	Kybernate__Agent__V1__RestoreContainerRequest req =
		KYBERNATE__AGENT__V1__RESTORE_CONTAINER_REQUEST__INIT;

	req.containerd_namespace = (char *)RIG_NS;
	req.container_id = (char *)id;
	req.checkpoint_ref = (char *)ref;
	client_begin(r, c, "RestoreContainer", &req.base);
}

/* The shim of the new container: PREPARE comes with Create, RESTORE with Start. */
static struct rig_shim prepare, restore;

static void to_shim(struct rig *r, const char *what)
{
	if (strcmp(what, "Tasks.Create") == 0)
		shim_restore(r, &prepare, "new", "my-ref", true);
	if (strcmp(what, "Tasks.Start") == 0)
		shim_restore(r, &restore, "new", "my-ref", false);
}

static void with_shim(struct rig *r)
{
	prepare = restore = (struct rig_shim){ 0 };
	r->on_call = to_shim;
}

static void shims_done(void)
{
	shim_done(&prepare);
	shim_done(&restore);
}

/* Up to Start, which containerd does not answer yet. */
static void until_started(struct rig *r, struct client_call *c)
{
	r->hold = "Tasks.Create";
	begin_restore(r, c, "new", "my-ref");
	UNTIL(r, prepare.call.ended);
	assert_int_equal(prepare.call.code, RPC_OK);
	r->hold = "Tasks.Start";
	grpc_call_reply(r->held, bytes_of(NULL, 0));
}

/* What containerd was asked, in order, from the n-th call on. */
static void asked(const struct rig *r, unsigned int n, const char *want)
{
	char all[1024] = "";

	for (unsigned int i = n; i < r->n_asked; i++) {
		size_t at = strlen(all);

		(void)snprintf(all + at, sizeof(all) - at, "%s%s", at ? " " : "", r->asked[i]);
	}
	assert_string_equal(all, want);
}

static void a_container_is_restored(void **state)
{
	struct rig *r = *state;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__OperationUpdate *m;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	with_shim(r);
	until_started(r, &c);
	UNTIL(r, restore.call.ended);
	assert_int_equal(restore.call.code, RPC_OK);
	assert_string_equal(restore.log, "restore ");
	grpc_call_reply(r->held, bytes_of(NULL, 0));
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	m = client_message(&c, &kybernate__agent__v1__operation_update__descriptor, &mem);
	assert_int_equal(m->status, KYBERNATE__AGENT__V1__STATUS__STATUS_OK);
	assert_string_equal(m->container_id, "new");
	asked(r, 0, "Leases.Create Snapshots.Prepare Containers.Create Tasks.Create Tasks.Start "
		    "Leases.Delete");
	rig_is_idle(r);
	client_done(&c);
	shims_done();
}

/* Every call that containerd can refuse, and what is then removed again. */
static void what_fails_is_taken_back(void **state)
{
	static const struct {
		const char *call;
		enum rpc_code code;
		const char *undone;
	} cases[] = {
		{ "Leases.Create", RPC_UNAVAILABLE, "Leases.Delete" },
		{ "Snapshots.Prepare", RPC_ALREADY_EXISTS, "Leases.Delete" },
		{ "Containers.Create", RPC_ALREADY_EXISTS, "Snapshots.Remove Leases.Delete" },
		{ "Tasks.Create", RPC_UNKNOWN,
		  "Containers.Delete Snapshots.Remove Leases.Delete" },
		{ "Tasks.Create", RPC_DEADLINE_EXCEEDED,
		  "Tasks.Delete Containers.Delete Snapshots.Remove Leases.Delete" },
		{ "Tasks.Start", RPC_UNKNOWN,
		  "Tasks.Delete Containers.Delete Snapshots.Remove Leases.Delete" },
	};
	struct rig *r = *state;

	rig_checkpoint(r, "my-ref", true);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client_call c;
		unsigned int n = 0;

		r->n_asked = 0;
		r->refuse = cases[i].call;
		r->refuse_code = cases[i].code;
		begin_restore(r, &c, "new", "my-ref");
		UNTIL(r, c.ended);
		assert_int_not_equal(c.code, RPC_OK);
		assert_non_null(strstr(c.text, "refused by the test"));
		while (strcmp(r->asked[n], cases[i].call) != 0)
			n++;
		asked(r, n + 1, cases[i].undone);
		client_done(&c);
	}
	assert_true(rig_has(r, "my-ref"));
}

/* It runs: a lease that cannot be dropped, or a caller who leaves, is no reason to end it. */
static void what_runs_is_left_running(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	r->refuse = "Leases.Delete";
	r->refuse_code = RPC_UNAVAILABLE;
	begin_restore(r, &c, "new", "my-ref");
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	assert_int_equal(rig_asked(r, "Tasks.Delete") + rig_asked(r, "Containers.Delete") +
				 rig_asked(r, "Snapshots.Remove"), 0);
	client_done(&c);

	r->refuse = NULL;
	r->hold = "Tasks.Start";
	begin_restore(r, &c, "other", "my-ref");
	UNTIL(r, r->held);
	client_done(&c);
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_round(r->agent.loop, time_now() + NSEC_PER_MSEC), 0);
	grpc_call_reply(r->held, bytes_of(NULL, 0));
	UNTIL(r, list_empty(&r->agent.rebirths));
	assert_int_equal(rig_asked(r, "Tasks.Delete") + rig_asked(r, "Containers.Delete") +
				 rig_asked(r, "Snapshots.Remove"), 0);
}

/* Nobody knows what became of the task: its files must stay where they are. */
static void nothing_is_removed_from_under_a_task(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	r->hold = "Tasks.Start";
	r->refuse = "Tasks.Delete";
	r->refuse_code = RPC_FAILED_PRECONDITION; /* "cannot delete a running process" */
	begin_restore(r, &c, "new", "my-ref");
	UNTIL(r, r->held);
	grpc_call_finish(r->held, RPC_DEADLINE_EXCEEDED, "too late", bytes_of(NULL, 0));
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "too late"));
	assert_int_equal(rig_asked(r, "Tasks.Delete"), 1);
	assert_int_equal(rig_asked(r, "Containers.Delete") + rig_asked(r, "Snapshots.Remove"), 0);
	client_done(&c);
}

/* containerd gives up, and the shim's stream goes on for a while. */
static void a_stream_outlives_the_call(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	with_shim(r);
	restore.hold_order = ORDER_RESTORE;
	until_started(r, &c);
	UNTIL(r, restore.held == ORDER_RESTORE);
	grpc_call_finish(r->held, RPC_DEADLINE_EXCEEDED, "too late", bytes_of(NULL, 0));
	UNTIL(r, c.ended && list_empty(&r->agent.rebirths));
	shim_answer(r, &restore, true);
	UNTIL(r, restore.call.ended);
	client_done(&c);
	shims_done();
}

static void the_shims_reason_is_told(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	with_shim(r);
	restore.fail_order = ORDER_RESTORE;
	until_started(r, &c);
	UNTIL(r, restore.call.ended);
	assert_int_not_equal(restore.call.code, RPC_OK);
	grpc_call_finish(r->held, RPC_UNKNOWN, "in containerd's words", bytes_of(NULL, 0));
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "as the test orders"));
	client_done(&c);
	shims_done();
}

static void what_cannot_be_restored_touches_nothing(void **state)
{
	struct rig *r = *state;
	struct client_call c;

	begin_restore(r, &c, "new", "my-ref");
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "IMAGE_MISSING"));
	client_done(&c);
	rig_checkpoint(r, "my-ref", false);
	begin_restore(r, &c, "new", "my-ref");
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "IMAGE_CORRUPT: checkpoint my-ref has no record"));
	client_done(&c);
	assert_int_equal(r->n_asked, 0);
}

/* Without a name the old one is taken, if it is free: here Containers.Get always finds one. */
static void a_name_is_looked_for(void **state)
{
	struct rig *r = *state;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__OperationUpdate *m;
	struct client_call c;

	rig_checkpoint(r, "my-ref", true);
	begin_restore(r, &c, "", "my-ref");
	UNTIL(r, c.ended);
	assert_non_null(strstr(c.text, "found no id that is free"));
	client_done(&c);
	r->refuse = "Containers.Get";
	r->refuse_code = RPC_NOT_FOUND;
	begin_restore(r, &c, "", "my-ref");
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	m = client_message(&c, &kybernate__agent__v1__operation_update__descriptor, &mem);
	assert_string_equal(m->container_id, "web");
	client_done(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_open, rig_close)
		T(a_container_is_restored),
		T(what_fails_is_taken_back),
		T(what_runs_is_left_running),
		T(nothing_is_removed_from_under_a_task),
		T(a_stream_outlives_the_call),
		T(the_shims_reason_is_told),
		T(what_cannot_be_restored_touches_nothing),
		T(a_name_is_looked_for),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
