/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Task service, call by call: what is allowed when, what is told to whom in which order, and
 * what is left of a container when the OCI runtime fails, hangs, or comes too late.
 */
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

#define PLAIN RIG_SPEC("", RIG_OWN_PIDS)

static void kill_init(const struct container *c)
{
	assert_true(c->init.pid > 1);
	assert_int_equal(kill(c->init.pid, SIGKILL), 0);
}

static void begin_wait(struct rig *r, struct answer *a, const char *id, const char *exec_id)
{
	Task__WaitRequest req = TASK__WAIT_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	rig_begin(r, a, "Wait", &req.base);
}

static void end_wait(struct rig *r, struct answer *a, unsigned int status, bool exited)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
	const Task__WaitResponse *m;

	UNTIL(r, a->done);
	m = rig_message(a, &task__wait_response__descriptor, &mem);
	assert_int_equal(m->exit_status, status);
	assert_non_null(m->exited_at);
	assert_int_equal(m->exited_at->seconds > 0, exited);
	rig_answer_done(a);
}

/* --- a life --------------------------------------------------------------------------------- */

static void a_container_lives_and_dies(void **state)
{
	struct rig *r = *state;
	struct answer wait;

	(void)rig_bundle(r, "web", PLAIN);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__CREATED);
	begin_wait(r, &wait, "web", "");
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	assert_int_equal(wait.done, 0);
	assert_int_equal(rig_kill(r, "web", "", SIGKILL), RPC_OK);
	end_wait(r, &wait, 137, true);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED);
	begin_wait(r, &wait, "web", ""); /* now it is answered at once */
	end_wait(r, &wait, 137, true);
	assert_int_equal(rig_kill(r, "web", "", SIGKILL), RPC_NOT_FOUND);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_NOT_FOUND);
	assert_int_equal(rig_calls(r, "web", "delete web"), 1);
	rig_event(r, 0, "/tasks/create web");
	rig_event(r, 1, "/tasks/start web");
	rig_event(r, 2, "/tasks/exit web web 137");
	rig_event(r, 3, "/tasks/delete web 137");
	rig_events_end(r, 4);
}

static void pause_and_resume(void **state)
{
	struct rig *r = *state;

	(void)rig_running(r, "web");
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_simple(r, "Pause", "web", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__PAUSED);
	assert_int_equal(rig_state(r, "web", "sh"), TASK__STATUS__PAUSED);
	assert_int_equal(rig_simple(r, "Resume", "web", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	assert_int_equal(rig_state(r, "web", "sh"), TASK__STATUS__RUNNING);
	rig_event(r, 4, "/tasks/paused web");
	rig_event(r, 5, "/tasks/resumed web");
	rig_events_end(r, 6);
}

static void a_pause_that_fails_changes_nothing(void **state)
{
	struct rig *r = *state;
	struct error err;

	(void)rig_running(r, "web");
	rig_script(r, "web", "pause", "fail the freezer is stuck\n");
	assert_int_equal(rig_simple(r, "Pause", "web", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "OCI runtime pause failed: the freezer is stuck"));
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	rig_events_end(r, 2);
}

static void calls_of_one_process_take_turns_but_kill_does_not_wait(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer pause, resume;

	rig_script(r, "web", "pause", "wait\n");
	rig_begin_simple(r, &pause, "Pause", "web");
	UNTIL(r, rig_calls(r, "web", "pause web"));
	rig_begin_simple(r, &resume, "Resume", "web");
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__PAUSING);
	assert_int_equal(rig_kill(r, "web", "", 0), RPC_OK);
	assert_int_equal(pause.done + resume.done, 0);
	assert_int_equal(rig_calls(r, "web", "resume web"), 0);
	rig_go(r, "web", "pause");
	UNTIL(r, pause.done && resume.done);
	assert_int_equal(pause.r, 0);
	assert_int_equal(resume.r, 0);
	assert_int_equal(c->init.state, PROCESS_RUNNING);
	rig_event(r, 2, "/tasks/paused web");
	rig_event(r, 3, "/tasks/resumed web");
	rig_answer_done(&pause);
	rig_answer_done(&resume);
}

/* What is frozen cannot die, and its cgroup cannot be removed. */
static void a_paused_container_whose_init_dies_is_resumed(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");

	assert_int_equal(rig_simple(r, "Pause", "web", NULL), RPC_OK);
	rig_script(r, "web", "resume", "fail no such cgroup\n"); /* and if that fails, so be it */
	kill_init(c);
	rig_event(r, 3, "/tasks/exit web web 137");
	assert_int_equal(rig_calls(r, "web", "resume web"), 1);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 4, "/tasks/delete web 137");
	rig_events_end(r, 5);
}

/* --- codes ---------------------------------------------------------------------------------- */

static void what_is_not_there_is_not_found(void **state)
{
	static const char *const methods[] = { "State", "Start", "Delete", "Pids", "Pause", "Resume",
					       "Checkpoint", "Kill", "Exec", "ResizePty", "CloseIO",
					       "Update", "Wait", "Stats" };
	struct rig *r = *state;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (rig_simple(r, methods[i], "nobody", &err) != RPC_NOT_FOUND)
			fail_msg("%s: %s", methods[i], err.text);
	(void)rig_running(r, "web");
	assert_int_equal(rig_start(r, "web", "nobody", NULL), RPC_NOT_FOUND);
	assert_int_equal(rig_kill(r, "web", "nobody", SIGTERM), RPC_NOT_FOUND);
	assert_int_equal(rig_delete(r, "web", "nobody", NULL), RPC_NOT_FOUND);
}

static void start_and_delete(struct rig *r, const char *method, const char *id, struct error *err,
			     enum rpc_code code, const char *text)
{
	enum rpc_code got;

	if (strcmp(method, "Start") == 0)
		got = rig_start(r, id, "", err);
	else if (strcmp(method, "Delete") == 0)
		got = rig_delete(r, id, "", err);
	else if (strcmp(method, "Exec") == 0)
		got = rig_exec(r, id, "sh", err);
	else
		got = rig_simple(r, method, id, err);
	if (got != code || !strstr(err->text, text))
		fail_msg("%s: %s (%s)", method, rpc_code_name(got), err->text);
}

/* What is refused in a state, leaves it as it is; so one container serves for all calls. */
static void what_is_allowed_depends_on_the_state(void **state)
{
	static const struct {
		Task__Status in;
		const char *methods[8], *text;
	} cases[] = {
		{ TASK__STATUS__CREATED, { "Pause", "Resume", "Checkpoint" }, "a created process" },
		{ TASK__STATUS__RUNNING, { "Start", "Resume", "Delete" }, "a running process" },
		{ TASK__STATUS__PAUSED, { "Start", "Pause", "Delete", "Exec" }, "a paused process" },
		{ TASK__STATUS__STOPPED,
		  { "Start", "Pause", "Resume", "Exec", "Checkpoint" },
		  "a stopped process" },
	};
	struct rig *r = *state;
	struct container *c;
	struct error err;

	(void)rig_bundle(r, "web", PLAIN);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].in == TASK__STATUS__RUNNING)
			assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
		if (cases[i].in == TASK__STATUS__PAUSED)
			assert_int_equal(rig_simple(r, "Pause", "web", NULL), RPC_OK);
		if (cases[i].in == TASK__STATUS__STOPPED) {
			kill_init(c);
			UNTIL(r, c->init.exited_at);
		}
		for (size_t k = 0; cases[i].methods[k]; k++)
			start_and_delete(r, cases[i].methods[k], "web", &err, RPC_UNKNOWN,
					 cases[i].text);
		assert_int_equal(rig_state(r, "web", ""), cases[i].in);
	}
}

static void both_names_of_the_service_are_served(void **state)
{
	static const char *const names[] = { "containerd.task.v2.Task", "containerd.task.v3.Task",
					     "containerd.task.v4.Task" };
	struct rig *r = *state;
	Task__ConnectRequest req = TASK__CONNECT_REQUEST__INIT;

	req.id = (char *)"nobody";
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
		const Task__ConnectResponse *m;
		struct answer a;

		rig_begin_service(r, &a, names[i], "Connect", &req.base);
		UNTIL(r, a.done);
		if (i == 2) {
			assert_int_equal(a.err.rpc, RPC_UNIMPLEMENTED);
		} else {
			m = rig_message(&a, &task__connect_response__descriptor, &mem);
			assert_int_equal(m->shim_pid, getpid());
			assert_int_equal(m->task_pid, 0);
		}
		rig_answer_done(&a);
	}
}

static void connect_tells_the_pid_of_the_task(void **state)
{
	struct rig *r = *state;
	const struct container *c = rig_running(r, "web");
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
	Task__ConnectRequest req = TASK__CONNECT_REQUEST__INIT;
	const Task__ConnectResponse *m;
	struct answer a;

	req.id = (char *)"web";
	assert_int_equal(rig_call(r, &a, "Connect", &req.base), RPC_OK);
	m = rig_message(&a, &task__connect_response__descriptor, &mem);
	assert_int_equal(m->task_pid, c->init.pid);
	rig_answer_done(&a);
}

/* Without a cgroup of its own, the init at least is listed: an empty list would mean "dead". */
static void pids_are(struct rig *r, const char *id, size_t n, pid_t pid)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
	Task__PidsRequest req = TASK__PIDS_REQUEST__INIT;
	const Task__PidsResponse *m;
	struct answer a;

	req.id = (char *)id;
	assert_int_equal(rig_call(r, &a, "Pids", &req.base), RPC_OK);
	m = rig_message(&a, &task__pids_response__descriptor, &mem);
	assert_int_equal(m->n_processes, n);
	if (n)
		assert_int_equal(m->processes[0]->pid, pid);
	rig_answer_done(&a);
}

static void a_container_without_a_cgroup_has_its_init(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");

	pids_are(r, "web", 1, c->init.pid);
	kill_init(c);
	UNTIL(r, c->init.exited_at);
	pids_are(r, "web", 0, 0);
	assert_int_equal(rig_simple(r, "Stats", "web", NULL), RPC_NOT_FOUND);
}

/* Rootless, with no cgroup delegated: the runtime leaves the container where the shim is. */
static void the_cgroup_of_the_shim_is_not_the_containers(void **state)
{
	static const char ours[] = "0::/web/shim\n";
	struct rig *r = *state;
	struct container *c;
	char path[PATH_MAX];

	rig_cgroup(r, "web");
	assert_int_equal(PATH_PRINTF(path, "%s/%d", r->proc, getpid()), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%d/cgroup", r->proc, getpid()), 0);
	assert_int_equal(file_write(AT_FDCWD, path, ours, strlen(ours), 0600, FILE_PLAIN), 0);
	c = rig_running(r, "web");
	assert_null(c->cgroup.host);
	pids_are(r, "web", 1, c->init.pid);
	assert_int_equal(rig_simple(r, "Stats", "web", NULL), RPC_NOT_FOUND);
	assert_int_equal(rig_simple(r, "Pause", "web", NULL), RPC_OK); /* the runtime's business */
	assert_false(rig_frozen(r, "web"));
	assert_int_equal(rig_simple(r, "Resume", "web", NULL), RPC_OK);
}

static enum rpc_code update(struct rig *r, const char *type, const char *json, struct error *err)
{
	Task__UpdateTaskRequest req = TASK__UPDATE_TASK_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;
	struct answer a;
	enum rpc_code code;

	any.type_url = (char *)type;
	any.value.data = (uint8_t *)json;
	any.value.len = strlen(json);
	req.id = (char *)"web";
	req.resources = type ? &any : NULL;
	code = rig_call(r, &a, "Update", &req.base);
	*err = a.err;
	rig_answer_done(&a);
	return code;
}

static void update_hands_the_resources_to_the_runtime(void **state)
{
	static const char type[] = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
	static const char url[] = "type.googleapis.com/"
				  "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct error err;
	char got[64];

	assert_int_equal(update(r, type, "{\"pids\":{\"limit\":7}}", &err), RPC_OK);
	rig_file(r, "web", "stdin", got, sizeof(got));
	assert_string_equal(got, "{\"pids\":{\"limit\":7}}");
	assert_int_equal(update(r, url, "{}", &err), RPC_OK);
	assert_int_equal(rig_calls(r, "web", "update"), 2);
	assert_int_equal(update(r, NULL, "", &err), RPC_INVALID_ARGUMENT);
	assert_int_equal(update(r, "windows.Resources", "{}", &err), RPC_INVALID_ARGUMENT);
	assert_int_equal(rig_calls(r, "web", "update"), 2);
	rig_script(r, "web", "update", "fail out of range\n");
	assert_int_equal(update(r, type, "{}", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "out of range"));
	kill_init(c);
	UNTIL(r, c->init.exited_at);
	assert_int_equal(update(r, type, "{}", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "cannot update a stopped process"));
}

static void a_terminal_is_resized_only_where_there_is_one(void **state)
{
	struct rig *r = *state;

	(void)rig_running(r, "web");
	/* As the reference: without a terminal, nothing to do is no error. */
	assert_int_equal(rig_simple(r, "CloseIO", "web", NULL), RPC_OK);
	assert_int_equal(rig_simple(r, "ResizePty", "web", NULL), RPC_OK);
}

/* --- Create --------------------------------------------------------------------------------- */

static void an_id_is_a_name(void **state)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "../web", "-x", "a..b", "a b",
					   "\xc3\xa4" };
	char huge[300];
	struct rig *r = *state;
	struct error err;

	memset(huge, 'a', sizeof(huge));
	huge[sizeof(huge) - 1] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (rig_create(r, bad[i], &err) != RPC_INVALID_ARGUMENT)
			fail_msg("\"%s\": %s", bad[i], err.text);
	assert_int_equal(rig_create(r, huge, NULL), RPC_INVALID_ARGUMENT);
	(void)rig_running(r, "web");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (rig_exec(r, "web", bad[i], &err) != RPC_INVALID_ARGUMENT)
			fail_msg("exec \"%s\": %s", bad[i], err.text);
	assert_int_equal(rig_exec(r, "web", huge, NULL), RPC_INVALID_ARGUMENT);
	assert_true(list_empty(&container_find(&r->shim, "web", NULL)->execs));
}

static void an_id_is_taken_once(void **state)
{
	struct rig *r = *state;
	struct answer first;

	(void)rig_bundle(r, "web", PLAIN);
	rig_script(r, "web", "create", "wait\n");
	rig_begin_create(r, &first, "web");
	UNTIL(r, rig_calls(r, "web", "create"));
	/* Not yet to be seen, but taken. */
	assert_int_equal(rig_create(r, "web", NULL), RPC_ALREADY_EXISTS);
	assert_int_equal(rig_simple(r, "State", "web", NULL), RPC_NOT_FOUND);
	assert_int_equal(rig_kill(r, "web", "", SIGKILL), RPC_NOT_FOUND);
	rig_go(r, "web", "create");
	UNTIL(r, first.done);
	assert_int_equal(first.r, 0);
	assert_int_equal(rig_create(r, "web", NULL), RPC_ALREADY_EXISTS);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_ALREADY_EXISTS);
	rig_answer_done(&first);
}

static void a_bundle_that_is_none_is_refused(void **state)
{
	struct rig *r = *state;
	struct error err;

	assert_int_equal(rig_create(r, "web", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "open the bundle"));
	(void)rig_bundle(r, "web", "{");
	assert_int_not_equal(rig_create(r, "web", &err), RPC_OK);
	(void)rig_bundle(r, "web", PLAIN); /* nothing is left of the failures */
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	rig_event(r, 0, "/tasks/create web");
	rig_events_end(r, 1);
}

/* No event of a container that never was: containerd issue 6429. */
static void a_create_that_fails_leaves_nothing(void **state)
{
	static const char *const scripts[] = { "fail exec format error\n",
					       "early 1\nfail exec format error\n",
					       "no-pid\n" };
	static const char *const texts[] = { "OCI runtime create failed: exec format error",
					     "OCI runtime create failed: exec format error",
					     "failed to retrieve OCI runtime container pid" };
	struct rig *r = *state;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		char id[8];

		(void)snprintf(id, sizeof(id), "web%zu", i);
		(void)rig_bundle(r, id, PLAIN);
		rig_script(r, id, "create", scripts[i]);
		assert_int_equal(rig_create(r, id, &err), RPC_UNKNOWN);
		assert_non_null(strstr(err.text, texts[i]));
		assert_true(list_empty(&r->shim.containers));
		assert_true(list_empty(&r->shim.reaper.holds));
		assert_int_equal(rig_calls(r, id, "delete --force"), 1);
	}
	rig_events_end(r, 0);
}

/* Init dies while `runtime create` still runs, before anybody knows its pid. */
static void an_exit_before_create_has_returned_is_told_after_it(void **state)
{
	struct rig *r = *state;
	struct container *c;

	(void)rig_bundle(r, "web", PLAIN);
	rig_script(r, "web", "create", "early 7\n");
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	assert_non_null(c);
	rig_event(r, 0, "/tasks/create web");
	rig_event(r, 1, "/tasks/exit web web 7");
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED);
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_UNKNOWN);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 2, "/tasks/delete web 7");
	rig_events_end(r, 3);
}

static void a_runtime_that_hangs_is_ended(void **state)
{
	struct rig *r = *state;
	struct answer a;

	(void)rig_bundle(r, "web", PLAIN);
	rig_script(r, "web", "create", "wait\n");
	rig_begin_create(r, &a, "web");
	UNTIL(r, rig_calls(r, "web", "create"));
	assert_int_equal(a.done, 0);
	clock_advance(601 * NSEC_PER_SEC);
	UNTIL(r, a.done);
	assert_int_equal(a.err.rpc, RPC_DEADLINE_EXCEEDED);
	assert_non_null(strstr(a.err.text, "TIMEOUT"));
	assert_true(list_empty(&r->shim.containers));
	assert_int_equal(rig_calls(r, "web", "delete --force"), 1);
	rig_events_end(r, 0);
	rig_answer_done(&a);
}

/* --- Start ---------------------------------------------------------------------------------- */

static void an_exit_before_start_has_returned_is_told_after_it(void **state)
{
	struct rig *r = *state;
	struct container *c;
	struct answer start, wait;

	(void)rig_bundle(r, "web", PLAIN);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	rig_script(r, "web", "start", "wait\n");
	begin_wait(r, &wait, "web", "");
	rig_begin_simple(r, &start, "Start", "web");
	UNTIL(r, rig_calls(r, "web", "start web"));
	kill_init(c);
	UNTIL(r, c->init.exit_kept);
	assert_int_equal(start.done + wait.done, 0);
	assert_int_equal(r->n_events, 1);
	rig_go(r, "web", "start");
	UNTIL(r, start.done);
	assert_int_equal(start.r, 0);
	end_wait(r, &wait, 137, true);
	rig_event(r, 1, "/tasks/start web");
	rig_event(r, 2, "/tasks/exit web web 137");
	rig_events_end(r, 3);
	rig_answer_done(&start);
}

static void a_start_that_fails_says_why_and_leaves_it_created(void **state)
{
	struct rig *r = *state;
	struct container *c;
	struct error err;

	(void)rig_bundle(r, "web", PLAIN);
	rig_script(r, "web", "start", "fail exec: not found\n");
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	assert_int_equal(rig_start(r, "web", "", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "OCI runtime start failed: exec: not found"));
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__CREATED);
	kill_init(c);
	rig_event(r, 1, "/tasks/exit web web 137"); /* still watched */
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 2, "/tasks/delete web 137");
	rig_events_end(r, 3);
}

/* --- Delete --------------------------------------------------------------------------------- */

static void a_container_that_was_never_started_is_killed_first(void **state)
{
	struct rig *r = *state;

	(void)rig_bundle(r, "web", PLAIN);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	assert_int_equal(rig_calls(r, "web", "delete web"), 1);
	rig_event(r, 0, "/tasks/create web");
	rig_event(r, 1, "/tasks/exit web web 137");
	rig_event(r, 2, "/tasks/delete web 137");
	rig_events_end(r, 3);
}

static void a_delete_can_be_asked_again(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct error err;

	kill_init(c);
	UNTIL(r, c->init.exited_at);
	rig_script(r, "web", "delete", "fail device or resource busy\n");
	assert_int_equal(rig_delete(r, "web", "", &err), RPC_UNKNOWN);
	assert_non_null(strstr(err.text, "failed to delete task: device or resource busy"));
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED);
	/* One that is gone already is as good as deleted. */
	rig_script(r, "web", "delete", "fail container does not exist\n");
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 3, "/tasks/delete web 137");
	rig_events_end(r, 4);
}

/* crun's words depend on its release and on what is missing; its folder does not. */
static void crun_may_have_deleted_it_itself(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");

	kill_init(c);
	UNTIL(r, c->init.exited_at);
	rig_script(r, "web", "delete", "fail cannot open directory `/r/web`: No such file or directory\n");
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_UNKNOWN);
	c->rt.crun = true;
	free(c->rt.root);
	c->rt.root = strdup(r->dir);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_UNKNOWN); /* it is there: the bundle */
	free(c->rt.root);
	assert_true(asprintf(&c->rt.root, "%s/none", r->dir) > 0);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 3, "/tasks/delete web 137");
}

static void a_delete_goes_on_when_its_caller_has_left(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer first, second;

	kill_init(c);
	UNTIL(r, c->init.exited_at);
	rig_script(r, "web", "delete", "wait\n");
	rig_begin_simple(r, &first, "Delete", "web");
	UNTIL(r, rig_calls(r, "web", "delete web"));
	rig_answer_done(&first); /* nobody waits any more */
	rig_begin_simple(r, &second, "Delete", "web");
	rig_go(r, "web", "delete");
	UNTIL(r, second.done);
	assert_int_equal(second.err.rpc, RPC_NOT_FOUND); /* the first one has done it */
	assert_int_equal(rig_calls(r, "web", "delete web"), 1);
	rig_event(r, 3, "/tasks/delete web 137");
	rig_answer_done(&second);
}

/* Somebody else ended the container at the runtime, and its init does not exit. */
static void an_exit_that_does_not_come_is_not_waited_for_for_ever(void **state)
{
	struct rig *r = *state;
	struct answer a;

	(void)rig_bundle(r, "web", PLAIN);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	rig_script(r, "web", "delete", "fail container does not exist\n");
	rig_begin_simple(r, &a, "Delete", "web");
	UNTIL(r, rig_calls(r, "web", "delete web"));
	rig_run_for(r, 50 * NSEC_PER_MSEC);
	assert_int_equal(a.done, 0);
	clock_advance(11 * NSEC_PER_SEC);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	rig_event(r, 1, "/tasks/delete web 0");
	rig_events_end(r, 2);
	rig_answer_done(&a);
}

static void calls_that_come_after_a_delete_find_nothing(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");
	struct answer delete, pause, wait;

	kill_init(c);
	UNTIL(r, c->init.exited_at);
	rig_script(r, "web", "delete", "wait\n");
	rig_begin_simple(r, &delete, "Delete", "web");
	UNTIL(r, rig_calls(r, "web", "delete web"));
	rig_begin_simple(r, &pause, "Pause", "web"); /* waits for its turn */
	begin_wait(r, &wait, "web", "");
	end_wait(r, &wait, 137, true);
	rig_go(r, "web", "delete");
	UNTIL(r, delete.done && pause.done);
	assert_int_equal(delete.r, 0);
	assert_int_equal(pause.err.rpc, RPC_NOT_FOUND);
	assert_non_null(strstr(pause.err.text, "already deleted"));
	rig_answer_done(&delete);
	rig_answer_done(&pause);
}

/* --- without a Delete ----------------------------------------------------------------------- */

/* containerd had `delete` clean up while the shim lives, and removed the bundle. */
static void a_container_whose_bundle_is_gone_is_forgotten(void **state)
{
	struct rig *r = *state;
	struct container *web = rig_running(r, "web"), *db = rig_running(r, "db");
	char away[PATH_MAX];

	kill_init(web);
	rig_event(r, 4, "/tasks/exit web web 137");
	rig_run_for(r, 50 * NSEC_PER_MSEC); /* so that the event is not sent again */
	clock_advance(16 * NSEC_PER_SEC);
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED); /* the bundle is there */
	assert_int_equal(PATH_PRINTF(away, "%s.away", web->path), 0);
	assert_int_equal(rename(web->path, away), 0);
	clock_advance(31 * NSEC_PER_SEC);
	UNTIL(r, list_count(&r->shim.containers) == 1);
	assert_int_equal(rig_simple(r, "State", "web", NULL), RPC_NOT_FOUND);
	assert_int_equal(rig_state(r, "db", ""), TASK__STATUS__RUNNING);
	assert_int_equal(r->shim.leave_by, 0);

	kill_init(db);
	rig_event(r, 5, "/tasks/exit db db 137");
	assert_int_equal(rig_delete(r, "db", "", NULL), RPC_OK);
	rig_event(r, 6, "/tasks/delete db 137");
	rig_events_end(r, 7);
}

/* --- checkpoint ------------------------------------------------------------------------------ */

/* CRIU is killed while the container is, for its sake, what it was not before. */
static void a_dump_is_killed(struct rig *r, bool paused)
{
	Task__CheckpointTaskRequest req = TASK__CHECKPOINT_TASK_REQUEST__INIT;
	struct container *c;
	struct answer a;

	rig_cgroup(r, "web");
	c = rig_running(r, "web");
	assert_non_null(c->cgroup.host);
	if (paused) {
		c->init.state = PROCESS_PAUSED; /* as Pause leaves it */
		rig_freeze(r, "web");
	}
	r->shim.settings.timeouts.criu_dump = 300 * NSEC_PER_MSEC;
	rig_script(r, "web", "checkpoint", "wait\n");
	req.id = (char *)"web";
	req.path = (char *)"/images";
	rig_begin(r, &a, "Checkpoint", &req.base);
	UNTIL(r, rig_calls(r, "web", "checkpoint"));
	if (paused)
		rig_thaw(r, "web");
	else
		rig_freeze(r, "web");
	assert_int_equal(a.done, 0);
	UNTIL(r, a.done);
	assert_true(a.r < 0);
	assert_non_null(strstr(a.err.text, "criu-dump.log"));
	rig_answer_done(&a);
	/* By then it is again what State says. */
	assert_int_equal(rig_frozen(r, "web"), paused);
	assert_int_equal(rig_state(r, "web", ""),
			 paused ? TASK__STATUS__PAUSED : TASK__STATUS__RUNNING);
	if (paused)
		assert_int_equal(rig_simple(r, "Resume", "web", NULL), RPC_OK);
	assert_int_equal(rig_kill(r, "web", "", SIGKILL), RPC_OK);
	UNTIL(r, c->init.exited_at);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
}

static void a_container_whose_dump_is_killed_runs_on(void **state)
{
	a_dump_is_killed(*state, false);
}

static void a_paused_container_whose_dump_is_killed_stays_paused(void **state)
{
	a_dump_is_killed(*state, true);
}

/* Nothing runs before its Start. */
static struct container *in_a_checkpoint(struct rig *r, const char *id)
{
	struct container *c;
	struct answer a;

	(void)rig_bundle(r, id, PLAIN);
	rig_begin_create_from(r, &a, id, r->dir);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	rig_answer_done(&a);
	c = container_find(&r->shim, id, NULL);
	assert_non_null(c);
	assert_int_equal(c->init.state, PROCESS_CREATED_CHECKPOINT);
	return c;
}

static bool is_watched(const struct container *c)
{
	return c->orphan.timer.loop;
}

/* It has no init whose exit could be seen. */
static void a_container_in_a_checkpoint_is_forgotten_as_well(void **state)
{
	struct rig *r = *state;
	struct container *web = in_a_checkpoint(r, "web");
	char away[PATH_MAX];
	struct answer wait;

	begin_wait(r, &wait, "web", "");
	rig_event(r, 0, "/tasks/create web");
	rig_run_for(r, 50 * NSEC_PER_MSEC); /* so that the event is not sent again */
	clock_advance(16 * NSEC_PER_SEC);
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__CREATED); /* the bundle is there */
	assert_int_equal(PATH_PRINTF(away, "%s.away", web->path), 0);
	assert_int_equal(rename(web->path, away), 0);
	clock_advance(31 * NSEC_PER_SEC);
	UNTIL(r, list_empty(&r->shim.containers));
	assert_int_equal(rig_simple(r, "State", "web", NULL), RPC_NOT_FOUND);
	end_wait(r, &wait, 0, false);
	rig_events_end(r, 1);
}

/* One that runs is not looked after, and wakes nobody. */
static void a_restored_container_is_watched_while_it_does_not_run(void **state)
{
	struct rig *r = *state;
	struct container *web = in_a_checkpoint(r, "web"), *db = in_a_checkpoint(r, "db");
	struct answer start;

	assert_true(is_watched(web));
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	assert_false(is_watched(web));
	kill_init(web);
	UNTIL(r, web->init.exited_at);
	assert_true(is_watched(web));

	rig_script(r, "db", "restore", "wait\nfail criu failed: no such image\n");
	assert_true(is_watched(db));
	rig_begin_simple(r, &start, "Start", "db");
	UNTIL(r, rig_calls(r, "db", "restore"));
	assert_false(is_watched(db));
	rig_go(r, "db", "restore");
	UNTIL(r, start.done);
	assert_int_not_equal(start.r, 0);
	assert_true(is_watched(db));
	rig_answer_done(&start);
}

/* ... and that was the only one, or there never was one. */
static void a_shim_that_nobody_knows_leaves(void **state)
{
	struct rig *r = *state;
	char here[PATH_MAX], own[PATH_MAX];

	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(PATH_PRINTF(own, "%s/own", r->dir), 0);
	assert_int_equal(mkdir(own, 0700), 0);
	assert_int_equal(chdir(own), 0);
	orphan_watch_shim(&r->shim);
	clock_advance(16 * NSEC_PER_SEC);
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	assert_int_equal(r->shim.leave_by, 0);
	assert_int_equal(rmdir(own), 0);
	clock_advance(31 * NSEC_PER_SEC);
	UNTIL(r, r->shim.leave_by);
	assert_int_equal(chdir(here), 0);
	timer_cancel(&r->shim.leave);
}

/* --- out of memory -------------------------------------------------------------------------- */

/* Its cgroup was gone before it could be asked; then a SIGKILL counts that nobody sent through us. */
static void killed_with_the_count_gone(struct rig *r, const char *id, bool by_us)
{
	struct container *c;

	rig_cgroup(r, id);
	c = rig_running(r, id);
	assert_non_null(c->oom.killed);
	c->oom.unseen = true;
	if (by_us)
		assert_int_equal(rig_kill(r, id, "", SIGKILL), RPC_OK);
	else
		kill_init(c);
	UNTIL(r, c->init.exited_at);
}

static void a_kill_by_nobody_is_told_for_want_of_memory(void **state)
{
	struct rig *r = *state;

	killed_with_the_count_gone(r, "web", false);
	rig_event(r, 2, "/tasks/oom web");
	rig_event(r, 3, "/tasks/exit web web 137");
	rig_events_end(r, 4);
}

static void a_kill_that_was_asked_for_is_not(void **state)
{
	struct rig *r = *state;

	killed_with_the_count_gone(r, "web", true);
	rig_event(r, 2, "/tasks/exit web web 137");
	rig_events_end(r, 3);
}

/* --- Shutdown ------------------------------------------------------------------------------- */

static void shutdown_waits_for_the_last_container(void **state)
{
	struct rig *r = *state;
	struct container *c = rig_running(r, "web");

	assert_int_equal(rig_simple(r, "Shutdown", "web", NULL), RPC_OK);
	assert_int_equal(r->shim.leave_by, 0);
	kill_init(c);
	UNTIL(r, c->init.exited_at);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	assert_int_equal(rig_simple(r, "Shutdown", "web", NULL), RPC_OK);
	assert_int_not_equal(r->shim.leave_by, 0);
	rig_event(r, 3, "/tasks/delete web 137"); /* all that is owed is still said */
	timer_cancel(&r->shim.leave);
}

/* A signal has ended it, say: who asked is answered, and what was made is somebody's to clean up. */
static void a_shim_that_leaves_ends_a_create_first(void **state)
{
	struct rig *r = *state;
	struct answer create, late;

	(void)rig_bundle(r, "web", PLAIN);
	(void)rig_bundle(r, "db", PLAIN);
	rig_script(r, "web", "create", "wait\n");
	rig_begin_create(r, &create, "web");
	UNTIL(r, rig_calls(r, "web", "create"));
	shim_leave(&r->shim);
	rig_run_for(r, 100 * NSEC_PER_MSEC);
	assert_non_null(r->shim.leave.loop); /* it still waits */
	rig_begin_create(r, &late, "db");
	UNTIL(r, late.done);
	assert_int_equal(error_rpc_code(&late.err), RPC_UNAVAILABLE);
	assert_int_equal(rig_calls(r, "db", "create"), 0);
	rig_answer_done(&late);
	rig_go(r, "web", "create");
	UNTIL(r, create.done);
	assert_int_equal(create.r, 0);
	rig_answer_done(&create);
	UNTIL(r, !r->shim.leave.loop);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_open, rig_close)
		T(a_container_lives_and_dies),
		T(pause_and_resume),
		T(a_pause_that_fails_changes_nothing),
		T(calls_of_one_process_take_turns_but_kill_does_not_wait),
		T(a_paused_container_whose_init_dies_is_resumed),
		T(what_is_not_there_is_not_found),
		T(what_is_allowed_depends_on_the_state),
		T(both_names_of_the_service_are_served),
		T(connect_tells_the_pid_of_the_task),
		T(a_container_without_a_cgroup_has_its_init),
		T(the_cgroup_of_the_shim_is_not_the_containers),
		T(update_hands_the_resources_to_the_runtime),
		T(a_terminal_is_resized_only_where_there_is_one),
		T(an_id_is_a_name),
		T(an_id_is_taken_once),
		T(a_bundle_that_is_none_is_refused),
		T(a_create_that_fails_leaves_nothing),
		T(an_exit_before_create_has_returned_is_told_after_it),
		T(a_runtime_that_hangs_is_ended),
		T(an_exit_before_start_has_returned_is_told_after_it),
		T(a_start_that_fails_says_why_and_leaves_it_created),
		T(a_container_that_was_never_started_is_killed_first),
		T(a_delete_can_be_asked_again),
		T(crun_may_have_deleted_it_itself),
		T(a_delete_goes_on_when_its_caller_has_left),
		T(an_exit_that_does_not_come_is_not_waited_for_for_ever),
		T(calls_that_come_after_a_delete_find_nothing),
		T(a_container_whose_dump_is_killed_runs_on),
		T(a_paused_container_whose_dump_is_killed_stays_paused),
		T(a_container_whose_bundle_is_gone_is_forgotten),
		T(a_container_in_a_checkpoint_is_forgotten_as_well),
		T(a_restored_container_is_watched_while_it_does_not_run),
		T(a_shim_that_nobody_knows_leaves),
		T(a_kill_by_nobody_is_told_for_want_of_memory),
		T(a_kill_that_was_asked_for_is_not),
		T(shutdown_waits_for_the_last_container),
		T(a_shim_that_leaves_ends_a_create_first),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
