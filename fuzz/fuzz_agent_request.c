/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shims and operators send to the agent. The first byte chooses the message, the rest is its
 * content: first requests and answers of streams, and the OCI spec of a checkpoint.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/convert.h"
#include "agent/respec.h"
#include "base/path.h"
#include "rpc/pb.h"

#define MEMORY_MAX ((size_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_request(const struct operation_request *req)
{
	assert(id_valid(req->container_id) && id_valid(req->ns));
	assert(!*req->ref || ref_valid(req->ref));
	assert(req->pod_uid && req->gpu_group && req->gpu_seat && req->bundle && req->runtime);
	for (size_t i = 0; i < req->n_device_paths; i++)
		assert(req->device_paths[i]);
	for (size_t i = 0; i < req->n_runtime_flags; i++)
		assert(req->runtime_flags[i]);
}

static void check_result(const pb_order_result *result)
{
	struct operation op = { .mem = ARENA_LIMIT(MEMORY_MAX) };
	struct error err = ERROR_NULL;
	int r = convert_order_result(result, &op, &err);

	assert(r == 0 || (err.code == r && reason_name(err.reason)));
	assert(op.n_detail <= OPERATION_DETAIL_MAX);
	arena_done(&op.mem);
}

static void checkpoint(struct bytes in, struct arena *mem)
{
	const Kybernate__Agent__V1__CheckpointRequest *m =
		pb_unpack(&kybernate__agent__v1__checkpoint_request__descriptor, in, mem);
	struct operation_request req = { 0 };
	struct error err = ERROR_NULL;

	if (m && m->result)
		check_result(m->result);
	if (m && convert_checkpoint_request(m, &req, mem, &err) == 0) {
		check_request(&req);
		assert(req.task_pid && req.image_path && req.work_path);
	}
}

static void restore(struct bytes in, struct arena *mem)
{
	const Kybernate__Agent__V1__RestoreRequest *m =
		pb_unpack(&kybernate__agent__v1__restore_request__descriptor, in, mem);
	struct operation_request req = { 0 };
	struct error err = ERROR_NULL;

	if (m && m->result)
		check_result(m->result);
	if (m && convert_restore_request(m, &req, &err) == 0) {
		check_request(&req);
		assert(req.image_path);
	}
}

static void suspend(struct bytes in, struct arena *mem)
{
	const Kybernate__Agent__V1__SuspendRequest *m =
		pb_unpack(&kybernate__agent__v1__suspend_request__descriptor, in, mem);
	struct operation_request req = { 0 };
	struct error err = ERROR_NULL;

	if (m && m->result)
		check_result(m->result);
	if (!m || convert_suspend_request(m, &req, mem, &err) < 0)
		return;
	check_request(&req);
	assert(req.task_pid > 0);
	for (size_t i = 0; req.held && i < req.held->n_members; i++)
		assert(req.held->members[i].pid > 0 && req.held->members[i].start_time &&
		       (uint64_t)req.held->members[i].devices >> req.held->memory->n_devices == 0);
}

static void spec(struct bytes in)
{
	static const struct respec_move move = { "/dev/nvidia0", "/dev/nvidia1" };
	_cleanup_buf_ struct buf out = BUF_NULL, again = BUF_NULL;
	struct error err = ERROR_NULL;

	if (respec(in, "old", "new", "ref", &move, 1, &out, &err) < 0) {
		assert(err.text[0]);
		return;
	}
	/* A container made of a checkpoint can itself be checkpointed and restored. */
	assert(memmem(buf_bytes(&out).p, buf_len(&out), "kybernate.io/restore-from", 25));
	assert(respec(buf_bytes(&out), "new", "third", "ref", &move, 1, &again, &err) == 0 ||
	       err.code == -ENAMETOOLONG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	struct bytes in = bytes_of(data, n);
	uint8_t what;

	if (bytes_u8(&in, &what) != 0)
		return 0;
	switch (what % 4) {
	case 0:
		checkpoint(in, &mem);
		break;
	case 1:
		restore(in, &mem);
		break;
	case 2:
		spec(in);
		break;
	default:
		suspend(in, &mem);
	}
	return 0;
}
