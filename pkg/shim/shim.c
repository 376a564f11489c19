/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "shim/service.h"
#include "shim/task.h"

#define LEAVE_MAX  (5 * NSEC_PER_SEC) /* for the last events and answers; as the reference */
#define LEAVE_STEP (5 * NSEC_PER_MSEC)

void shim_publish(struct shim *shim, const char *topic, const char *type,
		  const ProtobufCMessage *event)
{
	publisher_send(shim->publisher, topic, type, event);
}

void shim_expect_moves(struct shim *shim)
{
	int r = forewarn_moves(&shim->forewarn);

	if (r < 0)
		log_debug("no child to forewarn the kernel", F_INT("errno", -r));
}

static void leave_when_flushed(struct timer *t)
{
	struct shim *shim = container_of(t, struct shim, leave);

	/*
	 * Calls under way are answered: CRI kills, sees the exit, deletes and shuts down before the
	 * runtime's `kill` has returned, and takes a closed connection for a Kill that failed.
	 */
	if (time_now() < shim->leave_by &&
	    !(publisher_idle(shim->publisher) && shim->n_ops == 0 &&
	      ttrpc_server_flushed(shim->server)))
		timer_set(shim->loop, t, time_now() + LEAVE_STEP, leave_when_flushed);
	else
		loop_stop(shim->loop);
}

void shim_leave(struct shim *shim)
{
	if (shim->leave_by)
		return;
	shim->leave_by = time_now() + LEAVE_MAX;
	timer_cancel(&shim->orphan.timer);
	/* First the name, then the socket: a new shim must never find its own removed. */
	if (*shim->socket_path)
		socket_unlink(shim->socket_path, &shim->socket_id);
	ttrpc_server_stop(shim->server);
	timer_set(shim->loop, &shim->leave, time_now(), leave_when_flushed);
}

static void caught(struct signals *s, int signo)
{
	struct shim *shim = container_of(s, struct shim, signals);

	if (signo == SIGCHLD) {
		reaper_sweep(&shim->reaper);
		return;
	}
	if (signo == SIGUSR1) {
		log_info("state", F_STR("id", shim->id),
			 F_INT("containers", list_count(&shim->containers)),
			 F_INT("heap", mallinfo2().uordblks));
		return;
	}
	/* Containers live on; containerd runs `delete` for each and ends them there. */
	log_info("leaving on a signal", F_INT("signal", signo));
	shim_leave(shim);
}

/*
 * What we log goes to containerd through the FIFO that it keeps in the bundle. Not blocking: when
 * nobody reads, lines are dropped.
 */
static void open_log(void)
{
	int fd = open("log", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return; /* started by hand: stderr it is */
	(void)dup3(fd, STDERR_FILENO, O_CLOEXEC);
	(void)close(fd);
}

static int set_up(struct shim *shim, const struct args *args, int listen_fd, struct error *err)
{
	static const int signos[] = { SIGCHLD, SIGTERM, SIGINT, SIGUSR1, 0 };
	const char *events = getenv("TTRPC_ADDRESS");
	int r;

	r = shim_settings_load(getenv(SHIM_SETTINGS_ENV), &shim->settings, err);
	if (r < 0)
		return r;
	log_set_level(args->debug ? LOG_DEBUG : shim->settings.log_level);
	r = cgroup_host_open(&shim->cgroups, cgroup_mode_at(CGROUP_ROOT), CGROUP_ROOT, "/proc", err);
	if (r == 0)
		r = loop_new(&shim->loop);
	if (r == 0)
		r = signals_open(shim->loop, &shim->signals, signos, caught);
	if (r == 0)
		r = publisher_new(&shim->publisher, shim->loop, events ? events : "", shim->ns);
	if (r == 0 && *shim->socket_path)
		r = socket_identify(shim->socket_path, &shim->socket_id);
	if (r == 0)
		r = ttrpc_server_new(&shim->server, shim->loop, listen_fd, service_table,
				     service_table_size, shim);
	else
		(void)close(listen_fd);
	return r < 0 && err->code == 0 ? error_sys(err, r, "set up") : r;
}

static void tear_down(struct shim *shim)
{
	struct container *c;

	ttrpc_server_free(shim->server);
	publisher_free(shim->publisher);
	while ((c = list_first(&shim->containers, struct container, node)))
		container_retire(c);
	forewarn_done(&shim->forewarn);
	timer_cancel(&shim->orphan.timer);
	signals_close(&shim->signals);
	loop_free(shim->loop);
	cgroup_host_close(&shim->cgroups);
	shim_settings_done(&shim->settings);
}

/*
 * What starting up needed goes: free heap, and the code that was mapped for it, which lies apart
 * from what serves calls (cold.ld). Code is a clean mapping of our file: what is used again comes
 * back from the page cache.
 */
static void trim(void)
{
	extern char __executable_start[], etext[]; /* by the linker */
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t from = (uintptr_t)__executable_start & ~(page - 1);
	uintptr_t to = (uintptr_t)etext & ~(page - 1);

	(void)malloc_trim(0);
	(void)madvise((void *)from, to - from, MADV_DONTNEED);
}

int shim_serve(const struct args *args, int listen_fd, struct error *err)
{
	struct shim shim = { .ns = args->ns,
			     .id = args->id,
			     .grpc_address = args->address,
			     .socket_path = args->socket };
	int r;

	list_init(&shim.containers);
	reaper_init(&shim.reaper);
	forewarn_init(&shim.forewarn, &shim.cgroups, &shim.reaper);
	open_log();
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return error_sys(err, errno, "become a subreaper");
	r = set_up(&shim, args, listen_fd, err);
	if (r == 0) {
		shim_expect_moves(&shim); /* a Create is on its way */
		log_debug("shim serving", F_STR("id", shim.id), F_STR("namespace", shim.ns),
			  F_INT("pid", getpid()));
		orphan_watch_shim(&shim);
		trim();
		r = loop_run(shim.loop);
		if (r < 0)
			(void)error_sys(err, r, "event loop");
	}
	if (r < 0)
		log_error("shim failed", F_ERR(err));
	tear_down(&shim);
	return r;
}
