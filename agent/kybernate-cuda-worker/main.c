/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kybernate-cuda-worker: the only process of the project that loads NVIDIA's driver. A child of
 * the node agent, resident, replaced when it hangs or dies. It serves the agent on the socket it
 * was given and is good for nothing else; pkg/gpu/protocol.h says what they talk about.
 *
 * Exit status: 0 the agent went away, 1 a failure that was logged, 2 wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "gpu/service.h"
#include "isolate.h"

struct options {
	struct gpu_service_config service;
	int fd, parent;
};

static int usage(FILE *to, int status)
{
	(void)fputs("usage: kybernate-cuda-worker --fd=N [--parent=PID] [--libcuda=LIBRARY]\n"
		    "                             [--libnvml=LIBRARY]\n"
		    "       kybernate-cuda-worker --version\n"
		    "The first form is for kybernate-agent; it is of no use to anybody else.\n",
		    to);
	return status;
}

/* Returns -1 to go on, or the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{ "fd", required_argument, NULL, 'f' },
		{ "parent", required_argument, NULL, 'p' },
		{ "libcuda", required_argument, NULL, 'c' },
		{ "libnvml", required_argument, NULL, 'n' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t number;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if ((c == 'f' || c == 'p') && num_parse(optarg, INT_MAX, &number) < 0)
			return usage(stderr, 2);
		switch (c) {
		case 'f':
			o->fd = (int)number;
			break;
		case 'p':
			o->parent = (int)number;
			break;
		case 'c':
			o->service.libcuda = optarg;
			break;
		case 'n':
			o->service.libnvml = optarg;
			break;
		case 'v':
			return puts("kybernate-cuda-worker " KYB_VERSION) == EOF;
		case 'h':
			return usage(stdout, 0);
		default:
			return usage(stderr, 2);
		}
	}
	return optind < argc || o->fd < 3 ? usage(stderr, 2) : -1;
}

int main(int argc, char **argv)
{
	struct options o = { .fd = -1 };
	struct error err = ERROR_NULL;
	int status = parse(argc, argv, &o), r;

	if (status >= 0)
		return status;
	r = isolate(o.fd, o.parent, &err);
	if (r == 0)
		r = gpu_service_run(o.fd, &o.service, &err);
	if (r < 0)
		log_error("CUDA worker failed", F_ERR(&err));
	/* Not exit(): driver calls may still be under way in other threads, and the driver's
	 * exit handlers would wait for them or pull the ground away under them. */
	_exit(r < 0 ? 1 : 0);
}
