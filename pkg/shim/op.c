/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/task.h"

#include <errno.h>
#include <stdlib.h>

void *op_new(size_t size, struct ttrpc_call *call, struct process *p)
{
	struct op *op = calloc(1, size);
	struct error err = ERROR_NULL;

	if (!op) {
		(void)error_set(&err, -ENOMEM, "out of memory");
		if (call)
			ttrpc_call_fail(call, &err);
		return NULL;
	}
	op->call = call;
	op->c = container_ref(p->c);
	op->p = process_ref(p);
	op->c->shim->n_ops++;
	return op;
}

static void turn(struct lane_op *lane)
{
	struct op *op = container_of(lane, struct op, lane);

	op->begin(op);
}

void op_enter(struct op *op, void (*begin)(struct op *op))
{
	op->begin = begin;
	lane_enter(&op->p->lane, &op->lane, turn);
}

void op_call(struct shim *shim, struct ttrpc_call *call, const char *id, const char *exec_id,
	     void (*begin)(struct op *op))
{
	struct error err = ERROR_NULL;
	struct container *c = container_find(shim, id, &err);
	struct process *p = c ? container_process(c, exec_id, &err) : NULL;
	struct op *op;

	if (!p) {
		call_fail(call, &err);
		return;
	}
	op = op_new(sizeof(*op), call, p);
	if (op)
		op_enter(op, begin);
}

static void op_free(struct op *op)
{
	lane_leave(&op->lane);
	op->c->shim->n_ops--;
	process_unref(op->p);
	container_unref(op->c);
	free(op);
}

void op_reply(struct op *op, const ProtobufCMessage *msg)
{
	if (op->call)
		ttrpc_call_reply(op->call, msg);
	op_free(op);
}

void op_reply_empty(struct op *op)
{
	if (op->call)
		ttrpc_call_reply_empty(op->call);
	op_free(op);
}

void op_fail(struct op *op, const struct error *err)
{
	if (op->call)
		call_fail(op->call, err);
	op_free(op);
}

void op_end(struct op *op, int r, const struct error *err)
{
	if (r < 0)
		op_fail(op, err);
	else
		op_reply_empty(op);
}

void call_fail(struct ttrpc_call *call, const struct error *err)
{
	struct error out = *err;

	if (err->reason != REASON_NONE) {
		(void)error_wrap(&out, err->code, "%s", reason_name(err->reason));
		out.rpc = error_rpc_code(err);
		if (out.rpc == RPC_NOT_FOUND && err->rpc != RPC_NOT_FOUND)
			out.rpc = RPC_FAILED_PRECONDITION;
	}
	ttrpc_call_fail(call, &out);
}

int process_allow(const struct process *p, const char *verb, unsigned int states,
		  struct error *err)
{
	if (states & (1U << p->state))
		return 0;
	if (p->state == PROCESS_DELETED)
		return error_rpc(err, RPC_NOT_FOUND, -ESRCH, "%s: process already deleted: not found",
				 p->id);
	return error_set(err, -EBUSY, "cannot %s a %s process", verb, process_state_name(p));
}
