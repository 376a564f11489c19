/* SPDX-License-Identifier: Apache-2.0 */
/* `start`: one daemon a pod. containerd reads our stdout and stderr to their end: nothing but the
 * address may go there, and the daemon must hold neither. */
#include "shim/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "api/containerd/options.pb-c.h"
#include "base/fd.h"
#include "base/path.h"
#include "cgroup/join.h"
#include "conf/shim_settings.h"
#include "oci/bootstrap.h"
#include "oci/bundle.h"
#include "proc/spawn.h"
#include "rpc/pb.h"
#include "shim/socket.h"

#define INPUT_MAX (10 * NSEC_PER_SEC)

struct start {
	struct args args;
	struct bootstrap input;
	char group[PATH_MAX]; /* a label may be any text: it goes into a hash, not into a path */
	char path[SOCKET_PATH_MAX + 1]; /* of the socket */
	char address[SOCKET_PATH_MAX + 16];
	int listen_fd;
	pid_t daemon;
};

static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

static void take_over(const char **arg, const char *from_input)
{
	if (!**arg)
		*arg = from_input;
}

/*
 * What the command line and the environment do not say the input does: containerd means to leave
 * them out one day, where BootstrapParams say the same (2.3, pkg/shim/util.go, Command()).
 */
static int complete(struct start *st, struct error *err)
{
	struct args *a = &st->args;

	take_over(&a->id, st->input.id);
	take_over(&a->ns, st->input.namespace);
	take_over(&a->address, st->input.grpc_address);
	a->debug |= st->input.log_level == LOG_DEBUG;
	if (*st->input.ttrpc_address &&
	    setenv("TTRPC_ADDRESS", st->input.ttrpc_address, false) < 0)
		return error_sys(err, errno, "hand on the address for events");
	return args_check_names(a, err);
}

static int read_input(struct start *st, struct error *err)
{
	_cleanup_buf_ struct buf raw = BUF_LIMIT(BOOTSTRAP_MAX);
	int r = bootstrap_read(STDIN_FILENO, time_add(time_now(), INPUT_MAX), &raw, err);

	if (r == 0)
		r = bootstrap_parse(buf_bytes(&raw), or_null(st->args.id), or_null(st->args.ns),
				    &st->input, err);
	return r < 0 ? error_wrap(err, r, "the input of start") : complete(st, err);
}

/* Which shim a container shares: its pod's. */
static int find_group(struct start *st, struct error *err)
{
	struct setting_list none = { 0 };
	_cleanup_close_ int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bundle bundle;
	int r;

	if (dir < 0)
		return error_sys(err, errno, "open the bundle");
	r = bundle_read(dir, &none, &bundle, err);
	if (r < 0)
		return error_wrap(err, r, "config.json of the bundle");
	r = PATH_PRINTF(st->group, "%s", bundle.group ? bundle.group : st->args.id);
	bundle_done(&bundle);
	return r < 0 ? error_set(err, r, "the group's name is too long") : 0;
}

/*
 * The socket's name has to be what containerd computes for itself. Returns 0 with a socket that
 * listens, or 1 when another shim serves the pod already.
 */
static int take_socket(struct start *st, struct error *err)
{
	const char *dir = *st->input.socket_dir ? st->input.socket_dir : SOCKET_DIR;
	int r = socket_path(dir, st->args.address, st->args.ns, st->group, st->path);

	if (r < 0)
		return error_sys(err, r, "the socket's path in %s", dir);
	(void)snprintf(st->address, sizeof(st->address), "unix://%s", st->path);
	/* 2.3+: where containerd may have moved its sockets, the bundle says where they are. */
	if (*st->input.socket_dir && symlink(dir, "s") < 0 && errno != EEXIST)
		return error_sys(err, errno, "link the socket's folder into the bundle");
	st->listen_fd = socket_listen(st->path, err);
	if (st->listen_fd == -EADDRINUSE)
		return 1;
	return st->listen_fd < 0 ? st->listen_fd : 0;
}

static int core_scheduling(struct error *err)
{
	const char *wanted = getenv("SCHED_CORE");

	if (!wanted || !*wanted)
		return 0;
	/* A cookie of its own for the process group, inherited by the daemon (prctl(2)). */
	if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, 2 /* PIDTYPE_PGID */, 0) < 0)
		return error_sys(err, errno, "enable core scheduling");
	return 0;
}

static int spawn_daemon(struct start *st, struct error *err)
{
	const struct args *a = &st->args;
	const char *argv[] = { SHIM_NAME, "-namespace", a->ns, "-id", a->id, "-address",
			       a->address, "-socket", st->path, a->debug ? "-debug" : NULL, NULL };
	struct spawn s = { .program = "/proc/self/exe", .argv = argv, .new_group = true };

	spawn_fd(&s, st->listen_fd, 3);
	return spawn(&s, &st->daemon, err);
}

static int place_daemon(const struct start *st, struct error *err)
{
	const char *cgroup = st->input.options.shim_cgroup;
	struct cgroup_host host;
	int r = 0;

	if (*cgroup) {
		r = cgroup_host_open(&host, cgroup_mode_at(CGROUP_ROOT), CGROUP_ROOT, "/proc", err);
		if (r == 0) {
			r = join_cgroup(&host, cgroup, st->daemon, err);
			cgroup_host_close(&host);
		}
		if (r < 0)
			return error_wrap(err, r, "failed to join cgroup %s", cgroup);
	}
	r = join_oom_score("/proc", st->daemon, getppid(), err);
	return r < 0 ? error_wrap(err, r, "failed to adjust OOM score for shim") : 0;
}

/* 1.6 and 1.7 reload a task from it after a restart, 2.x takes it as a fallback. */
static int write_address(const struct start *st, struct error *err)
{
	int r = file_write(AT_FDCWD, "address", st->address, strlen(st->address), 0644, FILE_PLAIN);

	return r < 0 ? error_sys(err, r, "write the address file") : 0;
}

/* Whoever sends BootstrapParams reads a BootstrapResult; all others want the bare address. */
static int answer(const struct start *st, struct error *err)
{
	Options__BootstrapResult result = OPTIONS__BOOTSTRAP_RESULT__INIT;
	_cleanup_buf_ struct buf out = BUF_NULL;
	int r;

	if (st->input.params) {
		result.version = 2;
		result.address = (char *)st->address;
		result.protocol = (char *)"ttrpc";
		r = pb_pack(&result.base, &out);
	} else {
		r = buf_append_str(&out, st->address);
	}
	if (r == 0)
		r = fd_write_all(STDOUT_FILENO, buf_bytes(&out).p, buf_len(&out));
	return r < 0 ? error_sys(err, r, "write the answer of start") : 0;
}

static int start(struct start *st, struct error *err)
{
	int r, shared;

	r = read_input(st, err);
	if (r == 0)
		r = find_group(st, err);
	if (r < 0)
		return r;
	shared = take_socket(st, err);
	if (shared < 0)
		return shared;
	if (!shared) {
		r = core_scheduling(err);
		if (r == 0)
			r = spawn_daemon(st, err);
		if (r == 0)
			r = place_daemon(st, err);
	}
	if (r == 0)
		r = write_address(st, err);
	if (r == 0)
		r = answer(st, err);
	if (r < 0 && !shared) {
		if (st->daemon)
			(void)kill(st->daemon, SIGKILL);
		(void)unlink(st->path);
	}
	return r;
}

int bootstrap_start(const struct args *args, struct error *err)
{
	struct start st = { .args = *args, .listen_fd = -1 };
	int r = start(&st, err);

	bootstrap_done(&st.input);
	if (st.listen_fd >= 0)
		(void)close(st.listen_fd);
	return r;
}
