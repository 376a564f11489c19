/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kubelet's word on which GPUs it has given to a container: its pod-resources API, on a socket of the
 * node. Source: kubernetes/kubelet, pkg/apis/podresources/v1; NVIDIA/k8s-device-plugin for what its
 * device ids look like ("GPU-uuid", and "GPU-uuid::N" where a GPU is shared).
 */
#ifndef KYB_AGENT_KUBELET_H
#define KYB_AGENT_KUBELET_H

#include "base/arena.h"
#include "base/error.h"
#include "rpc/grpc_client.h"

struct kubelet;

/* Returns 0 or -errno. path: of the socket, copied; nothing is connected yet. */
int kubelet_new(struct kubelet **ret, struct loop *loop, const char *path);
/* NULL is fine. */
void kubelet_free(struct kubelet *k);
/* Is there a kubelet on this node? */
bool kubelet_here(const struct kubelet *k);

/* A question; zero-initialise it once. */
struct kubelet_call {
	struct grpc_stream *stream; /* NULL = not under way */
	const char *ns, *pod, *container; /* borrowed */
	struct arena mem;
	const char *const *gpus; /* "GPU-..."; none where it gives out something else */
	size_t n_gpus;
	/*
	 * r = 0 and the GPUs, until kubelet_call_done(); -ENOENT with POD_MISMATCH: it knows no such
	 * container; other negative: it could not be asked.
	 */
	void (*done)(struct kubelet_call *call, int r, const struct error *err);
};

/* done() follows from the loop. Returns 0 or negative with err. */
int kubelet_ask(struct kubelet *k, struct kubelet_call *call, const char *ns, const char *pod,
		const char *container,
		void (*done)(struct kubelet_call *call, int r, const struct error *err),
		struct error *err);
/* Forgets it and frees what it holds. Harmless when there is nothing. */
void kubelet_call_done(struct kubelet_call *call);

#endif
