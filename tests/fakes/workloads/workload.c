/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MORE_MAX 8

/* --- options -------------------------------------------------------------------------------- */

static bool size_of(const char *text, uint64_t *ret)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (end == text || errno || *text == '-')
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (!unit)
		return *end == '\0';
	*ret <<= 10 * (unit - units + 1);
	return end[1] == '\0';
}

bool workload_parse(struct workload *w, const struct workload_option *more, size_t n_more, int argc,
		    char **argv)
{
	const struct workload_option common[] = {
		{ "vram", &w->vram, NULL },         { "seed", &w->seed, NULL },
		{ "interval", &w->interval_ms, NULL }, { "steps", &w->steps, NULL },
		{ "procs", &w->procs, NULL },       { "kernel-ms", &w->kernel_ms, NULL },
		{ "status", NULL, NULL },
	};
	const size_t n_common = sizeof(common) / sizeof(*common);
	struct option options[sizeof(common) / sizeof(*common) + MORE_MAX + 1] = { 0 };
	int c;

	if (n_more > MORE_MAX)
		abort();
	for (size_t i = 0; i < n_common + n_more; i++) {
		const struct workload_option *o = i < n_common ? &common[i] : &more[i - n_common];

		options[i] = (struct option){ o->name, o->flag ? no_argument : required_argument,
					      NULL, (int)i };
	}
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		const struct workload_option *o;

		if (c == '?')
			return false;
		o = (size_t)c < n_common ? &common[c] : &more[(size_t)c - n_common];
		if (o->flag)
			*o->flag = true;
		else if (!o->number)
			w->status = optarg;
		else if (!size_of(optarg, o->number))
			return false;
	}
	return optind == argc && w->vram >= 4096 && w->vram % 8 == 0;
}

/* --- reports -------------------------------------------------------------------------------- */

void workload_say(const char *text)
{
	size_t at = 0, n = strlen(text);

	while (at < n) {
		ssize_t put = write(STDOUT_FILENO, text + at, n - at);

		if (put > 0)
			at += (size_t)put;
		else if (errno != EINTR)
			return;
	}
}

static void write_status(const struct workload *w, const char *line)
{
	char path[512], new[520];
	int fd;

	if (!w->status)
		return;
	if (w->proc < 0)
		(void)snprintf(path, sizeof(path), "%s", w->status);
	else
		(void)snprintf(path, sizeof(path), "%s.%d", w->status, w->proc);
	(void)snprintf(new, sizeof(new), "%s.new", path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return; /* the line on stdout has to do */
	if (write(fd, line, strlen(line)) == (ssize_t)strlen(line))
		(void)rename(new, path);
	(void)close(fd);
}

void workload_report(const struct workload *w, uint64_t step, uint64_t counter, uint64_t checksum,
		     const char *result)
{
	char line[256], proc[32] = "";

	if (w->proc >= 0)
		(void)snprintf(proc, sizeof(proc), "proc=%d ", w->proc);
	(void)snprintf(line, sizeof(line),
		       "%sstep=%" PRIu64 " counter=%" PRIu64 " checksum=%016" PRIx64 " %s\n", proc,
		       step, counter, checksum, result);
	workload_say(line);
	write_status(w, line);
}

/* --- life ----------------------------------------------------------------------------------- */

void workload_sleep(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000 * 1000000) };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* As PID 1 of a container there is no default action. */
static void on_term(int signo)
{
	_exit(128 + signo);
}

int workload_run(const struct workload *w, int (*run)(const struct workload *w, void *data),
		 void *data)
{
	struct sigaction term = { .sa_handler = on_term };
	uint64_t left = w->procs;
	int status;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigaction(SIGTERM, &term, NULL);
	if (!left)
		return run(w, data);
	for (uint64_t i = 0; i < w->procs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return EXIT_FAILURE;
		if (pid == 0) {
			struct workload mine = *w;

			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			mine.proc = (int)i;
			_exit(run(&mine, data));
		}
	}
	while (left) {
		pid_t pid = waitpid(-1, &status, 0);

		if (pid < 0 && errno != EINTR)
			return EXIT_FAILURE;
		if (pid < 0)
			continue;
		if (!WIFEXITED(status))
			return 128 + WTERMSIG(status);
		if (WEXITSTATUS(status))
			return WEXITSTATUS(status);
		left--;
	}
	return 0;
}
