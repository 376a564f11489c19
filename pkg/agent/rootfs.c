/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files a container has changed: into the checkpoint, and back into a new container's snapshot
 * before it is mounted. containerd does both, for whatever snapshotter it has, with its own Diff
 * service; the result is an ordinary OCI layer, kept compressed as rootfs-diff.tar.zst.
 *
 * Everything that is made at containerd on the way belongs to a lease, so that containerd removes
 * it when the lease ends, or expires because we died. Content is never deleted by its digest: an
 * image may have the very same layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "api/containerd/services.pb-c.h"
#include "artifact/spool.h"
#include "base/log.h"
#include "base/path.h"

#define FILE_NAME "rootfs-diff.tar.zst"
#define LAYER     "application/vnd.oci.image.layer.v1.tar"
#define CALL_MAX  (60 * NSEC_PER_SEC)
#define LEASE_MAX (24 * 3600) /* seconds */

struct rootfs {
	struct agent *agent;
	struct operation *op;
	bool save;
	char *ns, *snapshotter, *key;
	char name[96]; /* of the lease, the view and the upload */
	struct flow flow;
	struct containerd_call call;
	struct containerd_call view_call, own_call; /* keep their answers: */
	const Svc__SnapshotMounts *view, *own;
	struct containerd_copy copy;
	struct command spool;
	bool spool_started, copied, spooled;
	int copy_result;
	struct error copy_error;
	int file;
	char digest[96];
	int64_t size;
	nsec_t deadline;
};

static struct rootfs *rootfs_of(struct flow *f)
{
	return container_of(f, struct rootfs, flow);
}

static int fail(struct error *err, int r, const char *what)
{
	(void)error_wrap(err, r, "%s", what);
	if (err)
		err->reason = REASON_ROOTFS_FAILED;
	return r;
}

/* --- calls ---------------------------------------------------------------------------------- */

static void call_done(struct containerd_call *call, int r, const void *reply,
		      const struct error *err)
{
	struct rootfs *rf = container_of(call, struct rootfs, call);

	(void)reply;
	flow_resume(&rf->flow, r, err);
}

static int call(struct rootfs *rf, const char *method, const ProtobufCMessage *request,
		const ProtobufCMessageDescriptor *reply,
		void (*done)(struct containerd_call *call, int r, const void *reply,
			     const struct error *err),
		struct error *err)
{
	int r = containerd_call(rf->agent->containerd, &rf->call, rf->ns, rf->name, method, request,
				reply, rf->deadline, done, err);

	return r < 0 ? r : FLOW_WAIT;
}

static int step_lease(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__LeaseCreateRequest request = SVC__LEASE_CREATE_REQUEST__INIT;
	Ctd__StringEntry expire = CTD__STRING_ENTRY__INIT, *labels[] = { &expire };
	char until[TIME_RFC3339_MAX];

	(void)time_rfc3339(time_wall() + LEASE_MAX * NSEC_PER_SEC, until);
	expire.key = (char *)"containerd.io/gc.expire";
	expire.value = until;
	request.id = rf->name;
	request.labels = labels;
	request.n_labels = 1;
	return call(rf, CTD_LEASES "Create", &request.base, &svc__lease_create_response__descriptor,
		    call_done, err);
}

static int drop_lease(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__LeaseDeleteRequest request = SVC__LEASE_DELETE_REQUEST__INIT;

	request.id = rf->name;
	rf->deadline = time_add(time_now(), CALL_MAX);
	return call(rf, CTD_LEASES "Delete", &request.base, &ctd__empty__descriptor, call_done, err);
}

static void cancel_call(struct flow *f)
{
	struct rootfs *rf = rootfs_of(f);

	containerd_call_done(&rf->call);
	containerd_call_done(&rf->view_call);
	containerd_call_done(&rf->own_call);
	flow_resume(f, -ECANCELED, NULL);
}

/* --- which snapshot ------------------------------------------------------------------------- */

static void container_known(struct containerd_call *c, int r, const void *reply,
			    const struct error *err)
{
	struct rootfs *rf = container_of(c, struct rootfs, call);
	const Svc__ContainerMessage *m = reply;
	struct error mine = *err;

	if (r == 0 && (!m->container || !*m->container->snapshot_key))
		r = error_reason(&mine, REASON_ROOTFS_FAILED, -ENOENT,
				 "the container has no snapshot to put its files into");
	if (r == 0) {
		rf->snapshotter = strdup(m->container->snapshotter);
		rf->key = strdup(m->container->snapshot_key);
		if (!rf->snapshotter || !rf->key)
			r = error_set(&mine, -ENOMEM, "out of memory");
	}
	flow_resume(&rf->flow, r, &mine);
}

static int step_container(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__ContainerRequest request = SVC__CONTAINER_REQUEST__INIT;

	if (rf->key)
		return 0;
	request.id = (char *)rf->op->req.container_id;
	return call(rf, CTD_CONTAINERS "Get", &request.base, &svc__container_message__descriptor,
		    container_known, err);
}

static void own_known(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rootfs *rf = container_of(c, struct rootfs, own_call);

	rf->own = reply;
	flow_resume(&rf->flow, r, err);
}

static int step_mounts(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__SnapshotRequest request = SVC__SNAPSHOT_REQUEST__INIT;
	int r;

	request.snapshotter = rf->snapshotter;
	request.key = rf->key;
	r = containerd_call(rf->agent->containerd, &rf->own_call, rf->ns, rf->name,
			    CTD_SNAPSHOTS "Mounts", &request.base,
			    &svc__snapshot_mounts__descriptor, rf->deadline, own_known, err);
	return r < 0 ? r : FLOW_WAIT;
}

/* --- carrying bytes ------------------------------------------------------------------------- */

/* Both ends have to be through: containerd's, and the process at the other end of the pipe. */
static void copy_or_spool_done(struct rootfs *rf)
{
	struct error err = rf->copy_error;
	int r = rf->copy_result;

	if (!rf->copied || !rf->spooled)
		return;
	if (r == 0 && command_result(&rf->spool, "spool", &err) < 0)
		r = error_reason(&err, REASON_ROOTFS_FAILED, -EIO, "%s: %s", FILE_NAME,
				 buf_len(&rf->spool.out) ? buf_str(&rf->spool.out)
							 : "the helper process failed");
	flow_resume(&rf->flow, r, &err);
}

static void copied(struct containerd_copy *copy, int r, const struct error *err)
{
	struct rootfs *rf = container_of(copy, struct rootfs, copy);

	rf->copied = true;
	rf->copy_result = r;
	rf->copy_error = *err;
	rf->op->bytes_done = (uint64_t)copy->offset;
	if (r < 0)
		command_kill(&rf->spool, SIGKILL);
	copy_or_spool_done(rf);
}

static void spooled(struct command *cmd)
{
	struct rootfs *rf = container_of(cmd, struct rootfs, spool);

	rf->spooled = true;
	copy_or_spool_done(rf);
}

static int start_copy(struct rootfs *rf, struct error *err)
{
	int p[2], ours, r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return error_sys(err, errno, "create a pipe");
	ours = rf->save ? 1 : 0;
	r = spool_start(&rf->spool, rf->agent->loop, &rf->agent->reaper, rf->save, p[1 - ours],
			rf->file, rf->deadline, spooled, err);
	(void)close(p[1 - ours]);
	if (r < 0) {
		(void)close(p[ours]);
		return r;
	}
	rf->spool_started = true;
	if (rf->save)
		r = containerd_read(rf->agent->containerd, &rf->copy, rf->agent->loop, rf->ns,
				    rf->digest, p[ours], rf->deadline, copied, err);
	else
		r = containerd_write(rf->agent->containerd, &rf->copy, rf->agent->loop, rf->ns,
				     rf->name, rf->name, p[ours], rf->deadline, copied, err);
	return r < 0 ? r : FLOW_WAIT;
}

static void cancel_copy(struct flow *f)
{
	struct rootfs *rf = rootfs_of(f);

	(void)error_reason(&rf->copy_error, REASON_CANCELED, -ECANCELED, "canceled");
	containerd_copy_cancel(&rf->copy);
	rf->copied = true;
	rf->copy_result = -ECANCELED;
	command_kill(&rf->spool, SIGKILL);
	if (rf->spooled)
		copy_or_spool_done(rf);
}

static int undo_copy(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);

	(void)err;
	containerd_copy_cancel(&rf->copy);
	if (rf->spool_started)
		command_release(&rf->spool);
	rf->spool_started = false;
	return 0;
}

/* --- save ----------------------------------------------------------------------------------- */

static void view_known(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rootfs *rf = container_of(c, struct rootfs, view_call);

	rf->view = reply;
	flow_resume(&rf->flow, r, err);
}

static void parent_known(struct containerd_call *c, int r, const void *reply,
			 const struct error *err)
{
	struct rootfs *rf = container_of(c, struct rootfs, call);
	const Svc__SnapshotStatResponse *m = reply;
	Svc__SnapshotPrepareRequest request = SVC__SNAPSHOT_PREPARE_REQUEST__INIT;
	char *parent;
	struct error mine = *err;

	if (r == 0 && !m->info)
		r = error_reason(&mine, REASON_ROOTFS_FAILED, -ENOENT, "the snapshot is not known");
	if (r < 0) {
		flow_resume(&rf->flow, r, &mine);
		return;
	}
	/* The reply lives in the call's arena, and the next call frees it. */
	parent = strdup(m->info->parent);
	request.snapshotter = rf->snapshotter;
	request.key = rf->name;
	request.parent = parent;
	r = parent ? containerd_call(rf->agent->containerd, &rf->view_call, rf->ns, rf->name,
				     CTD_SNAPSHOTS "View", &request.base,
				     &svc__snapshot_mounts__descriptor, rf->deadline, view_known,
				     &mine)
		   : error_set(&mine, -ENOMEM, "out of memory");
	free(parent);
	if (r < 0)
		flow_resume(&rf->flow, r, &mine);
}

/* The layers below the container's own, as they are: what it is compared with. */
static int step_view(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__SnapshotRequest request = SVC__SNAPSHOT_REQUEST__INIT;

	request.snapshotter = rf->snapshotter;
	request.key = rf->key;
	return call(rf, CTD_SNAPSHOTS "Stat", &request.base, &svc__snapshot_stat_response__descriptor,
		    parent_known, err);
}

static int undo_view(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__SnapshotRequest request = SVC__SNAPSHOT_REQUEST__INIT;

	request.snapshotter = rf->snapshotter;
	request.key = rf->name;
	rf->deadline = time_add(time_now(), CALL_MAX);
	return call(rf, CTD_SNAPSHOTS "Remove", &request.base, &ctd__empty__descriptor, call_done,
		    err);
}

static void diff_known(struct containerd_call *c, int r, const void *reply, const struct error *err)
{
	struct rootfs *rf = container_of(c, struct rootfs, call);
	const Svc__DiffResponse *m = reply;
	struct error mine = *err;

	if (r == 0 && !m->diff)
		r = error_reason(&mine, REASON_ROOTFS_FAILED, -EPROTO, "containerd made no diff");
	if (r == 0) {
		(void)snprintf(rf->digest, sizeof(rf->digest), "%s", m->diff->digest);
		rf->size = m->diff->size;
		rf->op->bytes_total = (uint64_t)m->diff->size;
	}
	flow_resume(&rf->flow, r, &mine);
}

static int step_diff(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__DiffRequest request = SVC__DIFF_REQUEST__INIT;

	request.left = rf->view->mounts;
	request.n_left = rf->view->n_mounts;
	request.right = rf->own->mounts;
	request.n_right = rf->own->n_mounts;
	request.media_type = (char *)LAYER;
	request.ref = rf->name;
	return call(rf, CTD_DIFF "Diff", &request.base, &svc__diff_response__descriptor, diff_known,
		    err);
}

static int step_fetch(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);

	rf->file = openat(rf->op->work.fd, FILE_NAME,
			  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (rf->file < 0)
		return error_sys(err, errno, "create " FILE_NAME);
	return start_copy(rf, err);
}

/* --- restore -------------------------------------------------------------------------------- */

static int step_upload(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);

	return start_copy(rf, err);
}

static int step_apply(struct flow *f, struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	Svc__ApplyRequest request = SVC__APPLY_REQUEST__INIT;
	Ctd__Descriptor diff = CTD__DESCRIPTOR__INIT;

	diff.media_type = (char *)LAYER;
	diff.digest = rf->copy.digest;
	diff.size = rf->copy.offset;
	request.diff = &diff;
	request.mounts = rf->own->mounts;
	request.n_mounts = rf->own->n_mounts;
	return call(rf, CTD_DIFF "Apply", &request.base, &svc__apply_response__descriptor, call_done,
		    err);
}

/* --- both ----------------------------------------------------------------------------------- */

static int step_drop_view(struct flow *f, struct error *err)
{
	return undo_view(f, err);
}

static int step_drop_lease(struct flow *f, struct error *err)
{
	return drop_lease(f, err);
}

static const struct flow_step save_steps[] = {
	{ "lease", step_lease, drop_lease, cancel_call },
	{ "view", step_view, undo_view, cancel_call },
	{ "mounts", step_mounts, NULL, cancel_call },
	{ "diff", step_diff, NULL, cancel_call },
	{ "fetch", step_fetch, undo_copy, cancel_copy },
	{ "drop-view", step_drop_view, NULL, NULL },
	{ "drop-lease", step_drop_lease, NULL, NULL },
};

static const struct flow_step restore_steps[] = {
	{ "lease", step_lease, drop_lease, cancel_call },
	{ "container", step_container, NULL, cancel_call },
	{ "mounts", step_mounts, NULL, cancel_call },
	{ "upload", step_upload, undo_copy, cancel_copy },
	{ "apply", step_apply, NULL, cancel_call },
	{ "drop-lease", step_drop_lease, NULL, NULL },
};

static void done(struct flow *f, int r, const struct error *err)
{
	struct rootfs *rf = rootfs_of(f);
	struct error mine = *err;

	if (r < 0)
		(void)fail(&mine, r, rf->save ? "the changed files could not be saved"
					      : "the changed files could not be put back");
	operation_rootfs_done(rf->op, r, &mine);
}

static const struct flow_ops save_ops = { .steps = save_steps,
					  .n_steps = ARRAY_SIZE(save_steps),
					  .done = done };
static const struct flow_ops restore_ops = { .steps = restore_steps,
					     .n_steps = ARRAY_SIZE(restore_steps),
					     .done = done };

static struct rootfs *rootfs_new(struct agent *agent, struct operation *op, const char *ns,
				 bool save)
{
	struct rootfs *rf = calloc(1, sizeof(*rf));

	if (!rf)
		return NULL;
	rf->agent = agent;
	rf->op = op;
	rf->save = save;
	rf->file = -1;
	rf->ns = strdup(ns);
	rf->deadline = operation_step_deadline(op);
	(void)snprintf(rf->name, sizeof(rf->name), "kybernate-%d-%llx", getpid(),
		       (unsigned long long)time_now());
	if (!rf->ns) {
		free(rf);
		return NULL;
	}
	return rf;
}

int rootfs_save(struct agent *agent, struct operation *op, const char *ns,
		const char *snapshotter, const char *key, struct rootfs **ret, struct error *err)
{
	struct rootfs *rf = rootfs_new(agent, op, ns, true);

	if (rf) {
		rf->snapshotter = strdup(snapshotter);
		rf->key = strdup(key);
	}
	if (!rf || !rf->snapshotter || !rf->key) {
		rootfs_free(rf);
		return error_set(err, -ENOMEM, "out of memory");
	}
	flow_start(&rf->flow, agent->loop, &save_ops);
	*ret = rf;
	return FLOW_WAIT;
}

int rootfs_restore(struct agent *agent, struct operation *op, struct rootfs **ret,
		   struct error *err)
{
	struct rootfs *rf = rootfs_new(agent, op, op->req.ns, false);
	int r;

	if (!rf)
		return error_set(err, -ENOMEM, "out of memory");
	rf->file = path_open_beneath(op->pin.fd, FILE_NAME, O_RDONLY | O_NOFOLLOW);
	if (rf->file < 0) {
		r = rf->file;
		rootfs_free(rf);
		return r == -ENOENT ? 0 /* it had no snapshot, or has been given none */
				    : error_reason(err, REASON_ROOTFS_FAILED, r,
						   "open " FILE_NAME ": %s", strerror(-r));
	}
	flow_start(&rf->flow, agent->loop, &restore_ops);
	*ret = rf;
	return FLOW_WAIT;
}

void rootfs_progress(struct rootfs *rf)
{
	if (rf->copy.offset)
		rf->op->bytes_done = (uint64_t)rf->copy.offset;
}

void rootfs_cancel(struct rootfs *rf)
{
	struct error err = ERROR_NULL;

	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "canceled");
	flow_abort(&rf->flow, &err);
}

void rootfs_free(struct rootfs *rf)
{
	if (!rf)
		return;
	containerd_copy_cancel(&rf->copy);
	if (rf->spool_started)
		command_release(&rf->spool);
	containerd_call_done(&rf->call);
	containerd_call_done(&rf->view_call);
	containerd_call_done(&rf->own_call);
	if (rf->file >= 0)
		(void)close(rf->file);
	free(rf->ns);
	free(rf->snapshotter);
	free(rf->key);
	free(rf);
}
