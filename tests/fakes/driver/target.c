/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proto/fg_proto.h"

/* The start of a small /proc file as a string. Returns 0 or -errno. */
static int read_text(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t at = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	while (at < size - 1) {
		n = read(fd, buf + at, size - 1 - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		at += (size_t)n;
	}
	buf[at] = '\0';
	return 0;
}

static int status_line(pid_t pid, pid_t tid, const char *key, char *buf, size_t size)
{
	char path[64], text[4096];
	const char *at;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	r = read_text(path, text, sizeof(text));
	if (r < 0)
		return r;
	at = strstr(text, key);
	if (!at)
		return -ENOENT;
	at += strlen(key);
	(void)snprintf(buf, size, "%.*s", (int)strcspn(at, "\n"), at);
	return 0;
}

void target_open(struct target *t, int pid)
{
	char text[32];

	*t = (struct target){ .pid = pid, .pidfd = -1 };
	if (pid <= 0 || status_line(pid, pid, "\nTgid:\t", text, sizeof(text)) < 0)
		return;
	t->pid = (pid_t)strtol(text, NULL, 10);
	t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	if (t->pidfd < 0)
		t->pidfd = -1;
}

void target_done(struct target *t)
{
	if (t->pidfd >= 0)
		(void)close(t->pidfd);
	t->pidfd = -1;
}

#define BIT(signo) ((uint64_t)1 << ((signo)-1))

/*
 * By its name, and by having every signal blocked but those that cannot be (or are the C
 * library's own) and the one it waits for, which the kernel unblocks meanwhile: anybody can have a
 * name, but an innocent thread would die of the signal.
 */
static bool is_restorer(pid_t pid, pid_t tid)
{
	const uint64_t open = BIT(SIGKILL) | BIT(SIGSTOP) | BIT(32) | BIT(33) | BIT(34) |
			      BIT(FG_SIGNAL);
	char path[64], text[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	if (read_text(path, text, sizeof(text)) < 0 || strcmp(text, FG_THREAD_NAME "\n") != 0)
		return false;
	return status_line(pid, tid, "\nSigBlk:\t", text, sizeof(text)) == 0 &&
	       (strtoull(text, NULL, 16) | open) == UINT64_MAX;
}

static bool has_exited(const struct target *t)
{
	struct pollfd p = { .fd = t->pidfd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

pid_t target_thread(const struct target *t)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task", t->pid);
	dir = t->pidfd < 0 ? NULL : opendir(path);
	if (!dir)
		return -ESRCH;
	while ((e = readdir(dir))) {
		pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);

		if (tid > 0 && is_restorer(t->pid, tid))
			return tid;
	}
	/* A zombie has no restore thread either. */
	return has_exited(t) ? -ESRCH : 0;
}

bool target_may_access(const struct target *t)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", t->pid);
	dir = opendir(path);
	return dir != NULL;
}

int target_signal(const struct target *t, pid_t tid, uint64_t token)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = FG_SIGNAL;
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)(uintptr_t)token;
	return syscall(SYS_rt_tgsigqueueinfo, t->pid, tid, FG_SIGNAL, &info) < 0 ? -errno : 0;
}
