/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim-bench: what a benchmark does to a shim where the time of an interpreter would count.
 *
 *	lifecycle SHIM BUNDLE NAMESPACE ID GRPC-ADDRESS OPTIONS-FILE
 *		runs `start` as containerd does, then Create, Start, Kill, Wait, Delete, Shutdown;
 *		events are taken at GRPC-ADDRESS.ttrpc. OPTIONS-FILE: the runtime options, an Any.
 *	state ADDRESS ID COUNT DEPTH
 *		COUNT calls of State on one connection, DEPTH of them in flight.
 *	suspend ADDRESS ID
 *		Pause and Resume.
 *	drain FIFO
 *		reads to the end, as fast as the kernel gives it.
 *
 * Prints one JSON object; times are in microseconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/containerd/task.pb-c.h"
#include "base/path.h"
#include "bench/client.h"

#define DRAIN_STEP ((size_t)1 << 20)

static double us(nsec_t from, nsec_t to)
{
	return (double)(to - from) / NSEC_PER_USEC;
}

/* --- lifecycle ------------------------------------------------------------------------------ */

struct lifecycle {
	struct client client;
	char *shim, *bundle, *ns, *id, *grpc;
	struct buf options;
	char address[256];
};

static void read_file(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *to = buf_reserve(out, 4096);
	ssize_t n = fd < 0 || !to ? -1 : read(fd, to, 4096);

	if (n < 0)
		client_die("%s: %s", path, strerror(errno));
	buf_commit(out, (size_t)n);
	(void)close(fd);
}

static _Noreturn void exec_start(const struct lifecycle *l, int in, int out)
{
	char *argv[] = { l->shim, (char *)"-namespace", l->ns, (char *)"-address", l->grpc,
			 (char *)"-publish-binary", (char *)"/usr/bin/containerd", (char *)"-id",
			 l->id, (char *)"start", NULL };

	if (setpgid(0, 0) < 0 || chdir(l->bundle) < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 ||
	    dup2(out, 2) < 0)
		_exit(126);
	(void)execv(l->shim, argv);
	_exit(127);
}

/* Options on its stdin, the address on its stdout, which is read to its end. */
static void run_start(struct lifecycle *l)
{
	_cleanup_buf_ struct buf reply = BUF_NULL;
	int in[2], out[2], status;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		client_die("pipe: %s", strerror(errno));
	pid = vfork();
	if (pid == 0)
		exec_start(l, in[0], out[1]);
	if (pid < 0)
		client_die("vfork: %s", strerror(errno));
	(void)close(in[0]);
	(void)close(out[1]);
	if (write(in[1], buf_bytes(&l->options).p, buf_len(&l->options)) < 0)
		client_die("write: %s", strerror(errno));
	(void)close(in[1]);
	client_read_all(&l->client, out[0], &reply);
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		client_die("start: %s", buf_str(&reply));
	(void)snprintf(l->address, sizeof(l->address), "%s", buf_str(&reply));
	l->address[strcspn(l->address, "\n")] = 0;
}

/* ID's Any: type URL and value, as the file has them. */
static Ctd__Any *unpack_options(const struct lifecycle *l)
{
	Ctd__Any *any = ctd__any__unpack(NULL, buf_len(&l->options), buf_bytes(&l->options).p);

	if (!any)
		client_die("the options are no Any");
	return any;
}

static void call_create(struct lifecycle *l)
{
	Task__CreateTaskRequest create = TASK__CREATE_TASK_REQUEST__INIT;
	Ctd__Any *options = unpack_options(l);

	create.id = l->id;
	create.bundle = l->bundle;
	create.options = options;
	client_call(&l->client, "Create", &create.base);
	ctd__any__free_unpacked(options, NULL);
}

/* A client waits for the exit before it asks for it. */
static void call_kill_and_wait(struct lifecycle *l)
{
	Task__WaitRequest wait = TASK__WAIT_REQUEST__INIT;
	Task__KillRequest kill = TASK__KILL_REQUEST__INIT;

	wait.id = kill.id = l->id;
	kill.signal = SIGKILL;
	(void)client_send(&l->client, "Wait", &wait.base);
	(void)client_send(&l->client, "Kill", &kill.base);
	(void)client_wait_any(&l->client);
	(void)client_wait_any(&l->client);
}

static void shut_down(struct lifecycle *l)
{
	Task__ShutdownRequest shutdown = TASK__SHUTDOWN_REQUEST__INIT;

	shutdown.id = l->id;
	(void)client_send(&l->client, "Shutdown", &shutdown.base);
	client_wait_closed(&l->client);
}

static int do_lifecycle(char **argv)
{
	struct lifecycle l = { .shim = argv[0], .bundle = argv[1], .ns = argv[2], .id = argv[3],
			       .grpc = argv[4] };
	Task__ConnectRequest connect = TASK__CONNECT_REQUEST__INIT;
	Task__StartRequest start = TASK__START_REQUEST__INIT;
	Task__DeleteRequest delete = TASK__DELETE_REQUEST__INIT;
	nsec_t t[8];
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s.ttrpc", l.grpc) < 0 || setenv("TTRPC_ADDRESS", path, 1) < 0)
		client_die("%s: too long", l.grpc);
	read_file(argv[5], &l.options);
	client_init(&l.client, path);
	t[0] = time_now();
	run_start(&l);
	t[1] = time_now();
	client_connect(&l.client, l.address);
	connect.id = l.id;
	client_call(&l.client, "Connect", &connect.base);
	t[2] = time_now();
	call_create(&l);
	t[3] = time_now();
	start.id = l.id;
	client_call(&l.client, "Start", &start.base);
	t[4] = time_now();
	call_kill_and_wait(&l);
	t[5] = time_now();
	delete.id = l.id;
	client_call(&l.client, "Delete", &delete.base);
	t[6] = time_now();
	shut_down(&l);
	t[7] = time_now();
	printf("{\"start\": %.1f, \"up\": %.1f, \"create\": %.1f, \"run\": %.1f, \"kill\": %.1f, "
	       "\"delete\": %.1f, \"leave\": %.1f, \"events\": %u}\n",
	       us(t[0], t[1]), us(t[1], t[2]), us(t[2], t[3]), us(t[3], t[4]), us(t[4], t[5]),
	       us(t[5], t[6]), us(t[6], t[7]), l.client.events);
	buf_done(&l.options);
	client_done(&l.client);
	(void)unlink(path);
	return 0;
}

/* --- state ---------------------------------------------------------------------------------- */

static int do_state(char **argv)
{
	Task__StateRequest state = TASK__STATE_REQUEST__INIT;
	unsigned long count = strtoul(argv[2], NULL, 10), depth = strtoul(argv[3], NULL, 10);
	unsigned long sent = 0, answered = 0;
	struct client c;
	nsec_t from, to;

	client_init(&c, NULL);
	client_connect(&c, argv[0]);
	state.id = argv[1];
	client_call(&c, "State", &state.base);
	from = time_now();
	while (answered < count) {
		for (; sent < count && sent - answered < depth; sent++)
			(void)client_send(&c, "State", &state.base);
		(void)client_wait_any(&c);
		answered++;
	}
	to = time_now();
	printf("{\"count\": %lu, \"us\": %.1f}\n", answered, us(from, to));
	client_done(&c);
	return 0;
}

/* --- suspend -------------------------------------------------------------------------------- */

static int do_suspend(char **argv)
{
	Task__PauseRequest pause = TASK__PAUSE_REQUEST__INIT;
	Task__ResumeRequest resume = TASK__RESUME_REQUEST__INIT;
	struct client c;
	nsec_t from, paused, to;

	client_init(&c, NULL);
	client_connect(&c, argv[0]);
	pause.id = resume.id = argv[1];
	from = time_now();
	client_call(&c, "Pause", &pause.base);
	paused = time_now();
	client_call(&c, "Resume", &resume.base);
	to = time_now();
	printf("{\"pause_us\": %.1f, \"resume_us\": %.1f}\n", us(from, paused), us(paused, to));
	client_done(&c);
	return 0;
}

/* --- drain ---------------------------------------------------------------------------------- */

static int do_drain(char **argv)
{
	int fifo = open(argv[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct pollfd p = { fifo, POLLIN, 0 };
	uint64_t bytes = 0;
	nsec_t from = 0;

	if (fifo < 0 || null < 0)
		client_die("%s: %s", argv[0], strerror(errno));
	printf("ready\n"); /* the writer's side may be opened now */
	(void)fflush(stdout);
	for (;;) {
		ssize_t n;

		if (poll(&p, 1, CLIENT_TIME_MAX / NSEC_PER_MSEC) <= 0)
			client_die("nothing to read in time");
		if (!from)
			from = time_now();
		n = splice(fifo, NULL, null, NULL, DRAIN_STEP, SPLICE_F_NONBLOCK);
		if (n < 0 && errno != EAGAIN)
			client_die("splice: %s", strerror(errno));
		if (n == 0)
			break;
		bytes += n > 0 ? (uint64_t)n : 0;
	}
	printf("{\"bytes\": %" PRIu64 ", \"us\": %.1f}\n", bytes, us(from, time_now()));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int argc, (*run)(char **argv);
	} verbs[] = { { "lifecycle", 6, do_lifecycle }, { "state", 4, do_state },
		      { "suspend", 2, do_suspend }, { "drain", 1, do_drain } };

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (argc == verbs[i].argc + 2 && strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argv + 2);
	(void)fprintf(stderr, "usage: see the head of shim-bench.c\n");
	return 2;
}
