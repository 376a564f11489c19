/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/fifo.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PAUSE_FIRST NSEC_PER_MSEC
#define PAUSE_MAX   (50 * NSEC_PER_MSEC)

/* Returns a descriptor, or -ENXIO as long as nobody reads. */
static int try_writer(const char *path)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int both;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISFIFO(st.st_mode))
		return TAKE_FD(fd);
	/* There is a reader now. One descriptor of both directions keeps it that way for us. */
	both = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	return both < 0 ? -errno : both;
}

static void try_again(struct timer *t)
{
	struct fifo_open *f = container_of(t, struct fifo_open, timer);
	int fd = try_writer(f->path);

	if (fd == -ENXIO && time_now() < f->deadline) {
		timer_set(f->loop, &f->timer, time_now() + f->pause, try_again);
		f->pause = f->pause * 2 < PAUSE_MAX ? f->pause * 2 : PAUSE_MAX;
		return;
	}
	f->result = fd == -ENXIO ? -ETIMEDOUT : fd;
	f->loop = NULL;
	f->done(f);
}

void fifo_open_writer(struct fifo_open *f, struct loop *loop, const char *path, nsec_t deadline,
		      void (*done)(struct fifo_open *f))
{
	*f = (struct fifo_open){ .loop = loop,
				 .path = path,
				 .pause = PAUSE_FIRST,
				 .deadline = deadline,
				 .done = done };
	timer_set(loop, &f->timer, time_now(), try_again);
}

void fifo_open_hurry(struct fifo_open *f, nsec_t deadline)
{
	if (f->loop && deadline < f->deadline)
		f->deadline = deadline; /* it looks every PAUSE_MAX at least */
}

void fifo_open_cancel(struct fifo_open *f)
{
	if (!f->loop)
		return;
	timer_cancel(&f->timer);
	f->loop = NULL;
}

int fifo_open_stdin(const char *path, int *ret_reader, int *ret_holder)
{
	_cleanup_close_ int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	int holder = -1;
	struct stat st;

	if (reader < 0)
		return -errno;
	if (fstat(reader, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode)) {
		holder = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (holder < 0)
			return -errno;
	}
	*ret_reader = TAKE_FD(reader);
	*ret_holder = holder;
	return 0;
}
