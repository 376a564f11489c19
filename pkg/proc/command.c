/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define READ_STEP    4096
#define READ_A_ROUND ((size_t)32 << 10) /* then other sources get their turn */

static void close_source(struct source *src)
{
	if (!src->loop)
		return;
	source_remove(src);
	(void)close(src->fd);
}

/*
 * Reads what is there, about most bytes of it. What exceeds the maximum is read and dropped, so
 * that the writer cannot block; and one that never stops cannot keep us here.
 */
static void drain(struct command *c, size_t most)
{
	char waste[READ_STEP];

	for (size_t sum = 0; sum < most;) {
		uint8_t *to = buf_reserve(&c->out, sizeof(waste));
		ssize_t n = read(c->out_src.fd, to ? to : (uint8_t *)waste, sizeof(waste));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close_source(&c->out_src);
			return;
		}
		if (to)
			buf_commit(&c->out, (size_t)n);
		sum += (size_t)n;
	}
}

static void out_ready(struct source *src, uint32_t events)
{
	(void)events;
	drain(container_of(src, struct command, out_src), READ_A_ROUND);
}

static void in_ready(struct source *src, uint32_t events)
{
	struct command *c = container_of(src, struct command, in_src);
	struct bytes b = buf_bytes(&c->in);
	ssize_t n;

	(void)events;
	n = write(src->fd, b.p, b.n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		buf_consume(&c->in, (size_t)n);
	if (n < 0 || buf_len(&c->in) == 0)
		close_source(src); /* EPIPE: it did not want the rest, its exit status will tell */
}

static void ended(struct job *job)
{
	struct command *c = container_of(job, struct command, ended);

	c->done(c);
}

static void exited(struct child *child, const struct exit_record *rec)
{
	struct command *c = container_of(child, struct command, child);
	int waiting = 0;

	c->status = rec->status;
	/* Its number is not used again as long as anybody is left in the group. */
	if (c->group && rec->status != 0)
		(void)kill(-rec->pid, SIGKILL);
	timer_cancel(&c->deadline);
	/*
	 * What it wrote is in the pipe now. Not until end of file: a daemon that it left behind
	 * may hold the pipe, and write to it, for ever.
	 */
	if (c->out_src.loop && ioctl(c->out_src.fd, FIONREAD, &waiting) == 0 && waiting > 0)
		drain(c, (size_t)waiting);
	close_source(&c->out_src);
	close_source(&c->in_src);
	job_put_off(c->loop, &c->ended, ended);
}

static void time_over(struct timer *t)
{
	struct command *c = container_of(t, struct command, deadline);

	c->timed_out = true;
	command_kill(c, SIGKILL);
}

static int make_pipe(int fds[2], int ours)
{
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	if (fcntl(fds[ours], F_SETFL, O_NONBLOCK) < 0) {
		int r = -errno;

		(void)close(fds[0]);
		(void)close(fds[1]);
		return r;
	}
	return 0;
}

int command_start(struct command *c, struct loop *loop, struct reaper *reaper,
		  const struct spawn *spawn_as, enum command_flags flags, const struct bytes *input,
		  nsec_t deadline, void (*done)(struct command *c), struct error *err)
{
	struct spawn s = *spawn_as;
	int out[2] = { -1, -1 }, in[2] = { -1, -1 };
	pid_t pid;
	int r = 0;

	*c = (struct command){ .loop = loop,
			       .done = done,
			       .group = spawn_as->new_group,
			       .out = BUF_LIMIT(COMMAND_OUTPUT_MAX) };
	if (flags & (COMMAND_CAPTURE_STDOUT | COMMAND_CAPTURE_STDERR))
		r = make_pipe(out, 0);
	if (r == 0 && input)
		r = make_pipe(in, 1);
	if (r == 0 && input)
		r = buf_append(&c->in, input->p, input->n);
	if (r < 0) {
		(void)error_sys(err, r, "start %s", s.program ? s.program : s.argv[0]);
		goto out;
	}
	if (flags & COMMAND_CAPTURE_STDOUT)
		spawn_fd(&s, out[1], 1);
	if (flags & COMMAND_CAPTURE_STDERR)
		spawn_fd(&s, out[1], 2);
	if (input)
		spawn_fd(&s, in[0], 0);
	r = spawn(&s, &pid, err);
	if (r < 0)
		goto out;
	reaper_watch(reaper, &c->child, pid, exited);
	/* Pipes can always be polled; if memory runs out here we lose output, not the process. */
	if (out[0] >= 0 && source_add(loop, &c->out_src, out[0], EPOLLIN, out_ready) == 0)
		out[0] = -1;
	if (in[1] >= 0 && source_add(loop, &c->in_src, in[1], EPOLLOUT, in_ready) == 0)
		in[1] = -1;
	if (deadline != NSEC_NEVER)
		timer_set(loop, &c->deadline, deadline, time_over);
out:
	for (int i = 0; i < 2; i++) {
		if (out[i] >= 0)
			(void)close(out[i]);
		if (in[i] >= 0)
			(void)close(in[i]);
	}
	if (r < 0)
		buf_done(&c->in);
	return r;
}

void command_kill(struct command *c, int signo)
{
	/* Not yet reaped, so the number is still this process's. */
	if (c->child.pid)
		(void)kill(c->group ? -c->child.pid : c->child.pid, signo);
}

int command_result(const struct command *c, const char *what, struct error *err)
{
	if (c->timed_out)
		return error_reason(err, REASON_TIMEOUT, -ETIMEDOUT,
				    "%s was killed: it did not end in its time", what);
	if (WIFSIGNALED(c->status))
		return error_set(err, -EIO, "%s was killed by signal %d", what,
				 WTERMSIG(c->status));
	if (WEXITSTATUS(c->status) != 0)
		return error_set(err, -EIO, "%s: exit status %d", what, WEXITSTATUS(c->status));
	return 0;
}

void command_release(struct command *c)
{
	if (command_running(c)) {
		command_kill(c, SIGKILL);
		reaper_unwatch(&c->child);
	}
	if (!c->loop)
		return;
	timer_cancel(&c->deadline);
	job_cancel(&c->ended);
	close_source(&c->out_src);
	close_source(&c->in_src);
	buf_done(&c->out);
	buf_done(&c->in);
}
