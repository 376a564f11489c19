/* SPDX-License-Identifier: Apache-2.0 */
#include "containerd/containerd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "containerd/internal.h"
#include "rpc/pb.h"

/* containerd's own limit for what it sends and takes: defaults.DefaultMaxRecvMsgSize. */
#define MESSAGE_MAX ((size_t)16 << 20)
#define REPLY_MAX   ((size_t)64 << 20)

int containerd_new(struct containerd **ret, struct loop *loop, const char *path)
{
	struct grpc_client_config config = { .max_message = MESSAGE_MAX, .max_send = MESSAGE_MAX };
	struct containerd *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	r = grpc_client_open(loop, path, &config, &c->client);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void containerd_free(struct containerd *c)
{
	if (!c)
		return;
	grpc_client_free(c->client);
	free(c);
}

int containerd_error(const struct grpc_status *status, const char *what, struct error *err)
{
	(void)error_reason(err, REASON_CONTAINERD_FAILED, -EREMOTEIO, "containerd: %s: %s", what,
			   status->text[0] ? status->text : rpc_code_name(status->code));
	err->rpc = status->code;
	return err->code;
}

const char *containerd_short_name(const char *method)
{
	const char *slash = strrchr(method, '/');

	return slash ? slash + 1 : method;
}

/*
 * What a shim of ours says comes through containerd as it was, with words of containerd's in front
 * (tasks service, Create: "failed to create shim task") and behind (": failed precondition").
 */
static int refused(const struct containerd_call *call, const struct grpc_status *status,
		   struct error *err)
{
	enum reason reason;
	const char *words = strncmp(call->method, CTD_TASKS, strlen(CTD_TASKS)) == 0
				    ? reason_in_text(status->text, &reason)
				    : NULL;

	if (!words)
		return containerd_error(status, containerd_short_name(call->method), err);
	(void)error_reason(err, reason, -EREMOTEIO, "%s", words);
	err->rpc = status->code;
	return err->code;
}

static void answered(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct containerd_call *call = arg;
	struct error err = ERROR_NULL;
	const void *msg = NULL;
	int r = 0;

	call->stream = NULL;
	if (status->code != RPC_OK)
		r = refused(call, status, &err);
	else
		msg = pb_unpack(call->type, reply, &call->arena);
	if (r == 0 && !msg)
		r = error_reason(&err, REASON_CONTAINERD_FAILED, -EBADMSG,
				 "containerd: the answer of %s cannot be decoded",
				 containerd_short_name(call->method));
	call->done(call, r, msg, &err);
}

int containerd_call(struct containerd *c, struct containerd_call *call, const char *ns,
		    const char *lease, const char *method, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply_type, nsec_t deadline,
		    void (*done)(struct containerd_call *call, int r, const void *reply,
				 const struct error *err),
		    struct error *err)
{
	struct grpc_field fields[] = { CONTAINERD_NAMESPACE(ns),
				       CONTAINERD_LEASE(lease ? lease : "") };
	_cleanup_buf_ struct buf packed = BUF_LIMIT(MESSAGE_MAX);
	int r;

	containerd_call_done(call);
	*call = (struct containerd_call){ .method = method,
					  .type = reply_type,
					  .arena = ARENA_LIMIT(REPLY_MAX),
					  .done = done };
	r = pb_pack(request, &packed);
	if (r == 0)
		r = grpc_unary(c->client, method, fields, lease ? 2 : 1, buf_bytes(&packed),
			       deadline, answered, call, &call->stream);
	return r < 0 ? error_reason(err, REASON_CONTAINERD_FAILED, r, "containerd: %s: %s",
				    containerd_short_name(method), strerror(-r))
		     : 0;
}

void containerd_call_done(struct containerd_call *call)
{
	if (call->stream)
		grpc_stream_cancel(call->stream);
	call->stream = NULL;
	arena_done(&call->arena);
}
