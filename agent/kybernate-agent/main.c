/* SPDX-License-Identifier: Apache-2.0 */
/* kybernate-agent: the node agent. What it does is said in pkg/agent/agent.h. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "artifact/spool.h"
#include "artifact/worker.h"
#include "base/fd.h"
#include "base/log.h"
#include "isolate.h"

static int usage(FILE *to, int status)
{
	(void)fprintf(to, "usage: kybernate-agent [--config FILE] [--version]\n"
			  "\n"
			  "Conducts GPU checkpoints on this node. See kybernate-agent(8).\n");
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "config", required_argument, NULL, 'c' },
						 { "version", no_argument, NULL, 'v' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	struct error err = ERROR_NULL;
	const char *config = NULL;
	int opt, status;

	/* The same program does what blocks, in processes of its own. */
	if (worker_role(argc, argv, &status) || spool_role(argc, argv, &status))
		return status;
	while ((opt = getopt_long(argc, argv, "c:vh", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			config = optarg;
			break;
		case 'v':
			(void)printf("kybernate-agent %s\n", KYB_VERSION);
			return 0;
		case 'h':
			return usage(stdout, 0);
		default:
			return usage(stderr, 2);
		}
	}
	if (optind < argc)
		return usage(stderr, 2);
	if (fd_cloexec_from(3) < 0 || isolate(&err) < 0 || agent_run(config, &err) < 0) {
		log_error("agent failed", F_ERR(&err));
		return 1;
	}
	return 0;
}
