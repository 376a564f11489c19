/* SPDX-License-Identifier: Apache-2.0 */
#include "socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char hint_start[] =
	"start kybernate-agent on this node, or name its socket with --socket or " SOCKET_ENV;
static const char hint_root[] = "call as the user the agent runs as: root, as a rule (sudo)";
static const char hint_owner[] = "somebody else listens there: check the path";

const char *socket_path(const char *address)
{
	static const char *const prefixes[] = { "unix://", "unix:" };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(address, prefixes[i], strlen(prefixes[i])) == 0)
			return address + strlen(prefixes[i]);
	return address;
}

static bool trusted(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static int foreign(const char *path, const char *what, uid_t uid, struct fault *f)
{
	(void)fault_set(f, CTL_REFUSED, REASON_PERMISSION,
			"%s %s user %u, who is neither root nor you", path, what, uid);
	return fault_hint(f, hint_owner);
}

static int unreachable(const char *path, int error, struct fault *f)
{
	if (error == EACCES || error == EPERM) {
		(void)fault_set(f, CTL_REFUSED, REASON_PERMISSION, "%s: %s", path, strerror(error));
		return fault_hint(f, hint_root);
	}
	(void)fault_set(f, CTL_UNREACHABLE, REASON_AGENT_UNAVAILABLE, "%s: %s", path,
			error == ECONNREFUSED ? "nobody listens on this socket" : strerror(error));
	return fault_hint(f, hint_start);
}

static int check_owner(const char *path, struct fault *f)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return unreachable(path, errno, f);
	if (!S_ISSOCK(st.st_mode)) {
		(void)fault_set(f, CTL_UNREACHABLE, REASON_AGENT_UNAVAILABLE,
				"%s: not a socket", path);
		return fault_hint(f, hint_start);
	}
	return trusted(st.st_uid) ? CTL_OK : foreign(path, "belongs to", st.st_uid, f);
}

/* The path may have been replaced since check_owner(); the connection cannot be. */
static int check_peer(const char *path, int fd, struct fault *f)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
		return unreachable(path, errno, f);
	return trusted(peer.uid) ? CTL_OK : foreign(path, "is served by", peer.uid, f);
}

int socket_connect(const char *path, int *ret_fd, struct fault *f)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	int exit;

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return fault_set(f, CTL_USAGE, REASON_NONE,
				 "\"%s\": a socket's path has 1 to %zu bytes", path,
				 sizeof(addr.sun_path) - 1);
	exit = check_owner(path, f);
	if (exit != CTL_OK)
		return exit;
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return unreachable(path, errno, f);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		*ret_fd = -1;
		return errno == EAGAIN ? CTL_OK : unreachable(path, errno, f);
	}
	exit = check_peer(path, fd, f);
	if (exit == CTL_OK)
		*ret_fd = TAKE_FD(fd);
	return exit;
}
