/* SPDX-License-Identifier: Apache-2.0 */
#include "screen.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80

static const char *const codes[] = {
	[STYLE_PLAIN] = NULL, [STYLE_GOOD] = "\033[32m", [STYLE_WARN] = "\033[33m",
	[STYLE_BAD] = "\033[31m", [STYLE_DIM] = "\033[2m",
};

void screen_open(struct screen *s, int fd)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");

	s->fd = fd;
	s->live = isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
	s->colour = s->live && !(no_color && *no_color);
}

size_t screen_columns(const struct screen *s)
{
	struct winsize size;

	if (ioctl(s->fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return COLUMNS_DEFAULT;
	return size.ws_col;
}

void screen_style(bool colour, enum style style, struct text *t)
{
	if (colour && codes[style])
		text_add(t, codes[style]);
}

void screen_unstyle(bool colour, enum style style, struct text *t)
{
	if (colour && codes[style])
		text_add(t, "\033[0m");
}

/* Waits until fd takes output. Returns 0, -EINTR or -errno. */
static int wait_writable(int fd, int wake_fd)
{
	struct pollfd fds[2] = { { .fd = fd, .events = POLLOUT },
				 { .fd = wake_fd, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return -errno;
	return fds[1].revents ? -EINTR : 0;
}

int screen_write(const struct screen *s, struct text *t, int wake_fd)
{
	struct bytes rest = buf_bytes(&t->buf);
	int r = t->failed;

	while (r == 0 && rest.n > 0) {
		/* A pipe that is writable takes so much at once, without blocking: pipe(7). */
		size_t n = rest.n < PIPE_BUF ? rest.n : PIPE_BUF;
		ssize_t done;

		r = wait_writable(s->fd, wake_fd);
		if (r < 0)
			break;
		done = write(s->fd, rest.p, n);
		if (done < 0 && errno != EINTR && errno != EAGAIN)
			r = -errno;
		if (done > 0)
			rest = bytes_of(rest.p + done, rest.n - (size_t)done);
	}
	text_clear(t);
	return r;
}
