/* SPDX-License-Identifier: Apache-2.0 */
/* The child is this program again: "report" makes it write down what it was given. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "proc/spawn.h"
#include "tests/cmocka.h"

static char self[256];
static int closed = -1; /* run() closes this descriptor around the spawn() */

static int report(void)
{
	sigset_t mask;
	char cwd[256];
	int dying = -1;

	if (!getcwd(cwd, sizeof(cwd)))
		return 1;
	(void)printf("fds=");
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			(void)printf("%d,", fd);
	(void)printf(" blocked=");
	(void)sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int sig = 1; sig < NSIG; sig++)
		if (sigismember(&mask, sig) == 1)
			(void)printf("%d,", sig);
	(void)printf(" changed=");
	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction sa;

		if (sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			(void)printf("%d,", sig);
	}
	(void)prctl(PR_GET_PDEATHSIG, &dying);
	(void)printf(" exe=%s", access("/proc/self/exe", W_OK) < 0 && errno == EROFS ? "ro" : "rw");
	(void)printf(" cwd=%s leader=%d umask=%o dying=%d notify=%s\n", cwd, getpgrp() == getpid(),
		     (unsigned int)umask(0), dying, getenv("NOTIFY_SOCKET") ? "yes" : "no");
	return 0;
}

/* Runs it and returns what it writes to stdout; its status must be what is wanted. */
static const char *run(struct spawn *s, int want_status)
{
	static char text[4096];
	struct error err = ERROR_NULL;
	int p[2], status, saved = -1, r;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	spawn_fd(s, p[1], 1);
	if (closed >= 0) {
		saved = fcntl(closed, F_DUPFD_CLOEXEC, 100);
		assert_true(saved >= 0);
		(void)close(closed);
	}
	r = spawn(s, &pid, &err);
	if (closed >= 0) {
		assert_int_equal(dup2(saved, closed), closed);
		(void)close(saved);
	}
	if (r < 0)
		fail_msg("%s", error_text(&err));
	(void)close(p[1]);
	while ((got = read(p[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	(void)close(p[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, want_status);
	return text;
}

static void shows(const char *text, const char *what)
{
	bool found = strstr(text, what) != NULL;

	if (!found)
		print_message("no '%s' in: %s\n", what, text);
	assert_true(found);
}

static const char *const report_argv[] = { self, "report", NULL };

/* Nothing of ours leaks: descriptors, signal mask, dispositions, NOTIFY_SOCKET. */
static void a_clean_child(void **state)
{
	struct spawn s = { .argv = report_argv };
	int leak = fcntl(STDERR_FILENO, F_DUPFD, 77); /* a library without O_CLOEXEC */
	sigset_t set, old;
	const char *text;

	(void)state;
	assert_int_equal(leak, 77);
	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, &old);
	(void)setenv("NOTIFY_SOCKET", "/run/systemd/notify", 1);
	text = run(&s, 0);
	shows(text, "fds=0,1,2, blocked= changed= ");
	shows(text, "leader=0 umask=22 dying=0 notify=no");
	(void)unsetenv("NOTIFY_SOCKET");
	(void)sigprocmask(SIG_SETMASK, NULL, &set); /* and ours is as it was */
	assert_int_equal(sigismember(&set, SIGTERM), 1);
	assert_int_equal(sigismember(&set, SIGUSR1), 0);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	(void)close(leak);
}

static void as_asked(void **state)
{
	char libraries[PATH_MAX]; /* for where this program needs some of its own */
	const char *const env[] = { "NOTIFY_SOCKET=mine", libraries, NULL };
	struct spawn s = { .argv = report_argv,
			   .envp = env,
			   .cwd = "/usr",
			   .new_group = true,
			   .die_with_parent = true,
			   .umask = 077 };
	const char *text, *path = getenv("LD_LIBRARY_PATH");

	(void)state;
	(void)snprintf(libraries, sizeof(libraries), "LD_LIBRARY_PATH=%s", path ? path : "");
	text = run(&s, 0);
	shows(text, "cwd=/usr leader=1 umask=77 dying=9 notify=yes");
}

/* Descriptors may swap numbers, sit on each other's, and leave gaps. */
static void numbered_descriptors(void **state)
{
	static const char *const argv[] = {
		"/bin/sh", "-c", "cat <&3; cat <&4; cat <&7; ls /proc/self/fd | tr '\\n' ,", NULL
	};
	struct spawn s = { .argv = argv };
	int p[3][2], low[3];
	const char *text;

	(void)state;
	for (int i = 0; i < 3; i++) {
		char c = (char)('a' + i);

		assert_int_equal(pipe2(p[i], O_CLOEXEC), 0);
		assert_int_equal(write(p[i][1], &c, 1), 1);
		(void)close(p[i][1]);
		low[i] = p[i][0];
	}
	spawn_fd(&s, low[0], 4);
	spawn_fd(&s, low[1], 3);
	spawn_fd(&s, low[2], 7);
	text = run(&s, 0);
	/* ls has one more of its own for the folder, at the first free number */
	assert_string_equal(text, "bac0,1,2,3,4,5,7,");
	for (int i = 0; i < 3; i++)
		(void)close(low[i]);
}

/* A gap below the highest number is a gap, also if we hold that number without O_CLOEXEC. */
static void a_gap_is_not_filled(void **state)
{
	struct spawn s = { .argv = report_argv };
	int held = dup2(STDERR_FILENO, 50), high = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(held, 50);
	spawn_fd(&s, high, 60);
	shows(run(&s, 0), "fds=0,1,2,60, ");
	(void)close(held);
	(void)close(high);
}

/* A daemon can be started with 0, 1 or 2 closed; its children have all three all the same. */
static void without_standard_streams(void **state)
{
	(void)state;
	for (closed = 0; closed <= 2; closed++) {
		struct spawn s = { .argv = report_argv };

		shows(run(&s, 0), "fds=0,1,2, ");
	}
	closed = -1;
}

static void null_where_nothing_is_named(void **state)
{
	static const char *const argv[] = { "/bin/sh", "-c",
					    "readlink /proc/self/fd/0 /proc/self/fd/2", NULL };
	struct spawn s = { .argv = argv };

	(void)state;
	spawn_fd(&s, -1, 2);
	assert_string_equal(run(&s, 0), "/dev/null\n/dev/null\n");
}

static void failures(void **state)
{
	static const char *const none[] = { "no-such-runtime", NULL };
	static const char *const folder[] = { "/tmp", NULL };
	static const char *const text[] = { "/etc/passwd", NULL };
	struct spawn s = { .argv = none };
	struct error err = ERROR_NULL;
	pid_t pid = -7;

	(void)state;
	assert_int_equal(spawn(&s, &pid, &err), -ENOENT);
	shows(err.text, "exec: \"no-such-runtime\": executable file not found in $PATH");
	s.argv = folder;
	assert_true(spawn(&s, &pid, &err) < 0);
	s.argv = text;
	assert_true(spawn(&s, &pid, &err) < 0);
	s.argv = report_argv;
	s.cwd = "/no/such/folder";
	assert_int_equal(spawn(&s, &pid, &err), -ENOENT);
	shows(err.text, "fork/exec ");
	assert_int_equal(pid, -7);
	while (waitpid(-1, NULL, 0) > 0) /* the remains */
		;
	assert_int_equal(errno, ECHILD);
}

/* The program cannot be written to through /proc, and finds nothing else changed. */
/* What it mounts does not come out, also where "/" is shared. */
static void mounts_of_its_own(void **state)
{
	const char *argv[] = { "sh", "-c", "mount -t tmpfs none /mnt && echo here >/mnt/kyb-spawn && "
					   "cat /mnt/kyb-spawn", NULL };
	struct spawn s = { .argv = argv, .own_mounts = true };

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_string_equal(run(&s, 0), "here\n");
	assert_int_equal(access("/mnt/kyb-spawn", F_OK), -1);
}

static void from_a_read_only_mount(void **state)
{
	struct spawn s = { .argv = report_argv, .read_only = true };
	int probe = open_tree(AT_FDCWD, self, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	const char *text;

	(void)state;
	if (probe < 0)
		skip(); /* not root, or an old kernel */
	(void)close(probe);
	spawn_fd(&s, STDERR_FILENO, 9); /* the low numbers are taken for the child */
	text = run(&s, 0);
	shows(text, "fds=0,1,2,9, blocked= changed= exe=ro");
	s = (struct spawn){ .argv = report_argv };
	shows(run(&s, 0), "exe=rw");
}

/* It is executed all the same: its interpreter opens it by name. */
static void a_script_asked_for_read_only(void **state)
{
	char name[] = "/tmp/test-spawn.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);
	const char *const argv[] = { name, "word", NULL };
	struct spawn s = { .argv = argv, .read_only = true };

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0755), 0);
	assert_int_equal(fd_write_all(fd, "#!/bin/sh\necho it says $1\n", 26), 0);
	(void)close(fd);
	shows(run(&s, 0), "it says word");
	assert_int_equal(unlink(name), 0);
}

/* execve() itself fails, in the child: no shebang, wrong format. */
static void a_failing_exec(void **state)
{
	char name[] = "/tmp/test-spawn.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);
	const char *const argv[] = { name, NULL };
	struct spawn s = { .argv = argv };
	struct error err = ERROR_NULL;
	pid_t pid;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0755), 0);
	assert_int_equal(fd_write_all(fd, "\x7f" "ELFnonsense", 12), 0);
	(void)close(fd);
	assert_int_equal(spawn(&s, &pid, &err), -ENOEXEC);
	shows(err.text, "fork/exec /tmp/test-spawn.");
	assert_true(waitpid(-1, NULL, 0) > 0);
	assert_int_equal(unlink(name), 0);
}

static void lookup(void **state)
{
	const char *path = getenv("PATH");
	_cleanup_free_ char *saved = strdup(path ? path : "/usr/bin:/bin");
	char buf[256], small[4];

	(void)state;
	assert_non_null(saved);
	assert_int_equal(spawn_lookup("sh", buf, sizeof(buf)), 0);
	assert_int_equal(buf[0], '/');
	assert_int_equal(spawn_lookup("/bin/sh", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/bin/sh");
	assert_int_equal(spawn_lookup("/bin/sh", small, sizeof(small)), -ENAMETOOLONG);
	assert_int_equal(spawn_lookup("/bin/none", buf, sizeof(buf)), -ENOENT);
	assert_int_equal(spawn_lookup("", buf, sizeof(buf)), -ENOENT);
	/* Never from the current folder, neither by an empty nor by a relative element. */
	assert_int_equal(chdir("/bin"), 0);
	assert_int_equal(setenv("PATH", ":.:../bin::/nonexistent:", 1), 0);
	assert_int_equal(spawn_lookup("sh", buf, sizeof(buf)), -ENOENT);
	assert_int_equal(unsetenv("PATH"), 0);
	assert_int_equal(spawn_lookup("sh", buf, sizeof(buf)), 0);
	assert_int_equal(setenv("PATH", saved, 1), 0);
	assert_int_equal(chdir("/"), 0);
}

/* PR_SET_PDEATHSIG works: the grandchild ends when its parent does. */
static void dies_with_its_parent(void **state)
{
	static const char *const argv[] = { "/bin/sleep", "600", NULL };
	struct spawn s = { .argv = argv, .die_with_parent = true };
	struct pollfd gone;
	int p[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pid_t sleeper;

		spawn_fd(&s, p[1], 1); /* held open for as long as the sleeper lives */
		_exit(spawn(&s, &sleeper, NULL) != 0);
	}
	(void)close(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	gone = (struct pollfd){ .fd = p[0], .events = POLLIN };
	assert_int_equal(poll(&gone, 1, 10000), 1);
	assert_int_equal(read(p[0], &byte, 1), 0);
	(void)close(p[0]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_clean_child),
		cmocka_unit_test(as_asked),
		cmocka_unit_test(numbered_descriptors),
		cmocka_unit_test(a_gap_is_not_filled),
		cmocka_unit_test(without_standard_streams),
		cmocka_unit_test(null_where_nothing_is_named),
		cmocka_unit_test(failures),
		cmocka_unit_test(mounts_of_its_own),
		cmocka_unit_test(from_a_read_only_mount),
		cmocka_unit_test(a_script_asked_for_read_only),
		cmocka_unit_test(a_failing_exec),
		cmocka_unit_test(lookup),
		cmocka_unit_test(dies_with_its_parent),
	};
	ssize_t n;

	if (argc > 1 && strcmp(argv[1], "report") == 0)
		return report();
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		return 1;
	(void)fd_cloexec_from(3); /* what the test's own parent left open */
	(void)umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
