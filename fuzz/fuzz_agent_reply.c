/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent answers a shim, in well-formed gRPC. The first byte chooses the kind of stream, the
 * second the status that ends it; the rest see grpc_peer.h. Every order is answered; the stream
 * must end exactly once, and never with a success that the agent has not told.
 */
#include <assert.h>

#include "api/agent/v1/agent.pb-c.h"
#include "fuzz/grpc_peer.h"
#include "shim/hooks/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct grpc_method methods[] = {
	{ "/kybernate.agent.v1.NodeAgent/Checkpoint", GRPC_BIDI, &grpc_peer_ops },
	{ "/kybernate.agent.v1.NodeAgent/Restore", GRPC_BIDI, &grpc_peer_ops },
	{ "/kybernate.agent.v1.NodeAgent/Suspend", GRPC_BIDI, &grpc_peer_ops },
};

struct world {
	struct agent_op *op;
	bool done;
};

static void replied(void *data, const struct agent_reply *reply)
{
	struct world *w = data;

	assert(!w->done);
	for (size_t i = 0; i < reply->n_runtime_flags; i++)
		assert(reply->runtime_flags[i]);
	if (reply->order != AGENT_ORDER_NONE)
		agent_op_result(w->op, reply->order, 0, NULL, 1, 0);
}

static void ended(void *data, int r, const struct error *err)
{
	struct world *w = data;

	assert(!w->done);
	assert(r <= 0 && (r == 0 || (err->code == r && error_text(err)[0])));
	w->done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct agent_ops ops = { .reply = replied, .ended = ended };
	struct bytes in = bytes_of(data, n);
	struct agent_request req = { .container_id = "web", .ns = "k8s.io" };
	struct world w = { 0 };
	struct grpc_peer peer;
	struct loop *loop;
	uint8_t what, code;

	if (bytes_u8(&in, &what) != 0 || bytes_u8(&in, &code) != 0)
		return 0;
	if (loop_new(&loop) < 0)
		abort();
	grpc_peer_open(&peer, loop, methods, ARRAY_SIZE(methods));
	peer.say = in;
	peer.code = code % (RPC_UNAUTHENTICATED + 1);
	req.kind = what % ARRAY_SIZE(methods);
	if (agent_op_open(&w.op, loop, peer.addr.sun_path, &req, NSEC_NEVER, &ops, &w, NULL) < 0)
		abort();
	grpc_peer_run(&peer, &w.done);
	grpc_peer_close(&peer);
	loop_free(loop);
	return 0;
}
