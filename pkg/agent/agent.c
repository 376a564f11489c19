/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/kubelet.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/degraded.h"
#include "checkpoint/prepared.h"
#include "checkpoint/revive.h"

#define BACKLOG   128
#define LEAVE_MAX  (20 * NSEC_PER_SEC) /* for operations under way to be undone */
#define LEAVE_LOOK (20 * NSEC_PER_MSEC)
#define CLEAN_FIRST (1 * NSEC_PER_SEC) /* between looks at who still holds what in the store */
#define CLEAN_MAX   (60 * NSEC_PER_SEC)

/* --- the end -------------------------------------------------------------------------------- */

/*
 * Operations may have no caller: their shim has left, or they are a former agent's. What is not
 * undone by the end of the time stays in the journal, for the next agent.
 */
static void check_left(struct timer *t)
{
	struct agent *agent = container_of(t, struct agent, left);

	if (!list_empty(&agent->node.operations) && time_now() < agent->leave_by)
		timer_set(agent->loop, t, time_now() + LEAVE_LOOK, check_left);
	else
		loop_stop(agent->loop);
}

static void all_closed(struct grpc_server *s, void *arg)
{
	struct agent *agent = arg;

	(void)s;
	timer_set(agent->loop, &agent->left, time_now(), check_left);
}

static void leave(struct agent *agent)
{
	struct operation *op, *tmp;
	struct error err = ERROR_NULL;

	if (agent->leaving)
		return;
	agent->leaving = true;
	log_info("agent leaves", F_INT("operations", list_count(&agent->node.operations)));
	(void)error_reason(&err, REASON_CANCELED, -ECANCELED, "the agent is being stopped");
	list_for_each_safe(op, tmp, &agent->node.operations, node_link)
		operation_cancel(op, &err);
	(void)unlink(agent->settings.socket);
	agent->leave_by = time_add(time_now(), LEAVE_MAX);
	grpc_server_shutdown(agent->server, agent->leave_by, all_closed);
}

static void caught(struct signals *s, int signo)
{
	struct agent *agent = container_of(s, struct agent, signals);

	if (signo == SIGCHLD)
		reaper_sweep(&agent->reaper);
	else
		leave(agent);
}

/* --- the worker ----------------------------------------------------------------------------- */

static void worker_changed(void *owner, enum gpu_worker_state state, const struct error *why)
{
	(void)owner;
	if (why)
		log_warning("CUDA worker", F_STR("state", gpu_worker_state_name(state)),
			    F_STR("reason", reason_name(why->reason)), F_ERR(why));
	else
		log_info("CUDA worker", F_STR("state", gpu_worker_state_name(state)));
}

static int start_worker(struct agent *agent, struct error *err)
{
	static const struct gpu_worker_ops ops = { .changed = worker_changed };
	struct gpu_worker_config config = GPU_WORKER_CONFIG_DEFAULT;
	const char *env[3], *library = getenv("LD_LIBRARY_PATH");
	const char *fake = getenv("FAKEGPU_SOCKET");
	char library_env[PATH_MAX + 32], fake_env[PATH_MAX + 32];
	size_t n = 0;
	int r;

	/* The driver heeds far too many variables: only these two get through. */
	if (library && PATH_PRINTF(library_env, "LD_LIBRARY_PATH=%s", library) == 0)
		env[n++] = library_env;
	if (fake && PATH_PRINTF(fake_env, "FAKEGPU_SOCKET=%s", fake) == 0)
		env[n++] = fake_env;
	env[n] = NULL;
	config.env = env;
	config.program = agent->settings.worker;
	config.libcuda = agent->settings.libcuda;
	r = gpu_worker_new(agent->loop, &agent->reaper, &config, &ops, agent, &agent->worker);
	if (r < 0)
		return error_sys(err, r, "prepare the CUDA worker");
	gpu_worker_start(agent->worker);
	return 0;
}

/* --- the socket ----------------------------------------------------------------------------- */

static bool allowed(void *arg, const struct ucred *peer)
{
	const struct agent *agent = arg;
	const struct setting_uids *uids = &agent->settings.allowed_uids;

	for (size_t i = 0; i < uids->n; i++)
		if (uids->items[i] == peer->uid)
			return true;
	log_warning("connection refused", F_INT("uid", peer->uid), F_INT("pid", peer->pid));
	return false;
}

/* Is another agent alive behind the socket? A dead one's is replaced. */
static int take_socket(const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	char dir[PATH_MAX], *slash;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -ENAMETOOLONG, "the socket's path is too long: %s", path);
	(void)strcpy(addr.sun_path, path);
	(void)strcpy(dir, path);
	slash = strrchr(dir, '/');
	*slash = 0;
	r = *dir ? path_mkdirs(dir, 0755) : 0;
	if (r < 0)
		return error_sys(err, r, "create %s", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_sys(err, errno, "create a socket");
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
		return error_set(err, -EADDRINUSE, "another agent listens on %s", path);
	(void)close(TAKE_FD(fd));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_sys(err, errno, "create a socket");
	if (unlink(path) < 0 && errno != ENOENT)
		return error_sys(err, errno, "remove %s", path);
	/* Before bind(), so that the socket never exists with any other mode. */
	(void)umask(0177);
	r = bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	(void)umask(0077);
	if (r < 0 || listen(fd, BACKLOG) < 0)
		return error_sys(err, r < 0 ? r : -errno, "listen on %s", path);
	return TAKE_FD(fd);
}

static int serve(struct agent *agent, struct error *err)
{
	struct grpc_server_config config = {
		.max_connections = agent->settings.limits.connections,
		/* All shims are root, and so are those who look after them. */
		.max_connections_per_uid = agent->settings.limits.connections,
		/* Requests are small, lists may be long. Peers are root's, so one may have it all. */
		.max_send = AGENT_MESSAGE_MAX,
		.max_unsent = 2 * AGENT_MESSAGE_MAX,
		.max_memory_per_connection = 2 * AGENT_MESSAGE_MAX,
		.max_memory = 4 * AGENT_MESSAGE_MAX,
		.allow = allowed,
	};
	int fd = take_socket(agent->settings.socket, err), r;

	if (fd < 0)
		return fd;
	r = grpc_server_new(agent->loop, fd, &config, agent_methods, agent_methods_size, agent,
			    &agent->server);
	return r < 0 ? error_sys(err, r, "serve %s", agent->settings.socket) : 0;
}

nsec_t agent_undo_time(const struct agent *agent)
{
	const nsec_t *t = agent->node.timeouts;

	return 2 * (t[PHASE_VRAM_RESTORE] + t[PHASE_UNLOCK] + t[PHASE_QUIESCE]);
}

/* --- start ---------------------------------------------------------------------------------- */

static void set_timeouts(struct agent *agent)
{
	nsec_t *t = agent->node.timeouts;

	t[PHASE_PREFLIGHT] = agent->settings.timeouts.preflight;
	t[PHASE_QUIESCE] = agent->settings.timeouts.quiesce;
	t[PHASE_LOCK] = agent->settings.timeouts.lock;
	t[PHASE_VRAM_SAVE] = agent->settings.timeouts.vram_save;
	t[PHASE_CRIU_DUMP] = agent->settings.timeouts.criu_dump;
	t[PHASE_ROOTFS] = agent->settings.timeouts.rootfs;
	t[PHASE_SEAL] = agent->settings.timeouts.seal;
	t[PHASE_VRAM_RESTORE] = agent->settings.timeouts.vram_restore;
	t[PHASE_UNLOCK] = agent->settings.timeouts.unlock;
	t[PHASE_EXIT] = agent->settings.timeouts.exit;
	t[PHASE_CRIU_RESTORE] = agent->settings.timeouts.criu_restore;
	t[PHASE_VERIFY] = agent->settings.timeouts.verify;
	t[PHASE_CREATE] = agent->settings.timeouts.create;
	t[PHASE_FREEZE] = agent->settings.timeouts.quiesce;
}

static int set_groups(struct agent *agent, struct error *err)
{
	const struct agent_settings *s = &agent->settings;
	struct seat_group *g = arena_alloc(&agent->settings.mem, (s->n_groups + 1) * sizeof(*g));

	if (!g)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < s->n_groups; i++)
		g[i] = (struct seat_group){
			.name = s->groups[i].name,
			.seats = s->groups[i].seats.items,
			.n_seats = s->groups[i].seats.n,
			.gpu_uuids = s->groups[i].gpu_uuids.items,
			.n_gpu_uuids = s->groups[i].gpu_uuids.n,
			.device_paths = s->groups[i].device_paths.items,
			.n_device_paths = s->groups[i].device_paths.n,
		};
	agent->node.groups = g;
	agent->node.n_groups = s->n_groups;
	return 0;
}

static int set_up_node(struct agent *agent, struct error *err)
{
	struct node *node = &agent->node;

	node->loop = agent->loop;
	node->worker = agent->worker;
	node->store = agent->store;
	node->bulk = &agent->bulk;
	node->cgroups = &agent->cgroups;
	node->shim_return = agent->settings.timeouts.shim_return;
	node->operation_timeout = agent->settings.timeouts.operation;
	node->max_operations = agent->settings.limits.operations;
	slots_init(&node->criu, agent->loop, agent->settings.limits.criu);
	list_init(&node->operations);
	list_init(&node->prepared);
	list_init(&node->degraded);
	list_init(&node->returning);
	set_timeouts(agent);
	return set_groups(agent, err);
}

static int open_store(struct agent *agent, struct error *err)
{
	int r;

	agent->bulk = (struct bulk_env){ .loop = agent->loop, .reaper = &agent->reaper };
	r = store_open(agent->settings.store, STORE_OWNER, &agent->bulk, &agent->store, err);
	if (r < 0)
		return error_wrap(err, r, "the store");
	/* What is there already can be restored and deleted all the same. */
	if (store_set_limit(agent->store, agent->settings.limits.store_size, err) < 0)
		log_warning("limits.store_size: nothing can be checkpointed into the store", F_ERR(err));
	*err = ERROR_NULL;
	store_on_swept(agent->store, deletions_swept, agent);
	return 0;
}

static void clean_again(struct timer *t);

/*
 * Whatever is being made in the store is in the journal from its first moment on, and whoever still
 * writes there holds a lock on it: the rest goes at once. Where the record was torn there is the
 * lock only, of a shim that has yet to hear that nobody wants what it writes.
 */
static void clean_store(struct agent *agent, bool again)
{
	struct store_clean clean = { .keep = revive_keeps, .arg = &agent->node };
	struct error err = ERROR_NULL;

	if (store_clean(agent->store, &clean, &err) < 0)
		log_warning("what crashes have left in the store could not be removed", F_ERR(&err));
	if (clean.removed || (!again && (clean.kept || clean.locked || clean.young)))
		log_info("unfinished checkpoints in the store", F_INT("removed", clean.removed),
			 F_INT("kept", clean.kept + clean.locked + clean.young));
	if (clean.locked)
		timer_set(agent->loop, &agent->clean,
			  time_now() + backoff_next(&agent->clean_pause), clean_again);
}

static void clean_again(struct timer *t)
{
	clean_store(container_of(t, struct agent, clean), true);
}

/* What an agent before us has left. */
static int take_up(struct agent *agent, struct error *err)
{
	int r = journal_open(&agent->node.journal, agent->settings.journal, err);

	if (r == 0)
		r = revive_all(&agent->node, err);
	if (r < 0)
		return r;
	agent->clean_pause = BACKOFF(CLEAN_FIRST, CLEAN_MAX);
	clean_store(agent, false);
	return 0;
}

static int set_up(struct agent *agent, const char *settings_path, struct error *err)
{
	static const int signos[] = { SIGCHLD, SIGTERM, SIGINT, 0 };
	int r;

	r = agent_settings_load(settings_path ? settings_path : getenv(AGENT_SETTINGS_ENV),
				&agent->settings, err);
	if (r < 0)
		return r;
	log_set_level(agent->settings.log_level);
	r = loop_new(&agent->loop);
	if (r == 0)
		r = signals_open(agent->loop, &agent->signals, signos, caught);
	if (r < 0)
		return error_sys(err, r, "set up");
	r = cgroup_host_open(&agent->cgroups, cgroup_mode_at(CGROUP_ROOT), CGROUP_ROOT, "/proc",
			     err);
	if (r == 0)
		r = open_store(agent, err);
	if (r == 0)
		r = start_worker(agent, err);
	if (r == 0)
		r = containerd_new(&agent->containerd, agent->loop, agent->settings.containerd);
	if (r == 0)
		r = kubelet_new(&agent->kubelet, agent->loop, agent->settings.kubelet);
	if (r == 0)
		r = set_up_node(agent, err);
	if (r == 0)
		r = take_up(agent, err);
	if (r == 0)
		r = serve(agent, err);
	return r;
}

static void tear_down(struct agent *agent)
{
	grpc_server_free(agent->server);
	deletions_forget(agent);
	timer_cancel(&agent->left);
	timer_cancel(&agent->clean);
	operation_free_all(&agent->node);
	journal_close(&agent->node.journal);
	degraded_free_all(&agent->node);
	prepared_free_all(&agent->node);
	containerd_free(agent->containerd);
	kubelet_free(agent->kubelet);
	gpu_worker_free(agent->worker);
	store_close(agent->store);
	cgroup_host_close(&agent->cgroups);
	signals_close(&agent->signals);
	loop_free(agent->loop);
	agent_settings_done(&agent->settings);
}

int agent_run(const char *settings_path, struct error *err)
{
	struct agent *agent = calloc(1, sizeof(*agent));
	int r;

	if (!agent)
		return error_set(err, -ENOMEM, "out of memory");
	list_init(&agent->creations);
	list_init(&agent->rebirths);
	list_init(&agent->switchings);
	list_init(&agent->deletions);
	list_init(&agent->node.degraded);
	list_init(&agent->node.returning);
	list_init(&agent->node.prepared);
	list_init(&agent->node.operations);
	agent->node.journal = JOURNAL_NULL;
	reaper_init(&agent->reaper);
	(void)umask(0077);
	r = set_up(agent, settings_path, err);
	if (r == 0) {
		log_info("agent serves", F_STR("socket", agent->settings.socket),
			 F_STR("store", agent->settings.store), F_STR("version", KYB_VERSION));
		r = loop_run(agent->loop);
		if (r < 0)
			(void)error_sys(err, r, "event loop");
	}
	tear_down(agent);
	free(agent);
	return r;
}
