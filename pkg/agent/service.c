/* SPDX-License-Identifier: Apache-2.0 */
/* The NodeAgent service: its methods, and what their handlers share. */
#include <errno.h>

#include "agent/agent.h"
#include "rpc/pb.h"

#define SERVICE     "/kybernate.agent.v1.NodeAgent/"

const struct grpc_method agent_methods[] = {
	{ SERVICE "Checkpoint", GRPC_BIDI, &checkpoint_stream },
	{ SERVICE "Restore", GRPC_BIDI, &restore_stream },
	{ SERVICE "Suspend", GRPC_BIDI, &suspend_stream },
	{ SERVICE "CreateCheckpoint", GRPC_SERVER_STREAM, &create_verb },
	{ SERVICE "RestoreContainer", GRPC_SERVER_STREAM, &rebirth_verb },
	{ SERVICE "SuspendContainer", GRPC_SERVER_STREAM, &suspend_verb },
	{ SERVICE "ResumeContainer", GRPC_SERVER_STREAM, &resume_verb },
	{ SERVICE "ListCheckpoints", GRPC_UNARY, &list_verb },
	{ SERVICE "GetCheckpoint", GRPC_UNARY, &get_verb },
	{ SERVICE "DeleteCheckpoint", GRPC_UNARY, &delete_verb },
	{ SERVICE "Status", GRPC_UNARY, &status_verb },
	{ SERVICE "Doctor", GRPC_UNARY, &doctor_verb },
};

const size_t agent_methods_size = ARRAY_SIZE(agent_methods);

void agent_send(struct grpc_call *call, const ProtobufCMessage *msg)
{
	_cleanup_buf_ struct buf packed = BUF_LIMIT(AGENT_MESSAGE_MAX);

	/* What cannot be sent ends the call, and its ended() tells the handler. */
	if (pb_pack(msg, &packed) < 0 || grpc_call_send(call, buf_bytes(&packed)) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "the answer cannot be sent",
				 bytes_of(NULL, 0));
}

void agent_reply(struct grpc_call *call, const ProtobufCMessage *msg)
{
	_cleanup_buf_ struct buf packed = BUF_LIMIT(AGENT_MESSAGE_MAX);

	if (pb_pack(msg, &packed) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "the answer is too large",
				 bytes_of(NULL, 0));
	else
		grpc_call_reply(call, buf_bytes(&packed));
}

void *agent_unpack(struct grpc_call *call, struct bytes msg,
		   const ProtobufCMessageDescriptor *type, struct arena *mem)
{
	void *m = pb_unpack(type, msg, mem);

	if (!m)
		grpc_call_finish(call, RPC_INVALID_ARGUMENT, "the request cannot be decoded",
				 bytes_of(NULL, 0));
	return m;
}

void agent_fail(struct grpc_call *call, const struct error *err)
{
	struct error out = *err;

	if (err->reason != REASON_NONE) {
		(void)error_wrap(&out, err->code, "%s", reason_name(err->reason));
		out.rpc = error_rpc_code(err);
	}
	grpc_call_fail(call, &out);
}
