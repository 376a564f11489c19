/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/loopdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/time.h"

#define TRIES       100
#define TRIES_QUICK 10 /* before each further one waits a millisecond */

/* LOOP_CONFIGURE does all at once; before Linux 5.8 it takes two or three steps. */
static int configure(int dev, int file, const struct loop_info64 *info, bool direct_io)
{
	struct loop_config config = { .fd = (__u32)file, .info = *info };
	int r;

	if (direct_io)
		config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
	if (ioctl(dev, LOOP_CONFIGURE, &config) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOTTY && errno != ENOSYS)
		return -errno;
	if (ioctl(dev, LOOP_SET_FD, file) < 0)
		return -errno;
	if (ioctl(dev, LOOP_SET_STATUS64, info) == 0 &&
	    (!direct_io || ioctl(dev, LOOP_SET_DIRECT_IO, 1UL) == 0))
		return 0;
	r = -errno;
	(void)ioctl(dev, LOOP_CLR_FD, 0);
	return r;
}

static int attach_once(struct loopdev *dev, int file, const struct loop_info64 *info,
		       struct error *err)
{
	_cleanup_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	_cleanup_close_ int fd = -1;
	int number, r;

	if (control < 0)
		return error_sys(err, errno, "open /dev/loop-control");
	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		return error_sys(err, errno, "find a free loop device");
	(void)snprintf(dev->path, sizeof(dev->path), "/dev/loop%d", number);
	fd = open(dev->path, (dev->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "open %s", dev->path);
	r = configure(fd, file, info, dev->direct_io);
	if (r < 0)
		return error_sys(err, r, "set up %s", dev->path);
	return TAKE_FD(fd);
}

int loopdev_attach(struct loopdev *dev, const char *file, struct error *err)
{
	const struct timespec pause = { .tv_nsec = (long)NSEC_PER_MSEC };
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	_cleanup_close_ int fd = open(file, (dev->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	struct error last = ERROR_NULL;
	int r = -EBUSY;

	if (fd < 0)
		return error_sys(err, errno, "open %s", file);
	if (dev->readonly)
		info.lo_flags |= LO_FLAGS_READ_ONLY;
	/* For losetup(8); cut when too long, and the kernel ends it. */
	(void)snprintf((char *)info.lo_file_name, sizeof(info.lo_file_name), "%s", file);
	/* Another process can take the free device between the two calls: ask for the next. */
	for (int i = 0; i < TRIES && r == -EBUSY; i++) {
		if (i >= TRIES_QUICK)
			(void)nanosleep(&pause, NULL);
		r = attach_once(dev, fd, &info, &last);
	}
	if (r < 0 && err)
		*err = last;
	return r;
}
