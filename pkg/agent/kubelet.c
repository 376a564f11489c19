/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kubelet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/kubelet/podresources.pb-c.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "gpu/uuid.h"
#include "rpc/pb.h"

#define METHOD    "/v1.PodResourcesLister/List"
#define REPLY_MAX ((size_t)16 << 20) /* kubelet's own limit */
#define MEM_MAX   ((size_t)64 << 20)
#define ASK_MAX   (5 * NSEC_PER_SEC)
#define GPUS_MAX  64

struct kubelet {
	struct grpc_client *client;
	char path[PATH_MAX];
};

int kubelet_new(struct kubelet **ret, struct loop *loop, const char *path)
{
	struct grpc_client_config config = { .max_message = REPLY_MAX };
	struct kubelet *k = calloc(1, sizeof(*k));
	int r = k ? PATH_PRINTF(k->path, "%s", path) : -ENOMEM;

	if (r == 0)
		r = grpc_client_open(loop, path, &config, &k->client);
	if (r < 0) {
		free(k);
		return r;
	}
	*ret = k;
	return 0;
}

void kubelet_free(struct kubelet *k)
{
	if (!k)
		return;
	grpc_client_free(k->client);
	free(k);
}

bool kubelet_here(const struct kubelet *k)
{
	return access(k->path, F_OK) == 0;
}

static const Podresources__ContainerResources *
find(const Podresources__ListPodResourcesResponse *m, const struct kubelet_call *call)
{
	for (size_t i = 0; i < m->n_pod_resources; i++) {
		const Podresources__PodResources *pod = m->pod_resources[i];

		if (strcmp(pod->name, call->pod) != 0 || strcmp(pod->namespace_, call->ns) != 0)
			continue;
		for (size_t k = 0; k < pod->n_containers; k++)
			if (strcmp(pod->containers[k]->name, call->container) == 0)
				return pod->containers[k];
	}
	return NULL;
}

/* A GPU that is shared has an id for each share: "GPU-uuid::0", "GPU-uuid::1". */
static const char *gpu_of(const char *id, struct arena *mem)
{
	const char *end = strstr(id, "::");
	char text[GPU_UUID_TEXT_MAX];
	struct cuda_uuid uuid;

	if (strncmp(id, "GPU-", 4) != 0 ||
	    PATH_PRINTF(text, "%.*s", end ? (int)(end - id) : (int)strlen(id), id) < 0 ||
	    gpu_uuid_parse(text, &uuid) < 0)
		return NULL;
	return arena_strdup(mem, gpu_uuid_format(&uuid, text));
}

static int take_gpus(struct kubelet_call *call, const Podresources__ContainerResources *c)
{
	const char **gpus = arena_alloc(&call->mem, GPUS_MAX * sizeof(*gpus));

	if (!gpus)
		return -ENOMEM;
	call->gpus = gpus;
	for (size_t i = 0; i < c->n_devices; i++) {
		for (size_t k = 0; k < c->devices[i]->n_device_ids; k++) {
			const char *gpu = gpu_of(c->devices[i]->device_ids[k], &call->mem);

			if (!gpu)
				continue;
			if (call->n_gpus == GPUS_MAX)
				return -E2BIG;
			gpus[call->n_gpus++] = gpu;
		}
	}
	return 0;
}

static void answered(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct kubelet_call *call = arg;
	const Podresources__ListPodResourcesResponse *m = NULL;
	const Podresources__ContainerResources *c;
	struct error err = ERROR_NULL;
	int r = 0;

	call->stream = NULL;
	if (status->code == RPC_OK)
		m = pb_unpack(&podresources__list_pod_resources_response__descriptor, reply,
			      &call->mem);
	if (!m)
		r = error_set(&err, -EREMOTEIO, "kubelet: %s",
			      status->code == RPC_OK ? "its answer cannot be decoded"
			      : status->text[0]	     ? status->text
						     : rpc_code_name(status->code));
	c = m ? find(m, call) : NULL;
	if (m && !c)
		r = error_reason(&err, REASON_POD_MISMATCH, -ENOENT,
				 "kubelet knows no container \"%.80s\" of a pod \"%.80s\" in \"%.80s\"",
				 call->container, call->pod, call->ns);
	if (c && take_gpus(call, c) < 0)
		r = error_set(&err, -ENOMEM, "kubelet: too many GPUs");
	call->done(call, r, &err);
}

int kubelet_ask(struct kubelet *k, struct kubelet_call *call, const char *ns, const char *pod,
		const char *container,
		void (*done)(struct kubelet_call *call, int r, const struct error *err),
		struct error *err)
{
	Podresources__ListPodResourcesRequest request =
		PODRESOURCES__LIST_POD_RESOURCES_REQUEST__INIT;
	_cleanup_buf_ struct buf packed = BUF_NULL;
	int r;

	kubelet_call_done(call);
	*call = (struct kubelet_call){ .ns = ns,
				       .pod = pod,
				       .container = container,
				       .mem = ARENA_LIMIT(MEM_MAX),
				       .done = done };
	r = pb_pack(&request.base, &packed);
	if (r == 0)
		r = grpc_unary(k->client, METHOD, NULL, 0, buf_bytes(&packed), time_now() + ASK_MAX,
			       answered, call, &call->stream);
	return r < 0 ? error_sys(err, r, "ask kubelet") : 0;
}

void kubelet_call_done(struct kubelet_call *call)
{
	if (call->stream)
		grpc_stream_cancel(call->stream);
	call->stream = NULL;
	arena_done(&call->mem);
}
