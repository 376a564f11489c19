/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OCI runtime that does nothing but what a shim must be able to see: a process behind each
 * container, its pid file, its end. No namespaces, no cgroups, no mounts. What remains of a
 * container's life through it is the shim's own time.
 *
 *	null-runtime [--root DIR] [--log FILE] [--log-format json] VERB [OPTIONS] ID [SIGNAL]
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "bench/bare.h"

struct command {
	const char *root, *log, *verb, *bundle, *pid_file;
	const char *id, *signal; /* the words that are no options */
	bool force;
};

/* --- what little of a C library is needed ---------------------------------------------------- */

static size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Appends s; false when it does not fit. */
static bool append(char *buf, size_t size, const char *s)
{
	size_t at = length(buf), n = length(s);

	if (n >= size - at)
		return false;
	for (size_t i = 0; i <= n; i++)
		buf[at + i] = s[i];
	return true;
}

static long parse(const char *s)
{
	long n = 0;

	for (; *s >= '0' && *s <= '9'; s++)
		n = n * 10 + (*s - '0');
	return n;
}

static const char *decimal(long n, char buf[24])
{
	char *p = buf + 23;

	*p = 0;
	do
		*--p = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	return p;
}

static int open_file(const char *path, int flags)
{
	return (int)bare_call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0644, 0);
}

static void print(int fd, const char *s)
{
	(void)bare_call(SYS_write, fd, (long)s, (long)length(s), 0, 0);
}

/* As runc says it: a line of JSON in the log, and the text itself on stderr. */
static int fail(const struct command *c, const char *text)
{
	int fd = c->log ? open_file(c->log, O_WRONLY | O_APPEND | O_CREAT) : -1;

	if (fd >= 0) {
		print(fd, "{\"level\":\"error\",\"msg\":\"");
		print(fd, text);
		print(fd, "\"}\n");
	}
	print(2, text);
	print(2, "\n");
	return 1;
}

/* --- the command line ------------------------------------------------------------------------ */

static bool takes_value(const char *option)
{
	static const char names[][20] = { "--root", "--log", "--log-format", "--bundle",
					  "--pid-file", "--console-socket", "--process",
					  "--format" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (same(names[i], option))
			return true;
	return false;
}

static void take_word(struct command *c, const char *word)
{
	if (!c->verb)
		c->verb = word;
	else if (!c->id)
		c->id = word;
	else
		c->signal = word;
}

static void take_option(struct command *c, const char *option, const char *value)
{
	if (same(option, "--root"))
		c->root = value;
	else if (same(option, "--log"))
		c->log = value;
	else if (same(option, "--bundle"))
		c->bundle = value;
	else if (same(option, "--pid-file"))
		c->pid_file = value;
}

static void parse_line(struct command *c, char **argv)
{
	for (char **a = argv + 1; *a; a++) {
		if (**a != '-')
			take_word(c, *a);
		else if (same(*a, "--force"))
			c->force = true;
		else if (takes_value(*a) && a[1])
			take_option(c, *a, a[1]), a++;
	}
}

/* --- a container: a file with the pid of its process ----------------------------------------- */

static bool state_path(const struct command *c, char buf[PATH_MAX])
{
	buf[0] = 0;
	return append(buf, PATH_MAX, c->root) && append(buf, PATH_MAX, "/") &&
	       append(buf, PATH_MAX, c->id);
}

/* 0 when there is none. */
static long read_state(const struct command *c)
{
	char path[PATH_MAX], text[24];
	long n;
	int fd;

	if (!state_path(c, path))
		return 0;
	fd = open_file(path, O_RDONLY);
	n = fd < 0 ? -1 : bare_call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	return parse(text);
}

static bool write_pid(const char *path, long pid)
{
	int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
	char buf[24];

	if (fd < 0)
		return false;
	print(fd, decimal(pid, buf));
	return true;
}

static void make_folders(const char *path)
{
	char dir[PATH_MAX];

	for (size_t i = 0; i < PATH_MAX && path[i]; i++) {
		dir[i] = path[i];
		if (i == 0 || (path[i + 1] && path[i + 1] != '/'))
			continue;
		dir[i + 1] = 0;
		(void)bare_call(SYS_mkdirat, AT_FDCWD, (long)dir, 0700, 0, 0);
	}
}

/* The container's process: holds the stdio it was given, and waits for a signal. */
static long start_process(void)
{
	long pid = bare_call(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	while (pid == 0)
		(void)bare_call(SYS_ppoll, 0, 0, 0, 0, 0);
	return pid;
}

/* --- the verbs ------------------------------------------------------------------------------- */

static int do_create(const struct command *c)
{
	char path[PATH_MAX];
	long pid;

	if (!state_path(c, path))
		return fail(c, "the path of the container is too long");
	pid = start_process();
	if (pid < 0)
		return fail(c, "cannot start a process");
	if (!write_pid(path, pid)) {
		make_folders(c->root);
		if (!write_pid(path, pid))
			return fail(c, "cannot write the state");
	}
	return c->pid_file && !write_pid(c->pid_file, pid) ? fail(c, "cannot write the pid file") : 0;
}

static int do_exec(const struct command *c)
{
	long pid = start_process();

	return c->pid_file && !write_pid(c->pid_file, pid) ? fail(c, "cannot write the pid file") : 0;
}

static int do_kill(const struct command *c, long pid)
{
	if (!c->signal || bare_call(SYS_kill, pid, parse(c->signal), 0, 0, 0) < 0)
		return fail(c, "os: process already finished");
	return 0;
}

static int do_delete(const struct command *c, long pid)
{
	char path[PATH_MAX];

	(void)bare_call(SYS_kill, pid, SIGKILL, 0, 0, 0); /* never started, or by force */
	if (state_path(c, path))
		(void)bare_call(SYS_unlinkat, AT_FDCWD, (long)path, 0, 0, 0);
	return 0;
}

static int do_ps(long pid)
{
	char buf[24];

	print(1, "[");
	print(1, decimal(pid, buf));
	print(1, "]\n");
	return 0;
}

static int run(char **argv)
{
	struct command c = { .root = "/run/null-runtime" };
	long pid;

	parse_line(&c, argv);
	if (!c.verb || !c.id) {
		print(1, "null-runtime version 1\n");
		return 0;
	}
	if (same(c.verb, "create"))
		return do_create(&c);
	pid = read_state(&c);
	if (!pid)
		return c.force ? 0 : fail(&c, "container does not exist");
	if (same(c.verb, "exec"))
		return do_exec(&c);
	if (same(c.verb, "kill"))
		return do_kill(&c, pid);
	if (same(c.verb, "delete"))
		return do_delete(&c, pid);
	if (same(c.verb, "ps"))
		return do_ps(pid);
	if (same(c.verb, "start") || same(c.verb, "pause") || same(c.verb, "resume") ||
	    same(c.verb, "update"))
		return 0;
	return fail(&c, "this runtime does not do that");
}

BARE_MAIN(run)
