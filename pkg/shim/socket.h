/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's socket: its name, which containerd's tests and its CRI compute for themselves, and
 * taking it into possession. Source: containerd pkg/shim/util_unix.go (CreateSocketAddress),
 * cmd/containerd-shim-runc-v2/manager/manager_linux.go.
 */
#ifndef KYB_SHIM_SOCKET_H
#define KYB_SHIM_SOCKET_H

#include <sys/types.h>

#include "base/error.h"

#define SOCKET_DIR      "/run/containerd/s"
#define SOCKET_PATH_MAX 107 /* of sockaddr_un.sun_path, with its NUL 108 */

/*
 * DIR/SHA256(CLEANED grpc_address/ns/group). dir: SOCKET_DIR, or what containerd 2.3+ names.
 * buf holds SOCKET_PATH_MAX + 1 bytes. Returns 0 or -ENAMETOOLONG.
 */
int socket_path(const char *dir, const char *grpc_address, const char *ns, const char *group,
		char *buf);

/*
 * Listens on path, whose folder is created (0700) if missing. Returns a listening descriptor;
 * -EADDRINUSE when a living shim serves it; or negative with err. A socket left behind by a dead
 * one is replaced. Two callers at once are told apart by a lock on the folder: one listens, the
 * other finds it living. Who holds that lock is waited for, for two seconds: -ETIMEDOUT.
 */
int socket_listen(const char *path, struct error *err);

/* Which file a socket is, so that a shim that leaves removes its own and never a successor's. */
struct socket_id {
	dev_t dev;
	ino_t ino;
};

int socket_identify(const char *path, struct socket_id *ret);
/* Removes path if it still is that file. */
void socket_unlink(const char *path, const struct socket_id *id);

#endif
