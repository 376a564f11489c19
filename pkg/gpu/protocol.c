/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/protocol.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const op_names[] = {
	[GPU_OP_HELLO] = "hello",     [GPU_OP_PING] = "ping",
	[GPU_OP_PROBE] = "probe",     [GPU_OP_STATE] = "state",
	[GPU_OP_LOCK] = "lock",       [GPU_OP_CHECKPOINT] = "checkpoint",
	[GPU_OP_RESTORE] = "restore", [GPU_OP_UNLOCK] = "unlock",
	[GPU_OP_MEMORY] = "memory",   [GPU_OP_CANCEL] = "cancel",
};

static const char *const state_names[] = {
	[CUDA_STATE_RUNNING] = "RUNNING",
	[CUDA_STATE_LOCKED] = "LOCKED",
	[CUDA_STATE_CHECKPOINTED] = "CHECKPOINTED",
	[CUDA_STATE_FAILED] = "FAILED",
	[CUDA_STATE_CHECKPOINTING] = "CHECKPOINTING",
	[CUDA_STATE_RESTORING] = "RESTORING",
};

const char *gpu_op_name(unsigned int op)
{
	return op < ARRAY_SIZE(op_names) && op_names[op] ? op_names[op] : "?";
}

const char *gpu_state_name(unsigned int state)
{
	return state < ARRAY_SIZE(state_names) ? state_names[state] : "?";
}

bool gpu_op_has_pid(unsigned int op)
{
	return op >= GPU_OP_PROBE && op <= GPU_OP_UNLOCK;
}

void gpu_text_set(char *array, size_t size, const char *text)
{
	size_t n = strnlen(text, size - 1);

	memset(array, 0, size);
	for (size_t i = 0; i < n; i++)
		array[i] = text[i] & ~31 && text[i] != 127 ? text[i] : '?';
}

void gpu_device_init(struct gpu_device *dev)
{
	*dev = (struct gpu_device){ .cuda_index = GPU_NUMBER_UNKNOWN,
				    .nvml_index = GPU_NUMBER_UNKNOWN,
				    .minor = GPU_NUMBER_UNKNOWN,
				    .total = GPU_BYTES_UNKNOWN,
				    .free = GPU_BYTES_UNKNOWN,
				    .used = GPU_BYTES_UNKNOWN };
}

static void head_init(struct gpu_packet *head, unsigned int op, uint64_t id)
{
	*head = (struct gpu_packet){ .magic = GPU_PROTOCOL_MAGIC,
				     .version = GPU_PROTOCOL_VERSION,
				     .op = (uint16_t)op,
				     .id = id };
}

void gpu_request_init(struct gpu_request *req, enum gpu_op op, uint64_t id)
{
	memset(req, 0, sizeof(*req));
	head_init(&req->head, op, id);
}

void gpu_reply_init(struct gpu_reply *reply, unsigned int op, uint64_t id)
{
	memset(reply, 0, sizeof(*reply));
	head_init(&reply->head, op, id);
}

size_t gpu_reply_size(unsigned int op)
{
	switch (op) {
	case GPU_OP_HELLO:
		return sizeof(struct gpu_hello_reply);
	case GPU_OP_MEMORY:
		return sizeof(struct gpu_memory_reply);
	default:
		return sizeof(struct gpu_reply);
	}
}

/* Reads the head alone, without consuming it. */
static int head_parse(struct bytes packet, struct gpu_packet *ret)
{
	struct bytes head;

	if (bytes_take(&packet, sizeof(*ret), &head))
		return -EBADMSG;
	memcpy(ret, head.p, sizeof(*ret));
	if (ret->magic != GPU_PROTOCOL_MAGIC)
		return -EBADMSG;
	if (ret->version != GPU_PROTOCOL_VERSION)
		return -EPROTONOSUPPORT;
	return ret->op >= GPU_OP_HELLO && ret->op <= GPU_OP_LAST ? 0 : -EBADMSG;
}

static bool all_zero(const void *p, size_t n)
{
	for (const uint8_t *at = p; n; n--)
		if (*at++)
			return false;
	return true;
}

static bool request_fits(const struct gpu_request *req)
{
	unsigned int op = req->head.op;

	if (req->reserved || req->n_pairs > GPU_DEVICES_MAX)
		return false;
	if (!all_zero(req->pairs + req->n_pairs,
		      sizeof(req->pairs[0]) * (GPU_DEVICES_MAX - req->n_pairs)))
		return false;
	if (req->n_pairs && op != GPU_OP_RESTORE)
		return false;
	if (gpu_op_has_pid(op) ? req->pid <= 0 : req->pid != 0 || req->start_time)
		return false;
	if ((op == GPU_OP_LOCK) != (req->timeout_ms != 0))
		return false; /* 0 would let the driver wait for ever */
	return op == GPU_OP_CANCEL || req->target == 0;
}

int gpu_request_parse(struct bytes packet, struct gpu_request *ret)
{
	struct gpu_request req;
	struct bytes all;
	int r = head_parse(packet, &req.head);

	if (r < 0) {
		if (r == -EPROTONOSUPPORT)
			ret->head = req.head;
		return r;
	}
	if (packet.n != sizeof(req) || bytes_take(&packet, sizeof(req), &all))
		return -EBADMSG;
	memcpy(&req, all.p, sizeof(req));
	if (!request_fits(&req))
		return -EBADMSG;
	*ret = req;
	return 0;
}

/* Is the text ended within its array, and nothing after its end? */
#define TEXT_FITS(array) text_fits(array, sizeof(array))
static bool text_fits(const char *text, size_t size)
{
	size_t n = strnlen(text, size);

	return n < size && all_zero(text + n, size - n);
}

static bool memory_fits(const struct gpu_memory *m)
{
	if (m->n_devices > GPU_DEVICES_MAX || m->n_processes > GPU_PROCESSES_MAX)
		return false;
	for (uint32_t i = 0; i < m->n_devices; i++) {
		const struct gpu_device *d = &m->devices[i];

		if (!TEXT_FITS(d->name) || d->flags & ~(uint32_t)GPU_DEVICE_FLAGS_ALL)
			return false;
	}
	for (uint32_t i = 0; i < m->n_processes; i++)
		if (m->processes[i].device >= m->n_devices || m->processes[i].pid <= 0)
			return false;
	return all_zero(m->devices + m->n_devices,
			sizeof(m->devices[0]) * (GPU_DEVICES_MAX - m->n_devices)) &&
	       all_zero(m->processes + m->n_processes,
			sizeof(m->processes[0]) * (GPU_PROCESSES_MAX - m->n_processes));
}

static bool reply_fits(const union gpu_any_reply *any)
{
	const struct gpu_reply *reply = &any->reply;

	if (reply->head.op == GPU_OP_CANCEL || reply->status > GPU_STATUS_LAST || reply->reserved ||
	    reply->gone > 1 || reply->tid < 0)
		return false;
	if (!TEXT_FITS(reply->name) || !TEXT_FITS(reply->text))
		return false;
	if (reply->head.op == GPU_OP_MEMORY)
		return memory_fits(&any->memory.memory);
	if (reply->head.op == GPU_OP_HELLO) {
		const struct gpu_hello *h = &any->hello.hello;

		return TEXT_FITS(h->driver_version) && TEXT_FITS(h->library) &&
		       TEXT_FITS(h->nvml_text) && h->nvml <= 1 && memory_fits(&h->memory);
	}
	return true;
}

int gpu_reply_parse(struct bytes packet, union gpu_any_reply *ret)
{
	struct gpu_packet head;
	struct bytes all;
	int r = head_parse(packet, &head);

	if (r < 0) {
		if (r == -EPROTONOSUPPORT)
			ret->head = head;
		return r;
	}
	if (packet.n != gpu_reply_size(head.op) || bytes_take(&packet, packet.n, &all))
		return -EBADMSG;
	memcpy(ret, all.p, all.n);
	return reply_fits(ret) ? 0 : -EBADMSG;
}
