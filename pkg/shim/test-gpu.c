/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's half of checkpoint and restore with a GPU, against an agent that gives orders one by
 * one as the test says, contradicts itself, or leaves in the middle. Whatever happens, the
 * container is afterwards as running or as paused as containerd believes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/fd.h"
#include "base/path.h"
#include "rpc/grpc_server.h"
#include "rpc/pb.h"
#include "shim/checkpoint.h"
#include "shim/hooks/agent.h"
#include "shim/test-rig.h"
#include "tests/clock.h"

/* Without its numbers: a restore would make the node, and the process is in our own root here. */
#define GPU "\"devices\":[{\"path\":\"/dev/nvidia0\",\"type\":\"c\"}]," RIG_OWN_PIDS
#define GPU_SPEC  RIG_SPEC("", GPU)
#define SUSPENDED RIG_SPEC("\"kybernate.io/pause\":\"suspend\"", GPU)
#define FROM_REF  RIG_SPEC("\"kybernate.io/restore-from\":\"my-ref\"", GPU)
#define EMPTY_REF RIG_SPEC("\"kybernate.io/restore-from\":\"\"", GPU)

/* --- the agent ------------------------------------------------------------------------------ */

static struct {
	struct grpc_server *server;
	struct grpc_call *call; /* the stream, or NULL */
	char path[96];
	unsigned int streams;
	enum { CHECKPOINT, RESTORE, SUSPEND } kind;
	bool prepare, wants_exit, paused;
	char image_path[PATH_MAX], ref[64], flags[128];
	/* the last answer to an order */
	unsigned int results;
	enum agent_order order;
	bool ok;
	unsigned int reason;
	char message[512], detail[512], log_path[PATH_MAX];
	pid_t task_pid;
	char work_path[PATH_MAX]; /* given with orders */
} agent;

static void take_result(const Kybernate__Agent__V1__OrderResult *m)
{
	agent.results++;
	agent.order = (enum agent_order)m->order;
	agent.ok = m->ok;
	agent.task_pid = (pid_t)m->task_pid;
	agent.reason = m->error ? m->error->reason : 0;
	(void)snprintf(agent.message, sizeof(agent.message), "%s", m->error ? m->error->message : "");
	agent.detail[0] = 0;
	for (size_t i = 0, n = 0; m->error && i < m->error->n_detail && n < sizeof(agent.detail); i++)
		n += (size_t)snprintf(agent.detail + n, sizeof(agent.detail) - n, "%s\n",
				      m->error->detail[i]);
	(void)snprintf(agent.log_path, sizeof(agent.log_path), "%s", m->log_path);
}

static void agent_started(struct grpc_call *call)
{
	agent.call = call;
	agent.streams++;
}

static void agent_gone(struct grpc_call *call, enum grpc_end why)
{
	(void)why;
	if (agent.call == call)
		agent.call = NULL;
}

static void heard_checkpoint(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__CheckpointRequest *m =
		pb_unpack(&kybernate__agent__v1__checkpoint_request__descriptor, msg, &mem);

	(void)call;
	assert_non_null(m);
	if (m->result) {
		take_result(m->result);
		return;
	}
	agent.kind = CHECKPOINT;
	agent.wants_exit = m->options->exit;
	agent.paused = m->options->paused;
	(void)snprintf(agent.image_path, sizeof(agent.image_path), "%s", m->options->image_path);
	(void)snprintf(agent.ref, sizeof(agent.ref), "%s", m->options->checkpoint_ref);
	assert_true(m->context->gpu);
	assert_int_equal(m->context->n_device_paths, 1);
	assert_string_equal(m->context->device_paths[0], "/dev/nvidia0");
	assert_true(m->context->task_pid > 1);
}

static void heard_restore(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__RestoreRequest *m =
		pb_unpack(&kybernate__agent__v1__restore_request__descriptor, msg, &mem);

	(void)call;
	assert_non_null(m);
	if (m->result) {
		take_result(m->result);
		return;
	}
	agent.kind = RESTORE;
	agent.prepare = m->stage != 0;
	(void)snprintf(agent.ref, sizeof(agent.ref), "%s", m->checkpoint_ref);
	(void)snprintf(agent.image_path, sizeof(agent.image_path), "%s", m->image_path);
}

static void heard_suspend(struct grpc_call *call, struct bytes msg)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	const Kybernate__Agent__V1__SuspendRequest *m =
		pb_unpack(&kybernate__agent__v1__suspend_request__descriptor, msg, &mem);

	(void)call;
	assert_non_null(m);
	agent.kind = SUSPEND;
	if (m->result)
		take_result(m->result);
}

static const struct grpc_method_ops checkpoint_ops = { .started = agent_started,
						       .message = heard_checkpoint,
						       .ended = agent_gone };
static const struct grpc_method_ops restore_ops = { .started = agent_started,
						    .message = heard_restore,
						    .ended = agent_gone };
static const struct grpc_method_ops suspend_ops = { .started = agent_started,
						    .message = heard_suspend,
						    .ended = agent_gone };
static const struct grpc_method agent_methods[] = {
	{ "/kybernate.agent.v1.NodeAgent/Checkpoint", GRPC_BIDI, &checkpoint_ops },
	{ "/kybernate.agent.v1.NodeAgent/Restore", GRPC_BIDI, &restore_ops },
	{ "/kybernate.agent.v1.NodeAgent/Suspend", GRPC_BIDI, &suspend_ops },
};

static void say(struct bytes packed)
{
	assert_non_null(agent.call);
	assert_int_equal(grpc_call_send(agent.call, packed), 0);
}

/* An order, or with a status and none a verdict; failed for a reason. */
static void speak(unsigned int status, enum agent_order order, const char *image_path,
		  enum reason reason)
{
	Kybernate__Agent__V1__CheckpointReply c = KYBERNATE__AGENT__V1__CHECKPOINT_REPLY__INIT;
	Kybernate__Agent__V1__RestoreReply x = KYBERNATE__AGENT__V1__RESTORE_REPLY__INIT;
	Kybernate__Agent__V1__SuspendReply s = KYBERNATE__AGENT__V1__SUSPEND_REPLY__INIT;
	const ProtobufCMessage *const replies[] = { &c.base, &x.base, &s.base };
	Kybernate__Agent__V1__Error error = KYBERNATE__AGENT__V1__ERROR__INIT;
	static char flag[] = "tcp-established", *flags[] = { flag };
	_cleanup_buf_ struct buf packed = BUF_NULL;

	error.reason = (Kybernate__Agent__V1__Reason)reason;
	error.message = (char *)"as the agent says";
	c.status = x.status = s.status = (Kybernate__Agent__V1__Status)status;
	c.order = x.order = s.order = (Kybernate__Agent__V1__Order)order;
	c.error = x.error = s.error = reason ? &error : NULL;
	c.image_path = x.image_path = (char *)image_path;
	c.work_path = x.work_path = agent.work_path;
	x.runtime_flags = flags;
	x.n_runtime_flags = 1;
	assert_int_equal(pb_pack(replies[agent.kind], &packed), 0);
	say(buf_bytes(&packed));
}

#define WORKING KYBERNATE__AGENT__V1__STATUS__STATUS_WORKING
#define OK      KYBERNATE__AGENT__V1__STATUS__STATUS_OK
#define FAILED  KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED

static void verdict(unsigned int status, enum reason reason)
{
	speak(status, AGENT_ORDER_NONE, "", reason);
	grpc_call_finish(agent.call, status == OK ? RPC_OK : RPC_UNKNOWN, NULL, bytes_of(NULL, 0));
}

static void begin_order(enum agent_order order, const char *image_path)
{
	agent.results = 0;
	speak(WORKING, order, image_path, REASON_NONE);
}

/* The folder of the images, in that of the checkpoint, r->dir. */
static const char *images_of(const struct rig *r)
{
	static char images[PATH_MAX];

	assert_int_equal(PATH_PRINTF(images, "%s/images", r->dir), 0);
	return images;
}

/* Gives an order and waits for its result. */
static bool order(struct rig *r, enum agent_order what)
{
	/* A restore holds them while CRIU reads them. */
	assert_int_equal(path_mkdirs(images_of(r), 0700), 0);
	begin_order(what, images_of(r));
	UNTIL(r, agent.results);
	assert_int_equal(agent.results, 1);
	assert_int_equal(agent.order, what);
	return agent.ok;
}

static int setup(void **state)
{
	static const struct grpc_server_config config = { 0 };
	struct rig *r;
	int fd;

	(void)rig_open(state);
	r = *state;
	memset(&agent, 0, sizeof(agent));
	assert_int_equal(PATH_PRINTF(agent.path, "%s/agent", r->dir), 0);
	fd = socket_listen(agent.path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(grpc_server_new(r->shim.loop, fd, &config, agent_methods,
					 ARRAY_SIZE(agent_methods), NULL, &agent.server), 0);
	r->shim.settings.agent_socket = agent.path;
	rig_cgroup(r, "web");
	return 0;
}

static int teardown(void **state)
{
	grpc_server_free(agent.server);
	return rig_close(state);
}

/* --- checkpoint ----------------------------------------------------------------------------- */

static struct container *gpu_running(struct rig *r)
{
	struct container *c;

	(void)rig_bundle(r, "web", GPU_SPEC);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	assert_non_null(c);
	assert_true(c->bundle.gpu);
	assert_non_null(c->cgroup.host);
	return c;
}

static void begin_checkpoint(struct rig *r, struct answer *a)
{
	static char path[] = "/images";
	Task__CheckpointTaskRequest req = TASK__CHECKPOINT_TASK_REQUEST__INIT;

	req.id = (char *)"web";
	req.path = path;
	rig_begin(r, a, "Checkpoint", &req.base);
}

static void begin_checkpoint_exit(struct rig *r, struct answer *a)
{
	static uint8_t on[] = { 0x08, 0x01 }; /* CheckpointOptions.exit */
	Task__CheckpointTaskRequest req = TASK__CHECKPOINT_TASK_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	any.type_url = (char *)"containerd.runc.v1.CheckpointOptions";
	any.value.data = on;
	any.value.len = sizeof(on);
	req.id = (char *)"web";
	req.path = (char *)"/images";
	req.options = &any;
	rig_begin(r, a, "Checkpoint", &req.base);
}

/* As running as before, and ready for the next one. */
static void as_before(struct rig *r, const struct container *c, enum process_state state)
{
	assert_int_equal(c->init.state, state);
	assert_int_equal(rig_frozen(r, "web"), state == PROCESS_PAUSED);
	assert_null(c->checkpointing);
	assert_false(c->exec_gate.closed);
}

static void a_checkpoint_that_leaves_it_running(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;
	char seen[512];

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call && agent.image_path[0]);
	assert_string_equal(agent.image_path, "/images");
	assert_false(agent.wants_exit || agent.paused);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(rig_frozen(r, "web"));
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 0);
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 1);
	rig_file(r, "web", "seen", seen, sizeof(seen));
	assert_non_null(strstr(seen, "frozen=1 libs=/"));
	assert_non_null(strstr(seen, "/no-criu-plugins"));
	rig_file(r, "web", "calls", seen, sizeof(seen));
	assert_non_null(strstr(seen, "--leave-running"));
	assert_true(rig_frozen(r, "web"));
	assert_true(order(r, AGENT_ORDER_THAW));
	assert_false(rig_frozen(r, "web"));
	assert_true(c->exec_gate.closed);
	assert_true(order(r, AGENT_ORDER_RELEASE));
	assert_false(c->exec_gate.closed);
	assert_int_equal(a.done, 0);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* containerd's clients pause first: a CUDA lock on a frozen container would hang. */
static void a_paused_container_is_thawed_and_paused_again(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	c->init.state = PROCESS_PAUSED; /* as Pause leaves it */
	rig_freeze(r, "web");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call && agent.paused);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(rig_frozen(r, "web"));
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_true(order(r, AGENT_ORDER_THAW));
	assert_false(rig_frozen(r, "web"));
	assert_true(order(r, AGENT_ORDER_RELEASE));
	assert_true(rig_frozen(r, "web"));
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	as_before(r, c, PROCESS_PAUSED);
	rig_answer_done(&a);
}

static void an_agent_that_is_not_there_means_no_checkpoint(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	r->shim.settings.agent_socket = "/nonexistent/agent.sock";
	begin_checkpoint(r, &a);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "AGENT_UNAVAILABLE"));
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 0);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* A FUSE file system of the container's own, stopped with it. */
static void mounts_that_do_not_answer_mean_no_checkpoint(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a, state_answer;
	char hang[PATH_MAX];

	assert_int_equal(PATH_PRINTF(hang, "%s/mounts-hang", c->path), 0);
	assert_int_equal(file_write(AT_FDCWD, hang, "", 0, 0600, FILE_PLAIN), 0);
	begin_checkpoint(r, &a);
	UNTIL(r, c->checkpointing && command_running(&c->checkpointing->look));
	/* Others are served meanwhile. */
	rig_begin_simple(r, &state_answer, "State", "web");
	UNTIL(r, state_answer.done);
	rig_answer_done(&state_answer);
	assert_false(a.done);
	clock_advance(11 * NSEC_PER_SEC);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "TIMEOUT"));
	assert_non_null(strstr(a.err.text, "mounts"));
	assert_null(agent.call);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);

	assert_int_equal(unlink(hang), 0);
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* What the helper says is told. */
static void mounts_that_cannot_be_looked_at_mean_no_checkpoint(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	(void)rig_bundle(r, "web", "no JSON");
	begin_checkpoint(r, &a);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "config.json"));
	assert_null(agent.call);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* It dies after any order, paused before or not. */
static void an_agent_that_leaves_between_orders(void **state)
{
	static const enum agent_order orders[] = { AGENT_ORDER_QUIESCE, AGENT_ORDER_DUMP,
						   AGENT_ORDER_THAW, AGENT_ORDER_RELEASE };
	struct rig *r = *state;
	struct container *c = gpu_running(r);

	for (size_t i = 0; i < 2 * (ARRAY_SIZE(orders) + 1); i++) {
		bool paused = i % 2;
		struct answer a;

		if (paused)
			rig_freeze(r, "web");
		c->init.state = paused ? PROCESS_PAUSED : PROCESS_RUNNING;
		begin_checkpoint(r, &a);
		UNTIL(r, agent.call);
		for (size_t k = 0; k < i / 2; k++)
			assert_true(order(r, orders[k]));
		grpc_call_finish(agent.call, RPC_UNAVAILABLE, "killed", bytes_of(NULL, 0));
		UNTIL(r, a.done);
		assert_non_null(strstr(a.err.text, "AGENT_UNAVAILABLE"));
		as_before(r, c, paused ? PROCESS_PAUSED : PROCESS_RUNNING);
		rig_answer_done(&a);
		UNTIL(r, !agent.call);
		if (paused)
			rig_thaw(r, "web");
	}
}

/* CRIU must not be torn off a container: its end comes first. */
static void an_agent_that_leaves_during_the_dump(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	rig_script(r, "web", "checkpoint", "wait\n");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	begin_order(AGENT_ORDER_DUMP, r->dir);
	UNTIL(r, rig_calls(r, "web", "checkpoint"));
	grpc_call_finish(agent.call, RPC_UNAVAILABLE, "killed", bytes_of(NULL, 0));
	UNTIL(r, !agent.call);
	rig_run_for(r, 30 * NSEC_PER_MSEC);
	assert_int_equal(a.done, 0);
	assert_true(rig_frozen(r, "web"));
	rig_go(r, "web", "checkpoint");
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "AGENT_UNAVAILABLE"));
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void a_dump_that_fails_is_told_with_its_reason(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	rig_script(r, "web", "checkpoint", "fail criu failed: type NOTIFY errno 0\n");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(order(r, AGENT_ORDER_DUMP));
	assert_int_equal(agent.reason, REASON_CRIU_DUMP_FAILED);
	assert_non_null(strstr(agent.message, "criu failed"));
	assert_true(order(r, AGENT_ORDER_THAW));
	verdict(FAILED, REASON_CRIU_DUMP_FAILED);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "CRIU_DUMP_FAILED: as the agent says"));
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* A dump that CRIU refuses because a connection is being made; it is in the pause after it. */
static void begin_refused_dump(struct rig *r, struct container *c, struct answer *a, char *images)
{
	static const char log[] = "(00.1) Error (criu/sk-inet.c:176): In-flight connection (l) for 1\n";
	int fd;

	begin_checkpoint(r, a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_int_equal(path_printf(images, PATH_MAX, "%s/images", r->dir), 0);
	fd = open(c->checkpointing->work_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(file_write(fd, "dump.log", log, strlen(log), 0600, FILE_PLAIN), 0);
	(void)close(fd);
	rig_script(r, "web", "checkpoint", "fail criu failed: type NOTIFY errno 0\n");
	begin_order(AGENT_ORDER_DUMP, images);
	UNTIL(r, rig_calls(r, "web", "checkpoint"));
}

/* A file of one byte; returns it, open. */
static int written(char *path, const char *dir, const char *name)
{
	int fd;

	assert_int_equal(path_printf(path, PATH_MAX, "%s/%s", dir, name), 0);
	assert_int_equal(file_write(AT_FDCWD, path, "1", 1, 0600, FILE_PLAIN), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static off_t size_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

static void a_dump_that_may_do_better_is_tried_once_more(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	char images[PATH_MAX], left[PATH_MAX], link[PATH_MAX], mine[PATH_MAX];
	struct answer a;
	int fd;

	begin_refused_dump(r, c, &a, images);
	UNTIL(r, c->checkpointing->again == DUMP_AGAIN_PAUSE && !rig_frozen(r, "web"));
	assert_true(c->exec_gate.closed);
	assert_int_equal(agent.results, 0);
	/* What the first one has written does not get into the second one's images. */
	fd = written(left, images, "pages-1.img");
	(void)close(written(mine, r->dir, "mine"));
	assert_int_equal(path_printf(link, sizeof(link), "%s/link", images), 0);
	assert_int_equal(symlink(mine, link), 0);
	assert_int_equal(path_printf(link, sizeof(link), "%s/hard", images), 0);
	assert_int_equal(linkat(AT_FDCWD, mine, AT_FDCWD, link, 0), 0);
	rig_script(r, "web", "checkpoint", "\n");
	UNTIL(r, agent.results);
	assert_true(agent.ok);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 2);
	assert_true(rig_frozen(r, "web"));
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(access(link, F_OK), -1);
	/* ... nor stands in its way: whoever follows it has it open. */
	assert_int_equal(size_of(fd), 0);
	(void)close(fd);
	/* What is elsewhere, too, is not touched. */
	fd = open(mine, O_RDONLY | O_CLOEXEC);
	assert_int_equal(size_of(fd), 1);
	(void)close(fd);
	assert_true(order(r, AGENT_ORDER_THAW));
	assert_true(order(r, AGENT_ORDER_RELEASE));
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void a_dump_is_not_tried_a_third_time(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	char images[PATH_MAX];
	struct answer a;

	begin_refused_dump(r, c, &a, images);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_CRIU_DUMP_FAILED);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 2);
	verdict(FAILED, REASON_CRIU_DUMP_FAILED);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void nobody_waits_for_another_dump_after_an_abort(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	char images[PATH_MAX];
	struct answer a;

	begin_refused_dump(r, c, &a, images);
	UNTIL(r, c->checkpointing->again == DUMP_AGAIN_PAUSE);
	speak(WORKING, AGENT_ORDER_ABORT, "", REASON_NONE);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 1);
	verdict(FAILED, REASON_CRIU_DUMP_FAILED);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* There is no CRIU yet that could be ended: it must not be started after all. */
static void an_abort_before_criu_is_started_is_not_lost(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	r->freezer_stuck = true;
	begin_order(AGENT_ORDER_DUMP, r->dir);
	UNTIL(r, rig_frozen(r, "web"));
	speak(WORKING, AGENT_ORDER_ABORT, "", REASON_NONE);
	UNTIL(r, c->checkpointing->aborted);
	assert_int_equal(agent.results, 0);
	r->freezer_stuck = false;
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_CANCELED);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 0);
	/* It was that order alone. */
	assert_true(order(r, AGENT_ORDER_THAW));
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 1);
	assert_true(order(r, AGENT_ORDER_THAW));
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* As much as an abort: nobody is there to take the images. */
static void an_agent_that_leaves_before_criu_is_started(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	r->freezer_stuck = true;
	begin_order(AGENT_ORDER_DUMP, r->dir);
	UNTIL(r, rig_frozen(r, "web"));
	grpc_call_finish(agent.call, RPC_UNAVAILABLE, "killed", bytes_of(NULL, 0));
	UNTIL(r, c->checkpointing->over);
	r->freezer_stuck = false;
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "AGENT_UNAVAILABLE"));
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 0);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* The order is at its end then, and an abort that comes late is about nothing. */
static void images_that_cannot_be_removed_end_the_dump(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	char images[PATH_MAX], away[PATH_MAX];
	struct answer a;

	begin_refused_dump(r, c, &a, images);
	UNTIL(r, c->checkpointing->again == DUMP_AGAIN_PAUSE && !rig_frozen(r, "web"));
	assert_int_equal(PATH_PRINTF(away, "%s.away", images), 0);
	assert_int_equal(rename(images, away), 0);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_STORE_FAILED);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 1);
	assert_int_equal(c->checkpointing->again, DUMP_AGAIN_NEVER);
	speak(WORKING, AGENT_ORDER_ABORT, "", REASON_NONE);
	UNTIL(r, c->checkpointing->aborted);
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	assert_int_equal(agent.results, 1);
	verdict(FAILED, REASON_STORE_FAILED);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* The client's own files are not ours to remove, so there is no second attempt among them. */
static void a_folder_that_was_not_empty_is_left_alone(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	char images[PATH_MAX], mine[PATH_MAX];
	struct answer a;

	assert_int_equal(path_printf(images, sizeof(images), "%s/images", r->dir), 0);
	assert_int_equal(path_mkdirs(images, 0700), 0);
	assert_int_equal(path_printf(mine, sizeof(mine), "%s/mine", images), 0);
	assert_int_equal(file_write(AT_FDCWD, mine, "1", 1, 0600, FILE_PLAIN), 0);
	begin_refused_dump(r, c, &a, images);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 1);
	assert_int_equal(access(mine, F_OK), 0);
	verdict(FAILED, REASON_CRIU_DUMP_FAILED);
	UNTIL(r, a.done);
	rig_answer_done(&a);
}

/* A log of CRIU's where it would write it. */
static void criu_logs(const struct rig *r, const char *name, const char *text)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(agent.work_path, "%s/criu-work", r->dir), 0);
	assert_int_equal(path_mkdirs(agent.work_path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%s", agent.work_path, name), 0);
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0600, FILE_PLAIN), 0);
}

static void criu_is_quoted(const char *name)
{
	char path[PATH_MAX];

	assert_string_equal(agent.detail, "Error (criu/files-reg.c:1): Can't lookup mount\n");
	assert_int_equal(PATH_PRINTF(path, "%s/%s", agent.work_path, name), 0);
	assert_string_equal(agent.log_path, path);
}

#define CRIU_LOG                                                                                   \
	"(00.1) a\n"                                                                               \
	"(00.2) Error (criu/files-reg.c:1): Can't lookup mount\n"

static void what_criu_says_of_a_dump_is_told(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	criu_logs(r, "dump.log", CRIU_LOG);
	rig_script(r, "web", "checkpoint", "fail criu failed: type NOTIFY errno 0\n");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(order(r, AGENT_ORDER_DUMP));
	assert_non_null(strstr(agent.message, "Can't lookup mount"));
	criu_is_quoted("dump.log");
	/* What fails after it has nothing to do with CRIU. */
	assert_false(order(r, AGENT_ORDER_RESTORE));
	assert_string_equal(agent.detail, "");
	assert_string_equal(agent.log_path, "");
	assert_true(order(r, AGENT_ORDER_THAW));
	verdict(FAILED, REASON_CRIU_DUMP_FAILED);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void the_log_of_a_dump_is_put_beside_its_images(void **state)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(4096);
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;
	char path[PATH_MAX];

	criu_logs(r, "dump.log", "(00.1) all is well\n");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_string_equal(agent.log_path, "");
	assert_int_equal(PATH_PRINTF(path, "%s/images/dump.log", r->dir), 0);
	assert_int_equal(file_read(AT_FDCWD, path, &text), 0);
	assert_string_equal(buf_str(&text), "(00.1) all is well\n");
	assert_true(order(r, AGENT_ORDER_THAW));
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void orders_that_make_no_sense(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_false(order(r, AGENT_ORDER_RESTORE));
	assert_int_equal(agent.reason, REASON_INTERNAL);
	assert_false(order(r, (enum agent_order)77));
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(order(r, AGENT_ORDER_QUIESCE));
	/* A second one before the first is done is not carried out. */
	agent.results = 0;
	speak(WORKING, AGENT_ORDER_FREEZE, "", REASON_NONE);
	speak(WORKING, AGENT_ORDER_EXIT, "", REASON_NONE);
	UNTIL(r, agent.results);
	assert_int_equal(agent.order, AGENT_ORDER_FREEZE);
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	assert_int_equal(agent.results, 1);
	assert_int_equal(rig_calls(r, "web", "kill"), 0);
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void a_checkpoint_with_exit_ends_it(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint_exit(r, &a);
	UNTIL(r, agent.call && agent.wants_exit);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_int_equal(c->init.exited_at, 0);
	assert_true(order(r, AGENT_ORDER_EXIT));
	assert_int_not_equal(c->init.exited_at, 0);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	rig_event(r, 2, "/tasks/exit web web 137");
	rig_answer_done(&a);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
	rig_event(r, 3, "/tasks/delete web 137");
	rig_events_end(r, 4); /* one exit, whoever ended it */
}

static void one_that_does_not_end_is_told(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	rig_script(r, "web", "kill", "nothing\n");
	begin_checkpoint_exit(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_true(order(r, AGENT_ORDER_DUMP));
	begin_order(AGENT_ORDER_EXIT, "");
	UNTIL(r, c->init.exit_hook); /* thawed: the exit is waited for from now on */
	assert_int_equal(rig_calls(r, "web", "kill"), 1);
	assert_false(rig_frozen(r, "web"));
	assert_int_equal(agent.results, 0);
	clock_advance(31 * NSEC_PER_SEC);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_TIMEOUT);
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

static void a_container_that_cannot_be_frozen_is_let_go(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	r->freezer_stuck = true;
	begin_order(AGENT_ORDER_DUMP, r->dir);
	UNTIL(r, rig_frozen(r, "web"));
	clock_advance(11 * NSEC_PER_SEC);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_TIMEOUT);
	assert_int_equal(rig_calls(r, "web", "checkpoint"), 0);
	r->freezer_stuck = false;
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* No process may come in while the container is locked and dumped. */
static void execs_wait_for_the_release(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	Task__StartRequest start = TASK__START_REQUEST__INIT;
	struct answer a, b;

	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	start.id = (char *)"web";
	start.exec_id = (char *)"sh";
	rig_begin(r, &b, "Start", &start.base);
	assert_true(order(r, AGENT_ORDER_DUMP));
	assert_true(order(r, AGENT_ORDER_THAW));
	assert_int_equal(rig_calls(r, "web", "exec"), 0);
	assert_int_equal(b.done, 0);
	assert_true(order(r, AGENT_ORDER_RELEASE));
	UNTIL(r, b.done); /* while the image is sealed */
	assert_int_equal(b.r, 0);
	assert_int_equal(a.done, 0);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
	rig_answer_done(&b);
}

static void an_exec_that_hangs_at_its_start_is_not_waited_for(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	Task__StartRequest start = TASK__START_REQUEST__INIT;
	struct answer a, b;

	rig_script(r, "web", "exec", "wait\n");
	assert_int_equal(rig_exec(r, "web", "sh", NULL), RPC_OK);
	start.id = (char *)"web";
	start.exec_id = (char *)"sh";
	rig_begin(r, &b, "Start", &start.base);
	UNTIL(r, rig_calls(r, "web", "exec"));
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	begin_order(AGENT_ORDER_QUIESCE, "");
	UNTIL(r, c->exec_gate.closed);
	assert_int_equal(agent.results, 0);
	clock_advance(11 * NSEC_PER_SEC);
	UNTIL(r, agent.results);
	assert_false(agent.ok);
	assert_int_equal(agent.reason, REASON_TIMEOUT);
	verdict(FAILED, REASON_TIMEOUT);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_go(r, "web", "exec");
	UNTIL(r, b.done);
	assert_int_equal(b.r, 0);
	rig_answer_done(&a);
	rig_answer_done(&b);
}

static void a_container_that_dies_meanwhile(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;

	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_int_equal(kill(c->init.pid, SIGKILL), 0);
	rig_event(r, 2, "/tasks/exit web web 137"); /* at once */
	verdict(FAILED, REASON_CONTAINER_MISSING);
	UNTIL(r, a.done);
	assert_false(rig_frozen(r, "web"));
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__STOPPED);
	rig_answer_done(&a);
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
}

/* --- suspend -------------------------------------------------------------------------------- */

static struct container *suspending(struct rig *r, struct answer *a)
{
	struct container *c;

	(void)rig_bundle(r, "web", SUSPENDED);
	assert_int_equal(rig_create(r, "web", NULL), RPC_OK);
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_OK);
	c = container_find(&r->shim, "web", NULL);
	assert_non_null(c);
	rig_begin_simple(r, a, "Pause", "web");
	UNTIL(r, agent.call && agent.kind == SUSPEND);
	return c;
}

static void a_container_is_suspended(void **state)
{
	struct rig *r = *state;
	struct answer a;
	struct container *c = suspending(r, &a);

	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_true(c->exec_gate.closed);
	assert_true(order(r, AGENT_ORDER_FREEZE));
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__PAUSING);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__PAUSED);
	as_before(r, c, PROCESS_PAUSED);
	rig_event(r, 2, "/tasks/paused web");
	rig_answer_done(&a);
}

/* Nothing that the agent says may bring the shim down: it serves a whole pod. */
static void a_suspend_is_quiet_once_only(void **state)
{
	struct rig *r = *state;
	struct answer a;
	struct container *c = suspending(r, &a);

	assert_true(order(r, AGENT_ORDER_QUIESCE));
	assert_false(order(r, AGENT_ORDER_QUIESCE));
	assert_int_equal(agent.reason, REASON_INTERNAL);
	assert_false(order(r, AGENT_ORDER_DUMP));
	verdict(FAILED, REASON_LOCK_TIMEOUT);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "LOCK_TIMEOUT: as the agent says"));
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* --- the store's lock ----------------------------------------------------------------------- */

/* A child as the shim makes them, before it has closed what it got: all of our descriptors. */
static pid_t child_with_copies(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			(void)sleep(1);
	}
	return pid;
}

/* As whoever removes a checkpoint asks. */
static bool in_use(const char *checkpoint)
{
	int fd = open(checkpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	assert_true(fd >= 0);
	r = flock(fd, LOCK_EX | LOCK_NB);
	assert_true(r == 0 || errno == EWOULDBLOCK);
	(void)close(fd);
	return r < 0;
}

static void a_dump_lets_go_of_its_images_at_once(void **state)
{
	struct rig *r = *state;
	struct container *c = gpu_running(r);
	struct answer a;
	pid_t child;

	rig_script(r, "web", "checkpoint", "wait\n");
	begin_checkpoint(r, &a);
	UNTIL(r, agent.call);
	c->checkpointing->options.ref = "my-ref";
	assert_true(order(r, AGENT_ORDER_QUIESCE));
	begin_order(AGENT_ORDER_DUMP, images_of(r));
	UNTIL(r, rig_calls(r, "web", "checkpoint"));
	assert_true(in_use(r->dir));
	child = child_with_copies();
	rig_go(r, "web", "checkpoint");
	UNTIL(r, agent.results);
	assert_true(agent.ok);
	assert_false(in_use(r->dir));
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_true(order(r, AGENT_ORDER_THAW));
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	as_before(r, c, PROCESS_RUNNING);
	rig_answer_done(&a);
}

/* --- restore -------------------------------------------------------------------------------- */

static void begin_create(struct rig *r, struct answer *a, const char *spec)
{
	(void)rig_bundle(r, "web", spec);
	rig_begin_create(r, a, "web");
}

/* Created from "my-ref": the agent has verified it. */
static struct container *prepared(struct rig *r)
{
	struct container *c;
	struct answer a;

	begin_create(r, &a, FROM_REF);
	UNTIL(r, agent.call && agent.prepare);
	assert_string_equal(agent.ref, "my-ref");
	assert_int_equal(rig_calls(r, "web", "create"), 0);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	rig_answer_done(&a);
	UNTIL(r, !agent.call);
	c = container_find(&r->shim, "web", NULL);
	assert_non_null(c);
	assert_int_equal(c->init.state, PROCESS_CREATED_CHECKPOINT);
	return c;
}

static void a_container_is_restored(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer a;
	char calls[4096];

	rig_begin_simple(r, &a, "Start", "web");
	UNTIL(r, agent.call && !agent.prepare);
	assert_int_equal(rig_calls(r, "web", "restore"), 0); /* not before it is ordered */
	assert_true(order(r, AGENT_ORDER_RESTORE));
	assert_int_equal(agent.task_pid, c->init.pid);
	rig_file(r, "web", "calls", calls, sizeof(calls));
	assert_non_null(strstr(calls, "--tcp-established"));
	assert_non_null(strstr(calls, "/images"));
	assert_int_equal(rig_calls(r, "web", "create"), 0);
	/* The processes are there, but not their GPU memory: it does not count as running. */
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__CREATED);
	assert_int_equal(a.done, 0);
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	assert_int_equal(rig_state(r, "web", ""), TASK__STATUS__RUNNING);
	rig_event(r, 1, "/tasks/start web");
	assert_int_equal(kill(c->init.pid, SIGKILL), 0);
	rig_event(r, 2, "/tasks/exit web web 137");
	rig_answer_done(&a);
}

static void a_restore_lets_go_of_its_images_at_once(void **state)
{
	struct rig *r = *state;
	struct answer a;
	pid_t child;

	(void)prepared(r);
	rig_begin_simple(r, &a, "Start", "web");
	UNTIL(r, agent.call && !agent.prepare);
	assert_true(order(r, AGENT_ORDER_RESTORE));
	assert_true(in_use(r->dir));
	child = child_with_copies();
	verdict(OK, REASON_NONE);
	UNTIL(r, a.done);
	assert_int_equal(a.r, 0);
	assert_false(in_use(r->dir));
	assert_int_equal(kill(child, SIGKILL), 0);
	rig_answer_done(&a);
}

static void what_does_not_fit_is_not_created(void **state)
{
	struct rig *r = *state;
	struct answer a;

	begin_create(r, &a, FROM_REF);
	UNTIL(r, agent.call);
	verdict(FAILED, REASON_DRIVER_MISMATCH);
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "DRIVER_MISMATCH: as the agent says"));
	assert_true(list_empty(&r->shim.containers));
	rig_answer_done(&a);
	begin_create(r, &a, EMPTY_REF); /* never a silent cold start */
	UNTIL(r, a.done);
	assert_non_null(strstr(a.err.text, "REF_INVALID"));
	assert_int_equal(rig_calls(r, "web", "create"), 0);
	rig_events_end(r, 0);
	rig_answer_done(&a);
}

/* What is half restored must not live on, and nobody waits for it. */
static void ended_badly(struct rig *r, struct container *c, struct answer *start, struct answer *wait)
{
	UNTIL(r, start->done && wait->done);
	assert_int_not_equal(start->r, 0);
	assert_int_equal(wait->r, 0);
	assert_int_equal(rig_calls(r, "web", "delete --force"), 1);
	assert_int_equal(c->init.state, PROCESS_CREATED_CHECKPOINT);
	assert_true(list_empty(&r->shim.reaper.holds));
	rig_answer_done(start);
	rig_answer_done(wait);
	assert_int_equal(rig_start(r, "web", "", NULL), RPC_UNKNOWN); /* once only */
	assert_int_equal(rig_delete(r, "web", "", NULL), RPC_OK);
}

static void begin_both(struct rig *r, struct answer *start, struct answer *wait)
{
	Task__WaitRequest req = TASK__WAIT_REQUEST__INIT;

	req.id = (char *)"web";
	rig_begin(r, wait, "Wait", &req.base);
	rig_begin_simple(r, start, "Start", "web");
	UNTIL(r, agent.call && !agent.prepare);
}

static void gpu_memory_that_does_not_come_back_ends_the_restore(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;

	begin_both(r, &start, &wait);
	assert_true(order(r, AGENT_ORDER_RESTORE));
	verdict(FAILED, REASON_VRAM_SHORT);
	UNTIL(r, start.done);
	assert_non_null(strstr(start.err.text, "VRAM_SHORT: as the agent says"));
	ended_badly(r, c, &start, &wait);
}

static void an_agent_that_leaves_ends_the_restore(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;

	rig_script(r, "web", "restore", "wait\n");
	begin_both(r, &start, &wait);
	begin_order(AGENT_ORDER_RESTORE, r->dir);
	UNTIL(r, rig_calls(r, "web", "restore"));
	grpc_call_finish(agent.call, RPC_UNAVAILABLE, "killed", bytes_of(NULL, 0));
	UNTIL(r, start.done);
	assert_non_null(strstr(start.err.text, "AGENT_UNAVAILABLE"));
	ended_badly(r, c, &start, &wait);
}

/* Outside of its cgroup it would have no limits: what the runtime has made must be joined. */
static void one_that_cannot_get_into_its_cgroup_does_not_run(void **state)
{
	static const char status[] = "{\"cgroup_paths\":{\"\":\"/sys/fs/cgroup/kyb-none\"}}";
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/web/web", r->dir), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/web/web/state.json", r->dir), 0);
	assert_int_equal(file_write(AT_FDCWD, path, status, strlen(status), 0600, FILE_PLAIN), 0);
	free(c->rt.root);
	assert_true(asprintf(&c->rt.root, "%s/web", r->dir) > 0);
	rig_cgroup(r, "web"); /* where CRIU puts it */
	begin_both(r, &start, &wait);
	assert_false(order(r, AGENT_ORDER_RESTORE));
	assert_int_equal(agent.reason, REASON_RUNTIME_FAILED);
	assert_non_null(strstr(agent.message, "not in its cgroup"));
	verdict(FAILED, REASON_RUNTIME_FAILED);
	ended_badly(r, c, &start, &wait);
}

static void a_restore_that_fails_at_criu_waits_for_the_agents_last_word(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;

	rig_script(r, "web", "restore", "fail criu failed: no such image\n");
	begin_both(r, &start, &wait);
	assert_false(order(r, AGENT_ORDER_RESTORE));
	assert_int_equal(agent.reason, REASON_CRIU_RESTORE_FAILED);
	assert_non_null(strstr(agent.message, "no such image"));
	assert_int_equal(start.done, 0);
	verdict(FAILED, REASON_CRIU_RESTORE_FAILED);
	ended_badly(r, c, &start, &wait);
}

static void what_criu_says_of_a_restore_is_told(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;

	criu_logs(r, "restore.log", CRIU_LOG);
	rig_script(r, "web", "restore", "fail criu failed: type NOTIFY errno 0\n");
	begin_both(r, &start, &wait);
	assert_false(order(r, AGENT_ORDER_RESTORE));
	criu_is_quoted("restore.log");
	verdict(FAILED, (enum reason)agent.reason);
	UNTIL(r, start.done);
	/* It is the agent who knows where the log is kept. */
	assert_non_null(strstr(start.err.text, "as the agent says"));
	ended_badly(r, c, &start, &wait);
}

static void a_last_word_that_does_not_come_is_not_waited_for(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start, wait;

	rig_script(r, "web", "restore", "fail criu failed: no such image\n");
	begin_both(r, &start, &wait);
	assert_false(order(r, AGENT_ORDER_RESTORE));
	UNTIL(r, rig_calls(r, "web", "delete --force"));
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	clock_advance(6 * NSEC_PER_SEC);
	ended_badly(r, c, &start, &wait);
}

static void an_agent_that_claims_what_it_has_not_ordered(void **state)
{
	struct rig *r = *state;
	struct container *c = prepared(r);
	struct answer start;

	rig_begin_simple(r, &start, "Start", "web");
	UNTIL(r, agent.call && !agent.prepare);
	assert_false(order(r, AGENT_ORDER_EXIT));
	assert_int_equal(agent.reason, REASON_INTERNAL);
	verdict(OK, REASON_NONE);
	UNTIL(r, start.done);
	assert_non_null(strstr(start.err.text, "that it has not ordered"));
	assert_int_equal(rig_calls(r, "web", "restore"), 0);
	assert_int_equal(c->init.state, PROCESS_CREATED_CHECKPOINT);
	rig_answer_done(&start);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(a_checkpoint_that_leaves_it_running),
		T(a_paused_container_is_thawed_and_paused_again),
		T(an_agent_that_is_not_there_means_no_checkpoint),
		T(mounts_that_do_not_answer_mean_no_checkpoint),
		T(mounts_that_cannot_be_looked_at_mean_no_checkpoint),
		T(an_agent_that_leaves_between_orders),
		T(an_agent_that_leaves_during_the_dump),
		T(a_dump_that_fails_is_told_with_its_reason),
		T(a_dump_that_may_do_better_is_tried_once_more),
		T(a_dump_is_not_tried_a_third_time),
		T(nobody_waits_for_another_dump_after_an_abort),
		T(an_abort_before_criu_is_started_is_not_lost),
		T(an_agent_that_leaves_before_criu_is_started),
		T(images_that_cannot_be_removed_end_the_dump),
		T(a_folder_that_was_not_empty_is_left_alone),
		T(what_criu_says_of_a_dump_is_told),
		T(the_log_of_a_dump_is_put_beside_its_images),
		T(what_criu_says_of_a_restore_is_told),
		T(orders_that_make_no_sense),
		T(a_checkpoint_with_exit_ends_it),
		T(one_that_does_not_end_is_told),
		T(a_container_that_cannot_be_frozen_is_let_go),
		T(execs_wait_for_the_release),
		T(an_exec_that_hangs_at_its_start_is_not_waited_for),
		T(a_container_that_dies_meanwhile),
		T(a_container_is_suspended),
		T(a_suspend_is_quiet_once_only),
		T(a_dump_lets_go_of_its_images_at_once),
		T(a_container_is_restored),
		T(a_restore_lets_go_of_its_images_at_once),
		T(what_does_not_fit_is_not_created),
		T(gpu_memory_that_does_not_come_back_ends_the_restore),
		T(an_agent_that_leaves_ends_the_restore),
		T(one_that_cannot_get_into_its_cgroup_does_not_run),
		T(a_restore_that_fails_at_criu_waits_for_the_agents_last_word),
		T(a_last_word_that_does_not_come_is_not_waited_for),
		T(an_agent_that_claims_what_it_has_not_ordered),
	};
	int r = rig_main(argc, argv);

	return r >= 0 ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
