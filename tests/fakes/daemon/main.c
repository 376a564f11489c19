/* SPDX-License-Identifier: Apache-2.0 */
/* fakegpud: owns the memory of emulated GPUs, computes in it, and brokers the driver's calls. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/config.h"
#include "daemon/session.h"

#define BACKLOG 512

static void caught(struct signals *signals, int signo)
{
	struct server *srv = container_of(signals, struct server, signals);

	(void)signo;
	loop_stop(srv->loop);
}

/* A socket that is left over from a daemon that died is replaced; a living one is not. */
static int clear_socket(const struct sockaddr_un *addr)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return -EADDRINUSE;
	if (errno == ECONNREFUSED && unlink(addr->sun_path) < 0)
		return -errno;
	return 0;
}

static int listen_on(struct server *srv, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	int r;

	memcpy(addr.sun_path, srv->config.socket, strlen(srv->config.socket) + 1);
	r = clear_socket(&addr);
	if (r < 0)
		return error_sys(err, r, "%s", addr.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_sys(err, -errno, "socket");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(addr.sun_path, srv->config.socket_mode) < 0 || listen(fd, BACKLOG) < 0)
		return error_sys(err, -errno, "%s", addr.sun_path);
	r = source_add(srv->loop, &srv->listener, fd, EPOLLIN, session_accept);
	if (r < 0)
		return error_sys(err, r, "epoll");
	(void)TAKE_FD(fd);
	return 0;
}

/* Every allocation and every client is a descriptor here. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int start(struct server *srv, struct error *err)
{
	int r = loop_new(&srv->loop);

	if (r < 0)
		return error_sys(err, r, "epoll");
	r = signals_open(srv->loop, &srv->signals, (const int[]){ SIGTERM, SIGINT, 0 }, caught);
	if (r < 0)
		return error_sys(err, r, "signalfd");
	r = calllog_init(&srv->log);
	if (r < 0)
		return error_sys(err, r, "call log");
	return listen_on(srv, err);
}

static void finish(struct server *srv)
{
	struct session *s;
	struct process *p;

	if (srv->listener.loop) {
		int fd = srv->listener.fd;

		timer_cancel(&srv->accept_again);
		source_remove(&srv->listener);
		(void)close(fd);
		(void)unlink(srv->config.socket);
	}
	list_for_each(s, &srv->sessions, node)
		session_end(s);
	vram_drain_pool(srv, 0);
	srv->settings.pool = 0;
	/* Sessions are freed at the end of a round, VRAM slice by slice. */
	while (!list_empty(&srv->sessions) || !list_empty(&srv->work))
		if (loop_round(srv->loop, 0) < 0)
			break;
	while ((p = list_first(&srv->processes, struct process, node)))
		process_free(p);
	fault_clear(&srv->rules, 0);
	calllog_done(&srv->log);
	signals_close(&srv->signals);
	loop_free(srv->loop);
}

int main(int argc, char **argv)
{
	struct server srv = { .next_address = 0x7f0000000000 };
	struct error err = ERROR_NULL;
	int r;

	list_init(&srv.sessions);
	list_init(&srv.processes);
	list_init(&srv.rules);
	list_init(&srv.work);
	list_init(&srv.pool);
	r = config_load(&srv, argc, argv, &err);
	if (r > 0)
		return EXIT_SUCCESS;
	if (r == 0) {
		raise_limit();
		r = start(&srv, &err);
		if (r == 0) {
			log_info("listening", F_STR("socket", srv.config.socket),
				 F_INT("gpus", srv.n_gpus),
				 F_STR("driver", server_version(&srv)));
			r = loop_run(srv.loop);
			if (r < 0)
				(void)error_sys(&err, r, "epoll");
		}
		finish(&srv);
	}
	if (r < 0)
		log_error("fakegpud failed", F_ERR(&err));
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
