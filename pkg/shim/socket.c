/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sha256.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/time.h"

#define BACKLOG    1024
/* Others hold the lock for the blink of an eye, unless they have been stopped. */
#define LOCK_MAX   (2 * NSEC_PER_SEC)
#define LOCK_AGAIN (5 * NSEC_PER_MSEC)

int socket_path(const char *dir, const char *grpc_address, const char *ns, const char *group,
		char *buf)
{
	char joined[PATH_MAX], hex[SHA256_DIGEST_STRING_LENGTH];
	int r = PATH_JOIN(joined, grpc_address, ns, group);

	if (r < 0)
		return r;
	(void)SHA256Data((const uint8_t *)joined, strlen(joined), hex);
	return path_printf(buf, SOCKET_PATH_MAX + 1, "%s/%s", dir, hex);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return addr;
}

/* Does somebody listen there? A full backlog (EAGAIN) is somebody. */
static bool living(const char *path)
{
	struct sockaddr_un addr = address(path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 &&
	       (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN);
}

/*
 * The folder, locked: without it, between another's bind() and listen(), we would take its
 * socket for a dead one. The lock ends with the descriptor.
 */
static int lock_folder(const char *path, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char dir[PATH_MAX];
	int r;

	(void)snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	r = path_mkdirs(dir, 0700);
	if (r < 0)
		return error_sys(err, r, "create %s", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "open %s", dir);
	for (nsec_t end = time_now() + LOCK_MAX; flock(fd, LOCK_EX | LOCK_NB) < 0;) {
		const struct timespec pause = { .tv_nsec = LOCK_AGAIN };

		if (errno != EINTR && errno != EWOULDBLOCK)
			return error_sys(err, errno, "lock %s", dir);
		if (time_now() >= end)
			return error_sys(err, -ETIMEDOUT, "lock %s: another process holds it", dir);
		(void)nanosleep(&pause, NULL);
	}
	return TAKE_FD(fd);
}

int socket_listen(const char *path, struct error *err)
{
	_cleanup_close_ int lock = -1, fd = -1;
	struct sockaddr_un addr = address(path);

	if (path[0] != '/' || strlen(path) > SOCKET_PATH_MAX)
		return error_set(err, -ENAMETOOLONG, "%s: unix socket path too long (> %d)", path,
				 SOCKET_PATH_MAX);
	lock = lock_folder(path, err);
	if (lock < 0)
		return lock;
	if (living(path))
		return error_set(err, -EADDRINUSE, "%s: served by another shim", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_sys(err, errno, "remove the dead socket %s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_sys(err, errno, "create a socket");
	/* fchmod() before bind() decides the mode of the file: it never exists with another. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(path, 0600) < 0 || listen(fd, BACKLOG) < 0)
		return error_sys(err, errno, "listen on %s", path);
	return TAKE_FD(fd);
}

int socket_identify(const char *path, struct socket_id *ret)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	*ret = (struct socket_id){ st.st_dev, st.st_ino };
	return 0;
}

void socket_unlink(const char *path, const struct socket_id *id)
{
	_cleanup_close_ int lock = lock_folder(path, NULL); /* without it we still do our best */
	struct socket_id now;

	(void)lock;
	if (socket_identify(path, &now) == 0 && now.dev == id->dev && now.ino == id->ino)
		(void)unlink(path);
}
