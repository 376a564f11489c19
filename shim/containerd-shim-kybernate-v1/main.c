/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd-shim-kybernate-v1: argv as containerd gives it, wired up with pkg/shim. What the
 * actions do is said in shim/bootstrap.h and shim/shim.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "shim/args.h"
#include "shim/bootstrap.h"
#include "shim/gpu.h"
#include "shim/shim.h"

#define LISTEN_FD 3

static int print_version(const char *name)
{
	(void)printf("%s:\n  Version:  %s\n  Revision: %s\n", name, KYB_VERSION, KYB_VERSION);
	return 0;
}

/* Our own helper: writes a container's changed files back, while the daemon goes on serving. */
static int sync_rootfs(const struct args *args, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s/rootfs", args->bundle) < 0)
		return error_set(err, -ENAMETOOLONG, "%s", args->bundle);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd) < 0)
		return error_sys(err, errno, "sync %s", path);
	return 0;
}

static int run(const struct args *args, struct error *err)
{
	/* Its names may come on stdin. */
	if (strcmp(args->action, "start") == 0)
		return bootstrap_start(args, err);
	if (args_check_names(args, err) < 0)
		return err->code;
	if (strcmp(args->action, "delete") == 0)
		return bootstrap_delete(args, err);
	if (strcmp(args->action, "sync-rootfs") == 0)
		return sync_rootfs(args, err);
	if (*args->action)
		return error_set(err, -EINVAL, "unknown action \"%.80s\"", args->action);
	/* The daemon: everything that leaked into us stays here, but for the listening socket. */
	if (fd_cloexec_from(LISTEN_FD) < 0)
		return error_sys(err, errno, "close descriptors");
	return shim_serve(args, LISTEN_FD, err);
}

int main(int argc, char **argv)
{
	struct error err = ERROR_NULL;
	struct args args;
	int r;

	if (args_parse(argc, argv, &args, &err) < 0) {
		(void)fprintf(stderr, "%s\n", error_text(&err));
		return 2;
	}
	if (args.version)
		return print_version(argv[0]);
	if (strcmp(args.action, "look-at-mounts") == 0)
		return gpu_look_main(args.bundle); /* our own helper: its output is the answer */
	r = args.info ? bootstrap_info(&err) : run(&args, &err);
	if (r < 0) {
		(void)fprintf(stderr, "%s: %s\n", argv[0], error_text(&err));
		return 1;
	}
	return 0;
}
