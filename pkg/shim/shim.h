/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's daemon: serves one pod from its socket until containerd says Shutdown. */
#ifndef KYB_SHIM_SHIM_H
#define KYB_SHIM_SHIM_H

#include "base/error.h"
#include "shim/args.h"

/*
 * Runs to the end. listen_fd is the socket inherited from `start`, bound to args->socket. The
 * working directory is the bundle. Returns 0 after an orderly end, or negative with err.
 */
int shim_serve(const struct args *args, int listen_fd, struct error *err);

#endif
