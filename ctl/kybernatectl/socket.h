/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way to the agent's socket. Whoever answers there learns what is asked and decides what is
 * shown, so it must be root's or our own: the socket's owner is looked at before anything else,
 * and the peer's user (SO_PEERCRED: who called listen()) before a byte is sent.
 */
#ifndef KYB_CTL_SOCKET_H
#define KYB_CTL_SOCKET_H

#include "fault.h"

#define SOCKET_DEFAULT "/run/kybernate/agent.sock"
#define SOCKET_ENV     "KYBERNATE_AGENT_SOCKET"

/* Takes a leading "unix://" or "unix:" off, as crictl's and grpcurl's users write it. */
const char *socket_path(const char *address);

/*
 * Connects. *ret_fd: non-blocking, O_CLOEXEC, the caller closes it; -1 when the agent has too many
 * connections waiting at this moment (try again). Returns CTL_OK, or the exit status with f.
 */
int socket_connect(const char *path, int *ret_fd, struct fault *f);

#endif
