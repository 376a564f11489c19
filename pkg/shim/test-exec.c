/* SPDX-License-Identifier: Apache-2.0 */
/* Execs, and the order of exits: those of all execs before that of their init, each once. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "shim/test-rig.h"
#include "tests/clock.h"

static void kill_process(const struct process *p)
{
	assert_true(p->pid > 1);
	assert_int_equal(kill(p->pid, SIGKILL), 0);
}

static struct process *exec_running(struct rig *r, struct container *c, const char *exec_id)
{
	struct process *p;

	assert_int_equal(rig_exec(r, c->id, exec_id, NULL), RPC_OK);
	assert_int_equal(rig_start(r, c->id, exec_id, NULL), RPC_OK);
	p = container_process(c, exec_id, NULL);
	assert_non_null(p);
	return p;
}

static void begin_wait(struct rig *r, struct answer *a, const char *id, const char *exec_id)
{
	Task__WaitRequest req = TASK__WAIT_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	rig_begin(r, a, "Wait", &req.base);
}

static void begin_start(struct rig *r, struct answer *a, const char *id, const char *exec_id)
{
	Task__StartRequest req = TASK__START_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	rig_begin(r, a, "Start", &req.base);
}

static void an_exec_lives_and_dies(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer wait;
	char path[PATH_MAX];

	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", "sh"), TASK__STATUS__CREATED);
	assert_int_equal(rig_kill(r, "web", "sh", SIGKILL), RPC_FAILED_PRECONDITION);
	begin_wait(r, &wait, "web", "sh");
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", "sh"), TASK__STATUS__RUNNING);
	assert_int_equal(c->running_execs, 1);
	assert_int_equal(PATH_PRINTF(path, "%s/sh-process.json", c->path), 0);
	assert_int_not_equal(access(path, F_OK), 0); /* secrets of its environment do not stay */
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_UNKNOWN);
	assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_UNKNOWN);
	assert_int_equal(rig_kill(r, "web", "sh", SIGKILL), RPC_OK);
	UNTIL(r, wait.done);
	assert_int_equal(wait.r, 0);
	assert_int_equal(rig_kill(r, "web", "sh", SIGKILL), RPC_NOT_FOUND);
	assert_int_equal(rig_state(r, "web", "sh"), TASK__STATUS__STOPPED);
	assert_int_equal(c->running_execs, 0);
	assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_simple(r, "State", "web", NULL), RPC_OK); /* the container goes on */
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_NOT_FOUND);
	rig_event(r, 2, "/tasks/exec-added web sh");
	rig_event(r, 3, "/tasks/exec-started web sh");
	rig_event(r, 4, "/tasks/exit web sh 137");
	rig_events_end(r, 5); /* no event tells of its deletion */
	rig_answer_done(&wait);
}

static void an_exit_before_its_start_has_returned_is_told_after_it(void **state)
{
	struct rig *r = *state;

	(void)rig_running(r, "web");
	rig_script(r, "web", "exec", "early 3\n");
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_OK);
	rig_event(r, 2, "/tasks/exec-added web sh");
	rig_event(r, 3, "/tasks/exec-started web sh");
	rig_event(r, 4, "/tasks/exit web sh 3");
	assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_OK);
	rig_events_end(r, 5);
}

/* containerd waits before it starts: whoever waits for an exec that never runs must be let go. */
static void an_exec_that_cannot_be_started_is_waited_for_no_longer(void **state)
{
	static const char *const scripts[] = { "fail no such file\n", "no-pid\n" };
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer wait;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		rig_script(r, "web", "exec", scripts[i]);
		assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
		begin_wait(r, &wait, "web", "sh");
		assert_int_equal(rig_start(r, "web", "sh", &err), RPC_UNKNOWN);
		UNTIL(r, wait.done);
		assert_int_equal(wait.r, 0);
		rig_answer_done(&wait);
		assert_int_equal(c->running_execs, 0);
		assert_true(list_empty(&r->shim.reaper.holds));
		assert_int_equal(rig_start(r, "web", "sh", &err), RPC_UNKNOWN);
		assert_non_null(strstr(err.text, "whose start has failed"));
		begin_wait(r, &wait, "web", "sh"); /* and so is one who asks later */
		UNTIL(r, wait.done);
		assert_int_equal(wait.r, 0);
		rig_answer_done(&wait);
		assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_OK);
	}
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
}

/* A full disk, or an init that has just died: then nothing was counted, so nothing is taken back. */
static void an_exec_that_was_never_begun_holds_no_exit_up(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct error err;
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/sh-process.json", c->path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "sh", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "write the process of exec sh"));
	assert_int_equal(c->running_execs, 0);
	assert_int_equal(rig_calls(r, "web", "exec"), 0);
	kill_process(&c->init);
	rig_event(r, 3, "/tasks/exit web web 137");
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED);
	assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_OK);
}

static void an_exec_may_be_prepared_before_the_container_starts(void **state)
{
	struct rig *r = *state;

	(void)rig_bundle(r, "web", RIG_SPEC("", RIG_OWN_PIDS));
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_delete(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_calls(r, "web", "exec"), 0);
}

static void the_exit_of_the_init_is_told_last(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct process *one = exec_running(r, c, "one"), *two = exec_running(r, c, "two");
	struct answer wait, delete;

	begin_wait(r, &wait, "web", "");
	kill_process(&c->init);
	UNTIL(r, c->init_waits);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	assert_int_equal(wait.done, 0);
	kill_process(two);
	rig_event(r, 6, "/tasks/exit web two 137");
	assert_int_equal(wait.done, 0);
	kill_process(one);
	rig_event(r, 7, "/tasks/exit web one 137");
	rig_event(r, 8, "/tasks/exit web web 137");
	UNTIL(r, wait.done);
	rig_begin_simple(r, &delete, "Delete", "web");
	UNTIL(r, delete.done);
	assert_int_equal(delete.r, 0);
	rig_event(r, 9, "/tasks/delete web 137");
	rig_events_end(r, 10);
	rig_answer_done(&wait);
	rig_answer_done(&delete);
}

/* Clients come and go: execs that nobody deletes must not outlive their container. */
static void a_container_takes_its_execs_with_it(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct process *p = exec_running(r, c, "one");
	struct answer wait;

	kill_process(p);
	UNTIL(r, p->exited_at);
	assert_int_equal(rig_exec(r, "web", "two", NULL), RPC_OK);
	begin_wait(r, &wait, "web", "two");
	kill_process(&c->init);
	UNTIL(r, c->init.exited_at);
	assert_int_equal(wait.done, 0);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	UNTIL(r, wait.done); /* it will never run */
	assert_int_equal(rig_delete(r, "web", "one", NULL), RPC_NOT_FOUND);
	rig_answer_done(&wait);
}

/* While the exec's start is under way the init dies: nothing more may start, all is told. */
static void an_init_that_dies_during_an_exec_waits_for_it(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct process *p;
	struct answer start;

	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_exec(r, "web", "late", NULL), RPC_OK);
	p = container_process(c, "sh", NULL);
	rig_script(r, "web", "exec", "wait\n");
	begin_start(r, &start, "web", "sh");
	UNTIL(r, rig_calls(r, "web", "exec"));
	kill_process(&c->init);
	UNTIL(r, c->init_waits);
	assert_int_equal(rig_start(r, "web", "late", NULL), RPC_FAILED_PRECONDITION);
	rig_go(r, "web", "exec");
	UNTIL(r, start.done);
	assert_int_equal(start.r, 0);
	rig_event(r, 4, "/tasks/exec-started web sh");
	kill_process(p);
	rig_event(r, 5, "/tasks/exit web sh 137");
	rig_event(r, 6, "/tasks/exit web web 137");
	rig_events_end(r, 7);
	rig_answer_done(&start);
}

/* containerd has forgotten the container, and asks once. */
static void a_delete_waits_for_the_exit_of_the_init(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer start, delete;

	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_UNKNOWN);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	rig_script(r, "web", "exec", "wait\nfail container not running\n");
	begin_start(r, &start, "web", "sh");
	UNTIL(r, rig_calls(r, "web", "exec"));
	kill_process(&c->init);
	UNTIL(r, c->init_waits);
	rig_begin_simple(r, &delete, "Delete", "web");
	UNTIL(r, c->init.exit_hook);
	assert_int_equal(rig_calls(r, "web", "delete web"), 0);
	rig_go(r, "web", "exec");
	UNTIL(r, start.done);
	UNTIL(r, delete.done);
	assert_int_equal(delete.r, 0);
	rig_event(r, 3, "/tasks/exit web web 137");
	rig_event(r, 4, "/tasks/delete web 137");
	rig_events_end(r, 5);
	rig_answer_done(&start);
	rig_answer_done(&delete);
}

/* Nobody reads its output, as when containerd was killed and its clients with it. */
static void begin_unread(struct rig *r, struct answer *start, const char *exec_id)
{
	char path[PATH_MAX];
	struct process *p;

	assert_int_equal(rig_exec(r, "web", exec_id, NULL), RPC_OK);
	p = container_process(container_find(&r->shim, "web", NULL), exec_id, NULL);
	assert_int_equal(PATH_PRINTF(path, "%s/%s-out", r->dir, exec_id), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	free(p->io.path[1]);
	p->io.path[1] = strdup(path);
	begin_start(r, start, "web", exec_id);
}

static void the_death_of_the_init_ends_the_wait_for_readers(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer before, after, delete;

	begin_unread(r, &before, "before");
	UNTIL(r, container_process(c, "before", NULL)->io.busy == STDIO_ATTACHING);
	rig_script(r, "web", "exec", "wait\n");
	begin_unread(r, &after, "after");
	UNTIL(r, rig_calls(r, "web", "exec") == 2);
	kill_process(&c->init);
	UNTIL(r, c->init_waits);
	rig_go(r, "web", "exec");
	UNTIL(r, container_process(c, "after", NULL)->io.busy == STDIO_ATTACHING);
	rig_begin_simple(r, &delete, "Delete", "web");
	UNTIL(r, c->init.exit_hook);
	assert_int_equal(before.done + after.done, 0);
	clock_advance(2 * NSEC_PER_SEC);
	UNTIL(r, before.done && after.done && delete.done);
	assert_int_not_equal(before.r, 0);
	assert_int_not_equal(after.r, 0);
	assert_int_equal(delete.r, 0);
	rig_event(r, 4, "/tasks/exit web web 137");
	rig_event(r, 5, "/tasks/delete web 137");
	rig_events_end(r, 6);
	rig_answer_done(&before);
	rig_answer_done(&after);
	rig_answer_done(&delete);
}

static void an_init_that_dies_during_an_exec_that_fails_is_told(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer start;

	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	rig_script(r, "web", "exec", "wait\nfail container not running\n");
	begin_start(r, &start, "web", "sh");
	UNTIL(r, rig_calls(r, "web", "exec"));
	kill_process(&c->init);
	UNTIL(r, c->init_waits);
	rig_go(r, "web", "exec");
	UNTIL(r, start.done);
	assert_int_not_equal(start.r, 0);
	rig_event(r, 3, "/tasks/exit web web 137");
	rig_events_end(r, 4);
	rig_answer_done(&start);
}

/* Without a pid namespace of its own nothing but the runtime ends what an init leaves behind. */
static void the_rest_of_a_container_that_shares_pids_is_killed(void **state)
{
	struct rig *r = *state;
	struct container *c;

	(void)rig_bundle(r, "web", RIG_SPEC("", ""));
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	rig_script(r, "web", "kill", "fail permission denied\n"); /* it is told all the same */
	kill_process(&c->init);
	rig_event(r, 2, "/tasks/exit web web 137");
	assert_int_equal(rig_calls(r, "web", "kill --all web 9"), 1);
}

static void what_the_runtime_says_of_a_kill_is_translated(void **state)
{
	static const struct {
		const char *script;
		enum rpc_code code;
	} cases[] = {
		{ "fail os: process already finished\n", RPC_NOT_FOUND },
		{ "fail container not running\n", RPC_NOT_FOUND },
		{ "fail container does not exist\n", RPC_NOT_FOUND },
		{ "fail no such process\n", RPC_NOT_FOUND },
		{ "fail operation not permitted\n", RPC_UNKNOWN },
		{ "", RPC_OK },
	};
	struct rig *r = *state;

	(void)rig_running(r, "web");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_script(r, "web", "kill", cases[i].script);
		assert_int_equal(rig_kill(r, "web", "", 0), cases[i].code);
	}
}

static void a_kill_that_fails_because_all_is_over_says_so(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	Task__KillRequest req = TASK__KILL_REQUEST__INIT;
	struct answer kill;

	rig_script(r, "web", "kill",
		   "wait\nfail invalid state transition from stopped to paused\n");
	req.id = (char *)"web";
	rig_begin(r, &kill, "Kill", &req.base);
	UNTIL(r, rig_calls(r, "web", "kill"));
	kill_process(&c->init);
	UNTIL(r, c->init.exited_at);
	rig_go(r, "web", "kill");
	UNTIL(r, kill.done);
	assert_int_equal(kill.err.rpc, RPC_NOT_FOUND);
	rig_answer_done(&kill);
}

static void those_who_wait_may_leave(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	Task__WaitRequest req = TASK__WAIT_REQUEST__INIT;
	struct answer late, stays;

	req.id = (char *)"web";
	/* The server notices the deadline, too, and answers before or after the client gives up. */
	rig_begin_until(r, &late, "Wait", &req.base, time_now() + 20 * NSEC_PER_MSEC);
	begin_wait(r, &stays, "web", "");
	UNTIL(r, late.done && list_count(&c->init.waiters) == 1);
	assert_int_equal(late.err.rpc, RPC_DEADLINE_EXCEEDED);
	kill_process(&c->init);
	UNTIL(r, stays.done);
	assert_int_equal(stays.r, 0);
	rig_answer_done(&late);
	rig_answer_done(&stays);
}

static void a_spec_that_is_none_is_refused(void **state)
{
	static const char *const specs[] = { "", "{", "[]", "{\"args\":\"x\"", "null" };
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");

	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		Task__ExecProcessRequest req = TASK__EXEC_PROCESS_REQUEST__INIT;
		Ctd__Any any = CTD__ANY__INIT;
		struct answer a;

		any.value.data = (uint8_t *)specs[i];
		any.value.len = strlen(specs[i]);
		req.id = (char *)"web";
		req.exec_id = (char *)"sh";
		req.spec = i ? &any : NULL;
		if (rig_call(r, &a, "Exec", &req.base) == RPC_OK)
			fail_msg("accepted: %s", specs[i]);
		rig_answer_done(&a);
	}
	assert_true(list_empty(&c->execs));
	rig_events_end(r, 2);
}

static void put_file(const char *root, const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/%s", root, dir), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%s/%s", root, dir, name), 0);
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0600, FILE_PLAIN), 0);
}

/* Somebody has moved itself to where it is, and is gone; the next one has to do it anew. */
static void forewarned(struct rig *r)
{
	char path[PATH_MAX], line[8];

	UNTIL(r, r->shim.forewarn.child.pid == 0);
	assert_int_equal(PATH_PRINTF(path, "%s/shims/cgroup.procs", r->cgroup), 0);
	assert_int_equal(file_read_line(AT_FDCWD, path, line, sizeof(line)), 0);
	assert_string_equal(line, "0");
	put_file(r->cgroup, "shims", "cgroup.procs", "");
}

static void the_kernel_is_forewarned_of_moves(void **state)
{
	struct rig *r = *state;

	put_file(r->proc, "self", "cgroup", "0::/shims\n");
	put_file(r->cgroup, "shims", "cgroup.procs", "");
	(void)rig_running(r, "web"); /* its Create */
	forewarned(r);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	forewarned(r);
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_OK);
	forewarned(r);
	assert_int_equal(rig_kill(r, "web", "sh", SIGKILL), RPC_OK);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_open, rig_close)
		T(an_exec_lives_and_dies),
		T(an_exit_before_its_start_has_returned_is_told_after_it),
		T(an_exec_that_cannot_be_started_is_waited_for_no_longer),
		T(an_exec_that_was_never_begun_holds_no_exit_up),
		T(an_exec_may_be_prepared_before_the_container_starts),
		T(the_exit_of_the_init_is_told_last),
		T(a_container_takes_its_execs_with_it),
		T(an_init_that_dies_during_an_exec_waits_for_it),
		T(a_delete_waits_for_the_exit_of_the_init),
		T(the_death_of_the_init_ends_the_wait_for_readers),
		T(an_init_that_dies_during_an_exec_that_fails_is_told),
		T(the_rest_of_a_container_that_shares_pids_is_killed),
		T(what_the_runtime_says_of_a_kill_is_translated),
		T(a_kill_that_fails_because_all_is_over_says_so),
		T(those_who_wait_may_leave),
		T(a_spec_that_is_none_is_refused),
		T(the_kernel_is_forewarned_of_moves),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
