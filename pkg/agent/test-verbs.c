/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every method of the agent against requests that are not what they should be; and the verbs that
 * only look at the store, or delete from it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/test-rig.h"
#include "base/cleanup.h"
#include "base/fd.h"

static char huge[200000];

static const char *const bad_names[] = { ".", "..", "/", "a/b", "../a", "/etc", "a..b", "-a", "a-",
					 "a b", "a\nb", "\xc3\xa4", ".new-x", "a\\b", huge };

/* Refused, with this code or any, with these words, and nothing was done. */
static void refused(struct rig *r, const char *method, const ProtobufCMessage *req,
		    const char *text)
{
	struct client_call c;

	r->n_asked = 0;
	if (client_run(r, &c, method, req) == RPC_OK)
		fail_msg("%s was not refused", method);
	if (!strstr(c.text, text))
		fail_msg("%s: %s", method, c.text);
	assert_int_equal(r->n_asked, 0);
	client_done(&c);
	rig_is_idle(r);
	assert_true(list_empty(&r->agent.creations) && list_empty(&r->agent.rebirths) &&
		    list_empty(&r->agent.switchings));
}

static void names_that_are_none(void **state)
{
	struct rig *r = *state;

	memset(huge, 'a', sizeof(huge) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++) {
		Kybernate__Agent__V1__CreateCheckpointRequest create =
			KYBERNATE__AGENT__V1__CREATE_CHECKPOINT_REQUEST__INIT;
		Kybernate__Agent__V1__RestoreContainerRequest restore =
			KYBERNATE__AGENT__V1__RESTORE_CONTAINER_REQUEST__INIT;
		Kybernate__Agent__V1__SuspendContainerRequest suspend =
			KYBERNATE__AGENT__V1__SUSPEND_CONTAINER_REQUEST__INIT;
		Kybernate__Agent__V1__ResumeContainerRequest resume =
			KYBERNATE__AGENT__V1__RESUME_CONTAINER_REQUEST__INIT;
		char *bad = (char *)bad_names[i];

		create.container_id = bad;
		refused(r, "CreateCheckpoint", &create.base, "is no container");
		create.container_id = (char *)"web";
		create.containerd_namespace = bad;
		refused(r, "CreateCheckpoint", &create.base, "is no container");
		restore.checkpoint_ref = (char *)"my-ref";
		restore.container_id = bad;
		refused(r, "RestoreContainer", &restore.base, "is no name");
		restore.container_id = (char *)"web";
		restore.containerd_namespace = bad;
		refused(r, "RestoreContainer", &restore.base, "is no name");
		suspend.container_id = resume.container_id = bad;
		refused(r, "SuspendContainer", &suspend.base, "is no container");
		refused(r, "ResumeContainer", &resume.base, "is no container");
	}
}

static void refs_that_are_none(void **state)
{
	static const char *const bad[] = { ".", "..", "/", "a/b", "../a", "/etc/passwd", ".new-a",
					   "-a", "a b", "a\nb", "\xc3\xa4", huge };
	struct rig *r = *state;

	memset(huge, 'a', sizeof(huge) - 1);
	for (size_t i = 0; i <= ARRAY_SIZE(bad); i++) {
		Kybernate__Agent__V1__CreateCheckpointRequest create =
			KYBERNATE__AGENT__V1__CREATE_CHECKPOINT_REQUEST__INIT;
		Kybernate__Agent__V1__RestoreContainerRequest restore =
			KYBERNATE__AGENT__V1__RESTORE_CONTAINER_REQUEST__INIT;
		Kybernate__Agent__V1__GetCheckpointRequest get =
			KYBERNATE__AGENT__V1__GET_CHECKPOINT_REQUEST__INIT;
		Kybernate__Agent__V1__DeleteCheckpointRequest del =
			KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
		char *ref = (char *)(i < ARRAY_SIZE(bad) ? bad[i] : "");

		create.container_id = restore.container_id = (char *)"web";
		create.checkpoint_ref = restore.checkpoint_ref = get.checkpoint_ref =
			del.checkpoint_ref = ref;
		if (*ref) /* else the agent makes one up */
			refused(r, "CreateCheckpoint", &create.base, "REF_INVALID");
		refused(r, "RestoreContainer", &restore.base, "REF_INVALID");
		refused(r, "GetCheckpoint", &get.base, "REF_INVALID");
		refused(r, "DeleteCheckpoint", &del.base, "REF_INVALID");
	}
}

static void first_requests_of_streams(void **state)
{
	struct rig *r = *state;
	Kybernate__Agent__V1__CheckpointRequest ck = KYBERNATE__AGENT__V1__CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__CheckpointOptions o = KYBERNATE__AGENT__V1__CHECKPOINT_OPTIONS__INIT;
	Kybernate__Agent__V1__RestoreRequest rs = KYBERNATE__AGENT__V1__RESTORE_REQUEST__INIT;
	Kybernate__Agent__V1__SuspendRequest su = KYBERNATE__AGENT__V1__SUSPEND_REQUEST__INIT;
	Kybernate__Agent__V1__Context x = KYBERNATE__AGENT__V1__CONTEXT__INIT;

	ck.container_id = rs.container_id = su.container_id = (char *)"web";
	refused(r, "Checkpoint", &ck.base, "carries the context");
	refused(r, "Restore", &rs.base, "carries the context");
	refused(r, "Suspend", &su.base, "carries the context");
	ck.context = rs.context = su.context = &x;
	refused(r, "Checkpoint", &ck.base, "carries options");
	ck.options = &o;
	refused(r, "Checkpoint", &ck.base, "is no containerd namespace");
	refused(r, "Restore", &rs.base, "is no containerd namespace");
	refused(r, "Suspend", &su.base, "is no containerd namespace");
	x.containerd_namespace = (char *)RIG_NS;
	refused(r, "Checkpoint", &ck.base, "has no process");
	x.task_pid = 4711;
	refused(r, "Checkpoint", &ck.base, "is not an absolute path");
	refused(r, "Restore", &rs.base, "is not an absolute path");
	o.checkpoint_ref = rs.checkpoint_ref = (char *)"../x";
	refused(r, "Checkpoint", &ck.base, "REF_INVALID");
	refused(r, "Restore", &rs.base, "REF_INVALID");
	o.checkpoint_ref = (char *)"made-up";
	refused(r, "Checkpoint", &ck.base, "nobody waits for a checkpoint");
	ck.container_id = rs.container_id = su.container_id = (char *)"a/b";
	refused(r, "Checkpoint", &ck.base, "is no container id");
	refused(r, "Restore", &rs.base, "is no container id");
	refused(r, "Suspend", &su.base, "is no container id");
}

/* "A context for ever" in a client's library may be 2^64 - 1 ms: no reason to be hasty. */
static void a_huge_timeout_is_the_agents_own(void **state)
{
	struct rig *r = *state;
	Kybernate__Agent__V1__CreateCheckpointRequest req =
		KYBERNATE__AGENT__V1__CREATE_CHECKPOINT_REQUEST__INIT;
	struct client_call c;

	req.container_id = (char *)"web";
	req.timeout_ms = UINT64_MAX / NSEC_PER_MSEC + 2;
	(void)client_run(r, &c, "CreateCheckpoint", &req.base);
	assert_non_null(strstr(c.text, "does not run under kybernate's shim")); /* so far it came */
	client_done(&c);
}

static void checkpoints_are_listed_shown_and_deleted(void **state)
{
	struct rig *r = *state;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	Kybernate__Agent__V1__ListCheckpointsRequest list =
		KYBERNATE__AGENT__V1__LIST_CHECKPOINTS_REQUEST__INIT;
	Kybernate__Agent__V1__GetCheckpointRequest get =
		KYBERNATE__AGENT__V1__GET_CHECKPOINT_REQUEST__INIT;
	Kybernate__Agent__V1__DeleteCheckpointRequest del =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
	const Kybernate__Agent__V1__ListCheckpointsReply *all;
	const Kybernate__Agent__V1__GetCheckpointReply *one;
	struct client_call c;

	rig_checkpoint(r, "one", true);
	rig_checkpoint(r, "two", false);
	assert_int_equal(client_run(r, &c, "ListCheckpoints", &list.base), RPC_OK);
	all = client_message(&c, &kybernate__agent__v1__list_checkpoints_reply__descriptor, &mem);
	assert_int_equal(all->n_checkpoints, 2);
	client_done(&c);
	get.checkpoint_ref = del.checkpoint_ref = (char *)"one";
	for (int verify = 0; verify < 2; verify++) {
		get.verify = verify;
		assert_int_equal(client_run(r, &c, "GetCheckpoint", &get.base), RPC_OK);
		one = client_message(&c, &kybernate__agent__v1__get_checkpoint_reply__descriptor,
				     &mem);
		assert_string_equal(one->checkpoint->checkpoint_ref, "one");
		assert_string_equal(one->checkpoint->container_id, "web");
		assert_int_equal(one->verified, verify);
		assert_true(one->n_files >= 4);
		assert_non_null(strstr(one->metadata_json, "\"web\""));
		client_done(&c);
	}
	assert_int_equal(client_run(r, &c, "DeleteCheckpoint", &del.base), RPC_OK);
	client_done(&c);
	refused(r, "DeleteCheckpoint", &del.base, "IMAGE_MISSING");
	refused(r, "GetCheckpoint", &get.base, "IMAGE_MISSING");
	assert_true(rig_has(r, "two"));
}

static int count_trash(const struct rig *r)
{
	_cleanup_closedir_ DIR *dir = opendir(r->store);
	struct dirent *e;
	int n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += strncmp(e->d_name, ".del-", 5) == 0;
	return n;
}

static bool room_pending(const struct client_call *c)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__DeleteCheckpointReply *m = client_message(
		c, &kybernate__agent__v1__delete_checkpoint_reply__descriptor, &mem);

	assert_non_null(m);
	return m->room_pending;
}

static void a_deletion_ends_when_the_room_is_free(void **state)
{
	static const char *const refs[] = { "one", "two", "three" };
	Kybernate__Agent__V1__DeleteCheckpointRequest del =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
	struct client_call c[ARRAY_SIZE(refs)];
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		rig_checkpoint(r, refs[i], false);
	/* At once, so that a sweep is under way when the next one comes. */
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		del.checkpoint_ref = (char *)refs[i];
		client_begin(r, &c[i], "DeleteCheckpoint", &del.base);
	}
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		UNTIL(r, c[i].ended);
		assert_int_equal(c[i].code, RPC_OK);
		assert_false(room_pending(&c[i]));
		assert_int_equal(count_trash(r), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		client_done(&c[i]);
	assert_true(list_empty(&r->agent.deletions));
}

/* Gone all the same, and that is what counts most. */
static void room_that_does_not_come_is_told(void **state)
{
	Kybernate__Agent__V1__DeleteCheckpointRequest del =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
	struct error err = { .code = -EIO, .text = "as the test orders" };
	struct rig *r = *state;
	struct client_call c;

	rig_checkpoint(r, "one", false);
	rig_checkpoint(r, "two", false);
	del.checkpoint_ref = (char *)"one";
	client_begin(r, &c, "DeleteCheckpoint", &del.base);
	UNTIL(r, !list_empty(&r->agent.deletions));
	deletions_swept(&r->agent, 0, err.code, &err);
	UNTIL(r, c.ended);
	assert_int_equal(c.code, RPC_OK);
	assert_true(room_pending(&c));
	assert_false(rig_has(r, "one"));
	client_done(&c);
	/* who leaves before is not missed */
	UNTIL(r, !store_sweeping(r->agent.store));
	del.checkpoint_ref = (char *)"two";
	client_begin(r, &c, "DeleteCheckpoint", &del.base);
	UNTIL(r, !list_empty(&r->agent.deletions));
	client_done(&c);
	UNTIL(r, list_empty(&r->agent.deletions) && !store_sweeping(r->agent.store));
	assert_false(rig_has(r, "two"));
}

/* A worker of the store that never ends. */
static void sweeps_hang(struct rig *r, char path[128])
{
	static const char script[] = "#!/bin/sh\nexec sleep 120\n";

	(void)snprintf(path, 128, "%s/hangs", r->dir);
	assert_int_equal(file_write(AT_FDCWD, path, script, sizeof(script) - 1, 0700, FILE_PLAIN),
			 0);
	r->agent.bulk.program = path;
}

/* A time-out would say nothing of whether the checkpoint is gone. */
static void a_deletion_is_answered_before_its_callers_deadline(void **state)
{
	static const nsec_t times[] = { NSEC_PER_SEC, 5 * NSEC_PER_SEC };
	static const char *const refs[] = { "one", "two" };
	Kybernate__Agent__V1__DeleteCheckpointRequest del =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
	struct rig *r = *state;
	struct client_call c;
	char program[128];

	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		rig_checkpoint(r, refs[i], false);
	sweeps_hang(r, program);
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		nsec_t begun = time_now();

		del.checkpoint_ref = (char *)refs[i];
		client_begin_by(r, &c, "DeleteCheckpoint", &del.base, time_add(begun, times[i]));
		UNTIL(r, c.ended);
		assert_int_equal(c.code, RPC_OK);
		assert_true(room_pending(&c));
		/* Most of the time was used to wait for the room. */
		assert_true(time_now() - begun >= times[i] / 3);
		assert_false(rig_has(r, refs[i]));
		client_done(&c);
	}
	assert_int_equal(count_trash(r), 2);
	assert_true(list_empty(&r->agent.deletions));
}

static void status_and_doctor_answer_without_a_driver(void **state)
{
	struct rig *r = *state;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	Kybernate__Agent__V1__StatusRequest req = KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;
	const Kybernate__Agent__V1__StatusReply *m;
	struct client_call c;

	assert_int_equal(client_run(r, &c, "Status", &req.base), RPC_OK);
	m = client_message(&c, &kybernate__agent__v1__status_reply__descriptor, &mem);
	assert_false(m->driver_ok);
	assert_non_null(m->driver_error);
	assert_string_equal(m->store_path, r->store);
	assert_int_equal(m->n_operations, 0);
	client_done(&c);
}

static uint64_t status_free(struct rig *r)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	Kybernate__Agent__V1__StatusRequest req = KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;
	const Kybernate__Agent__V1__StatusReply *m;
	struct client_call c;
	uint64_t bytes;

	assert_int_equal(client_run(r, &c, "Status", &req.base), RPC_OK);
	m = client_message(&c, &kybernate__agent__v1__status_reply__descriptor, &mem);
	bytes = m->store_free_bytes;
	client_done(&c);
	return bytes;
}

/* A probe asks every few seconds, and the store may hold a million files. */
static void status_does_not_count_files(void **state)
{
	struct rig *r = *state;
	char path[128], text[8192] = { 0 };
	struct store_space space;
	uint64_t before;

	assert_int_equal(store_set_limit(r->agent.store, 1 << 20, NULL), 0);
	before = status_free(r);
	assert_true(before > 0 && before <= 1 << 20);
	assert_int_equal(PATH_PRINTF(path, "%s/foreign", r->store), 0);
	assert_int_equal(file_write(AT_FDCWD, path, text, sizeof(text), 0600, FILE_SYNC), 0);
	assert_int_equal(status_free(r), before);
	assert_int_equal(store_space(r->agent.store, &space, NULL), 0);
	assert_true(space.free_bytes < before);
	assert_int_equal(status_free(r), space.free_bytes);
}

static void garbage_is_an_invalid_argument(void **state)
{
	static const char *const methods[] = { "Checkpoint", "Restore", "Suspend",
					       "CreateCheckpoint", "RestoreContainer",
					       "SuspendContainer", "ResumeContainer",
					       "GetCheckpoint", "DeleteCheckpoint" };
	static uint8_t half[] = { 0x0a, 0x7f }; /* a string that is longer than the message */
	ProtobufCMessageUnknownField field = { .tag = 1,
					       .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
					       .len = 1,
					       .data = half + 1 };
	struct rig *r = *state;

	/* An empty message with one field of the wrong length, as it is on the wire. */
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		Kybernate__Agent__V1__StatusRequest req =
			KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;

		req.base.n_unknown_fields = 1;
		req.base.unknown_fields = &field;
		refused(r, methods[i], &req.base, "cannot be decoded");
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_open, rig_close)
		T(names_that_are_none),
		T(refs_that_are_none),
		T(first_requests_of_streams),
		T(a_huge_timeout_is_the_agents_own),
		T(checkpoints_are_listed_shown_and_deleted),
		T(a_deletion_ends_when_the_room_is_free),
		T(room_that_does_not_come_is_told),
		T(a_deletion_is_answered_before_its_callers_deadline),
		T(status_and_doctor_answer_without_a_driver),
		T(status_does_not_count_files),
		T(garbage_is_an_invalid_argument),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
