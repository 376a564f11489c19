/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/console.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define NAME_MAX_BYTES 4096

static void close_source(struct source *src)
{
	if (!src->loop)
		return;
	source_remove(src);
	(void)close(src->fd);
}

static void finish(struct console *c, int master, int r)
{
	close_source(&c->peer);
	close_source(&c->listener);
	c->master = master;
	c->failed = r;
	if (c->done)
		c->done(c);
}

/* The one descriptor of a message, or -errno. Whatever else it carries is closed. */
static int take_fd(struct msghdr *msg)
{
	int found = -1;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
			if (found < 0)
				found = fd;
			else
				(void)close(fd);
		}
	}
	if (found >= 0 && !isatty(found)) {
		(void)close(found);
		return -ENOTTY;
	}
	return found < 0 ? -EBADMSG : found;
}

static void receive(struct source *src, uint32_t events)
{
	struct console *c = container_of(src, struct console, peer);
	union {
		struct cmsghdr align;
		char raw[CMSG_SPACE(4 * sizeof(int))];
	} control;
	char name[NAME_MAX_BYTES];
	struct iovec iov = { name, sizeof(name) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(src->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int fd;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		finish(c, -1, -errno);
		return;
	}
	fd = take_fd(&msg);
	finish(c, fd < 0 ? -1 : fd, fd < 0 ? fd : 0);
}

static void acceptable(struct source *src, uint32_t events)
{
	struct console *c = container_of(src, struct console, listener);
	int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	(void)events;
	if (fd < 0)
		return;
	if (c->peer.loop) {
		(void)close(fd); /* one connection only */
		return;
	}
	r = source_add(c->loop, &c->peer, fd, EPOLLIN, receive);
	if (r < 0) {
		(void)close(fd);
		finish(c, -1, r);
	}
}

int console_listen(struct console *c, struct loop *loop, struct error *err)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	int r;

	*c = (struct console){ .master = -1 };
	/* A socket's path has 107 characters at most: a long folder is of no use to us. */
	if (!base || strlen(base) > 20 || base[0] != '/')
		base = "/tmp";
	(void)snprintf(c->dir, sizeof(c->dir), "%s/pty-XXXXXX", base);
	if (!mkdtemp(c->dir))
		return error_sys(err, errno, "create a folder for the console socket in %s", base);
	c->loop = loop;
	(void)snprintf(c->path, sizeof(c->path), "%s/pty.sock", c->dir);
	(void)strcpy(addr.sun_path, c->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(c->path, 0700) < 0 || listen(fd, 1) < 0)
		r = -errno;
	else
		r = source_add(loop, &c->listener, fd, EPOLLIN, acceptable);
	if (r < 0) {
		console_close(c);
		return error_sys(err, r, "listen for the terminal");
	}
	(void)TAKE_FD(fd);
	return 0;
}

static void deliver(struct timer *t);

void console_wait(struct console *c, void (*done)(struct console *c))
{
	c->done = done;
	if (c->master >= 0 || c->failed)
		timer_set(c->loop, &c->late, time_now(), deliver);
}

static void deliver(struct timer *t)
{
	struct console *c = container_of(t, struct console, late);

	c->done(c);
}

void console_close(struct console *c)
{
	if (!c->loop)
		return;
	timer_cancel(&c->late);
	close_source(&c->peer);
	close_source(&c->listener);
	if (c->master >= 0)
		(void)close(c->master);
	(void)unlink(c->path);
	(void)rmdir(c->dir);
	*c = (struct console){ .master = -1 };
}
