/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"

void spawn_fd(struct spawn *s, int fd, int as)
{
	assert(s->n_fds < SPAWN_FDS_MAX);
	s->fds[s->n_fds++] = (struct spawn_fd){ fd, as };
}

static bool executable(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int spawn_lookup(const char *name, char *buf, size_t size)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return !executable(name) ? -ENOENT : path_printf(buf, size, "%s", name);
	if (!path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path) {
		size_t n = strcspn(path, ":");

		/* An empty or relative element means the current folder: not for root. */
		if (*path == '/' && path_printf(buf, size, "%.*s/%s", (int)n, path, name) == 0 &&
		    executable(buf))
			return 0;
		path += n;
		path += *path == ':';
	}
	return -ENOENT;
}

/* Everything the child needs, prepared by the parent: the child only makes system calls. */
struct plan {
	const struct spawn *s;
	const char *path;
	char *const *argv, *const *envp;
	int null_fd;
	int exe_fd;  /* the program in its read-only mount; -1 = execute path */
	int highest; /* the highest number the child is to have */
	pid_t parent;
	volatile int child_errno;
};

static bool named(const struct spawn *s, int fd)
{
	for (unsigned int i = 0; i < s->n_fds; i++)
		if (s->fds[i].as == fd)
			return true;
	return false;
}

/*
 * Brings the descriptors to their numbers: first all out of the way, above the highest number
 * wanted, then down into place. dup2() clears close-on-exec; whatever else lies between is
 * closed, whether it would go away at exec or not.
 */
static int place_fds(const struct plan *plan)
{
	int moved[SPAWN_FDS_MAX];
	const struct spawn *s = plan->s;

	for (unsigned int i = 0; i < s->n_fds; i++) {
		int fd = s->fds[i].fd < 0 ? plan->null_fd : s->fds[i].fd;

		moved[i] = fcntl(fd, F_DUPFD_CLOEXEC, plan->highest + 1);
		if (moved[i] < 0)
			return -1;
	}
	for (int std = 0; std <= 2; std++)
		if (dup2(plan->null_fd, std) < 0)
			return -1;
	for (unsigned int i = 0; i < s->n_fds; i++)
		if (dup2(moved[i], s->fds[i].as) < 0)
			return -1;
	for (int fd = STDERR_FILENO + 1; fd < plan->highest; fd++)
		if (!named(s, fd))
			(void)close(fd);
	return 0;
}

static void reset_signals(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &dfl, NULL); /* fails for KILL, STOP and libc's own: fine */
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child(struct plan *plan)
{
	const struct spawn *s = plan->s;

	if (s->new_group && setpgid(0, 0) < 0)
		goto fail;
	if (s->die_with_parent) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			goto fail;
		if (getppid() != plan->parent)
			_exit(127); /* it died just before the prctl */
	}
	if (s->own_mounts && (unshare(CLONE_NEWNS) < 0 ||
			      mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0))
		goto fail;
	if (s->cwd && chdir(s->cwd) < 0)
		goto fail;
	if (place_fds(plan) < 0)
		goto fail;
	/* A last guard against descriptors that some library opened without O_CLOEXEC. */
	if (close_range((unsigned int)plan->highest + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0 &&
	    errno != ENOSYS)
		goto fail;
	if (s->umask)
		(void)umask((mode_t)s->umask);
	reset_signals();
	if (plan->exe_fd >= 0)
		(void)execveat(plan->exe_fd, "", plan->argv, plan->envp, AT_EMPTY_PATH);
	/* Also for a script, whose interpreter could not open a descriptor that exec() closes. */
	(void)execve(plan->path, plan->argv, plan->envp);
fail:
	plan->child_errno = errno;
	_exit(127);
}

/*
 * vfork() keeps the parent stopped until the child has called execve() or _exit(), so a failure
 * can be handed back through memory, and no page tables are copied. All signals are blocked
 * around it: no handler may run in the child while it borrows our memory.
 */
static __attribute__((noinline)) pid_t vfork_child(struct plan *plan)
{
	sigset_t all, old;
	pid_t pid;

	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &old);
	pid = vfork();
	if (pid == 0)
		child(plan);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

/*
 * Above the standard streams: there dup2() onto itself would change nothing, and the child would
 * lose the stream at exec. That happens to a daemon that was started with one of them closed.
 */
static int open_null(void)
{
	_cleanup_close_ int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0 || fd > STDERR_FILENO)
		return TAKE_FD(fd);
	return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

/*
 * The mount belongs to the descriptor and the process that runs from it, and is in no mount
 * namespace. above: as place_fds() must not hit it. Returns -1 when it cannot be done (open_tree(2)
 * and mount_setattr(2) are of Linux 5.12, and take CAP_SYS_ADMIN).
 */
static int open_read_only(const char *path, int above)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	_cleanup_close_ int fd = -1;

	fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return -1;
	return fd > above ? TAKE_FD(fd) : fcntl(fd, F_DUPFD_CLOEXEC, above + 1);
}

/* Is a variable of ours of the same name as one of extra? */
static bool replaced(const char *variable, const char *const *extra, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strncmp(variable, extra[i], strcspn(extra[i], "=") + 1) == 0)
			return true;
	return false;
}

const char **spawn_environment_with(const char *const *extra, size_t n)
{
	size_t ours = 0, at = 0;
	const char **env;

	while (environ[ours])
		ours++;
	env = calloc(ours + n + 1, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < ours; i++)
		if (strncmp(environ[i], "NOTIFY_SOCKET=", 14) != 0 && !replaced(environ[i], extra, n))
			env[at++] = environ[i];
	for (size_t i = 0; i < n; i++)
		env[at++] = extra[i];
	return env;
}

const char **spawn_environment(const char *extra)
{
	return spawn_environment_with(&extra, extra ? 1 : 0);
}

int spawn(const struct spawn *s, pid_t *ret_pid, struct error *err)
{
	_cleanup_close_ int null_fd = -1, exe_fd = -1;
	_cleanup_free_ const char **own = NULL;
	char path[PATH_MAX];
	struct plan plan = { .s = s, .path = path, .highest = 2, .parent = getpid() };
	const char *program = s->program ? s->program : s->argv[0];
	pid_t pid;

	if (spawn_lookup(program, path, sizeof(path)) < 0)
		return error_set(err, -ENOENT, "exec: \"%s\": executable file not found in $PATH",
				 program);
	if (!s->envp) {
		own = spawn_environment(NULL);
		if (!own)
			return error_set(err, -ENOMEM, "start %s: out of memory", program);
	}
	null_fd = open_null();
	if (null_fd < 0)
		return error_sys(err, errno, "open /dev/null");
	plan.null_fd = null_fd;
	/* execve() takes pointers to non-const for history's sake and writes to nothing. */
	plan.argv = (char *const *)(uintptr_t)s->argv;
	plan.envp = (char *const *)(uintptr_t)(s->envp ? s->envp : own);
	for (unsigned int i = 0; i < s->n_fds; i++)
		if (s->fds[i].as > plan.highest)
			plan.highest = s->fds[i].as;
	if (s->read_only)
		exe_fd = open_read_only(path, plan.highest);
	plan.exe_fd = exe_fd;
	pid = vfork_child(&plan);
	if (pid < 0)
		return error_sys(err, errno, "start %s", program);
	if (plan.child_errno)
		/* The remains are reaped by the sweep, as those of an unknown pid. */
		return error_sys(err, plan.child_errno, "fork/exec %s", path);
	*ret_pid = pid;
	return 0;
}
