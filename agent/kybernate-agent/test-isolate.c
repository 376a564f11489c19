/* SPDX-License-Identifier: Apache-2.0 */
/* What an isolated agent can still do, and what it cannot: each in a child of its own. */
#include "isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/cmocka.h"

/* Runs fn isolated; its result, or 200 when isolating failed. */
static int isolated(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = ERROR_NULL;

		_exit(isolate(&err) < 0 ? 200 : fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* 0 when a call that has returned r was refused. */
static int refused(long r)
{
	return r == -1 && errno == EPERM ? 0 : 1;
}

static int mounts(void)
{
	return refused(mount("none", "/tmp", "tmpfs", 0, NULL)) + refused(umount2("/tmp", 0)) +
	       refused(syscall(SYS_open_tree, AT_FDCWD, "/", 0)) + refused(chroot("/"));
}

static int kernel(void)
{
	return refused(syscall(SYS_init_module, NULL, 0, "")) +
	       refused(syscall(SYS_bpf, 0, NULL, 0)) +
	       refused(syscall(SYS_kexec_load, 0, 0, NULL, 0)) +
	       refused(syscall(SYS_reboot, 0, 0, 0, NULL));
}

static int clocks(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return refused(clock_settime(CLOCK_REALTIME, &now)) +
	       refused(settimeofday(&(struct timeval){ now.tv_sec, 0 }, NULL));
}

static int namespaces(void)
{
	return refused(unshare(CLONE_NEWNS)) + refused(setns(0, 0)) +
	       refused(sethostname("x", 1));
}

/* By capabilities, not by the filter. */
static int others_files(void)
{
	return refused(mknod("/tmp/kyb-test-isolate", S_IFCHR | 0600, makedev(1, 3))) +
	       refused(chown("/tmp", 1, 1)) + refused(setresuid(1, 1, 1));
}

static int needed(void)
{
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY, .resolve = RESOLVE_BENEATH };
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof(how)), pair[2], status;
	char dir[] = "/tmp/kyb-test-isolate.XXXXXX", line[64];
	pid_t pid;

	if (fd < 0 || flock(fd, LOCK_SH) < 0)
		return 1;
	if (!mkdtemp(dir) || rmdir(dir) < 0)
		return 2;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		return 3;
	if (file_read_line(AT_FDCWD, "/proc/1/comm", line, sizeof(line)) < 0)
		return 4;
	pid = fork();
	if (pid == 0)
		(void)execl("/bin/true", "true", (char *)NULL);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		return 5;
	return kill(getpid(), 0) < 0 ? 6 : 0;
}

static int settings(void)
{
	struct rlimit core, files;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_SECCOMP) != 2)
		return 1;
	if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
		return 2;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur != files.rlim_max)
		return 3;
	if (umask(0) != 077)
		return 4;
	return prctl(PR_CAPBSET_READ, 12 /* CAP_NET_ADMIN */) == 0 ? 0 : 5;
}

static void what_it_does_not_need_is_refused(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip(); /* refused anyway */
	assert_int_equal(isolated(mounts), 0);
	assert_int_equal(isolated(kernel), 0);
	assert_int_equal(isolated(clocks), 0);
	assert_int_equal(isolated(namespaces), 0);
	assert_int_equal(isolated(others_files), 0);
}

static void what_it_needs_works(void **state)
{
	(void)state;
	assert_int_equal(isolated(needed), 0);
	assert_int_equal(isolated(settings), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_does_not_need_is_refused),
		cmocka_unit_test(what_it_needs_works),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
