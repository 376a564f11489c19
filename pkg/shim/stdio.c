/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/path.h"
#include "shim/uri.h"

enum { IN, OUT, ERR };

static void drop(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

int stdio_init(struct stdio *io, struct loop *loop, struct reaper *reaper, const char *in,
	       const char *out, const char *err_path, bool terminal)
{
	const char *given[3] = { in, out, err_path };

	*io = (struct stdio){ .loop = loop, .reaper = reaper, .terminal = terminal };
	io->stdin_holder = io->console.master = -1;
	for (int i = 0; i < 3; i++) {
		io->child[i] = io->ours[i] = io->sink[i] = -1;
		io->path[i] = strdup(given[i]);
		if (!io->path[i]) {
			stdio_close(io);
			return -ENOMEM;
		}
	}
	return 0;
}

/* --- the end of whatever is under way ------------------------------------------------------- */

static void finish(struct stdio *io, int r)
{
	void (*done)(struct stdio *, int, const struct error *) = io->done;

	for (int i = 0; i < 3; i++)
		fifo_open_cancel(&io->opening[i]);
	io->busy = STDIO_IDLE;
	io->done = NULL;
	done(io, r, &io->err);
}

/* --- prepare -------------------------------------------------------------------------------- */

static int make_pipe(struct stdio *io, int stream, struct error *err)
{
	int p[2], mine = stream == IN ? 1 : 0;

	if (pipe2(p, O_CLOEXEC) < 0)
		return error_sys(err, errno, "create a pipe");
	io->ours[stream] = p[mine];
	io->child[stream] = p[1 - mine];
	/* A user namespace's root must be able to open /dev/stdout again. */
	if ((io->uid || io->gid) && fchown(io->child[stream], io->uid, io->gid) < 0)
		return error_sys(err, errno, "give a pipe to uid %u", io->uid);
	return 0;
}

static int create_file(const char *path, struct error *err)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *dir = strdup(path);
	char *slash;
	int r;

	if (!dir)
		return error_set(err, -ENOMEM, "out of memory");
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = 0;
		r = path_mkdirs(dir, 0755);
		if (r < 0)
			return error_sys(err, r, "create the folder of %s", path);
	}
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	return fd < 0 ? error_sys(err, errno, "open %s", path) : 0;
}

static void logger_ready(struct logger *l, int r)
{
	struct stdio *io = container_of(l, struct stdio, logger);

	if (r < 0)
		(void)error_sys(&io->err, r, "wait for the logging binary");
	finish(io, r);
}

static int start_logger(struct stdio *io, const struct uri *uri, struct error *err)
{
	int out = -1, error = -1, r;

	r = logger_start(&io->logger, io->loop, io->reaper, uri, io->ns, io->id, &out, &error,
			 logger_ready, err);
	if (r < 0)
		return r;
	if (io->terminal) {
		io->sink[OUT] = out; /* pumped from the terminal */
		io->sink[ERR] = error; /* silent, but open, as with the reference */
	} else {
		io->child[OUT] = out;
		io->child[ERR] = error;
	}
	return 1;
}

static int set_target(struct stdio *io, int stream, const char *path, struct error *err)
{
	if (!*path)
		return 0;
	io->target[stream] = strdup(path);
	if (!io->target[stream])
		return error_set(err, -ENOMEM, "out of memory");
	return io->terminal ? 0 : make_pipe(io, stream, err);
}

/* The scheme of stdout decides for all three. */
static int prepare(struct stdio *io, struct error *err)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(4 * URI_MAX);
	struct uri out, in_uri, err_uri;
	int r;

	r = uri_parse(io->path[OUT], &arena, &out, err);
	if (r == 0)
		r = uri_parse(io->path[IN], &arena, &in_uri, err);
	if (r == 0 && out.scheme == URI_FIFO)
		r = uri_parse(io->path[ERR], &arena, &err_uri, err);
	if (r == 0)
		r = set_target(io, IN, in_uri.path, err);
	if (r < 0)
		return r;
	if (out.scheme == URI_BINARY || out.scheme == URI_BINARY_V2)
		return start_logger(io, &out, err);
	if (out.scheme == URI_FILE) {
		r = create_file(out.path, err);
		if (r == 0)
			r = set_target(io, OUT, out.path, err);
		if (r == 0 && !io->terminal)
			r = set_target(io, ERR, out.path, err);
		return r;
	}
	r = set_target(io, OUT, out.path, err);
	if (r == 0 && !io->terminal)
		r = set_target(io, ERR, err_uri.path, err);
	return r;
}

int stdio_prepare(struct stdio *io, uid_t uid, gid_t gid, const char *ns, const char *id,
		  void (*done)(struct stdio *io, int r, const struct error *err),
		  struct error *err)
{
	int r;

	io->uid = uid;
	io->gid = gid;
	io->ns = ns;
	io->id = id;
	if (io->terminal) {
		r = console_listen(&io->console, io->loop, err);
		if (r < 0)
			return r;
	}
	r = prepare(io, err);
	if (r > 0) {
		io->busy = STDIO_PREPARING;
		io->done = done;
	}
	return r;
}

void stdio_child(const struct stdio *io, struct spawn *s)
{
	if (io->terminal)
		return;
	for (int i = 0; i < 3; i++)
		spawn_fd(s, io->child[i], i);
}

const char *stdio_console(const struct stdio *io)
{
	return io->terminal ? io->console.path : NULL;
}

/* --- attach --------------------------------------------------------------------------------- */

static void check_drained(struct stdio *io);

static void in_done(struct pump *p)
{
	struct stdio *io = container_of(p, struct stdio, pump[IN]);

	pump_close(p);
	drop(&io->stdin_holder);
	/* End of input on a terminal hangs it up, as with the reference. */
	if (io->terminal)
		pump_close(&io->pump[OUT]);
	check_drained(io);
}

static void out_done(struct pump *p)
{
	struct stdio *io = container_of(p, struct stdio, pump[OUT]);

	if (io->terminal)
		pump_close(&io->pump[IN]);
	pump_close(p);
	check_drained(io);
}

static void err_done(struct pump *p)
{
	pump_close(p);
	check_drained(container_of(p, struct stdio, pump[ERR]));
}

static void (*const pump_done[3])(struct pump *p) = { in_done, out_done, err_done };

static int start_pump(struct stdio *io, int stream, int from, int to, enum pump_flags flags)
{
	int r = pump_open(&io->pump[stream], io->loop, from, to, flags, pump_done[stream]);

	return r < 0 ? error_sys(&io->err, r, "copy %s",
				 stream == IN	 ? "stdin"
				 : stream == OUT ? "stdout"
						 : "stderr")
		     : 0;
}

static int start_stdin(struct stdio *io, int to, enum pump_flags flags)
{
	int from, r;

	r = fifo_open_stdin(io->target[IN], &from, &io->stdin_holder);
	if (r < 0) {
		if (!(flags & PUMP_BORROWS_TO))
			drop(&to);
		return error_sys(&io->err, r, "containerd-shim: opening %s failed",
				 io->target[IN]);
	}
	return start_pump(io, IN, from, to, flags);
}

/* The pump of the output owns the terminal, and that of the input is closed before it. */
static int start_terminal(struct stdio *io)
{
	int master = TAKE_FD(io->console.master), r;

	console_close(&io->console);
	r = start_pump(io, OUT, master, TAKE_FD(io->sink[OUT]), PUMP_TERMINAL);
	if (r < 0 || !io->target[IN])
		return r;
	return start_stdin(io, master, PUMP_BORROWS_TO);
}

static int start_pipes(struct stdio *io)
{
	int r = 0;

	for (int i = OUT; i <= ERR && r == 0; i++)
		if (io->target[i])
			r = start_pump(io, i, TAKE_FD(io->ours[i]), TAKE_FD(io->sink[i]),
				       PUMP_PLAIN);
	if (r < 0 || !io->target[IN]) {
		drop(&io->ours[IN]);
		return r;
	}
	return start_stdin(io, TAKE_FD(io->ours[IN]), PUMP_PLAIN);
}

/* Called when one of the things attach waits for has come: are all here? */
static void attach_more(struct stdio *io)
{
	int r;

	for (int i = OUT; i <= ERR; i++)
		if (io->opening[i].loop)
			return;
	if (io->terminal && io->console.master < 0)
		return;
	r = io->terminal ? start_terminal(io) : start_pipes(io);
	timer_cancel(&io->drain);
	finish(io, r);
}

static void attach_failed(struct stdio *io, int r)
{
	timer_cancel(&io->drain);
	console_close(&io->console); /* a terminal that comes now has nobody to be told */
	finish(io, r);
}

static void opened(struct stdio *io, int stream)
{
	int fd = io->opening[stream].result;

	if (fd < 0) {
		attach_failed(io, error_sys(&io->err, fd,
					    "containerd-shim: opening w/o fifo \"%s\" failed",
					    io->target[stream]));
		return;
	}
	io->sink[stream] = fd;
	attach_more(io);
}

static void out_opened(struct fifo_open *f)
{
	opened(container_of(f, struct stdio, opening[OUT]), OUT);
}

static void err_opened(struct fifo_open *f)
{
	opened(container_of(f, struct stdio, opening[ERR]), ERR);
}

static void master_here(struct console *c)
{
	struct stdio *io = container_of(c, struct stdio, console);

	if (c->failed)
		attach_failed(io, error_sys(&io->err, c->failed,
					    "failed to retrieve console master"));
	else
		attach_more(io);
}

static void attach_time_over(struct timer *t)
{
	struct stdio *io = container_of(t, struct stdio, drain);

	attach_failed(io, error_set(&io->err, -ETIMEDOUT,
				    "failed to start io: no terminal, or no reader of the output"));
}

static void nothing_to_open(struct timer *t)
{
	attach_more(container_of(t, struct stdio, drain));
}

void stdio_attach(struct stdio *io, nsec_t deadline,
		  void (*done)(struct stdio *io, int r, const struct error *err))
{
	io->busy = STDIO_ATTACHING;
	io->err = ERROR_NULL;
	io->done = done;
	/* Else end of file would never be seen. A logger reads its pipes itself. */
	for (int i = 0; i < 3; i++)
		drop(&io->child[i]);
	if (io->target[OUT])
		fifo_open_writer(&io->opening[OUT], io->loop, io->target[OUT], deadline,
				 out_opened);
	if (io->target[ERR])
		fifo_open_writer(&io->opening[ERR], io->loop, io->target[ERR], deadline,
				 err_opened);
	if (io->terminal) {
		timer_set(io->loop, &io->drain, deadline, attach_time_over);
		console_wait(&io->console, master_here);
	} else if (!io->target[OUT] && !io->target[ERR]) {
		timer_set(io->loop, &io->drain, time_now(), nothing_to_open);
	}
}

void stdio_hurry(struct stdio *io, nsec_t deadline)
{
	if (io->busy != STDIO_ATTACHING)
		return;
	for (int i = OUT; i <= ERR; i++)
		fifo_open_hurry(&io->opening[i], deadline);
	if (io->terminal && deadline < io->drain.at)
		timer_set(io->loop, &io->drain, deadline, attach_time_over);
}

/* --- the end -------------------------------------------------------------------------------- */

void stdio_exited(struct stdio *io)
{
	if (!io->terminal)
		return;
	pump_close(&io->pump[IN]);
	pump_finish(&io->pump[OUT]);
}

static void logger_gone(struct logger *l)
{
	struct stdio *io = container_of(l, struct stdio, logger);

	timer_cancel(&io->drain);
	finish(io, io->err.code);
}

static void check_drained(struct stdio *io)
{
	if (io->busy != STDIO_DRAINING || pump_is_open(&io->pump[OUT]) ||
	    pump_is_open(&io->pump[ERR]))
		return;
	timer_cancel(&io->drain);
	if (io->logger.loop) {
		drop(&io->sink[OUT]);
		drop(&io->sink[ERR]);
		logger_stop(&io->logger, logger_gone);
		return;
	}
	finish(io, io->err.code);
}

static void drain_time_over(struct timer *t)
{
	struct stdio *io = container_of(t, struct stdio, drain);

	(void)error_set(&io->err, -ETIMEDOUT,
			"output was given up: some process still holds its end of it");
	if (io->terminal)
		pump_close(&io->pump[IN]);
	pump_close(&io->pump[OUT]);
	pump_close(&io->pump[ERR]);
	check_drained(io);
}

static void drain_now(struct timer *t)
{
	check_drained(container_of(t, struct stdio, drain));
}

void stdio_drain(struct stdio *io, nsec_t deadline,
		 void (*done)(struct stdio *io, int r, const struct error *err))
{
	bool open = pump_is_open(&io->pump[OUT]) || pump_is_open(&io->pump[ERR]);

	io->busy = STDIO_DRAINING;
	io->err = ERROR_NULL;
	io->done = done;
	for (int i = 0; i < 3; i++)
		drop(&io->child[i]);
	timer_set(io->loop, &io->drain, open ? deadline : time_now(),
		  open ? drain_time_over : drain_now);
}

void stdio_close_stdin(struct stdio *io)
{
	drop(&io->stdin_holder);
}

bool stdio_quiet(const struct stdio *io)
{
	return pump_idle(&io->pump[OUT]) && pump_idle(&io->pump[ERR]);
}

int stdio_resize(struct stdio *io, unsigned int width, unsigned int height, struct error *err)
{
	struct winsize ws = { .ws_col = (unsigned short)width, .ws_row = (unsigned short)height };

	if (!io->terminal || !pump_is_open(&io->pump[OUT]))
		return 0;
	if (ioctl(io->pump[OUT].from, TIOCSWINSZ, &ws) < 0)
		return error_sys(err, errno, "resize the terminal");
	return 0;
}

void stdio_close(struct stdio *io)
{
	if (!io->loop)
		return;
	timer_cancel(&io->drain);
	logger_close(&io->logger);
	console_close(&io->console);
	for (int i = 0; i < 3; i++) {
		fifo_open_cancel(&io->opening[i]);
		pump_close(&io->pump[i]);
		drop(&io->child[i]);
		drop(&io->ours[i]);
		drop(&io->sink[i]);
		free(io->path[i]);
		free(io->target[i]);
	}
	drop(&io->stdin_holder);
	*io = (struct stdio){ 0 };
}
