/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/logger.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "proc/spawn.h"

#define READY_MAX     (30 * NSEC_PER_SEC)
/* A logger ends by itself at end of file; the reference sends SIGTERM at once, which can cost the
 * last lines. */
#define END_OF_FILE_MAX (1 * NSEC_PER_SEC)
#define TERMINATE_MAX   (12 * NSEC_PER_SEC) /* binaryIOProcTermTimeout */
#define KILL_MAX        (5 * NSEC_PER_SEC)

static void close_ready(struct logger *l)
{
	if (!l->ready_src.loop)
		return;
	source_remove(&l->ready_src);
	(void)close(l->ready_src.fd);
}

static void report(struct logger *l, int r)
{
	void (*done)(struct logger *, int) = l->done;

	timer_cancel(&l->timer);
	close_ready(l);
	l->ready = r == 0;
	l->done = NULL;
	if (done)
		done(l, r);
}

static void ready(struct source *src, uint32_t events)
{
	struct logger *l = container_of(src, struct logger, ready_src);
	char byte;
	ssize_t n = read(src->fd, &byte, 1);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	report(l, n < 0 ? -errno : n == 0 && l->v2 ? -EPIPE : 0);
}

static void not_ready(struct timer *t)
{
	report(container_of(t, struct logger, timer), -ETIMEDOUT);
}

static void exited(struct child *child, const struct exit_record *rec)
{
	struct logger *l = container_of(child, struct logger, child);

	(void)rec;
	/* While we wait for it to be ready the time runs on: a child of its own may hold the pipe. */
	if (!l->stopped)
		return;
	timer_cancel(&l->timer);
	l->stopped(l);
}

int logger_start(struct logger *l, struct loop *loop, struct reaper *reaper,
		 const struct uri *uri, const char *ns, const char *id, int *ret_out, int *ret_err,
		 void (*done)(struct logger *l, int r), struct error *err)
{
	const char *argv[2 + 2 * URI_PAIRS_MAX];
	char env_id[ID_MAX + 32], env_ns[ID_MAX + 32];
	const char *envp[] = { env_id, env_ns, NULL };
	_cleanup_close_ int out_r = -1, out_w = -1, err_r = -1, err_w = -1, go_r = -1, go_w = -1;
	struct spawn s = { .argv = argv, .envp = envp };
	int p[2], r;
	size_t n = 0;
	pid_t pid;

	*l = (struct logger){ .v2 = uri->scheme == URI_BINARY_V2, .done = done };
	argv[n++] = uri->path;
	for (unsigned int i = 0; i < uri->n_pairs; i++) {
		argv[n++] = uri->pairs[i].key;
		argv[n++] = uri->pairs[i].value;
	}
	argv[n] = NULL;
	(void)snprintf(env_id, sizeof(env_id), "CONTAINER_ID=%s", id);
	(void)snprintf(env_ns, sizeof(env_ns), "CONTAINER_NAMESPACE=%s", ns);
	if (pipe2(p, O_CLOEXEC) == 0)
		out_r = p[0], out_w = p[1];
	if (pipe2(p, O_CLOEXEC) == 0)
		err_r = p[0], err_w = p[1];
	if (pipe2(p, O_CLOEXEC) == 0)
		go_r = p[0], go_w = p[1];
	if (out_r < 0 || err_r < 0 || go_r < 0 || fcntl(go_r, F_SETFL, O_NONBLOCK) < 0)
		return error_sys(err, errno, "create the logger's pipes");
	spawn_fd(&s, out_r, 3);
	spawn_fd(&s, err_r, 4);
	spawn_fd(&s, go_w, 5);
	r = spawn(&s, &pid, err);
	if (r < 0)
		return error_wrap(err, r, "failed to start binary process");
	l->loop = loop;
	reaper_watch(reaper, &l->child, pid, exited);
	r = source_add(loop, &l->ready_src, go_r, EPOLLIN, ready);
	if (r < 0) {
		logger_close(l);
		return error_sys(err, r, "wait for the logger");
	}
	(void)TAKE_FD(go_r);
	timer_set(loop, &l->timer, time_now() + READY_MAX, not_ready);
	*ret_out = TAKE_FD(out_w);
	*ret_err = TAKE_FD(err_w);
	return 0;
}

static void does_not_die(struct timer *t)
{
	struct logger *l = container_of(t, struct logger, timer);

	reaper_unwatch(&l->child);
	l->stopped(l);
}

static void hurry(struct timer *t)
{
	struct logger *l = container_of(t, struct logger, timer);

	(void)kill(l->child.pid, l->killed ? SIGKILL : SIGTERM);
	timer_set(l->loop, &l->timer, time_now() + (l->killed ? KILL_MAX : TERMINATE_MAX),
		  l->killed ? does_not_die : hurry);
	l->killed = true;
}

static void gone_before(struct timer *t)
{
	struct logger *l = container_of(t, struct logger, timer);

	l->stopped(l);
}

void logger_stop(struct logger *l, void (*stopped)(struct logger *l))
{
	l->stopped = stopped;
	if (l->child.pid)
		timer_set(l->loop, &l->timer, time_now() + END_OF_FILE_MAX, hurry);
	else
		timer_set(l->loop, &l->timer, time_now(), gone_before);
}

void logger_close(struct logger *l)
{
	if (!l->loop)
		return;
	timer_cancel(&l->timer);
	close_ready(l);
	if (l->child.pid) {
		(void)kill(l->child.pid, SIGKILL);
		reaper_unwatch(&l->child);
	}
	*l = (struct logger){ 0 };
}
