/* SPDX-License-Identifier: Apache-2.0 */
#include "event/signals.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void readable(struct source *src, uint32_t events)
{
	struct signals *s = container_of(src, struct signals, src);
	struct signalfd_siginfo info;

	(void)events;
	while (read(src->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		s->caught(s, (int)info.ssi_signo);
		if (!s->src.loop)
			return; /* closed by the callback */
	}
}

int signals_open(struct loop *loop, struct signals *s, const int *signos,
		 void (*caught)(struct signals *s, int signo))
{
	sigset_t set;
	int fd, r;

	sigemptyset(&set);
	for (; *signos; signos++)
		sigaddset(&set, *signos);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	s->caught = caught;
	r = source_add(loop, &s->src, fd, EPOLLIN, readable);
	if (r < 0)
		(void)close(fd);
	return r;
}

void signals_close(struct signals *s)
{
	if (!s->src.loop)
		return;
	source_remove(&s->src);
	(void)close(s->src.fd);
}
