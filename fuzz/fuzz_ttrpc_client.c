/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ttrpc client, fed the raw bytes that a server sends. The first byte says how many come at a
 * time. Two calls are open; each must end exactly once, and one of them is asked again when it
 * ends.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "base/cleanup.h"
#include "rpc/ttrpc_client.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct call {
	struct ttrpc_request req;
	struct ttrpc_client *client;
	unsigned int begun, ended;
};

static void begin(struct call *c);

static void done(struct ttrpc_request *req, int r, struct bytes payload, const struct error *err)
{
	struct call *c = container_of(req, struct call, req);

	assert(r <= 0 && (r == 0 || err->code == r));
	assert(r == 0 || payload.n == 0);
	c->ended++;
	if (r == 0 && c->begun < 3)
		begin(c);
}

static void begin(struct call *c)
{
	Events__ForwardRequest m = EVENTS__FORWARD_REQUEST__INIT;

	c->begun++;
	ttrpc_client_call(c->client, &c->req, "a.Service", "Forward", &m.base, "ns", NSEC_NEVER,
			  done);
}

static int listener(struct sockaddr_un *addr)
{
	socklen_t size = sizeof(*addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(addr->sun_path, sizeof(addr->sun_path), "/tmp/fuzz-ttrpc-%d", getpid());
	(void)unlink(addr->sun_path);
	if (fd < 0 || bind(fd, (const struct sockaddr *)addr, size) < 0 || listen(fd, 4) < 0)
		abort();
	return fd;
}

static void rounds(struct loop *loop, int n)
{
	while (n--)
		if (loop_round(loop, 0) < 0)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX), piece;
	struct call calls[2] = { 0 };
	struct sockaddr_un addr;
	struct loop *loop;
	uint8_t step;
	int server, fd;

	if (bytes_u8(&in, &step) != 0)
		return 0;
	server = listener(&addr);
	if (loop_new(&loop) < 0 || ttrpc_client_new(&calls[0].client, loop, addr.sun_path) < 0)
		abort();
	calls[1].client = calls[0].client;
	begin(&calls[0]);
	begin(&calls[1]);
	fd = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		abort();
	while (in.n) {
		uint8_t said[4096];

		(void)bytes_take(&in, step && step < in.n ? step : in.n, &piece);
		if (send(fd, piece.p, piece.n, MSG_NOSIGNAL) < 0)
			break;
		rounds(loop, 1);
		while (recv(fd, said, sizeof(said), 0) > 0)
			;
	}
	(void)close(fd);
	(void)close(server);
	rounds(loop, 4);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		assert(calls[i].begun == calls[i].ended && !calls[i].req.client);
	ttrpc_client_free(calls[0].client);
	loop_free(loop);
	(void)unlink(addr.sun_path);
	return 0;
}
