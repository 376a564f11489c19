/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What containerd answers, in well-formed gRPC. The first byte chooses the call (a record, its
 * content read, content written), the second the status that ends it; the rest see grpc_peer.h.
 * Each call must end exactly once, and no descriptor may be left open.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "api/containerd/services.pb-c.h"
#include "containerd/containerd.h"
#include "fuzz/grpc_peer.h"

#define INPUT_MAX 32768 /* less than a pipe holds */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct grpc_method methods[] = {
	{ CTD_CONTAINERS "Get", GRPC_SERVER_STREAM, &grpc_peer_ops },
	{ CTD_SNAPSHOTS "Stat", GRPC_SERVER_STREAM, &grpc_peer_ops },
	{ CTD_TASKS "Get", GRPC_SERVER_STREAM, &grpc_peer_ops },
	{ CTD_CONTENT "Read", GRPC_BIDI, &grpc_peer_ops },
	{ CTD_CONTENT "Write", GRPC_BIDI, &grpc_peer_ops },
};

struct world {
	struct containerd_call call;
	struct containerd_copy copy;
	bool done;
};

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 64; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void answered(struct containerd_call *call, int r, const void *reply, const struct error *err)
{
	struct world *w = container_of(call, struct world, call);

	assert(!w->done);
	assert(r == 0 ? reply != NULL : err->code == r && err->text[0]);
	w->done = true;
}

static void copied(struct containerd_copy *copy, int r, const struct error *err)
{
	struct world *w = container_of(copy, struct world, copy);

	assert(!w->done);
	assert(r == 0 || (err->code == r && err->text[0]));
	assert(memchr(copy->digest, 0, sizeof(copy->digest)));
	w->done = true;
}

static int begin(struct world *w, struct containerd *c, struct loop *loop, uint8_t what, int fd)
{
	static const struct {
		const char *method;
		const ProtobufCMessageDescriptor *reply;
	} calls[] = {
		{ CTD_CONTAINERS "Get", &svc__container_message__descriptor },
		{ CTD_SNAPSHOTS "Stat", &svc__snapshot_stat_response__descriptor },
		{ CTD_TASKS "Get", &svc__task_get_response__descriptor },
	};
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;

	request.id = (char *)"web";
	if (what == 3)
		return containerd_read(c, &w->copy, loop, "k8s.io", "sha256:0", fd, NSEC_NEVER,
				       copied, NULL);
	if (what == 4)
		return containerd_write(c, &w->copy, loop, "k8s.io", "lease", "ref", fd, NSEC_NEVER,
					copied, NULL);
	(void)close(fd);
	return containerd_call(c, &w->call, "k8s.io", NULL, calls[what].method, &request.base,
			       calls[what].reply, NSEC_NEVER, answered, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX);
	struct world w = { .done = false };
	struct containerd *c;
	struct grpc_peer peer;
	struct loop *loop;
	int fds[2], before = open_fds();
	uint8_t what, code;

	if (bytes_u8(&in, &what) != 0 || bytes_u8(&in, &code) != 0)
		return 0;
	what %= ARRAY_SIZE(methods);
	(void)signal(SIGPIPE, SIG_IGN);
	if (loop_new(&loop) < 0 || pipe2(fds, O_CLOEXEC) < 0)
		abort();
	/* The other end takes all there is: pipes hold more than the inputs are long. */
	if (what == 4 && write(fds[1], "content", 7) != 7)
		abort();
	grpc_peer_open(&peer, loop, methods, ARRAY_SIZE(methods));
	peer.say = in;
	peer.code = code % (RPC_UNAUTHENTICATED + 1);
	if (containerd_new(&c, loop, peer.addr.sun_path) < 0 ||
	    begin(&w, c, loop, what, what == 4 ? fds[0] : fds[1]) < 0)
		abort();
	if (what == 4)
		(void)close(fds[1]);
	grpc_peer_run(&peer, &w.done);
	containerd_call_done(&w.call);
	containerd_copy_cancel(&w.copy);
	if (what != 4)
		(void)close(fds[0]);
	containerd_free(c);
	grpc_peer_close(&peer);
	loop_free(loop);
	assert(open_fds() == before);
	return 0;
}
