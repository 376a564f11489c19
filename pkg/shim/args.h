/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's command line, in the syntax of Go's flag package, which containerd's callers assume:
 * "-id x", "-id=x", "--id x"; booleans "-debug" or "-debug=true"; the first other word is the
 * action. Source: containerd pkg/shim/shim.go.
 */
#ifndef KYB_SHIM_ARGS_H
#define KYB_SHIM_ARGS_H

#include <stdbool.h>

#include "base/error.h"

/* What a shim calls itself in the process list, under whatever name it was installed. */
#define SHIM_NAME "containerd-shim-kybernate-v1"

struct args {
	const char *ns, *id, *bundle, *address, *publish_binary, *socket,
		*debug_socket; /* "" when not given */
	bool debug, version, info;
	const char *action; /* "start", "delete", "" for the daemon */
};

/* Strings point into argv. Returns 0 or -EINVAL with err: then print it and exit with 2. */
int args_parse(int argc, char **argv, struct args *ret, struct error *err);
/* Are namespace and id there, and fit to be parts of paths? Returns 0 or -EINVAL with err. */
int args_check_names(const struct args *args, struct error *err);

#endif
