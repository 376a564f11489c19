/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kubelet answers, in well-formed gRPC. The first byte is the status that ends the call; the
 * rest see grpc_peer.h. The call must end exactly once, and what it says are GPUs must be ones.
 */
#include <assert.h>
#include <signal.h>

#include "agent/kubelet.h"
#include "fuzz/grpc_peer.h"
#include "gpu/uuid.h"

#define INPUT_MAX 32768

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct grpc_method methods[] = {
	{ "/v1.PodResourcesLister/List", GRPC_SERVER_STREAM, &grpc_peer_ops },
};

struct world {
	struct kubelet_call call;
	bool done;
};

static void answered(struct kubelet_call *call, int r, const struct error *err)
{
	struct world *w = container_of(call, struct world, call);
	struct cuda_uuid uuid;

	assert(!w->done);
	assert(r == 0 || (err->code == r && err->text[0]));
	for (size_t i = 0; r == 0 && i < call->n_gpus; i++)
		assert(gpu_uuid_parse(call->gpus[i], &uuid) == 0);
	w->done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX);
	struct world w = { .done = false };
	struct error err = ERROR_NULL;
	struct grpc_peer peer;
	struct kubelet *k;
	struct loop *loop;
	uint8_t code;

	if (bytes_u8(&in, &code) != 0)
		return 0;
	(void)signal(SIGPIPE, SIG_IGN);
	if (loop_new(&loop) < 0)
		abort();
	grpc_peer_open(&peer, loop, methods, ARRAY_SIZE(methods));
	peer.say = in;
	peer.code = code % (RPC_UNAUTHENTICATED + 1);
	if (kubelet_new(&k, loop, peer.addr.sun_path) < 0 ||
	    kubelet_ask(k, &w.call, "prod", "web-0", "trainer", answered, &err) < 0)
		abort();
	grpc_peer_run(&peer, &w.done);
	kubelet_call_done(&w.call);
	kubelet_free(k);
	grpc_peer_close(&peer);
	loop_free(loop);
	return 0;
}
