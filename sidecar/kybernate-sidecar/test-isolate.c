/* SPDX-License-Identifier: Apache-2.0 */
/* What an isolated sidecar can still do, and what it cannot: each in a child of its own. */
#include "isolate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "tests/cmocka.h"

#define USER "nobody"

/* Two directories: a store of root's with a secret in it, and one of that user's. */
static struct rig {
	char base[32], store[48], out[48];
	int store_fd, out_fd;
} rig;

static int setup(void **state)
{
	(void)state;
	(void)snprintf(rig.base, sizeof(rig.base), "/tmp/kyb-sidecar.XXXXXX");
	assert_non_null(mkdtemp(rig.base));
	(void)snprintf(rig.store, sizeof(rig.store), "%s/store", rig.base);
	(void)snprintf(rig.out, sizeof(rig.out), "%s/out", rig.base);
	assert_int_equal(mkdir(rig.store, 0700), 0);
	assert_int_equal(mkdir(rig.out, 0700), 0);
	assert_int_equal(chmod(rig.base, 0755), 0);
	rig.store_fd = open(rig.store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig.out_fd = open(rig.out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(file_write(rig.store_fd, "secret", "x", 1, 0600, FILE_PLAIN), 0);
	if (geteuid() == 0)
		assert_int_equal(chown(rig.out, 65534, 65534), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)close(rig.store_fd);
	(void)close(rig.out_fd);
	return path_remove_tree(AT_FDCWD, rig.base);
}

static int isolate_here(bool read_all)
{
	const struct isolate how = { .read_all = read_all, .writable = rig.out_fd,
				     .readable = read_all ? rig.store_fd : -1 };
	struct error err = ERROR_NULL;
	int r = isolate_user(geteuid() == 0 ? USER : NULL, read_all, &err);

	return r < 0 ? r : isolate(&how, &err);
}

/* Runs fn isolated; its result, or 200 when isolating failed. */
static int isolated(bool read_all, int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(isolate_here(read_all) < 0 ? 200 : fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

/* 0 when a call that has returned r was refused. */
static int refused(long r)
{
	return r == -1 && errno == EPERM ? 0 : 1;
}

static int processes(void)
{
	char *const argv[] = { (char *)"true", NULL };

	return refused(fork()) + refused(execve("/bin/true", argv, NULL)) +
	       refused(syscall(SYS_clone3, NULL, 0)) + refused(ptrace(PTRACE_TRACEME, 0, NULL, 0)) +
	       refused(kill(getpid(), 0)) + refused(syscall(SYS_pidfd_open, getpid(), 0)) +
	       refused(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
}

static int networks(void)
{
	return refused(socket(AF_INET, SOCK_STREAM, 0)) + refused(socket(AF_UNIX, SOCK_STREAM, 0)) +
	       refused(socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){ 0 })) +
	       refused(syscall(SYS_io_uring_setup, 1, NULL));
}

static int privileges(void)
{
	return refused(setresuid(0, 0, 0)) + refused(prctl(PR_SET_DUMPABLE, 1)) +
	       refused(unshare(CLONE_NEWUSER)) + refused(setns(0, 0)) +
	       refused(mount("none", "/tmp", "tmpfs", 0, NULL)) + refused(chroot("/")) +
	       refused(syscall(SYS_bpf, 0, NULL, 0)) + refused(syscall(SYS_keyctl, 0, 0, 0)) +
	       refused(setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }));
}

/* Past the folders above a file; and kinds of files that no checkpoint has. */
static int files(void)
{
	return refused(syscall(SYS_open_by_handle_at, rig.store_fd, NULL, 0)) +
	       refused(symlinkat("/etc/passwd", rig.out_fd, "l")) +
	       refused(linkat(rig.out_fd, "a", rig.out_fd, "b", 0)) +
	       refused(mkfifoat(rig.out_fd, "f", 0600)) +
	       refused(fchmodat(rig.out_fd, "a", 06755, 0)) +
	       refused(fchownat(rig.out_fd, "a", 0, 0, 0)) + refused(chdir("/"));
}

static int code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	if (refused(mprotect(p, 4096, PROT_READ | PROT_EXEC)))
		return 2;
	p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED && errno == EPERM ? 0 : 3;
}

/* By Landlock; the first although CAP_DAC_READ_SEARCH would do. */
static int elsewhere(void)
{
	if (open("/etc/shadow", O_RDONLY) >= 0 || errno != EACCES)
		return 1;
	if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 2;
	if (open("/tmp/kyb-test-sidecar", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EACCES)
		return 3;
	if (openat(rig.store_fd, "new", O_WRONLY | O_CREAT, 0600) >= 0)
		return 4;
	if (unlinkat(rig.store_fd, "secret", 0) == 0 ||
	    openat(rig.store_fd, "secret", O_WRONLY) >= 0)
		return 5;
	return opendir("/proc/self") ? 6 : 0;
}

static int no_store(void)
{
	return openat(rig.store_fd, "secret", O_RDONLY) < 0 && errno == EACCES ? 0 : 1;
}

static int put_and_take(void)
{
	char c;
	int fd = openat(rig.store_fd, "secret", O_RDONLY);

	if (fd < 0 || read(fd, &c, 1) != 1 || flock(rig.store_fd, LOCK_SH) < 0)
		return 1;
	fd = openat(rig.out_fd, "a", O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || pwrite(fd, "x", 1, 4) != 1 || fsync(fd) < 0 || flock(fd, LOCK_EX) < 0)
		return 2;
	if (renameat2(rig.out_fd, "a", rig.out_fd, "b", RENAME_NOREPLACE) < 0 ||
	    mkdirat(rig.out_fd, "d", 0700) < 0 ||
	    openat(rig.out_fd, "d/a", O_WRONLY | O_CREAT, 0600) < 0 ||
	    renameat2(rig.out_fd, "d", rig.out_fd, "e", RENAME_NOREPLACE) < 0 ||
	    fsync(rig.out_fd) < 0 || path_open_beneath(rig.out_fd, "e/a", O_RDONLY) < 0)
		return 3;
	if (path_remove_tree(rig.out_fd, "e") < 0 || unlinkat(rig.out_fd, "b", 0) < 0)
		return 4;
	return 0;
}

static int needed(void)
{
	void *p = malloc((size_t)64 << 20);
	sigset_t none;
	int r = put_and_take();

	if (r || !p)
		return r ? r : 10;
	free(p);
	if (inotify_init1(IN_CLOEXEC) < 0)
		return 11;
	(void)sigemptyset(&none);
	if (signalfd(-1, &none, SFD_CLOEXEC) < 0 || sigpending(&none) < 0 || poll(NULL, 0, 1) < 0)
		return 12;
	return 0;
}

static void what_it_does_not_need_is_refused(void **state)
{
	(void)state;
	assert_int_equal(isolated(true, processes), 0);
	assert_int_equal(isolated(true, networks), 0);
	assert_int_equal(isolated(true, privileges), 0);
	assert_int_equal(isolated(true, files), 0);
	assert_int_equal(isolated(true, code), 0);
}

static void it_reaches_its_two_directories_only(void **state)
{
	(void)state;
	if (!has_landlock())
		skip();
	assert_int_equal(isolated(true, elsewhere), 0);
}

/* Who unpacks has no capability, and with or without Landlock no store. */
static void unpacking_needs_no_store(void **state)
{
	(void)state;
	if (geteuid() != 0 && !has_landlock())
		skip();
	assert_int_equal(isolated(false, no_store), 0);
}

static void what_it_needs_works(void **state)
{
	(void)state;
	assert_int_equal(isolated(true, needed), 0);
}

/* What can be seen from outside: limits, no dump, a list of calls. */
static void line_of(const char *text, const char *key, char *ret, size_t size)
{
	const char *at = strstr(text, key);

	assert_non_null(at);
	at += strlen(key);
	at += strspn(at, "\t ");
	(void)snprintf(ret, size, "%.*s", (int)strcspn(at, "\n"), at);
}

static void it_is_what_it_should_be(void **state)
{
	_cleanup_buf_ struct buf status = BUF_NULL, limits = BUF_NULL;
	char path[64], value[128];
	int ready[2];
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		_exit(isolate_here(true) < 0 || write(ready[1], "x", 1) != 1 ||
		      poll(NULL, 0, 20000) < 0);
	}
	assert_int_equal(close(ready[1]), 0);
	assert_int_equal(read(ready[0], value, 1), 1);
	(void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
	assert_int_equal(file_read(AT_FDCWD, path, &status), 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	assert_int_equal(file_read(AT_FDCWD, path, &limits), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(close(ready[0]), 0);
	line_of(buf_str(&status), "NoNewPrivs:", value, sizeof(value));
	assert_string_equal(value, "1");
	line_of(buf_str(&status), "Seccomp:", value, sizeof(value));
	assert_string_equal(value, "2");
	line_of(buf_str(&status), "Umask:", value, sizeof(value));
	assert_string_equal(value, "0077");
	if (geteuid() == 0) {
		line_of(buf_str(&status), "Uid:", value, sizeof(value));
		assert_string_equal(value, "65534\t65534\t65534\t65534");
		line_of(buf_str(&status), "Groups:", value, sizeof(value));
		assert_string_equal(value, "");
		line_of(buf_str(&status), "CapEff:", value, sizeof(value));
		assert_string_equal(value, "0000000000000004"); /* DAC_READ_SEARCH */
		line_of(buf_str(&status), "CapBnd:", value, sizeof(value));
		assert_string_equal(value, "0000000000000004");
	}
	line_of(buf_str(&limits), "Max core file size", value, sizeof(value));
	assert_int_equal(strncmp(value, "0 ", 2), 0);
	line_of(buf_str(&limits), "Max processes", value, sizeof(value));
	assert_int_equal(strncmp(value, "0 ", 2), 0);
	line_of(buf_str(&limits), "Max open files", value, sizeof(value));
	assert_int_equal(strncmp(value, "64 ", 3), 0);
}

static void nobody_is_root(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(isolate_user(NULL, true, &err), -EPERM);
	assert_int_equal(isolate_user("root", true, &err), -EPERM);
	assert_int_equal(isolate_user("nobody-by-that-name", true, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_does_not_need_is_refused),
		cmocka_unit_test(it_reaches_its_two_directories_only),
		cmocka_unit_test(unpacking_needs_no_store),
		cmocka_unit_test(what_it_needs_works),
		cmocka_unit_test(it_is_what_it_should_be),
		cmocka_unit_test(nobody_is_root),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
