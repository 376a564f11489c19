/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/calls.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "gpu/outcome.h"

/* An id is a counter and the number of its slot. */
#define SLOT_BITS 16
static_assert(GPU_CALLS_MAX <= 1 << SLOT_BITS, "a slot's number fits into an id");

void calls_init(struct calls *c, struct loop *loop)
{
	memset(c, 0, sizeof(*c));
	c->loop = loop;
	list_init(&c->queue);
	list_init(&c->ended);
}

#define SUBJECT_MAX 96
/* "process 4711: lock"; the calls that concern no process: "memory". Returns buf. */
static const char *subject(char buf[SUBJECT_MAX], pid_t pid, const char *what)
{
	if (pid)
		(void)snprintf(buf, SUBJECT_MAX, "process %d: %s", pid, what);
	else
		(void)snprintf(buf, SUBJECT_MAX, "%s", what);
	return buf;
}

static void tell(struct gpu_call *call)
{
	call->phase = GPU_CALL_IDLE;
	call->done(call); /* it may be freed now */
}

static void deliver(struct timer *t)
{
	struct calls *c = container_of(t, struct calls, deliver);
	struct gpu_call *call;
	struct list now;

	/* Not those that end while we are at it: an owner that tries again at once and fails at
	 * once must not keep the loop from its other work. */
	list_init(&now);
	list_splice(&now, &c->ended);
	while ((call = list_first(&now, struct gpu_call, node))) {
		list_remove(&call->node);
		tell(call);
	}
}

static void set_error(struct gpu_call *call, const struct error *why)
{
	call->err = *why;
	call->result = why->code;
}

void calls_end_later(struct calls *c, struct gpu_call *call, const struct error *why)
{
	assert(call->phase != GPU_CALL_SENT);
	if (call->phase == GPU_CALL_QUEUED) {
		list_remove(&call->node);
		c->n_open--;
	}
	set_error(call, why);
	call->phase = GPU_CALL_ENDED;
	list_append(&c->ended, &call->node);
	/* Later than now: timers set for now are run in the round that sets them. */
	timer_set(c->loop, &c->deliver, time_add(loop_now(c->loop), 1), deliver);
}

void calls_add(struct calls *c, struct gpu_call *call)
{
	struct error err = ERROR_NULL;
	char buf[SUBJECT_MAX];

	list_init(&call->node);
	if (gpu_op_has_pid(call->op) && call->pid <= 0) {
		(void)error_reason(&err, gpu_op_reason(call->op), -EINVAL, "%d is no process",
				   call->pid);
	} else if (call->n_pairs > GPU_DEVICES_MAX) {
		(void)error_reason(&err, REASON_GPU_MISMATCH, -EINVAL,
				   "process %d: %u GPU pairs, there can be %d", call->pid,
				   call->n_pairs, GPU_DEVICES_MAX);
	} else if (c->n_open >= GPU_CALLS_MAX) {
		(void)error_reason(&err, REASON_WORKER_FAILED, -EAGAIN,
				   "%s: %d CUDA calls are open already",
				   subject(buf, call->pid, gpu_op_name(call->op)), GPU_CALLS_MAX);
	}
	if (err.code) {
		calls_end_later(c, call, &err);
		return;
	}
	call->phase = GPU_CALL_QUEUED;
	list_append(&c->queue, &call->node);
	c->n_open++;
}

struct gpu_call *calls_next(const struct calls *c)
{
	return list_first(&c->queue, struct gpu_call, node);
}

void calls_request(struct calls *c, struct gpu_call *call, struct gpu_request *ret)
{
	unsigned int i = 0;

	/* There is one: no more calls are open than there are slots. */
	while (c->slots[i].id)
		i++;
	call->slot = i;
	gpu_request_init(ret, call->op, ++c->count << SLOT_BITS | i);
	ret->pid = call->pid;
	ret->timeout_ms = call->timeout_ms;
	ret->start_time = gpu_op_has_pid(call->op) ? call->start_time : 0;
	ret->n_pairs = call->n_pairs;
	if (call->n_pairs)
		memcpy(ret->pairs, call->pairs, sizeof(call->pairs[0]) * call->n_pairs);
}

void calls_sent(struct calls *c, struct gpu_call *call, const struct gpu_request *req)
{
	list_remove(&call->node);
	call->phase = GPU_CALL_SENT;
	c->slots[call->slot] = (struct calls_slot){ .call = call,
						    .id = req->head.id,
						    .op = call->op,
						    .pid = call->pid,
						    .begun = call->begun,
						    .deadline = call->deadline };
	c->n_sent++;
}

static void free_slot(struct calls *c, struct calls_slot *slot)
{
	if (slot->cancel)
		c->n_cancel--;
	*slot = (struct calls_slot){ 0 };
	c->n_sent--;
	c->n_open--;
}

static void want_cancel(struct calls *c, struct calls_slot *slot)
{
	if (!slot->cancel)
		c->n_cancel++;
	slot->cancel = true;
}

bool calls_next_cancel(const struct calls *c, struct gpu_request *ret)
{
	if (c->n_cancel == 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(c->slots); i++) {
		if (!c->slots[i].cancel)
			continue;
		gpu_request_init(ret, GPU_OP_CANCEL, 0);
		ret->target = c->slots[i].id;
		return true;
	}
	return false;
}

void calls_cancel_sent(struct calls *c, const struct gpu_request *req)
{
	struct calls_slot *slot = &c->slots[req->target & ((1U << SLOT_BITS) - 1)];

	assert(slot->id == req->target && slot->cancel);
	slot->cancel = false;
	c->n_cancel--;
}

int calls_reply(struct calls *c, const union gpu_any_reply *any, struct error *err)
{
	const struct gpu_reply *reply = &any->reply;
	uint64_t i = reply->head.id & ((1U << SLOT_BITS) - 1);
	struct calls_slot *slot;
	struct gpu_call *call;

	if (i >= ARRAY_SIZE(c->slots) || !reply->head.id || c->slots[i].id != reply->head.id ||
	    c->slots[i].op != reply->head.op)
		return error_reason(err, REASON_WORKER_FAILED, -EPROTO,
				    "answered %s number %" PRIu64 ", which was not asked",
				    gpu_op_name(reply->head.op), reply->head.id);
	slot = &c->slots[i];
	call = slot->call;
	free_slot(c, slot);
	if (!call)
		return 0;
	call->result = gpu_outcome(call->pid, reply, &call->err);
	call->code = reply->code;
	call->state = reply->state;
	call->restore_tid = reply->tid;
	call->gone = reply->gone || reply->status == GPU_STATUS_GONE ||
		     reply->status == GPU_STATUS_REUSED;
	call->took = reply->took_ns;
	log_debug("driver call", F_STR("op", gpu_op_name(call->op)), F_INT("pid", call->pid),
		  F_INT("dur_us", reply->took_ns / NSEC_PER_USEC));
	if (call->result == 0 && call->memory)
		*call->memory = any->memory.memory;
	tell(call);
	return 0;
}

nsec_t calls_deadline(struct calls *c, bool with_sent)
{
	nsec_t first = NSEC_NEVER;
	struct gpu_call *call;

	list_for_each(call, &c->queue, node)
		if (call->deadline < first)
			first = call->deadline;
	for (size_t i = 0, left = with_sent ? c->n_sent : 0; left; i++) {
		if (!c->slots[i].id)
			continue;
		left--;
		if (c->slots[i].deadline < first)
			first = c->slots[i].deadline;
	}
	return first;
}

void calls_expire_queue(struct calls *c, nsec_t now, const struct error *down)
{
	struct gpu_call *call, *tmp;

	list_for_each_safe(call, tmp, &c->queue, node) {
		struct error err = ERROR_NULL;
		char buf[SUBJECT_MAX];

		if (call->deadline > now)
			continue;
		(void)error_reason(&err, REASON_WORKER_FAILED, -ETIMEDOUT,
				   "%s: no CUDA worker took the call in %" PRIu64 " ms%s%s",
				   subject(buf, call->pid, gpu_op_name(call->op)),
				   (now - call->begun) / NSEC_PER_MSEC, down->code ? ": " : "",
				   down->code ? error_text(down) : "");
		calls_end_later(c, call, &err);
	}
}

static void late_error(const struct calls_slot *slot, nsec_t now, const char *more,
		       struct error *err)
{
	char buf[SUBJECT_MAX];

	(void)error_reason(err, REASON_TIMEOUT, -ETIMEDOUT,
			   "%s did not return in %" PRIu64 " ms%s",
			   subject(buf, slot->pid,
				   slot->pid ? gpu_op_call(slot->op) : gpu_op_name(slot->op)),
			   (now - slot->begun) / NSEC_PER_MSEC, more);
}

/* The call of the same process that is in front of this one, or NULL: ids tell the order. */
static const struct calls_slot *in_front(const struct calls *c, const struct calls_slot *slot)
{
	const struct calls_slot *first = NULL;

	if (slot->pid == 0)
		return NULL;
	for (size_t i = 0, left = c->n_sent; left; i++) {
		const struct calls_slot *other = &c->slots[i];

		if (!other->id)
			continue;
		left--;
		if (other->pid == slot->pid && other->id < slot->id &&
		    (!first || other->id < first->id))
			first = other;
	}
	return first;
}

/*
 * A call that only waits for its turn is no sign of a hang: killing the worker for it could hit
 * the one in front, a save of many gigabytes that is well within its time. Should it be begun all
 * the same, it has as much time again from the other's deadline on.
 */
static void expire_waiting(struct calls *c, struct calls_slot *slot,
			   const struct calls_slot *front, nsec_t now)
{
	struct gpu_call *call = slot->call;
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_TIMEOUT, -ETIMEDOUT,
			   "process %d: %s waited for %" PRIu64 " ms behind another call: %s",
			   slot->pid, gpu_op_name(slot->op), (now - slot->begun) / NSEC_PER_MSEC,
			   gpu_op_call(front->op));
	slot->deadline = time_add(front->deadline > now ? front->deadline : now,
				  now - slot->begun + NSEC_PER_SEC);
	want_cancel(c, slot);
	slot->call = NULL;
	if (!call)
		return;
	call->phase = GPU_CALL_IDLE;
	calls_end_later(c, call, &err);
}

bool calls_expire_sent(struct calls *c, nsec_t now, struct error *err)
{
	bool hangs = false;

	for (size_t i = 0, left = c->n_sent; left; i++) {
		struct calls_slot *slot = &c->slots[i];
		const struct calls_slot *front;

		if (!slot->id)
			continue;
		left--;
		if (slot->deadline > now)
			continue;
		front = in_front(c, slot);
		if (front && front->deadline > now) {
			expire_waiting(c, slot, front, now);
			continue;
		}
		slot->late = true;
		if (!hangs)
			late_error(slot, now, "", err);
		hangs = true;
	}
	return hangs;
}

void calls_fail_sent(struct calls *c, const struct error *why)
{
	for (size_t i = 0; i < ARRAY_SIZE(c->slots) && c->n_sent; i++) {
		struct calls_slot slot = c->slots[i];
		struct gpu_call *call = slot.call;
		char buf[SUBJECT_MAX];

		if (!slot.id)
			continue;
		free_slot(c, &c->slots[i]);
		if (!call)
			continue;
		if (slot.late)
			late_error(&slot, time_now(), ": the CUDA worker was killed", &call->err);
		else
			(void)error_reason(&call->err, REASON_WORKER_FAILED, -EIO,
					   "%s ended with the CUDA worker: %s",
					   subject(buf, slot.pid, gpu_op_name(slot.op)),
					   error_text(why));
		call->result = call->err.code;
		tell(call);
	}
}

void calls_fail_queue(struct calls *c, const struct error *why)
{
	struct gpu_call *call;

	while ((call = list_first(&c->queue, struct gpu_call, node)))
		calls_end_later(c, call, why);
}

bool calls_cancel(struct calls *c, struct gpu_call *call)
{
	struct error err = ERROR_NULL;
	char buf[SUBJECT_MAX];

	if (call->phase == GPU_CALL_SENT) {
		want_cancel(c, &c->slots[call->slot]);
		return true;
	}
	if (call->phase != GPU_CALL_QUEUED)
		return false;
	(void)error_reason(&err, REASON_CANCELED, -ECANCELED,
			   "%s was not begun: no longer wanted",
			   subject(buf, call->pid, gpu_op_name(call->op)));
	calls_end_later(c, call, &err);
	return false;
}

void calls_forget(struct calls *c, struct gpu_call *call)
{
	if (call->phase == GPU_CALL_SENT) {
		c->slots[call->slot].call = NULL;
	} else if (call->phase != GPU_CALL_IDLE) {
		if (call->phase == GPU_CALL_QUEUED)
			c->n_open--;
		list_remove(&call->node);
	}
	call->phase = GPU_CALL_IDLE;
}

void calls_done(struct calls *c)
{
	struct gpu_call *call;

	timer_cancel(&c->deliver);
	while ((call = list_first(&c->queue, struct gpu_call, node)))
		calls_forget(c, call);
	while ((call = list_first(&c->ended, struct gpu_call, node)))
		calls_forget(c, call);
	for (size_t i = 0; i < ARRAY_SIZE(c->slots); i++)
		if (c->slots[i].call)
			calls_forget(c, c->slots[i].call);
}
