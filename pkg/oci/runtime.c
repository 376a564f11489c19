/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/path.h"
#include "oci/runtime_log.h"
#include "proc/command.h"

#define DEFAULT_ROOT   "/run/containerd/runc"
#define DEFAULT_BINARY "runc"
#define ARGS_MAX       64

/* Nothing of what runc does takes this long unless it hangs; hooks may take a while. */
#define COMMAND_TIME_MAX (600 * NSEC_PER_SEC)

struct runtime_call {
	struct command cmd;
	struct runtime *rt;
	const char *what; /* "OCI runtime create failed" */
	off_t mark; /* where the log ended before */
	/* Optional: turns a failure into what the caller is to see; may say that it is none. */
	int (*judge)(struct runtime_call *call, int r, struct error *err);
	runtime_result done; /* NULL: forgotten */
	void *data;
};

/* --- the runtime of a container ------------------------------------------------------------- */

/* "a/b" */
static char *joined(const char *a, const char *b)
{
	char buf[PATH_MAX];

	return path_printf(buf, sizeof(buf), "%s/%s", a, b) < 0 ? NULL : strdup(buf);
}

static bool given(const char *s)
{
	return s && *s;
}

static bool named_crun(const char *binary)
{
	const char *slash = strrchr(binary, '/');

	return strcmp(slash ? slash + 1 : binary, "crun") == 0;
}

int runtime_init(struct runtime *rt, struct loop *loop, struct reaper *reaper, const char *binary,
		 const char *root, const char *ns, const char *bundle, const char *id,
		 bool systemd_cgroup)
{
	*rt = (struct runtime){ .loop = loop, .reaper = reaper, .systemd_cgroup = systemd_cgroup };
	rt->binary = strdup(given(binary) ? binary : DEFAULT_BINARY);
	rt->root = joined(given(root) ? root : DEFAULT_ROOT, ns);
	rt->bundle = strdup(bundle);
	rt->id = strdup(id);
	rt->log = joined(bundle, "log.json");
	if (!rt->binary || !rt->root || !rt->bundle || !rt->id || !rt->log) {
		runtime_done(rt);
		return -ENOMEM;
	}
	rt->crun = named_crun(rt->binary);
	return 0;
}

void runtime_done(struct runtime *rt)
{
	free(rt->binary);
	free(rt->root);
	free(rt->bundle);
	free(rt->id);
	free(rt->log);
	*rt = (struct runtime){ 0 };
}

/* --- command lines -------------------------------------------------------------------------- */

struct args {
	const char *argv[ARGS_MAX + 1];
	size_t n;
	const char *tail; /* what follows the container's id, or NULL */
	bool full;
};

static void add(struct args *a, const char *arg)
{
	if (a->n == ARGS_MAX)
		a->full = true;
	else
		a->argv[a->n++] = arg;
}

static void add_flag(struct args *a, bool on, const char *flag)
{
	if (on)
		add(a, flag);
}

static void add_option(struct args *a, const char *flag, const char *value)
{
	if (!given(value))
		return;
	add(a, flag);
	add(a, value);
}

static struct args begin(const struct runtime *rt, const char *verb)
{
	struct args a = { .n = 0 };

	add(&a, rt->binary);
	add_option(&a, "--root", rt->root);
	add_option(&a, "--log", rt->log);
	add_option(&a, "--log-format", "json");
	add_flag(&a, rt->systemd_cgroup, "--systemd-cgroup");
	add(&a, verb);
	return a;
}

/* --- running -------------------------------------------------------------------------------- */

static bool output_has(const struct runtime_call *call, const char *text)
{
	return strcasestr(buf_str(&call->cmd.out), text) != NULL;
}

static int explain(struct runtime_call *call, struct error *err)
{
	_cleanup_buf_ struct buf how = BUF_LIMIT(ERROR_TEXT_MAX);
	const struct command *cmd = &call->cmd;
	struct error exit = ERROR_NULL;
	int r = command_result(cmd, call->rt->binary, &exit);

	if (r == 0)
		return 0;
	/* go-runc's words, with what the runtime printed behind them. */
	if (WIFEXITED(cmd->status))
		r = buf_printf(&how, "%s did not terminate successfully: exit status %d",
			       call->rt->binary, WEXITSTATUS(cmd->status));
	else
		r = buf_append_str(&how, exit.text);
	if (r == 0 && buf_len(&cmd->out))
		(void)buf_printf(&how, ": %.512s", buf_str(&cmd->out));
	r = runtime_log_failure(AT_FDCWD, call->rt->log, call->mark, call->what, buf_str(&how),
				err);
	if (exit.reason != REASON_NONE)
		err->reason = exit.reason;
	return r;
}

static void call_free(struct runtime_call *call)
{
	command_release(&call->cmd);
	free(call);
}

static void ended(struct command *cmd)
{
	struct runtime_call *call = container_of(cmd, struct runtime_call, cmd);
	struct error err = ERROR_NULL;
	int r = explain(call, &err);

	if (r < 0 && call->judge)
		r = call->judge(call, r, &err);
	if (call->done)
		call->done(call->data, r, &err, buf_bytes(&cmd->out));
	call_free(call);
}

struct request {
	struct args args;
	const char *what;
	const struct spawn *io; /* NULL: capture what the command prints */
	const char *const *envp;
	const struct bytes *input;
	nsec_t deadline; /* 0 = COMMAND_TIME_MAX from now */
	bool group;      /* it is killed with all that it has started: with CRIU */
	bool own_mounts;
	int (*judge)(struct runtime_call *call, int r, struct error *err);
};

static int run(struct runtime *rt, struct request *req, runtime_result done, void *data,
	       struct runtime_call **ret, struct error *err)
{
	struct spawn s = { 0 };
	struct runtime_call *call;
	int r;

	add(&req->args, rt->id);
	if (req->args.tail)
		add(&req->args, req->args.tail);
	if (req->args.full)
		return error_set(err, -E2BIG, "%s: too many arguments", req->what);
	if (req->io)
		s = *req->io;
	s.argv = req->args.argv;
	s.envp = req->envp;
	s.cwd = rt->bundle;
	s.die_with_parent = true;
	/*
	 * So that no container can write to the runtime's file (CVE-2019-5736) crun copies itself to
	 * memory and executes the copy, in each of its runs, unless it finds itself on a read-only
	 * file system (crun: cloned_binary.c, is_self_cloned()). To runc that makes no difference.
	 */
	s.read_only = rt->crun;
	s.new_group = req->group;
	s.own_mounts = req->own_mounts;
	call = calloc(1, sizeof(*call));
	if (!call)
		return error_set(err, -ENOMEM, "%s: out of memory", req->what);
	call->rt = rt;
	call->what = req->what;
	call->judge = req->judge;
	call->done = done;
	call->data = data;
	call->mark = runtime_log_mark(AT_FDCWD, rt->log);
	r = command_start(&call->cmd, rt->loop, rt->reaper, &s,
			  s.n_fds ? 0 : COMMAND_CAPTURE_STDOUT | COMMAND_CAPTURE_STDERR,
			  req->input,
			  req->deadline ? req->deadline : time_add(time_now(), COMMAND_TIME_MAX),
			  ended, err);
	if (r < 0) {
		free(call);
		return error_wrap(err, r, "%s", req->what);
	}
	if (ret)
		*ret = call;
	return 0;
}

void runtime_call_kill(struct runtime_call *call)
{
	command_kill(&call->cmd, SIGKILL);
}

void runtime_call_forget(struct runtime_call *call)
{
	call->done = NULL;
}

/* --- the verbs ------------------------------------------------------------------------------ */

int runtime_create(struct runtime *rt, const struct runtime_create *args, const struct spawn *io,
		   runtime_result done, void *data, struct runtime_call **ret, struct error *err)
{
	struct request req = { begin(rt, "create"), "OCI runtime create failed", io };

	add_option(&req.args, "--bundle", rt->bundle);
	add_option(&req.args, "--pid-file", args->pid_file);
	add_option(&req.args, "--console-socket", args->console_socket);
	add_flag(&req.args, args->no_pivot, "--no-pivot");
	add_flag(&req.args, args->no_new_keyring, "--no-new-keyring");
	return run(rt, &req, done, data, ret, err);
}

int runtime_start(struct runtime *rt, runtime_result done, void *data, struct error *err)
{
	struct request req = { begin(rt, "start"), "OCI runtime start failed" };

	return run(rt, &req, done, data, NULL, err);
}

int runtime_exec(struct runtime *rt, const char *process_file, const char *pid_file,
		 const char *console_socket, const struct spawn *io, runtime_result done,
		 void *data, struct error *err)
{
	struct request req = { begin(rt, "exec"), "OCI runtime exec failed", io };

	add_option(&req.args, "--process", process_file);
	add_option(&req.args, "--console-socket", console_socket);
	add(&req.args, "--detach");
	add_option(&req.args, "--pid-file", pid_file);
	return run(rt, &req, done, data, NULL, err);
}

/* containerd's mapping: pkg/process/utils.go, checkKillError(). */
static int judge_kill(struct runtime_call *call, int r, struct error *err)
{
	if (output_has(call, "os: process already finished") ||
	    output_has(call, "container not running") || output_has(call, "no such process"))
		return error_rpc(err, RPC_NOT_FOUND, -ESRCH, "process already finished: not found");
	if (output_has(call, "does not exist"))
		return error_rpc(err, RPC_NOT_FOUND, -ESRCH, "no such container: not found");
	return error_wrap(err, r, "unknown error after kill");
}

int runtime_kill(struct runtime *rt, unsigned int signo, bool all, runtime_result done, void *data,
		 struct error *err)
{
	struct request req = { begin(rt, "kill"), "OCI runtime kill failed" };
	char number[16];

	req.judge = judge_kill;
	add_flag(&req.args, all, "--all");
	(void)snprintf(number, sizeof(number), "%u", signo);
	req.args.tail = number;
	return run(rt, &req, done, data, NULL, err);
}

/*
 * After a checkpoint with exit, for instance, the runtime has removed it itself. crun then fails
 * over its folder being gone, in the words of the system call (container_delete_internal()).
 */
static int judge_delete(struct runtime_call *call, int r, struct error *err)
{
	const struct runtime *rt = call->rt;
	char path[PATH_MAX];

	if (output_has(call, "does not exist") || strstr(err->text, "does not exist"))
		return 0;
	return rt->crun && PATH_PRINTF(path, "%s/%s", rt->root, rt->id) == 0 &&
			       access(path, F_OK) < 0 && errno == ENOENT
		       ? 0
		       : r;
}

int runtime_delete(struct runtime *rt, bool force, runtime_result done, void *data,
		   struct error *err)
{
	struct request req = { begin(rt, "delete"), "failed to delete task" };

	req.judge = judge_delete;
	add_flag(&req.args, force, "--force");
	return run(rt, &req, done, data, NULL, err);
}

int runtime_pause(struct runtime *rt, runtime_result done, void *data, struct error *err)
{
	struct request req = { begin(rt, "pause"), "OCI runtime pause failed" };

	return run(rt, &req, done, data, NULL, err);
}

int runtime_resume(struct runtime *rt, runtime_result done, void *data, struct error *err)
{
	struct request req = { begin(rt, "resume"), "OCI runtime resume failed" };

	return run(rt, &req, done, data, NULL, err);
}

int runtime_update(struct runtime *rt, struct bytes resources, runtime_result done, void *data,
		   struct error *err)
{
	struct request req = { begin(rt, "update"), "OCI runtime update failed" };

	req.input = &resources;
	add(&req.args, "--resources=-");
	return run(rt, &req, done, data, NULL, err);
}

/*
 * Has CRIU look for its plugins in an empty folder of the bundle (a variable for it): its own
 * CUDA plugin would act on the same processes as the agent. runc has no option for it, but CRIU
 * inherits the environment (criu/plugin.c, cr_plugin_init()).
 */
static int without_plugins(const struct runtime *rt, char *variable, size_t size,
			   struct error *err)
{
	static const char prefix[] = "CRIU_LIBS_DIR=";
	int r;

	r = path_printf(variable, size, "%s%s/no-criu-plugins", prefix, rt->bundle);
	if (r == 0 && mkdir(variable + sizeof(prefix) - 1, 0700) < 0 && errno != EEXIST)
		r = -errno;
	return r < 0 ? error_sys(err, r, "keep CRIU's plugins out") : 0;
}

/* What the OCI runtimes do not tell CRIU, some of them or all. */
struct criu_options {
	const char *cgroup_root; /* may be NULL */
	const struct mount_maps *mounts;
};

static bool says_something(const struct criu_options *o)
{
	return o->cgroup_root || o->mounts->n;
}

/*
 * A configuration file for CRIU with options that the OCI runtimes lack, behind what such a file says
 * already. CRIU reads it before it is told the rest (criu/config.c, CRIU_CONFIG_FILE).
 * A cgroup root without a controller's name in front is for what nobody says otherwise, so that the
 * word of a runtime that does speak counts (criu/cgroup.c, new_cg_root_add(),
 * rewrite_cgroup_roots()). A path with a colon would be taken for such a name: then the tree without a
 * name is meant, version 2's.
 */
static int with_options(const struct runtime *rt, const char *name, const struct criu_options *o,
			char *variable, size_t size, struct error *err)
{
	static const char prefix[] = "CRIU_CONFIG_FILE=";
	const char *before = getenv("CRIU_CONFIG_FILE");
	_cleanup_buf_ struct buf text = { 0 };
	int r = 0;

	if (before && *before)
		r = file_read(AT_FDCWD, before, &text);
	if (r == 0)
		r = buf_printf(&text, "\n");
	if (r == 0 && o->cgroup_root)
		r = buf_printf(&text, "cgroup-root %s%s\n", strchr(o->cgroup_root, ':') ? ":" : "",
			       o->cgroup_root);
	for (size_t i = 0; i < o->mounts->n && r == 0; i++)
		r = buf_printf(&text, "external mnt[%s]:%s\n", o->mounts->items[i].destination,
			       o->mounts->items[i].source);
	if (r == 0)
		r = path_printf(variable, size, "%s%s/%s", prefix, rt->bundle, name);
	if (r == 0)
		r = file_write(AT_FDCWD, variable + sizeof(prefix) - 1, buf_bytes(&text).p,
			       buf_len(&text), 0600, FILE_PLAIN);
	return r < 0 ? error_sys(err, r, "configure CRIU") : 0;
}

int runtime_checkpoint(struct runtime *rt, const struct runtime_checkpoint *args,
		       runtime_result done, void *data, struct runtime_call **ret,
		       struct error *err)
{
	struct request req = { begin(rt, "checkpoint"), "OCI runtime checkpoint failed" };
	const struct criu_options options = { .mounts = &args->mounts };
	_cleanup_free_ const char **envp = NULL;
	char plugins[PATH_MAX], config[PATH_MAX];
	const char *more[2];
	size_t n = 0;
	int r = 0;

	req.group = true;
	req.deadline = args->deadline;
	add_option(&req.args, "--image-path", args->image_path);
	add_option(&req.args, "--work-path", args->work_path);
	add_option(&req.args, "--parent-path", args->parent_path);
	add_flag(&req.args, args->tcp_established, "--tcp-established");
	add_flag(&req.args, args->ext_unix_sk, "--ext-unix-sk");
	add_flag(&req.args, args->shell_job, "--shell-job");
	add_flag(&req.args, args->file_locks, "--file-locks");
	for (size_t i = 0; i < args->n_empty_namespaces; i++)
		add_option(&req.args, "--empty-ns", args->empty_namespaces[i]);
	add_flag(&req.args, args->leave_running, "--leave-running");
	if (args->no_cuda_plugin) {
		r = without_plugins(rt, plugins, sizeof(plugins), err);
		more[n++] = plugins;
	}
	if (r == 0 && says_something(&options)) {
		r = with_options(rt, "criu-checkpoint.conf", &options, config, sizeof(config), err);
		more[n++] = config;
	}
	if (r < 0)
		return r;
	req.envp = envp = spawn_environment_with(more, n);
	if (!envp)
		return error_set(err, -ENOMEM, "out of memory");
	return run(rt, &req, done, data, ret, err);
}

int runtime_restore(struct runtime *rt, const struct runtime_restore *args, const struct spawn *io,
		    runtime_result done, void *data, struct runtime_call **ret, struct error *err)
{
	struct request req = { begin(rt, "restore"), "OCI runtime restore failed", io };
	const struct criu_options options = { args->cgroup_root, &args->mounts };
	_cleanup_free_ const char **envp = NULL;
	char plugins[PATH_MAX], config[PATH_MAX];
	const char *more[2];
	size_t n = 0;
	int r = 0;

	req.own_mounts = args->own_mounts;
	req.group = true;
	req.deadline = args->deadline;
	add_option(&req.args, "--image-path", args->image_path);
	add_option(&req.args, "--work-path", args->work_path);
	add_flag(&req.args, args->tcp_established, "--tcp-established");
	add_flag(&req.args, args->ext_unix_sk, "--ext-unix-sk");
	add_flag(&req.args, args->shell_job, "--shell-job");
	add_flag(&req.args, args->file_locks, "--file-locks");
	add(&req.args, "--detach");
	add_option(&req.args, "--pid-file", args->pid_file);
	add_option(&req.args, "--console-socket", args->console_socket);
	/* crun's restore knows neither, and needs neither. */
	add_flag(&req.args, args->no_pivot && !rt->crun, "--no-pivot");
	add_flag(&req.args, !rt->crun, "--no-subreaper");
	add_option(&req.args, "--bundle", rt->bundle);
	if (args->no_cuda_plugin) {
		r = without_plugins(rt, plugins, sizeof(plugins), err);
		more[n++] = plugins;
	}
	if (r == 0 && says_something(&options)) {
		r = with_options(rt, "criu-restore.conf", &options, config, sizeof(config), err);
		more[n++] = config;
	}
	if (r < 0)
		return r;
	req.envp = envp = spawn_environment_with(more, n);
	if (!envp)
		return error_set(err, -ENOMEM, "out of memory");
	return run(rt, &req, done, data, ret, err);
}
