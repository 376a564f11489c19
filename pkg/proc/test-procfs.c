/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proc/procfs.h"
#include "tests/cmocka.h"

#define NO_SUCH_PID 4194304 /* one over the highest that Linux gives */

static struct bytes text_of(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void parse_stat(void **state)
{
	/* comm may hold anything, also what looks like the rest of the line. */
	static const char *const good[] = {
		"1 (a) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1\n",
		"1 (a) b) S 2 (x) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1\n",
		"1 (\n) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711 1\n",
		"1 () S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711 1\n",
	};
	static const char *const bad[] = {
		"", ")", ") ", "1 (a)", "1 (a) ", "1 (a) S 1 2 3\n",
		"1 (a) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711",
		"1 (a) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 x 1 1\n",
		"1 (a) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 -1 1 1\n",
		"1 (a) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 99999999999999999999 1\n",
		"1 a S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1\n",
	};
	uint64_t v = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(procfs_parse_stat(text_of(good[i]), &v), 0);
		assert_true(v == 4711);
		v = 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(procfs_parse_stat(text_of(bad[i]), &v), -EBADMSG);
	assert_true(v == 1);
}

static void parse_cgroup(void **state)
{
	static const char text[] = "5:cpu,cpuacct:/a\n4:memory:/m:x\n1:name=systemd:/s\n0::/u\n";
	char buf[16];

	(void)state;
	assert_int_equal(procfs_parse_cgroup(text_of(text), "cpuacct", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/a");
	assert_int_equal(procfs_parse_cgroup(text_of(text), "memory", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/m:x");
	assert_int_equal(procfs_parse_cgroup(text_of(text), "name=systemd", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/s");
	assert_int_equal(procfs_parse_cgroup(text_of(text), "", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/u");
	assert_int_equal(procfs_parse_cgroup(text_of(text), "pids", buf, sizeof(buf)), -ENOENT);
	assert_int_equal(procfs_parse_cgroup(text_of(text), "memory", buf, 4), -ENAMETOOLONG);
	assert_int_equal(procfs_parse_cgroup(text_of("0::/gone (deleted)\n"), "", buf, sizeof(buf)),
			 -ENOENT);
	assert_int_equal(procfs_parse_cgroup(text_of("x\n0::/u\n"), "", buf, sizeof(buf)),
			 -EBADMSG);
}

/* A child with a nasty name, stopped until the test is over with it. */
static pid_t start_child(void)
{
	int p[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_NAME, "x) S 1 (\n) 2");
		if (write(p[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	(void)close(p[1]);
	assert_int_equal(read(p[0], &c, 1), 1);
	(void)close(p[0]);
	return pid;
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void live_processes(void **state)
{
	pid_t pid = start_child();
	uint64_t mine = 0, its = 0, again = 0;
	char buf[512];

	(void)state;
	assert_int_equal(procfs_start_time(getpid(), &mine), 0);
	assert_int_equal(procfs_start_time(pid, &its), 0);
	assert_int_equal(procfs_start_time(pid, &again), 0);
	assert_true(mine > 0 && its >= mine && its == again);
	assert_int_equal(procfs_cgroup(pid, "", buf, sizeof(buf)), 0); /* every kernel has it */
	assert_int_equal(buf[0], '/');
	assert_int_equal(procfs_cgroup(pid, "no-such-controller", buf, sizeof(buf)), -ENOENT);
	end_child(pid);
	assert_int_equal(procfs_start_time(pid, &its), -ESRCH);
	assert_int_equal(procfs_cgroup(pid, "", buf, sizeof(buf)), -ESRCH);
	assert_int_equal(procfs_start_time(NO_SUCH_PID, &its), -ESRCH);
}

static void parents(void **state)
{
	pid_t pid = start_child(), parent = -1;

	(void)state;
	assert_int_equal(procfs_parent(pid, &parent), 0);
	assert_int_equal(parent, getpid());
	assert_int_equal(procfs_parent(1, &parent), 0);
	assert_int_equal(parent, 0);
	end_child(pid);
	assert_int_equal(procfs_parent(pid, &parent), -ESRCH);
}

static void zombies(void **state)
{
	pid_t pid = start_child();
	siginfo_t info;

	(void)state;
	assert_false(procfs_zombie(pid));
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_true(procfs_zombie(pid));
	end_child(pid);
	assert_false(procfs_zombie(pid));
}

struct search {
	int fd;
	const char *target;
	int hits, calls;
};

static int look(void *arg, int fd, const char *target)
{
	struct search *s = arg;

	s->calls++;
	if (fd == s->fd && strcmp(target, s->target) == 0)
		return ++s->hits;
	return 0;
}

static void descriptors(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct search s = { .fd = fd, .target = "/dev/null" };

	(void)state;
	assert_int_equal(procfs_each_fd(getpid(), look, &s), 1);
	assert_int_equal(s.hits, 1);
	(void)close(fd);
	s = (struct search){ .fd = fd, .target = "/dev/null" };
	assert_int_equal(procfs_each_fd(getpid(), look, &s), 0);
	assert_int_equal(s.hits, 0);
	assert_true(s.calls > 0);
	assert_int_equal(procfs_each_fd(NO_SUCH_PID, look, &s), -ESRCH);
}

static void mapped_files(void **state)
{
	char name[] = "/tmp/test procfs.XXXXXX"; /* a blank, as some drivers' files have */
	int fd = mkostemp(name, O_CLOEXEC);
	void *p;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	(void)close(fd);
	assert_int_equal(procfs_maps_file(getpid(), name), 1);
	assert_int_equal(procfs_maps_file(getpid(), "/tmp/test procfs."), 1);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(procfs_maps_file(getpid(), name), 1); /* deleted, still mapped */
	assert_int_equal(munmap(p, 4096), 0);
	assert_int_equal(procfs_maps_file(getpid(), name), 0);
	assert_int_equal(procfs_maps_file(getpid(), "tmp"), 0);
	assert_int_equal(procfs_maps_file(NO_SUCH_PID, "/"), -ESRCH);
}

static void tracers(void **state)
{
	static const char status[] = "Name:\tx\nPPid:\t1\nTracerPid:\t4711\nUid:\t0\n";
	pid_t tracer = -1;

	(void)state;
	assert_int_equal(procfs_parse_tracer(bytes_of(status, sizeof(status) - 1), &tracer), 0);
	assert_int_equal(tracer, 4711);
	assert_int_equal(procfs_parse_tracer(bytes_of("Name:\tx\n", 7), &tracer), -ENOENT);
	assert_int_equal(procfs_parse_tracer(bytes_of("TracerPid:\tx\n", 13), &tracer), -EBADMSG);
	assert_int_equal(procfs_tracer(1, &tracer), 0);
	assert_int_equal(procfs_runs(getpid(), "test-proc-procfs"), 1);
	assert_int_equal(procfs_runs(getpid(), "criu"), 0);
	assert_int_equal(procfs_runs(NO_SUCH_PID, "criu"), -ESRCH);
	assert_int_equal(procfs_tracer(NO_SUCH_PID, &tracer), -ESRCH);
}

static void variables(void **state)
{
	const char *const environment[] = { "A=1", "AB=two words", "EMPTY=", "A=2", NULL };
	const char *const argv[] = { "sleep", "30", NULL };
	char buf[16];
	pid_t pid = fork();
	_cleanup_close_ int process = -1;
	uint64_t start;
	int r;

	(void)state;
	if (pid == 0) {
		(void)execve("/bin/sleep", (char *const *)(uintptr_t)argv,
			     (char *const *)(uintptr_t)environment);
		_exit(127);
	}
	assert_true(pid > 0);
	for (int i = 0; i < 1000 && procfs_runs(pid, "sleep") != 1; i++)
		(void)usleep(1000);
	assert_int_equal(procfs_start_time(pid, &start), 0);
	assert_int_equal(procfs_open(pid, start + 1), -ESRCH);
	process = procfs_open(pid, start);
	assert_true(process >= 0);
	assert_int_equal(procfs_variable(process, "AB", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "two words");
	assert_int_equal(procfs_variable(process, "A", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "1");
	assert_int_equal(procfs_variable(process, "EMPTY", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	assert_int_equal(procfs_variable(process, "B", buf, sizeof(buf)), -ENOENT);
	r = procfs_variable(process, "AB", buf, 9);
	assert_int_equal(r, -ENAMETOOLONG);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	/* Gone, whoever has its number by now. */
	assert_int_equal(procfs_variable(process, "A", buf, sizeof(buf)), -ESRCH);
	assert_int_equal(procfs_open(pid, start), -ESRCH);
	assert_int_equal(procfs_open(NO_SUCH_PID, 1), -ESRCH);
}

/* The kernel cuts it off wherever 15 bytes end; a workload may call itself anything. */
static void names(void **state)
{
	static const struct {
		const char *set, *name;
	} cases[] = { { "python3", "python3" },
		      { "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e",
			"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac" },
		      { "ab\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
			"ab\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9" },
		      { "a\xff" "b", "a?b" } };
	char before[16], name[16];

	(void)state;
	assert_int_equal(prctl(PR_GET_NAME, before), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(prctl(PR_SET_NAME, cases[i].set), 0);
		assert_int_equal(procfs_name(getpid(), name, sizeof(name)), 0);
		assert_string_equal(name, cases[i].name);
	}
	assert_int_equal(procfs_name(NO_SUCH_PID, name, sizeof(name)), -ESRCH);
	assert_int_equal(prctl(PR_SET_NAME, before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_stat),	  cmocka_unit_test(parse_cgroup),
		cmocka_unit_test(live_processes), cmocka_unit_test(descriptors),
		cmocka_unit_test(names),
		cmocka_unit_test(mapped_files),	  cmocka_unit_test(tracers),
		cmocka_unit_test(variables),
		cmocka_unit_test(zombies),	  cmocka_unit_test(parents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
