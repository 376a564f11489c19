/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a checkpoint that cannot be packed at once. */
#include "serve.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "pack/test-rig.h"

#define PAUSE    (20 * NSEC_PER_MSEC)
#define PATIENCE (20 * NSEC_PER_SEC)

static struct rig rig;
static int told[2];  /* what the child logs */
static rlim_t bytes_max = RLIM_INFINITY; /* of a file of the child's */

static int setup(void **state)
{
	(void)state;
	rig_open(&rig);
	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)close(told[0]);
	(void)close(told[1]);
	rig_close(&rig);
	return 0;
}

static bool stopped(void *arg)
{
	sigset_t pending;

	(void)arg;
	return sigpending(&pending) == 0 && sigismember(&pending, SIGTERM) == 1;
}

static void packed(const char *ref, const char *file, const struct pack_result *p, nsec_t took)
{
	(void)ref;
	(void)file;
	(void)p;
	(void)took;
}

static pid_t start(void)
{
	struct error err = ERROR_NULL;
	sigset_t ends;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &ends, NULL);
	log_set_fd(told[1]);
	(void)signal(SIGXFSZ, SIG_IGN);
	(void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){ bytes_max, bytes_max });
	_exit(serve(&(struct serve_config){ .store = rig.store, .out = rig.out.fd, .ends = &ends,
					    .stopped = stopped, .packed = packed, .pause = PAUSE },
		    &err) < 0);
}

static void stop(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void until_there(const char *name)
{
	nsec_t deadline = time_add(time_now(), PATIENCE);

	while (!tree_has(rig.out.fd, name)) {
		assert_true(time_now() < deadline);
		(void)usleep(5 * 1000);
	}
}

/* Milliseconds of CPU time of a process. */
static unsigned long cpu_of(pid_t pid)
{
	unsigned long user = 0, sys = 0;
	char path[64], line[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_int_equal(sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
						    "%lu %lu", &user, &sys), 2);
	(void)fclose(f);
	return (user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK);
}

/* Somebody has it, to delete it: it is not asked for all the time, and packed when it is free. */
static void one_that_is_locked_is_waited_for(void **state)
{
	int fd = openat(rig.store_dir.fd, "a", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t pid;

	(void)state;
	assert_int_equal(flock(fd, LOCK_EX), 0);
	pid = start();
	(void)usleep(500 * 1000);
	assert_int_equal(rig_count(&rig), 0);
	assert_true(cpu_of(pid) < 250);
	assert_int_equal(flock(fd, LOCK_UN), 0);
	until_there("a.tar");
	stop(pid);
	assert_int_equal(close(fd), 0);
}

/* Later and later, and then no more. Nothing of it is left each time. */
static void one_that_fails_is_given_up(void **state)
{
	nsec_t start_time = time_now();
	char lines[16384] = "";
	unsigned int tries = 0;
	size_t n = 0;
	pid_t pid;

	(void)state;
	bytes_max = 4096; /* less than an archive has */
	pid = start();
	bytes_max = RLIM_INFINITY;
	while (!strstr(lines, "\"checkpoint not packed\"")) {
		ssize_t got = read(told[0], lines + n, sizeof(lines) - 1 - n);

		assert_true(got > 0);
		n += (size_t)got;
		lines[n] = 0;
	}
	for (const char *p = lines; (p = strstr(p, "ref=a")); p++)
		tries++;
	assert_int_equal(tries, SERVE_TRIES);
	assert_non_null(strstr(lines, "to be tried again"));
	/* 1 + 2 + 4 + 8 pauses. */
	assert_true(time_now() - start_time >= 15 * PAUSE);
	assert_int_equal(rig_count(&rig), 0);
	stop(pid);
}

/* Gone, and another one by that name: it is packed once its predecessor's archive is gone, too. */
static void a_name_that_comes_again(void **state)
{
	pid_t pid = start();

	(void)state;
	until_there("a.tar");
	assert_int_equal(path_remove_tree(rig.store_dir.fd, "a"), 0);
	assert_int_equal(unlinkat(rig.out.fd, "a.tar", 0), 0);
	rig_seal(&rig, "b", 0);
	until_there("b.tar"); /* a look in which "a" was not seen */
	rig_seal(&rig, "a", 0);
	until_there("a.tar");
	stop(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(one_that_is_locked_is_waited_for),
		T(one_that_fails_is_given_up),
		T(a_name_that_comes_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
