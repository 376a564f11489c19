/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Create: mounts the root file system, sets up stdio, has the OCI runtime create the container.
 * With a checkpoint to restore from, nothing runs yet: Start restores it, because containerd's
 * CRI puts changed files into the root file system between the two.
 */
#include "shim/task.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "api/containerd/task.pb-c.h"
#include "base/log.h"
#include "base/path.h"
#include "mnt/mnt.h"
#include "shim/exit_status.h"
#include "shim/gpu.h"

#define UNDO_PATIENCE (100 * NSEC_PER_MSEC)

struct create {
	struct ttrpc_call *call;
	const Task__CreateTaskRequest *req; /* lives as long as the call */
	struct container *c;
	struct flow flow;
	struct agent_op *agent;
	bool created;
};

static struct create *create_of(struct flow *f)
{
	return container_of(f, struct create, flow);
}

static void resume_with(void *data, int r, const struct error *err, struct bytes output)
{
	struct create *cr = data;

	(void)output;
	flow_resume(&cr->flow, r, err);
}

/* --- prepare -------------------------------------------------------------------------------- */

static void prepare_replied(void *data, const struct agent_reply *reply)
{
	(void)data; /* progress; a PREPARE gives no orders */
	(void)reply;
}

static void prepare_ended(void *data, int r, const struct error *err)
{
	struct create *cr = data;

	cr->agent = NULL;
	flow_resume(&cr->flow, r, err);
}

/*
 * From the node's store: before the root file system is mounted, the agent verifies the checkpoint
 * and puts the changed files back. What does not fit fails here; nothing ever starts cold.
 */
static int step_prepare(struct flow *f, struct error *err)
{
	static const struct agent_ops agent_ops = { .reply = prepare_replied,
						    .ended = prepare_ended };
	struct create *cr = create_of(f);
	struct container *c = cr->c;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(GPU_REQUEST_MEMORY);
	struct agent_request req;
	int r;

	if (!c->intent.restore_from)
		return 0;
	r = gpu_request(c, AGENT_RESTORE, &mem, &req, err);
	if (r < 0)
		return r;
	req.prepare = true;
	req.checkpoint_ref = c->intent.restore_from;
	req.timeout_ms = gpu_timeout_ms(cr->call);
	r = agent_op_open(&cr->agent, c->shim->loop, c->shim->settings.agent_socket, &req,
			  gpu_stream_deadline(c, cr->call), &agent_ops, cr, err);
	return r < 0 ? r : FLOW_WAIT;
}

/* --- mount ---------------------------------------------------------------------------------- */

static int rootfs_path(const struct container *c, char *buf)
{
	return path_printf(buf, PATH_MAX, "%s/rootfs", c->path);
}

static int step_mount(struct flow *f, struct error *err)
{
	struct create *cr = create_of(f);
	const Task__CreateTaskRequest *req = cr->req;
	char rootfs[PATH_MAX];
	struct mnt *mounts;
	int r;

	if (req->n_rootfs == 0)
		return 0;
	r = rootfs_path(cr->c, rootfs);
	if (r < 0)
		return error_sys(err, r, "%s", cr->c->path);
	if (mkdir(rootfs, 0711) < 0 && errno != EEXIST)
		return error_sys(err, errno, "create %s", rootfs);
	mounts = arena_alloc(ttrpc_call_arena(cr->call), req->n_rootfs * sizeof(*mounts));
	if (!mounts)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < req->n_rootfs; i++)
		mounts[i] = (struct mnt){ .type = req->rootfs[i]->type,
					  .source = req->rootfs[i]->source,
					  .target = req->rootfs[i]->target,
					  .options = (const char *const *)req->rootfs[i]->options,
					  .n_options = req->rootfs[i]->n_options };
	r = mnt_all(mounts, req->n_rootfs, rootfs, err);
	if (r < 0)
		return error_wrap(err, r, "failed to mount rootfs component");
	cr->c->mounted = true;
	return 0;
}

static int undo_mount(struct flow *f, struct error *err)
{
	struct container *c = create_of(f)->c;
	char rootfs[PATH_MAX];
	int r;

	if (!c->mounted)
		return 0;
	r = rootfs_path(c, rootfs);
	if (r == 0)
		r = mnt_unmount_all(rootfs, UNDO_PATIENCE, err);
	c->mounted = false;
	return r;
}

/* --- stdio ---------------------------------------------------------------------------------- */

static int step_stdio(struct flow *f, struct error *err)
{
	int r = process_prepare_stdio(&create_of(f)->c->init, f, err);

	return r < 0 ? error_wrap(err, r, "failed to create init process I/O") : r;
}

static int undo_stdio(struct flow *f, struct error *err)
{
	(void)err;
	stdio_close(&create_of(f)->c->init.io);
	return 0;
}

/* --- the runtime ---------------------------------------------------------------------------- */

static int step_create(struct flow *f, struct error *err)
{
	struct create *cr = create_of(f);
	struct container *c = cr->c;
	char pid_file[PATH_MAX];
	struct runtime_create args = { .pid_file = pid_file,
				       .console_socket = stdio_console(&c->init.io),
				       .no_pivot = c->options.no_pivot_root,
				       .no_new_keyring = c->options.no_new_keyring };
	struct spawn io = { 0 };
	int r;

	if (c->restore)
		return 0;
	r = PATH_PRINTF(pid_file, "%s/init.pid", c->path);
	if (r < 0)
		return error_sys(err, r, "%s", c->path);
	stdio_child(&c->init.io, &io);
	/* From now on init may live, and die, before we know its pid. */
	reaper_hold(&c->shim->reaper, &c->init.hold);
	r = runtime_create(&c->rt, &args, &io, resume_with, cr, NULL, err);
	cr->created = r == 0;
	return r < 0 ? r : FLOW_WAIT;
}

static int undo_create(struct flow *f, struct error *err)
{
	struct create *cr = create_of(f);
	int r;

	reaper_release(&cr->c->init.hold);
	if (!cr->created)
		return 0;
	r = runtime_delete(&cr->c->rt, true, resume_with, cr, err);
	return r < 0 ? r : FLOW_WAIT;
}

static int step_attach(struct flow *f, struct error *err)
{
	struct container *c = create_of(f)->c;

	(void)err;
	return c->restore ? 0 : process_attach_stdio(&c->init, f);
}

static int step_register(struct flow *f, struct error *err)
{
	struct container *c = create_of(f)->c;

	return c->restore ? 0 : process_read_pid(c->path, "init.pid", &c->init.pid, err);
}

static const struct flow_step steps[] = {
	{ "prepare", step_prepare, NULL, NULL },
	{ "mount", step_mount, undo_mount, NULL },
	{ "stdio", step_stdio, undo_stdio, NULL },
	{ "create", step_create, undo_create, NULL },
	{ "attach", step_attach, NULL, NULL },
	{ "register", step_register, NULL, NULL },
};

static void publish_create(const struct create *cr)
{
	Events__TaskCreate event = EVENTS__TASK_CREATE__INIT;
	Events__TaskIO io = EVENTS__TASK_IO__INIT;
	const Task__CreateTaskRequest *req = cr->req;

	io.stdin = req->stdin;
	io.stdout = req->stdout;
	io.stderr = req->stderr;
	io.terminal = req->terminal;
	event.container_id = req->id;
	event.bundle = req->bundle;
	event.rootfs = req->rootfs;
	event.n_rootfs = req->n_rootfs;
	event.io = &io;
	event.checkpoint = req->checkpoint;
	event.pid = (uint32_t)cr->c->init.pid;
	shim_publish(cr->c->shim, "/tasks/create", "containerd.events.TaskCreate", &event.base);
}

static void done(struct flow *f, int r, const struct error *err)
{
	struct create *cr = create_of(f);
	struct container *c = cr->c;
	struct shim *shim = c->shim;
	Task__CreateTaskResponse response = TASK__CREATE_TASK_RESPONSE__INIT;

	if (r < 0) {
		/* No event, and above all no exit event: containerd issue 6429. */
		log_error("create failed", F_STR("container", c->id), F_ERR(err));
		call_fail(cr->call, err);
		container_retire(c);
	} else {
		process_set_state(&c->init, c->restore ? PROCESS_CREATED_CHECKPOINT
							  : PROCESS_CREATED);
		container_publish(c);
		publish_create(cr);
		response.pid = (uint32_t)c->init.pid;
		ttrpc_call_reply(cr->call, &response.base);
		/* Before anybody can ask for it, but while containerd already goes on. */
		if (!c->restore)
			container_find_cgroup(c);
		else
			orphan_watch(c); /* no exit will ever set that off */
		exit_watch(&c->init);
	}
	shim->n_ops--;
	free(cr);
}

static const struct flow_ops ops = { .steps = steps,
				     .n_steps = ARRAY_SIZE(steps),
				     .done = done };

/* --- the call ------------------------------------------------------------------------------- */

static bool id_taken(const struct shim *shim, const char *id)
{
	const struct container *c;

	list_for_each(c, &shim->containers, node)
		if (strcmp(c->id, id) == 0)
			return true;
	return false;
}

/* What containerd 1.6 and 1.7 do by themselves, but only for runc's own type. */
static const char *images_of(const struct container *c, const Task__CreateTaskRequest *req)
{
	if (*req->checkpoint)
		return req->checkpoint;
	if (*c->options.criu_image_path && access(c->options.criu_image_path, F_OK) == 0)
		return c->options.criu_image_path;
	return NULL;
}

static int load_bundle(struct container *c, struct error *err)
{
	_cleanup_close_ int fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return error_sys(err, errno, "open the bundle %s", c->path);
	exit_status_forget(fd);
	r = bundle_read(fd, &c->shim->settings.gpu.device_prefixes, &c->bundle, err);
	if (r == 0)
		r = bundle_intent(&c->bundle, &c->intent, err);
	if (r == 0)
		r = runtime_options_write(fd, &c->options, err);
	return r;
}

static int load(struct container *c, const Task__CreateTaskRequest *req, struct error *err)
{
	const Ctd__Any *any = req->options;
	const char *images;
	int r;

	r = runtime_options_parse(any ? any->type_url : "",
				  any ? bytes_of(any->value.data, any->value.len)
				      : bytes_of(NULL, 0),
				  &c->options, err);
	if (r == 0)
		r = load_bundle(c, err);
	if (r < 0)
		return r;
	if (c->options.unknown)
		log_warning("unknown runtime options", F_STR("container", c->id),
			    F_STR("keys", c->options.unknown));
	images = images_of(c, req);
	c->restore = images || c->intent.restore_from;
	if (images) {
		c->checkpoint = strdup(images);
		if (!c->checkpoint)
			return error_set(err, -ENOMEM, "out of memory");
	}
	r = runtime_init(&c->rt, c->shim->loop, &c->shim->reaper, c->options.binary_name,
			 c->options.root, c->shim->ns, c->path, c->id, c->options.systemd_cgroup);
	if (r == 0)
		r = process_init(&c->init, c, c->id, true, req->stdin, req->stdout, req->stderr,
				 req->terminal);
	return r < 0 ? error_sys(err, r, "create %s", c->id) : 0;
}

void do_create(void *arg, struct ttrpc_call *call, const void *request)
{
	struct shim *shim = arg;
	const Task__CreateTaskRequest *req = request;
	struct container *c = NULL;
	struct error err = ERROR_NULL;
	struct create *cr;
	int r = 0;

	if (!id_valid(req->id))
		r = error_rpc(&err, RPC_INVALID_ARGUMENT, -EINVAL,
			      "identifier \"%.80s\" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$",
			      req->id);
	else if (shim->leave_by) /* nobody would be left to look after it */
		r = error_rpc(&err, RPC_UNAVAILABLE, -ESHUTDOWN, "the shim is leaving");
	else if (id_taken(shim, req->id))
		r = error_rpc(&err, RPC_ALREADY_EXISTS, -EEXIST, "task %s: already exists", req->id);
	if (r == 0)
		r = container_new(&c, shim, req->id, req->bundle, &err);
	if (r == 0)
		r = load(c, req, &err);
	cr = r == 0 ? calloc(1, sizeof(*cr)) : NULL;
	if (r == 0 && !cr)
		r = error_set(&err, -ENOMEM, "out of memory");
	if (r < 0) {
		container_unref(c);
		call_fail(call, &err);
		return;
	}
	cr->call = call;
	cr->req = req;
	cr->c = c;
	shim->n_ops++;
	list_append(&shim->containers, &c->node);
	shim_expect_moves(shim);
	flow_start(&cr->flow, shim->loop, &ops);
}
