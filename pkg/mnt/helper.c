/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define SAID_MAX   512
#define GRACE_KILL (2 * NSEC_PER_SEC) /* a killed program may still wait for its disk */

struct helper {
	const char *name;
	pid_t pid;
	int pidfd, out;
	char said[SAID_MAX];
	size_t n;
};

/* Keeps the start of what it prints; the rest is read all the same, so that it cannot block. */
static void listen_to(struct helper *h)
{
	char waste[SAID_MAX];
	size_t room = sizeof(h->said) - 1 - h->n;
	ssize_t got = read(h->out, room ? h->said + h->n : waste, room ? room : sizeof(waste));

	if (got > 0 && room)
		h->n += (size_t)got;
	if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) {
		(void)close(h->out);
		h->out = -1; /* poll() passes it over */
	}
}

/* Waits for the exit, not for the end of its output: what it leaves running may hold that. */
static int wait_until(struct helper *h, nsec_t deadline)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = h->pidfd, .events = POLLIN },
				       { .fd = h->out, .events = POLLIN } };
		nsec_t now = time_now();
		int r;

		if (now >= deadline)
			return -ETIMEDOUT;
		r = poll(p, 2, (int)((deadline - now) / NSEC_PER_MSEC) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && p[1].revents)
			listen_to(h);
		if (r > 0 && p[0].revents)
			return 0;
	}
}

static int result(struct helper *h, struct error *err)
{
	int status = 0;
	size_t end;

	if (waitpid(h->pid, &status, WNOHANG) != h->pid)
		return error_set(err, -ECHILD, "%s: its exit status was lost", h->name);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	h->said[h->n] = 0;
	end = strcspn(h->said, "\n");
	h->said[end] = 0;
	if (WIFSIGNALED(status))
		return error_set(err, -EIO, "%s was killed by signal %d", h->name,
				 WTERMSIG(status));
	return error_set(err, -EIO, "%s failed with status %d%s%s", h->name, WEXITSTATUS(status),
			 h->said[0] ? ": " : "", h->said);
}

/* posix_spawn() shares our memory until exec, so it costs the same in a large process. */
static int start(struct helper *h, const char *const *argv, int out)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	r = posix_spawn_file_actions_init(&actions);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
	r = r ?: posix_spawnattr_setsigmask(&attr, &none);
	r = r ?: posix_spawnattr_setsigdefault(&attr, &all);
	r = r ?: posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	/* It takes pointers to non-const for history's sake and writes to nothing. */
	r = r ?: posix_spawnp(&h->pid, argv[0], &actions, &attr, (char *const *)(uintptr_t)argv,
			      environ);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

int helper_run(const char *const *argv, nsec_t limit, struct error *err)
{
	_cleanup_close_ int pidfd = -1, to = -1;
	struct helper h = { .name = argv[0], .pidfd = -1, .out = -1 };
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return error_sys(err, errno, "start %s", argv[0]);
	h.out = p[0];
	to = p[1];
	r = fd_nonblock(h.out, true);
	if (r == 0)
		r = start(&h, argv, to);
	if (r < 0) {
		(void)close(h.out);
		return error_sys(err, r, "start %s", argv[0]);
	}
	cleanup_close_p(&to);
	to = -1;
	pidfd = (int)syscall(SYS_pidfd_open, h.pid, 0);
	h.pidfd = pidfd;
	r = pidfd < 0 ? -errno : wait_until(&h, time_add(time_now(), limit));
	if (r < 0) {
		(void)kill(h.pid, SIGKILL);
		if (pidfd >= 0)
			(void)wait_until(&h, time_add(time_now(), GRACE_KILL));
		(void)waitpid(h.pid, NULL, WNOHANG);
		(void)error_sys(err, r, "%s was killed", argv[0]);
	} else {
		r = result(&h, err);
	}
	if (h.out >= 0)
		(void)close(h.out);
	return r;
}
