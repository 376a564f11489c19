/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sysfault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Calls that touch the file system. close() is left out: nobody acts on its result. */
static const int watched[] = {
	SYS_openat, SYS_openat2, SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_renameat2,
	SYS_linkat, SYS_symlinkat, SYS_fchmod, SYS_fchmodat, SYS_fsync, SYS_fdatasync,
	SYS_sync_file_range, SYS_ftruncate, SYS_read, SYS_pread64, SYS_write, SYS_pwrite64,
	SYS_getdents64, SYS_flock, SYS_fstatfs, SYS_newfstatat, SYS_statx, SYS_fcntl,
#ifdef SYS_mkdir
	SYS_open, SYS_mkdir, SYS_rename, SYS_unlink, SYS_rmdir,
#endif
};

static int install_filter(void)
{
	struct sock_filter code[ARRAY_SIZE(watched) + 3];
	struct sock_fprog prog = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							 (uint32_t)watched[i],
							 (uint8_t)(ARRAY_SIZE(watched) - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	prog.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			    SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

union control {
	struct cmsghdr align;
	char raw[CMSG_SPACE(sizeof(int))];
};

static int send_fd(int socket, int fd)
{
	union control control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.raw, .msg_controllen = sizeof(control.raw),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(socket, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int receive_fd(int socket)
{
	union control control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.raw, .msg_controllen = sizeof(control.raw),
	};
	struct cmsghdr *c;
	int fd;

	if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) <= 0)
		return -ENOSYS; /* the child could not install the filter */
	c = CMSG_FIRSTHDR(&msg);
	if (!c)
		return -ENOSYS;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static _Noreturn void child(const struct sysfault *f, int socket)
{
	int listener = install_filter();

	if (listener < 0 || send_fd(socket, listener) < 0)
		_exit(127);
	(void)close(listener);
	(void)close(socket);
	_exit(f->run(f->arg));
}

static void answer(const struct sysfault *f, int listener, pid_t pid)
{
	struct seccomp_notif req = { 0 };
	struct seccomp_notif_resp resp = { 0 };
	struct sysfault_call call;
	int verdict;

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
		return; /* it died meanwhile */
	call = (struct sysfault_call){ .pid = (pid_t)req.pid, .nr = req.data.nr };
	memcpy(call.args, req.data.args, sizeof(call.args));
	verdict = f->decide(f->arg, &call);
	if (verdict == SYSFAULT_KILL) {
		(void)kill(pid, SIGKILL);
		return;
	}
	resp.id = req.id;
	resp.error = verdict;
	resp.flags = verdict ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	(void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &resp);
}

static int supervise(const struct sysfault *f, int listener, pid_t pid, int *ret_status)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	for (;;) {
		struct pollfd p[] = { { listener, POLLIN, 0 }, { pidfd, POLLIN, 0 } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents & POLLIN) {
			answer(f, listener, pid);
			continue;
		}
		if (p[1].revents & POLLIN)
			return waitpid(pid, ret_status, 0) < 0 ? -errno : 0;
	}
}

int sysfault_run(const struct sysfault *f, int *ret_status)
{
	_cleanup_close_ int listener = -1;
	int sockets[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(f, sockets[1]);
	r = pid < 0 ? -errno : 0;
	(void)close(sockets[1]);
	if (r == 0) {
		listener = receive_fd(sockets[0]);
		r = listener < 0 ? listener : supervise(f, listener, pid, ret_status);
	}
	(void)close(sockets[0]);
	if (r < 0 && pid > 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	return r;
}

const char *sysfault_text(const struct sysfault_call *call, int arg, char *buf, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)call->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : pread(fd, buf, size - 1, (off_t)call->args[arg]);
	if (n < 0)
		n = snprintf(buf, size, "?");
	buf[n] = 0;
	return buf;
}

const char *sysfault_fd_path(const struct sysfault_call *call, int arg, char *buf, size_t size)
{
	int fd = (int)call->args[arg];
	char path[64];
	ssize_t n;

	if (fd == AT_FDCWD)
		(void)snprintf(path, sizeof(path), "/proc/%d/cwd", (int)call->pid);
	else
		(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)call->pid, fd);
	n = readlink(path, buf, size - 1);
	if (n < 0)
		n = snprintf(buf, size, "?");
	buf[n] = 0;
	return buf;
}
