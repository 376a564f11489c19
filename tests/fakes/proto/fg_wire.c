/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/fg_wire.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t fg_now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

_Noreturn void fg_crash(void)
{
	(void)signal(SIGSEGV, SIG_DFL);
	(void)raise(SIGSEGV);
	_exit(139);
}

static bool beside_the_library(char *buf)
{
#ifdef FG_SHARED_LIBRARY
	Dl_info info;
	int n;

	if (!dladdr((void *)(uintptr_t)fg_socket_path, &info) || !strrchr(info.dli_fname, '/'))
		return false;
	n = (int)(strrchr(info.dli_fname, '/') - info.dli_fname);
	n = snprintf(buf, FG_PATH_MAX, "%.*s/fakegpu.sock", n, info.dli_fname);
	return n < FG_PATH_MAX && access(buf, F_OK) == 0;
#else
	(void)buf;
	return false;
#endif
}

const char *fg_socket_path(char *buf)
{
	const char *path = getenv(FG_SOCKET_ENV);

	if (path && *path)
		(void)snprintf(buf, FG_PATH_MAX, "%s", path);
	else if (!beside_the_library(buf))
		(void)snprintf(buf, FG_PATH_MAX, "%s", FG_SOCKET_DEFAULT);
	return buf;
}

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

static void attach_fd(struct msghdr *h, union control *c, int fd)
{
	struct cmsghdr *cm;

	memset(c, 0, sizeof(*c));
	h->msg_control = c;
	h->msg_controllen = sizeof(c->space);
	cm = CMSG_FIRSTHDR(h);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(int));
}

static int send_all(int sock, const uint8_t *p, size_t n, int fd)
{
	while (n) {
		struct iovec v = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
		struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1 };
		union control c;
		ssize_t sent;

		if (fd >= 0)
			attach_fd(&h, &c, fd);
		sent = sendmsg(sock, &h, MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		fd = -1; /* went with the first byte */
		p += sent;
		n -= (size_t)sent;
	}
	return 0;
}

int fg_send(int sock, const struct fg_msg *m)
{
	uint8_t head[FG_HEAD_MAX];
	size_t n = fg_encode_head(m, head);
	int r;

	r = send_all(sock, head, n, m->fd);
	if (r == 0 && m->len)
		r = send_all(sock, m->data, m->len, -1);
	return r;
}

/* Waits until sock can be read; deadline as of fg_now_ms(), negative = none. */
static int wait_readable(int sock, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		int64_t left = deadline < 0 ? -1 : deadline - fg_now_ms();
		int r;

		if (deadline >= 0 && left <= 0)
			return -ETIMEDOUT;
		r = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

/* The descriptor that came with h, or -1. */
static int take_fd(struct msghdr *h)
{
	int fd = -1;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(h); cm; cm = CMSG_NXTHDR(h, cm))
		if (cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS)
			memcpy(&fd, CMSG_DATA(cm), sizeof(int));
	return fd;
}

static int recv_all(int sock, uint8_t *p, size_t n, int *fd)
{
	while (n) {
		struct iovec v = { .iov_base = p, .iov_len = n };
		union control c;
		struct msghdr h = {
			.msg_iov = &v,
			.msg_iovlen = 1,
			.msg_control = &c,
			.msg_controllen = sizeof(c.space),
		};
		ssize_t got = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
		int new;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EPIPE;
		new = take_fd(&h);
		if (new >= 0) {
			if (*fd >= 0)
				(void)close(*fd);
			*fd = new;
		}
		p += got;
		n -= (size_t)got;
	}
	return 0;
}

int fg_recv(int sock, struct fg_msg *ret, void *buf, size_t cap, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : fg_now_ms() + timeout_ms;
	uint8_t *p = buf;
	size_t used;
	uint32_t len;
	int fd = -1, r;

	/* What has begun to come is read to its end, or the rest of it would be taken for the
	 * next header: only the first byte is waited for. */
	r = wait_readable(sock, deadline);
	if (r == 0)
		r = recv_all(sock, p, FG_HEADER, &fd);
	if (r == 0) {
		memcpy(&len, p, sizeof(len));
		r = len > cap - FG_HEADER ? -EMSGSIZE : 0;
	}
	if (r == 0)
		r = recv_all(sock, p + FG_HEADER, len, &fd);
	if (r == 0)
		r = fg_decode(p, FG_HEADER + len, FG_REPLY_MAX, ret, &used);
	if (r != 0) {
		if (fd >= 0)
			(void)close(fd);
		return r < 0 ? r : -EBADMSG;
	}
	ret->fd = fd;
	return 0;
}

int fg_ask(int sock, uint64_t *seq, struct fg_msg *m, struct fg_msg *ret, void *buf, size_t cap,
	   int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : fg_now_ms() + timeout_ms;
	int r;

	m->seq = ++*seq;
	r = fg_send(sock, m);
	while (r == 0) {
		int64_t left = deadline < 0 ? -1 : deadline - fg_now_ms();

		r = fg_recv(sock, ret, buf, cap, deadline >= 0 && left < 0 ? 0 : (int)left);
		if (r < 0 || ret->seq == m->seq)
			break;
		if (ret->fd >= 0)
			(void)close(ret->fd);
	}
	return r;
}

int fg_connect(const char *path, enum fg_role role, struct fg_msg *hello, char *version)
{
	struct fg_msg m = { .type = FG_HELLO, .n = 3, .fd = -1 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;
	uint64_t seq = 0;
	int sock, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	/* A Unix socket connects at once or fails; only a full backlog waits, and then EINTR
	 * leaves it unconnected, so that trying again is right. */
	do
		r = connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	while (r == -EINTR);
	m.arg[0] = role;
	m.arg[1] = FG_VERSION;
	m.arg[2] = (uint64_t)syscall(SYS_gettid);
	if (r == 0)
		r = fg_ask(sock, &seq, &m, &answer, buf, sizeof(buf), FG_FOREVER);
	if (r == 0 && (answer.type != FG_RESULT || answer.arg[0] != FG_SUCCESS))
		r = -EPROTO;
	if (r < 0) {
		(void)close(sock);
		return r;
	}
	if (version) {
		size_t n = answer.len < 31 ? answer.len : 31;

		memcpy(version, answer.data, n);
		version[n] = '\0';
	}
	if (hello) {
		*hello = answer;
		hello->data = NULL;
		hello->len = 0;
	}
	return sock;
}
