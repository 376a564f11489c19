/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that name a file of their job, in a mount namespace of the test's own. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "checkpoint/jobfile.h"
#include "proc/procfs.h"
#include "tests/cmocka.h"

#define PROCESSES_MAX 32
#define PATIENCE      20 /* seconds; what waits for a file system waits for ever */

struct bed {
	char dir[64];
	pid_t pids[PROCESSES_MAX];
	size_t n;
	uint64_t start; /* of the last one */
	struct gpu_group *group;
	struct error err;
};

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	(void)strcpy(b->dir, "/tmp/kjobfile.XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	assert_int_equal(gpu_group_new(&b->group, NULL, NULL, NULL, NULL), 0);
	(void)alarm(PATIENCE);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	for (size_t i = 0; i < b->n; i++) {
		assert_int_equal(kill(b->pids[i], SIGKILL), 0);
		assert_int_equal(waitpid(b->pids[i], NULL, 0), b->pids[i]);
	}
	gpu_group_free(b->group);
	assert_int_equal(path_remove_tree(AT_FDCWD, b->dir), 0);
	free(b);
	(void)alarm(0);
	return 0;
}

/* A process in a job whose file it names so; descriptors that are not O_CLOEXEC are its as well. */
static pid_t start(struct bed *b, const char *name)
{
	static const char *const argv[] = { "sleep", "60", NULL };
	char variable[PATH_MAX];
	const char *const environment[] = { variable, NULL };
	pid_t pid;

	assert_int_equal(PATH_PRINTF(variable, JOBFILE_VARIABLE "=%s", name), 0);
	assert_true(b->n < PROCESSES_MAX);
	pid = fork();
	if (pid == 0) {
		(void)execve("/bin/sleep", (char *const *)(uintptr_t)argv,
			     (char *const *)(uintptr_t)environment);
		_exit(127);
	}
	assert_true(pid > 0);
	b->pids[b->n++] = pid;
	for (int i = 0; i < 1000 && procfs_runs(pid, "sleep") != 1; i++)
		(void)usleep(1000);
	assert_int_equal(procfs_start_time(pid, &b->start), 0);
	return pid;
}

static int try(struct bed *b, const char *name)
{
	pid_t pid = start(b, name);
	int fd;

	b->err = ERROR_NULL;
	assert_int_equal(jobfile_named(pid, b->start), 1);
	fd = jobfile_open(pid, b->start, O_RDWR, &b->err);
	if (fd >= 0)
		assert_int_equal(close(fd), 0);
	else
		assert_int_equal(b->err.reason, REASON_CUDA_QUERY_FAILED);
	return fd < 0 ? fd : 0;
}

static const char *in(const struct bed *b, const char *name)
{
	static char path[2][128];
	static unsigned int turn;

	turn ^= 1;
	assert_int_equal(PATH_PRINTF(path[turn], "%s/%s", b->dir, name), 0);
	return path[turn];
}

static const char *make(const struct bed *b, const char *name, const char *content)
{
	_cleanup_close_ int dir = open(b->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(file_write(dir, name, content, strlen(content), 0600, FILE_PLAIN), 0);
	return in(b, name);
}

static void its_own_file(void **state)
{
	struct bed *b = *state;
	char path[128];

	assert_int_equal(try(b, make(b, "file", "x")), 0);
	(void)snprintf(path, sizeof(path), "/%s//./file", b->dir);
	assert_int_equal(try(b, path), 0);
	(void)snprintf(path, sizeof(path), "%s/nowhere/../file", b->dir);
	assert_int_equal(try(b, path), 0); /* names only: nothing on the way is a link */
	assert_int_equal(try(b, in(b, "none")), -ENOENT);
	assert_int_equal(try(b, "file"), -EINVAL);
}

static void nothing_else_is_opened(void **state)
{
	struct bed *b = *state;
	char path[64];

	(void)make(b, "file", "x");
	assert_int_equal(mkfifo(in(b, "fifo"), 0600), 0);
	assert_int_equal(try(b, in(b, "fifo")), -EPERM);
	assert_int_equal(try(b, b->dir), -EPERM);
	assert_int_equal(try(b, "/"), -EPERM);
	assert_int_equal(try(b, "/dev/null"), -EPERM);
	assert_int_equal(symlink("file", in(b, "link")), 0);
	assert_int_equal(try(b, in(b, "link")), -ELOOP);
	(void)snprintf(path, sizeof(path), "/proc/%d/environ", getpid());
	assert_int_equal(try(b, path), -EPERM); /* a plain file, with one name, of the same user */
	assert_non_null(strstr(b->err.text, "neither a memfd nor a plain file"));
	assert_int_equal(link(in(b, "file"), in(b, "other")), 0);
	assert_int_equal(try(b, in(b, "file")), -EPERM);
	assert_int_equal(unlink(in(b, "other")), 0);
	assert_int_equal(try(b, in(b, "file")), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(in(b, "file"), 1000, 1000), 0);
		assert_int_equal(try(b, in(b, "file")), -EPERM);
	}
}

static void a_descriptor(void **state)
{
	struct bed *b = *state;
	int memory = memfd_create("job", 0), file, pipes[2];
	char path[64];

	assert_true(memory >= 0);
	file = open(make(b, "file", "x"), O_RDONLY);
	assert_true(file >= 0);
	assert_int_equal(pipe(pipes), 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	assert_int_equal(try(b, path), 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	assert_int_equal(try(b, path), -EPERM);
	assert_int_equal(unlink(in(b, "file")), 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", pipes[0]);
	assert_int_equal(try(b, path), -EPERM);
	assert_int_equal(try(b, "/proc/self/fd/999"), -ENOENT);
	assert_int_equal(try(b, "/proc/self/fd/../fd/1"), -EBADMSG);
	(void)close(memory);
	(void)close(file);
	(void)close(pipes[0]);
	(void)close(pipes[1]);
}

/* A FUSE program that never answers. */
static void nobody_is_waited_for(void **state)
{
	struct bed *b = *state;
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), root;
	char options[96], path[64];
	const char *at = in(b, "fuse");

	assert_int_equal(mkdir(at, 0700), 0);
	(void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (fuse < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("fuse", at, "fuse", MS_NOSUID | MS_NODEV, options) < 0) {
		if (fuse >= 0)
			(void)close(fuse);
		skip();
	}
	root = open(at, O_PATH); /* also the process's */
	assert_true(root >= 0);
	assert_int_equal(try(b, in(b, "fuse/file")), -EPERM);
	assert_int_equal(try(b, in(b, "fuse/folder/file")), -EPERM);
	assert_int_equal(try(b, in(b, "fuse")), -EPERM);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
	assert_int_equal(try(b, path), -EPERM);
	/* In no list any more, but still there. */
	assert_int_equal(umount2(in(b, "fuse"), MNT_DETACH), 0);
	assert_int_equal(try(b, path), -EPERM);
	assert_int_equal(try(b, make(b, "file", "x")), 0);
	assert_int_equal(close(fuse), 0); /* its requests end */
	assert_int_equal(close(root), 0);
}

static void another_process_of_its_number(void **state)
{
	struct bed *b = *state;
	pid_t pid = start(b, make(b, "file", "x"));

	assert_int_equal(jobfile_named(pid, b->start), 1);
	assert_int_equal(jobfile_named(pid, b->start + 1), -ESRCH);
	assert_int_equal(jobfile_open(pid, b->start + 1, O_RDWR, &b->err), -ESRCH);
	assert_int_equal(gpu_group_add(b->group, pid, b->start + 1), 0);
	assert_int_equal(gpu_group_member(b->group, 0)->job, 0);
	assert_int_equal(gpu_group_add(b->group, pid, b->start), 0);
	assert_int_equal(gpu_group_size(b->group), 2);
	assert_int_equal(gpu_group_member(b->group, 1)->job, 1);
}

/* What a journal says of a job counts; what it says nothing of is looked up. */
static void as_it_was_written_down(void **state)
{
	struct bed *b = *state;
	struct gpu_member m = { .job = 3, .apart = true };

	m.pid = start(b, make(b, "file", "x"));
	m.start_time = b->start;
	assert_int_equal(gpu_group_know(b->group, &m), 0);
	assert_int_equal(gpu_group_member(b->group, 0)->job, 3);
	assert_true(gpu_group_member(b->group, 0)->apart);
	m.pid = start(b, in(b, "file"));
	m.start_time = b->start;
	m.job = 0;
	assert_int_equal(gpu_group_know(b->group, &m), 0);
	assert_int_equal(gpu_group_member(b->group, 1)->job, 1);
}

static void member(struct bed *b, const char *name)
{
	pid_t pid = start(b, name);

	assert_int_equal(gpu_group_add(b->group, pid, b->start), 0);
}

static void all_together_have_a_limit(void **state)
{
	struct bed *b = *state;
	const char *one = make(b, "one", ""), *two;

	assert_int_equal(truncate(one, (off_t)JOBFILE_MAX), 0);
	member(b, one);
	member(b, one);
	assert_int_equal(jobfile_check(b->group, &b->err), 0);
	two = make(b, "two", "x");
	member(b, two);
	assert_int_equal(jobfile_check(b->group, &b->err), -EFBIG);
	assert_int_equal(b->err.reason, REASON_CUDA_QUERY_FAILED);
	assert_int_equal(jobfile_save(b->group, b->dir, &b->err), -EFBIG);
	assert_int_equal(truncate(two, 0), 0);
	assert_int_equal(jobfile_check(b->group, &b->err), 0);
	assert_int_equal(truncate(two, (off_t)JOBFILE_MAX + 1), 0);
	assert_int_equal(jobfile_check(b->group, &b->err), -EFBIG);
}

static void assert_content(const struct bed *b, const char *name, const char *want)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(4096);

	assert_int_equal(file_read(AT_FDCWD, in(b, name), &text), 0);
	assert_string_equal(buf_str(&text), want);
}

static void there_and_back(void **state)
{
	struct bed *b = *state;
	struct metadata_process processes[3] = { 0 };
	struct metadata_gpu gpu = { .processes = processes, .n_processes = 3 };

	member(b, make(b, "one", "first"));
	member(b, in(b, "one"));
	member(b, make(b, "two", "second"));
	assert_int_equal(jobfile_save(b->group, b->dir, &b->err), 0);
	assert_content(b, "cuda-job-1.bin", "first");
	assert_content(b, "cuda-job-2.bin", "second");
	for (size_t i = 0; i < 3; i++) {
		const struct gpu_member *m = gpu_group_member(b->group, i);

		assert_int_equal(m->job, i < 2 ? 1 : 2);
		processes[i].ns_pid = (uint64_t)m->ns_pid;
		processes[i].job = m->job;
	}
	assert_int_equal(truncate(in(b, "one"), 1 << 20), 0);
	assert_int_equal(truncate(in(b, "two"), 0), 0);
	assert_int_equal(jobfile_restore(b->group, &gpu, b->dir, &b->err), 0);
	assert_content(b, "one", "first");
	assert_content(b, "two", "second");
	assert_int_equal(unlink(in(b, "cuda-job-2.bin")), 0);
	assert_true(jobfile_restore(b->group, &gpu, b->dir, &b->err) < 0);
	assert_int_equal(b->err.reason, REASON_IMAGE_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(its_own_file),
		T(nothing_else_is_opened),
		T(a_descriptor),
		T(nobody_is_waited_for),
		T(another_process_of_its_number),
		T(as_it_was_written_down),
		T(all_together_have_a_limit),
		T(there_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
