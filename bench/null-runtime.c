/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OCI runtime that does nothing but what a shim must be able to see: a process behind each
 * container, its pid file, its end. No namespaces, no cgroups, no mounts. What remains of a
 * container's life through it is the shim's own time.
 *
 *	null-runtime [--root DIR] [--log FILE] [--log-format json] VERB [OPTIONS] ID [ARGUMENT]
 *
 * Static, so that its start costs next to nothing: a few tenths of a millisecond.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct command {
	const char *root, *log, *verb, *bundle, *pid_file;
	const char *words[3]; /* what is no option: the id, a signal */
	int n_words;
	int force;
};

static _Noreturn void fail(const struct command *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* As runc says it: a line of JSON in the log, and the text itself on stderr. */
static _Noreturn void fail(const struct command *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int fd;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = c->log ? open(c->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
	if (fd >= 0)
		(void)dprintf(fd, "{\"level\":\"error\",\"msg\":\"%s\"}\n", text);
	(void)dprintf(STDERR_FILENO, "%s\n", text);
	exit(1);
}

static int takes_value(const char *option)
{
	static const char *const names[] = { "--root", "--log", "--log-format", "--bundle",
					     "--pid-file", "--console-socket", "--process",
					     "--format", NULL };

	for (int i = 0; names[i]; i++)
		if (strcmp(names[i], option) == 0)
			return 1;
	return 0;
}

static struct command parse(char **argv)
{
	struct command c = { .root = "/run/null-runtime" };

	for (char **a = argv + 1; *a; a++) {
		const char *value;

		if (**a != '-') {
			if (!c.verb)
				c.verb = *a;
			else if (c.n_words < 3)
				c.words[c.n_words++] = *a;
			continue;
		}
		if (strcmp(*a, "--force") == 0)
			c.force = 1;
		if (!takes_value(*a) || !a[1])
			continue;
		value = a[1];
		if (strcmp(*a, "--root") == 0)
			c.root = value;
		else if (strcmp(*a, "--log") == 0)
			c.log = value;
		else if (strcmp(*a, "--bundle") == 0)
			c.bundle = value;
		else if (strcmp(*a, "--pid-file") == 0)
			c.pid_file = value;
		a++;
	}
	return c;
}

static void state_path(const struct command *c, char *buf)
{
	if (c->n_words < 1 ||
	    snprintf(buf, PATH_MAX, "%s/%s", c->root, c->words[0]) >= PATH_MAX)
		fail(c, "container id cannot be empty");
}

static pid_t read_state(const struct command *c)
{
	char path[PATH_MAX], text[32];
	ssize_t n;
	int fd;

	state_path(c, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		fail(c, "container does not exist");
	text[n] = 0;
	(void)close(fd);
	return (pid_t)atol(text);
}

static void write_pid(const struct command *c, const char *path, pid_t pid)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || dprintf(fd, "%d", (int)pid) < 0)
		fail(c, "write %s: %s", path, strerror(errno));
	(void)close(fd);
}

/* The container's process: holds the stdio it was given, and waits for a signal. */
static pid_t start_process(const struct command *c)
{
	pid_t pid = fork();

	if (pid < 0)
		fail(c, "fork: %s", strerror(errno));
	while (pid == 0)
		pause();
	return pid;
}

static void do_create(const struct command *c)
{
	char path[PATH_MAX];
	pid_t pid;

	state_path(c, path);
	if (mkdir(c->root, 0700) < 0 && errno == ENOENT) {
		char *slash = strrchr(path, '/');

		/* The folder above the namespace's: as deep as a shim's own choice gets. */
		*slash = 0;
		slash = strrchr(path, '/');
		*slash = 0;
		(void)mkdir(path, 0700);
		(void)mkdir(c->root, 0700);
		state_path(c, path);
	}
	pid = start_process(c);
	write_pid(c, path, pid);
	if (c->pid_file)
		write_pid(c, c->pid_file, pid);
}

static void do_exec(const struct command *c)
{
	pid_t pid;

	(void)read_state(c);
	pid = start_process(c);
	if (c->pid_file)
		write_pid(c, c->pid_file, pid);
}

static void do_kill(const struct command *c)
{
	if (c->n_words < 2)
		fail(c, "which signal?");
	if (kill(read_state(c), atoi(c->words[1])) < 0)
		fail(c, "os: process already finished");
}

static void do_delete(const struct command *c)
{
	char path[PATH_MAX];
	pid_t pid;

	state_path(c, path);
	if (c->force && access(path, F_OK) < 0)
		return;
	pid = read_state(c);
	(void)kill(pid, SIGKILL); /* created and never started, or by force */
	(void)unlink(path);
}

int main(int argc, char **argv)
{
	struct command c = parse(argv);

	if (argc < 2 || !c.verb) {
		(void)dprintf(STDOUT_FILENO, "null-runtime version 1\n");
		return 0;
	}
	if (strcmp(c.verb, "create") == 0)
		do_create(&c);
	else if (strcmp(c.verb, "exec") == 0)
		do_exec(&c);
	else if (strcmp(c.verb, "kill") == 0)
		do_kill(&c);
	else if (strcmp(c.verb, "delete") == 0)
		do_delete(&c);
	else if (strcmp(c.verb, "ps") == 0)
		(void)dprintf(STDOUT_FILENO, "[%d]\n", (int)read_state(&c));
	else if (strcmp(c.verb, "start") == 0 || strcmp(c.verb, "pause") == 0 ||
		 strcmp(c.verb, "resume") == 0 || strcmp(c.verb, "update") == 0)
		(void)read_state(&c);
	else
		fail(&c, "%s: this runtime does not do that", c.verb);
	return 0;
}
