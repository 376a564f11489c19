/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's calls that only look at the store, or delete from it; Status. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/convert.h"
#include "artifact/manifest.h"
#include "artifact/hashing.h"
#include "base/fd.h"
#include "base/log.h"
#include "checkpoint/degraded.h"

#define REQUEST_MAX ((size_t)1 << 20)
#define LIST_MAX    100000
#define LIST_MEMORY_MAX ((size_t)128 << 20)

/* --- ListCheckpoints ------------------------------------------------------------------------ */

static void list_message(struct grpc_call *call, struct bytes msg)
{
	struct agent *agent = grpc_call_arg(call);
	Kybernate__Agent__V1__ListCheckpointsReply reply =
		KYBERNATE__AGENT__V1__LIST_CHECKPOINTS_REPLY__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(LIST_MEMORY_MAX);
	struct error err = ERROR_NULL;
	struct store_list list;
	pb_checkpoint_info **all;

	(void)msg;
	if (store_list(agent->store, NULL, LIST_MAX, &list, &err) < 0) {
		agent_fail(call, &err);
		return;
	}
	all = arena_alloc(&mem, (list.n_entries + 1) * sizeof(*all));
	for (size_t i = 0; all && i < list.n_entries; i++) {
		struct store_entry *e = &list.entries[i];
		/* A damaged one is listed by its name, so that it can be seen and deleted. */
		struct metadata damaged = { .ref = e->ref };

		all[i] = convert_checkpoint_info(e->damaged ? &damaged : &e->metadata, &mem);
		if (!all[i]) {
			all = NULL;
			break;
		}
	}
	reply.checkpoints = all;
	reply.n_checkpoints = list.n_entries;
	if (all)
		agent_reply(call, &reply.base);
	else
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "out of memory", bytes_of(NULL, 0));
	store_list_done(&list);
}

const struct grpc_method_ops list_verb = { .message = list_message };

/* --- GetCheckpoint -------------------------------------------------------------------------- */

struct get {
	struct agent *agent;
	struct grpc_call *call; /* NULL: nobody waits any more */
	struct store_pin pin;
	struct metadata metadata;
	struct arena mem;
	struct bulk bulk;
	bool verify;
};

static void get_free(struct get *g)
{
	bulk_release(&g->bulk);
	store_unpin(&g->pin);
	arena_done(&g->mem);
	free(g);
}

static int add_files(const struct get *g, struct arena *mem,
		     Kybernate__Agent__V1__GetCheckpointReply *reply, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(STORE_SMALL_FILE_MAX);
	struct manifest manifest;
	Kybernate__Agent__V1__CheckpointFile *all;
	int r = file_read(g->pin.fd, "manifest.json", &text);

	if (r == 0)
		r = manifest_read(buf_bytes(&text), &layout_checkpoint, mem, &manifest, err);
	if (r < 0)
		return error_reason(err, REASON_IMAGE_CORRUPT, r, "the manifest cannot be read");
	all = arena_alloc(mem, (manifest.n_files + 1) * sizeof(*all));
	reply->files = arena_alloc(mem, (manifest.n_files + 1) * sizeof(*reply->files));
	if (!all || !reply->files)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < manifest.n_files; i++) {
		char hex[DIGEST_HEX_MAX];

		kybernate__agent__v1__checkpoint_file__init(&all[i]);
		all[i].path = (char *)manifest.files[i].path;
		all[i].size = manifest.files[i].size;
		all[i].sha256 = arena_strdup(mem, digest_hex(manifest_digest(&manifest.files[i]), hex));
		if (!all[i].sha256)
			return error_set(err, -ENOMEM, "out of memory");
		reply->files[i] = &all[i];
	}
	reply->n_files = manifest.n_files;
	return 0;
}

static void get_answer(struct get *g)
{
	Kybernate__Agent__V1__GetCheckpointReply reply =
		KYBERNATE__AGENT__V1__GET_CHECKPOINT_REPLY__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)64 << 20);
	_cleanup_buf_ struct buf json = BUF_LIMIT(METADATA_TEXT_MAX);
	struct error err = ERROR_NULL;

	reply.checkpoint = convert_checkpoint_info(&g->metadata, &mem);
	reply.verified = g->verify;
	if (file_read(g->pin.fd, "metadata.json", &json) == 0)
		reply.metadata_json = (char *)buf_str(&json);
	if (!reply.checkpoint || add_files(g, &mem, &reply, &err) < 0)
		agent_fail(g->call, &err);
	else
		agent_reply(g->call, &reply.base);
}

static void verified(struct bulk *b, int r, const struct error *err)
{
	struct get *g = container_of(b, struct get, bulk);

	if (g->call) {
		grpc_call_set_data(g->call, NULL);
		if (r < 0)
			agent_fail(g->call, err);
		else
			get_answer(g);
	}
	get_free(g);
}

static void get_message(struct grpc_call *call, struct bytes msg)
{
	static const struct bulk_ops ops = { .done = verified };
	struct agent *agent = grpc_call_arg(call);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__GetCheckpointRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__get_checkpoint_request__descriptor, &mem);
	struct error err = ERROR_NULL;
	struct get *g = m ? calloc(1, sizeof(*g)) : NULL;
	int r = g ? 0 : -ENOMEM;

	if (!m)
		return;
	if (g) {
		g->agent = agent;
		g->call = call;
		g->mem = ARENA_LIMIT(METADATA_MEMORY_MAX);
		g->pin = STORE_PIN_NULL;
		g->verify = m->verify;
		r = store_pin(agent->store, m->checkpoint_ref, &g->pin, &err);
	}
	if (r == 0)
		r = store_get(agent->store, m->checkpoint_ref, &g->mem, &g->metadata, &err);
	if (r == 0 && m->verify) {
		r = store_verify(agent->store, &g->pin, hashing_workers(), true, 0,
				 time_add(time_now(), agent->node.timeouts[PHASE_VERIFY]), &g->bulk,
				 &ops, &err);
		if (r == 0) {
			grpc_call_set_data(call, g);
			return;
		}
	}
	if (r < 0)
		agent_fail(call, &err);
	else
		get_answer(g);
	if (g)
		get_free(g);
}

static void get_ended(struct grpc_call *call, enum grpc_end why)
{
	struct get *g = grpc_call_data(call);

	(void)why;
	if (!g)
		return;
	g->call = NULL;
	bulk_cancel(&g->bulk); /* verified() frees it */
}

const struct grpc_method_ops get_verb = { .message = get_message, .ended = get_ended };

/* --- DeleteCheckpoint ----------------------------------------------------------------------- */

/* Less than callers have patience for a short answer, where they do not say how much they have. */
#define ROOM_PATIENCE (50 * NSEC_PER_SEC)
#define ROOM_MARGIN   NSEC_PER_SEC /* for the answer's way back */

/* The checkpoint is gone; who asked wants its room, which comes when the sweep ends. */
struct deletion {
	struct list node;
	struct grpc_call *call;
	struct timer timer;
};

static void deletion_free(struct deletion *d)
{
	list_remove(&d->node);
	timer_cancel(&d->timer);
	free(d);
}

static void deletion_answer(struct deletion *d, bool room_pending)
{
	Kybernate__Agent__V1__DeleteCheckpointReply reply =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REPLY__INIT;
	struct grpc_call *call = d->call;

	deletion_free(d);
	grpc_call_set_data(call, NULL);
	reply.room_pending = room_pending;
	agent_reply(call, &reply.base);
}

/* After its deadline the caller would take a checkpoint that is gone for one that may be there. */
static nsec_t answer_by(const struct grpc_call *call)
{
	nsec_t now = time_now(), deadline = grpc_call_deadline(call), left, margin;

	if (deadline == NSEC_NEVER)
		return time_add(now, ROOM_PATIENCE);
	left = deadline > now ? deadline - now : 0;
	margin = left / 4 < ROOM_MARGIN ? left / 4 : ROOM_MARGIN;
	left -= margin;
	return time_add(now, left < ROOM_PATIENCE ? left : ROOM_PATIENCE);
}

static void deletion_overdue(struct timer *t)
{
	deletion_answer(container_of(t, struct deletion, timer), true);
}

void deletions_swept(void *arg, unsigned int n, int r, const struct error *err)
{
	struct agent *agent = arg;
	struct deletion *d, *tmp;

	if (r < 0)
		log_warning("not all that was deleted could be removed", F_INT("removed", n),
			    F_ERR(err));
	else if (store_sweeping(agent->store))
		return; /* more was deleted meanwhile, and some of those who wait may mean that */
	list_for_each_safe(d, tmp, &agent->deletions, node)
		deletion_answer(d, r < 0);
}

void deletions_forget(struct agent *agent)
{
	struct deletion *d, *tmp;

	list_for_each_safe(d, tmp, &agent->deletions, node)
		deletion_free(d);
}

static void delete_message(struct grpc_call *call, struct bytes msg)
{
	struct agent *agent = grpc_call_arg(call);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(REQUEST_MAX);
	const Kybernate__Agent__V1__DeleteCheckpointRequest *m = agent_unpack(
		call, msg, &kybernate__agent__v1__delete_checkpoint_request__descriptor, &mem);
	struct deletion *d = m ? calloc(1, sizeof(*d)) : NULL;
	struct error err = ERROR_NULL;
	int r;

	if (!m)
		return;
	r = d ? store_delete(agent->store, m->checkpoint_ref, &err)
	      : error_set(&err, -ENOMEM, "out of memory");
	if (r < 0) {
		free(d);
		agent_fail(call, &err);
		return;
	}
	log_info("checkpoint deleted", F_STR("ref", m->checkpoint_ref));
	d->call = call;
	list_append(&agent->deletions, &d->node);
	grpc_call_set_data(call, d);
	timer_set(agent->loop, &d->timer, answer_by(call), deletion_overdue);
}

static void delete_ended(struct grpc_call *call, enum grpc_end why)
{
	struct deletion *d = grpc_call_data(call);

	(void)why;
	if (d)
		deletion_free(d);
}

const struct grpc_method_ops delete_verb = { .message = delete_message, .ended = delete_ended };

/* --- Status --------------------------------------------------------------------------------- */

static const char *const kinds[] = { "checkpoint", "restore", "restore", "suspend", "resume" };

/* As of today's wall clock, which may have been set since. */
static uint64_t started_ms(nsec_t begun)
{
	return (time_wall() - (time_now() - begun)) / NSEC_PER_MSEC;
}

static Kybernate__Agent__V1__Operation *one_operation(const struct operation *op, struct arena *mem)
{
	Kybernate__Agent__V1__Operation *m = arena_alloc(mem, sizeof(*m));

	if (!m)
		return NULL;
	kybernate__agent__v1__operation__init(m);
	m->kind = (char *)kinds[op->req.kind];
	m->containerd_namespace = (char *)op->req.ns;
	m->container_id = (char *)op->req.container_id;
	m->pod_uid = (char *)op->req.pod_uid;
	m->phase = (Kybernate__Agent__V1__Phase)op->phase;
	m->status = KYBERNATE__AGENT__V1__STATUS__STATUS_WORKING;
	m->checkpoint_ref = (char *)op->req.ref;
	m->started_ms = started_ms(op->begun);
	m->progress = arena_alloc(mem, sizeof(*m->progress));
	if (!m->progress)
		return NULL;
	(void)convert_progress(op, m->progress);
	return m;
}

static Kybernate__Agent__V1__Operation *one_degraded(const struct degraded *d, struct arena *mem)
{
	Kybernate__Agent__V1__Operation *m = arena_alloc(mem, sizeof(*m));

	if (!m)
		return NULL;
	kybernate__agent__v1__operation__init(m);
	m->kind = (char *)"recover";
	m->containerd_namespace = d->ns;
	m->container_id = d->container_id;
	m->pod_uid = d->pod_uid;
	m->phase = KYBERNATE__AGENT__V1__PHASE__PHASE_VRAM_RESTORE;
	m->status = KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED;
	m->started_ms = started_ms(d->since);
	m->error = arena_alloc(mem, sizeof(*m->error));
	if (!m->error)
		return NULL;
	(void)convert_error(&d->err, PHASE_VRAM_RESTORE, NULL, m->error);
	return m;
}

static int list_operations(const struct node *node, struct arena *mem,
			   Kybernate__Agent__V1__StatusReply *reply)
{
	size_t n = list_count(&node->operations) + list_count(&node->degraded), at = 0;
	const struct operation *op;
	const struct degraded *d;

	reply->operations = arena_alloc(mem, (n + 1) * sizeof(*reply->operations));
	if (!reply->operations)
		return -ENOMEM;
	list_for_each(op, &node->operations, node_link)
		if (!(reply->operations[at++] = one_operation(op, mem)))
			return -ENOMEM;
	list_for_each(d, &node->degraded, node_link)
		if (!(reply->operations[at++] = one_degraded(d, mem)))
			return -ENOMEM;
	reply->n_operations = at;
	return 0;
}

static void status_message(struct grpc_call *call, struct bytes msg)
{
	struct agent *agent = grpc_call_arg(call);
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)8 << 20);
	Kybernate__Agent__V1__StatusReply reply = KYBERNATE__AGENT__V1__STATUS_REPLY__INIT;
	const struct gpu_hello *hello = gpu_worker_info(agent->worker);
	struct gpu_worker_health health;
	struct error err = ERROR_NULL;
	struct store_space space;
	pb_error driver_error;

	(void)msg;
	gpu_worker_health(agent->worker, &health);
	reply.agent_version = (char *)KYB_VERSION;
	reply.worker_pid = (uint32_t)health.pid;
	reply.driver_ok = gpu_worker_usable(agent->worker, &err) == 0;
	if (!reply.driver_ok)
		reply.driver_error = convert_error(&err, PHASE_NONE, NULL, &driver_error);
	if (hello)
		reply.driver_version = (char *)hello->driver_version;
	reply.store_path = (char *)store_path(agent->store);
	/* Asked every few seconds, by probes: no look at the files. Where they cannot be counted, 0. */
	if (store_space_known(agent->store, &space, NULL) == 0)
		reply.store_free_bytes = space.free_bytes;
	if (list_operations(&agent->node, &mem, &reply) < 0)
		grpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "out of memory", bytes_of(NULL, 0));
	else
		agent_reply(call, &reply.base);
}

const struct grpc_method_ops status_verb = { .message = status_message };
