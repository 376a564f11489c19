/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "daemon/session.h"

void process_free(struct process *p)
{
	list_remove(&p->node);
	source_remove(&p->exit);
	(void)close(p->pidfd);
	free(p);
}

/* What the kernel does for a real GPU when a process dies: its memory is free again, even if a
 * child that it forked still holds the connection. */
static void exited(struct source *src, uint32_t events)
{
	struct process *p = container_of(src, struct process, exit);
	struct session *s, *next;

	(void)events;
	list_for_each_safe(s, next, &p->srv->sessions, node) {
		if (s->call.target == p)
			call_target_gone(&s->call);
		if (s->process == p) {
			s->process = NULL;
			session_end(s);
		}
	}
	process_free(p);
}

static struct process *find(struct server *srv, pid_t pid)
{
	struct process *p;

	list_for_each(p, &srv->processes, node)
		if (p->pid == pid)
			return p;
	return NULL;
}

static bool has_exited(const struct process *p)
{
	return syscall(SYS_pidfd_send_signal, p->pidfd, 0, NULL, 0) < 0 && errno == ESRCH;
}

struct process *process_get(struct server *srv, pid_t pid)
{
	struct process *p = find(srv, pid);
	int pidfd;

	if (p && !has_exited(p))
		return p;
	if (p)
		exited(&p->exit, 0); /* its pid is in use again before we heard of the end */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	p = pidfd < 0 ? NULL : calloc(1, sizeof(*p));
	if (!p) {
		if (pidfd >= 0)
			(void)close(pidfd);
		return NULL;
	}
	*p = (struct process){ .srv = srv, .pid = pid, .pidfd = pidfd, .state = -1 };
	list_init(&p->calls);
	if (source_add(srv->loop, &p->exit, pidfd, EPOLLIN, exited) < 0) {
		(void)close(pidfd);
		free(p);
		return NULL;
	}
	list_append(&srv->processes, &p->node);
	return p;
}

/* The "Pid:" line of a pidfd's fdinfo tells the pid in the namespace of our /proc, whichever
 * namespace the sender lives in; -1 once the process was reaped, 0 if it is not to be seen here. */
static pid_t pid_of(int pidfd)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(4096);
	char path[64];
	const char *line;
	uint64_t pid;
	size_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	if (file_read(AT_FDCWD, path, &text) < 0)
		return -1;
	line = strstr(buf_str(&text), "\nPid:\t");
	if (!line)
		return -1;
	line += strlen("\nPid:\t");
	n = strcspn(line, "\n");
	return num_parse_n(line, n, INT32_MAX, &pid) < 0 ? -1 : (pid_t)pid;
}

struct process *process_of_pidfd(struct server *srv, int pidfd)
{
	pid_t pid = pid_of(pidfd);

	return pid > 0 ? process_get(srv, pid) : NULL;
}
