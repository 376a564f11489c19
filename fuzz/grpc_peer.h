/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For fuzz targets: a gRPC server that says what the fuzzer wants. The input is a list of messages,
 * each with a byte of length in front (255: two more bytes of length follow). When a call's first
 * message comes, all are sent, and the call ends with the status given. Every process has a server
 * of its own, on a socket in /tmp.
 */
#ifndef KYB_FUZZ_GRPC_PEER_H
#define KYB_FUZZ_GRPC_PEER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/grpc_server.h"

struct grpc_peer {
	struct loop *loop;
	struct grpc_server *server;
	struct sockaddr_un addr;
	struct bytes say;
	enum rpc_code code;
};

static inline void grpc_peer_speak(struct grpc_call *call, struct bytes msg)
{
	struct grpc_peer *p = grpc_call_arg(call);
	struct bytes rest = p->say, one;
	uint8_t n, high = 0, low = 0;

	(void)msg;
	while (bytes_u8(&rest, &n) == 0) {
		size_t size = n;

		if (n == 255 && bytes_u8(&rest, &high) == 0 && bytes_u8(&rest, &low) == 0)
			size = (size_t)high << 8 | low;
		(void)bytes_take(&rest, size < rest.n ? size : rest.n, &one);
		if (grpc_call_send(call, one) < 0)
			break;
	}
	grpc_call_finish(call, p->code, "as the fuzzer wants", bytes_of(NULL, 0));
}

static const struct grpc_method_ops grpc_peer_ops = { .message = grpc_peer_speak };

static inline void grpc_peer_open(struct grpc_peer *p, struct loop *loop,
				  const struct grpc_method *methods, size_t n_methods)
{
	static const struct grpc_server_config config = { 0 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*p = (struct grpc_peer){ .loop = loop, .addr = { .sun_family = AF_UNIX } };
	(void)snprintf(p->addr.sun_path, sizeof(p->addr.sun_path), "/tmp/fuzz-grpc-%d", getpid());
	(void)unlink(p->addr.sun_path);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&p->addr, sizeof(p->addr)) < 0 ||
	    listen(fd, 4) < 0 ||
	    grpc_server_new(loop, fd, &config, methods, n_methods, p, &p->server) < 0)
		abort();
}

static inline void grpc_peer_close(struct grpc_peer *p)
{
	grpc_server_free(p->server);
	(void)unlink(p->addr.sun_path);
}

/* Until *done, which must come true. */
static inline void grpc_peer_run(struct grpc_peer *p, const bool *done)
{
	nsec_t end = time_now() + 20 * NSEC_PER_SEC;

	while (!*done)
		if (loop_round(p->loop, time_now() + NSEC_PER_MSEC) < 0 || time_now() > end)
			abort();
}

#endif
