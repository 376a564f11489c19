/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the images of other projects' tests:
 *
 * sleep TIME[smhd]... - as coreutils have it: busybox's leaves after a checkpoint from 1.37 on, for
 * it takes the EINTR of the restored nanosleep for its end.
 *
 * pause - as Kubernetes has it: the first process of a pod, which reaps what loses its parent, and
 * which a SIGTERM ends although it is PID 1.
 *
 * nnp - tells whose rights it has; set-user-ID where these may be gained.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int pause_until_told(void)
{
	sigset_t set;
	int signal;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while (sigwait(&set, &signal) == 0 && signal == SIGCHLD)
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	return 0;
}

static double seconds(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	switch (*end) {
	case 'd':
		return value * 24 * 60 * 60;
	case 'h':
		return value * 60 * 60;
	case 'm':
		return value * 60;
	default:
		return value;
	}
}

int main(int argc, char **argv)
{
	double total = 0;
	struct timespec left;
	const char *name = argc > 0 ? argv[0] : "";

	name = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	if (strcmp(name, "pause") == 0)
		return pause_until_told();
	if (strcmp(name, "nnp") == 0)
		return printf("Effective uid: %u\n", geteuid()) < 0;
	if (argc < 2) {
		fputs("usage: sleep TIME[smhd]...\n", stderr);
		return 1;
	}
	for (int i = 1; i < argc; i++)
		total += seconds(argv[i]);
	total = total < 1e9 ? total : 1e9; /* infinity, too */
	left = (struct timespec){.tv_sec = (time_t)total,
				 .tv_nsec = (long)((total - (double)(time_t)total) * 1e9)};
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	return 0;
}
