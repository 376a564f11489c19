/* SPDX-License-Identifier: Apache-2.0 */
/* The program by itself: what it gives up, whom it follows, what it refuses to read. */
#include "test-support.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/num.h"
#include "proc/procfs.h"
#include "proc/spawn.h"

struct program {
	struct fake_file fake;
	int fd; /* our end */
	pid_t pid;
};

static void start(struct program *p, bool die_with_parent)
{
	static char fake_env[96];
	const char *argv[] = { WORKER_PROGRAM, "--fd=7", "--libcuda=" FAKE_CUDA,
			       "--libnvml=" FAKE_NVML, NULL };
	const char *env[] = { fake_env, "CUDA_VISIBLE_DEVICES=1", "ASAN_OPTIONS=handle_segv=0",
			      NULL };
	struct spawn s = { .argv = argv, .envp = env, .die_with_parent = die_with_parent };
	struct error err = ERROR_NULL;
	int fds[2];

	memcpy(fake_env, p->fake.env, sizeof(fake_env));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	spawn_fd(&s, 2, 2);
	spawn_fd(&s, fds[1], 7);
	spawn_fd(&s, 2, 5); /* something it is to close */
	spawn_fd(&s, 2, 11);
	if (spawn(&s, &p->pid, &err) < 0)
		fail_msg("%s", err.text);
	(void)close(fds[1]);
	p->fd = fds[0];
}

static int setup(void **state)
{
	struct program *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->fd = -1;
	fake_open(&p->fake);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct program *p = *state;

	if (p->fd >= 0)
		(void)close(p->fd);
	if (p->pid) {
		(void)kill(p->pid, SIGKILL);
		(void)waitpid(p->pid, NULL, 0);
	}
	fake_close(&p->fake);
	free(p);
	return 0;
}

/* Waits for its end; returns its exit status. */
static int end_of(struct program *p)
{
	int status = 0;

	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	p->pid = 0;
	if (!WIFEXITED(status))
		fail_msg("it was killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static void ask(struct program *p, enum gpu_op op, uint64_t id, pid_t pid)
{
	struct gpu_request req;

	gpu_request_init(&req, op, id);
	req.pid = pid;
	req.timeout_ms = op == GPU_OP_LOCK ? 1000 : 0;
	assert_int_equal(send(p->fd, &req, sizeof(req), 0), sizeof(req));
}

static const struct gpu_reply *hear(struct program *p)
{
	static uint8_t packet[sizeof(union gpu_any_reply)];
	static union gpu_any_reply any;
	ssize_t n = recv(p->fd, packet, sizeof(packet), 0);

	assert_true(n > 0);
	assert_int_equal(gpu_reply_parse(bytes_of(packet, (size_t)n), &any), 0);
	return &any.reply;
}

static void say_hello(struct program *p)
{
	ask(p, GPU_OP_HELLO, 1, 0);
	assert_int_equal(hear(p)->status, GPU_STATUS_OK);
}

/* The value of a line in /proc/PID/status. */
static uint64_t status_of(pid_t pid, const char *key, int base)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	char path[32];
	const char *at;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
	assert_int_equal(file_read(AT_FDCWD, path, &b), 0);
	at = strstr(buf_str(&b), key);
	assert_non_null(at);
	return strtoull(at + strlen(key), NULL, base);
}

static void it_gives_up_what_it_does_not_need(void **state)
{
	const uint64_t keep = 1ULL << CAP_SYS_PTRACE | 1ULL << CAP_SYS_ADMIN |
			      1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH |
			      1ULL << CAP_KILL;
	struct program *p = *state;

	start(p, true);
	say_hello(p);
	assert_int_equal(status_of(p->pid, "NoNewPrivs:", 10), 1);
	assert_int_equal(status_of(p->pid, "Umask:", 8), 077);
	assert_int_equal(status_of(p->pid, "CapEff:", 16) & ~keep, 0);
	assert_int_equal(status_of(p->pid, "CapPrm:", 16) & ~keep, 0);
	assert_int_equal(status_of(p->pid, "CapInh:", 16), 0);
	assert_int_equal(status_of(p->pid, "CapAmb:", 16), 0);
	if (geteuid() == 0) {
		assert_int_equal(status_of(p->pid, "CapBnd:", 16) & ~keep, 0);
		assert_int_equal(status_of(p->pid, "CapEff:", 16),
				 status_of(getpid(), "CapEff:", 16) & keep);
	}
}

static int is_known(void *arg, int fd, const char *target)
{
	(void)arg;
	if (fd <= 2 || fd == 7 || strstr(target, "anon_inode:"))
		return 0; /* standard, the socket, epoll and eventfd */
	print_message("descriptor %d is open: %s\n", fd, target);
	return 1;
}

static void it_closes_what_it_was_not_given(void **state)
{
	struct program *p = *state;

	start(p, true);
	say_hello(p);
	assert_int_equal(procfs_each_fd(p->pid, is_known, NULL), 0);
}

static void it_ends_when_the_agent_closes(void **state)
{
	struct program *p = *state;

	start(p, true);
	say_hello(p);
	(void)close(p->fd);
	p->fd = -1;
	assert_int_equal(end_of(p), 0);
}

/* Also with a call in the driver that never returns. */
static void it_ends_with_a_call_under_way(void **state)
{
	struct program *p = *state;

	(void)fake_add(p->fake.cuda, getpid());
	p->fake.cuda->scripts[GPU_OP_LOCK].hang = 1;
	start(p, true);
	say_hello(p);
	ask(p, GPU_OP_LOCK, 2, getpid());
	while (!__atomic_load_n(&p->fake.cuda->inside, __ATOMIC_RELAXED))
		(void)usleep(1000);
	(void)close(p->fd);
	p->fd = -1;
	assert_int_equal(end_of(p), 0);
}

/* The agent is killed while somebody else holds its end of the socket open: no end of file. */
static void it_dies_with_the_agent(void **state)
{
	struct program *p = *state;
	struct {
		pid_t worker, holder;
	} said = { 0 };
	int pipe_fds[2];
	pid_t agent;

	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	agent = fork();
	assert_true(agent >= 0);
	if (agent == 0) {
		start(p, true);
		say_hello(p);
		said.worker = p->pid;
		said.holder = fork();
		if (said.holder)
			(void)!write(pipe_fds[1], &said, sizeof(said));
		for (;;)
			(void)pause();
	}
	assert_int_equal(read(pipe_fds[0], &said, sizeof(said)), sizeof(said));
	assert_true(said.holder > 0);
	assert_int_equal(kill(agent, SIGKILL), 0);
	assert_int_equal(waitpid(agent, NULL, 0), agent);
	assert_int_equal(waitpid(said.worker, NULL, 0), said.worker); /* ours to reap now */
	assert_int_equal(kill(said.holder, 0), 0);
	assert_int_equal(kill(said.holder, SIGKILL), 0);
	assert_int_equal(waitpid(said.holder, NULL, 0), said.holder);
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void pings_are_answered_while_the_driver_hangs(void **state)
{
	struct program *p = *state;
	const struct gpu_reply *r;

	p->fake.cuda->scripts[FAKE_INIT].hang = 1;
	start(p, true);
	ask(p, GPU_OP_HELLO, 1, 0);
	for (uint64_t id = 10; id < 20; id++) {
		ask(p, GPU_OP_PING, id, 0);
		r = hear(p);
		assert_int_equal(r->head.op, GPU_OP_PING);
		assert_int_equal(r->head.id, id);
	}
	/* Nothing else is, as yet. */
	ask(p, GPU_OP_PROBE, 20, getpid());
	assert_int_equal(hear(p)->status, GPU_STATUS_FAILED);
	__atomic_store_n(&p->fake.cuda->scripts[FAKE_INIT].hang, 0, __ATOMIC_RELAXED);
	assert_int_equal(hear(p)->head.op, GPU_OP_HELLO);
	ask(p, GPU_OP_PROBE, 21, getpid());
	assert_int_equal(hear(p)->status, GPU_STATUS_OK);
	ask(p, GPU_OP_HELLO, 22, 0);
	assert_int_equal(hear(p)->status, GPU_STATUS_FAILED); /* once is enough */
	assert_int_equal(p->fake.cuda->calls[FAKE_INIT], 1);
}

static void too_many_calls_are_refused(void **state)
{
	struct program *p = *state;
	unsigned int busy = 0;

	(void)fake_add(p->fake.cuda, getpid());
	p->fake.cuda->scripts[GPU_OP_STATE].hang = 1;
	start(p, true);
	say_hello(p);
	for (uint64_t i = 0; i < GPU_CALLS_MAX + 10; i++)
		ask(p, GPU_OP_STATE, 100 + i, getpid());
	for (int i = 0; i < 10; i++)
		busy += hear(p)->status == GPU_STATUS_BUSY;
	assert_int_equal(busy, 10);
	__atomic_store_n(&p->fake.cuda->scripts[GPU_OP_STATE].hang, 0, __ATOMIC_RELAXED);
	for (uint64_t i = 0; i < GPU_CALLS_MAX; i++) {
		const struct gpu_reply *r = hear(p);

		assert_int_equal(r->status, GPU_STATUS_OK);
		assert_int_equal(r->head.id, 100 + i); /* one process: in order */
	}
}

/* What is no request means that the agent is not itself: better no worker than such a one. */
static void what_is_no_request_ends_it(void **state)
{
	struct program *p = *state;
	static char big[sizeof(struct gpu_request) + 100];
	struct gpu_request req;

	gpu_request_init(&req, GPU_OP_STATE, 2); /* pid 0 */
	memcpy(big, &req, sizeof(req));
	for (int i = 0; i < 4; i++) {
		start(p, true);
		say_hello(p);
		if (i == 0)
			assert_int_equal(send(p->fd, "rubbish", 7, 0), 7);
		else if (i == 1)
			assert_int_equal(send(p->fd, &req, sizeof(req), 0), sizeof(req));
		else if (i == 2)
			assert_int_equal(send(p->fd, big, sizeof(big), 0), sizeof(big));
		else
			assert_int_equal(send(p->fd, &req, sizeof(req.head), 0), sizeof(req.head));
		assert_int_equal(end_of(p), 1);
		(void)close(p->fd);
		p->fd = -1;
	}
}

static void another_version_is_answered_with_ours(void **state)
{
	struct program *p = *state;
	struct gpu_request req;
	const struct gpu_reply *r;

	start(p, true);
	gpu_request_init(&req, GPU_OP_PING, 9);
	req.head.version = GPU_PROTOCOL_VERSION + 1;
	assert_int_equal(send(p->fd, &req, sizeof(req), 0), sizeof(req));
	r = hear(p);
	assert_int_equal(r->status, GPU_STATUS_VERSION);
	assert_int_equal(r->head.version, GPU_PROTOCOL_VERSION);
	assert_int_equal(r->head.id, 9);
	assert_int_equal(end_of(p), 1);
}

static void an_agent_that_does_not_read_is_waited_for(void **state)
{
	struct program *p = *state;
	int small = 1;

	start(p, true);
	say_hello(p);
	assert_int_equal(setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	for (uint64_t id = 100; id < 164; id++)
		ask(p, GPU_OP_MEMORY, id, 0); /* long replies */
	(void)usleep(100 * 1000);
	for (uint64_t id = 100; id < 164; id++)
		assert_int_equal(hear(p)->head.id, id);
}

static int run_with(const char *const *argv)
{
	const char *env[] = { NULL };
	struct spawn s = { .argv = argv, .envp = env };
	struct error err = ERROR_NULL;
	struct program p = { .fd = -1 };

	if (spawn(&s, &p.pid, &err) < 0)
		fail_msg("%s", err.text);
	return end_of(&p);
}

static void its_arguments_are_checked(void **state)
{
	(void)state;
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, NULL }), 2);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--fd=x", NULL }), 2);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--fd=2", NULL }), 2);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--what", NULL }), 2);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--fd=7", "x", NULL }), 2);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--fd=7", NULL }), 1);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--version", NULL }), 0);
	assert_int_equal(run_with((const char *[]){ WORKER_PROGRAM, "--help", NULL }), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(it_gives_up_what_it_does_not_need),
		T(it_closes_what_it_was_not_given),
		T(it_ends_when_the_agent_closes),
		T(it_ends_with_a_call_under_way),
		T(it_dies_with_the_agent),
		T(pings_are_answered_while_the_driver_hangs),
		T(too_many_calls_are_refused),
		T(what_is_no_request_ends_it),
		T(another_version_is_answered_with_ours),
		T(an_agent_that_does_not_read_is_waited_for),
		T(its_arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
