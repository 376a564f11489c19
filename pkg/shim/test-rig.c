/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/test-rig.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/containerd/events.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "rpc/pb.h"
#include "shim/gpu.h"
#include "shim/service.h"

/*
 * The runtime. Its working directory is the bundle.
 */

#define STEP_USEC    2000
#define STEPS_MAX    10000 /* 20 s */
#define EARLY_USEC   100000
#define PROCESS_LIFE 60

/* The value of a line of the verb's script, "" for one without a value, NULL when there is none. */
static const char *script(const char *verb, const char *key, char *buf, size_t size)
{
	FILE *f = fopen(verb, "re");
	const char *found = NULL;
	size_t n = strlen(key);

	while (f && !found && fgets(buf, (int)size, f)) {
		buf[strcspn(buf, "\n")] = 0;
		if (strncmp(buf, key, n) == 0 && (buf[n] == 0 || buf[n] == ' '))
			found = buf[n] ? buf + n + 1 : buf + n;
	}
	if (f)
		(void)fclose(f);
	return found;
}

static void await(const char *name)
{
	for (int i = 0; i < STEPS_MAX && access(name, F_OK) < 0; i++)
		(void)usleep(STEP_USEC);
}

/* A container's process. It becomes a child of the shim, that is of the test, when its parent has
 * gone, and ends with it. */
static void be_process(pid_t parent, const char *early)
{
	for (int i = 0; i < STEPS_MAX && getppid() == parent; i++)
		(void)usleep(STEP_USEC / 4);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)alarm(PROCESS_LIFE);
	if (early)
		_exit(atoi(early));
	for (;;)
		(void)pause();
}

/* Where the container has a cgroup (rig_cgroup()), its init is in it. */
static void join_cgroup(const char *pid)
{
	char cwd[PATH_MAX], path[PATH_MAX], text[128];
	const char *id = getcwd(cwd, sizeof(cwd)) ? strrchr(cwd, '/') + 1 : "";

	if (path_printf(path, sizeof(path), "../cgroup/%s", id) < 0 || access(path, F_OK) < 0)
		return;
	if (path_printf(path, sizeof(path), "../proc/%s", pid) < 0 || path_mkdirs(path, 0700) < 0 ||
	    path_printf(path, sizeof(path), "../proc/%s/cgroup", pid) < 0 ||
	    path_printf(text, sizeof(text), "0::/%s\n", id) < 0 ||
	    file_write(AT_FDCWD, path, text, strlen(text), 0600, FILE_PLAIN) < 0)
		_exit(95);
}

static void make_process(const char *verb, const char *pid_file)
{
	char buf[256], text[32];
	const char *early = script(verb, "early", buf, sizeof(buf));
	pid_t middle, pid;
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		_exit(90);
	middle = fork();
	if (middle == 0) {
		pid_t me = getpid();

		pid = fork();
		if (pid == 0)
			be_process(me, early);
		_exit(write(p[1], &pid, sizeof(pid)) != (ssize_t)sizeof(pid));
	}
	if (read(p[0], &pid, sizeof(pid)) != (ssize_t)sizeof(pid))
		_exit(91);
	(void)waitpid(middle, NULL, 0);
	if (early)
		(void)usleep(EARLY_USEC); /* the shim reaps it now */
	(void)snprintf(text, sizeof(text), "%d", pid);
	if (strcmp(verb, "exec") != 0)
		join_cgroup(text);
	if (!script(verb, "no-pid", buf, sizeof(buf)) &&
	    file_write(AT_FDCWD, pid_file, text, strlen(text), 0600, FILE_PLAIN) < 0)
		_exit(92);
}

static void note_surroundings(void)
{
	char cwd[PATH_MAX], path[PATH_MAX], frozen[16] = "", text[PATH_MAX];
	const char *libs = getenv("CRIU_LIBS_DIR");

	if (!getcwd(cwd, sizeof(cwd)))
		_exit(96);
	(void)path_printf(path, sizeof(path), "../cgroup/%s/cgroup.freeze", strrchr(cwd, '/') + 1);
	(void)file_read_line(AT_FDCWD, path, frozen, sizeof(frozen));
	(void)path_printf(text, sizeof(text), "frozen=%s libs=%s", frozen, libs ? libs : "");
	if (file_write(AT_FDCWD, "seen", text, strlen(text), 0600, FILE_PLAIN) < 0)
		_exit(97);
}

static pid_t init_pid(void)
{
	char line[32];

	return file_read_line(AT_FDCWD, "init.pid", line, sizeof(line)) == 0 ? atoi(line) : 0;
}

static void keep_stdin(void)
{
	char buf[4096];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n < 0 || file_write(AT_FDCWD, "stdin", buf, (size_t)n, 0600, FILE_PLAIN) < 0)
		_exit(94);
}

static int act(const char *verb, const char *pid_file, int argc, char **argv)
{
	char buf[512];
	const char *text;
	pid_t pid = init_pid();

	if (strcmp(verb, "create") == 0 || strcmp(verb, "exec") == 0 ||
	    strcmp(verb, "restore") == 0)
		make_process(verb, pid_file);
	if (script(verb, "wait", buf, sizeof(buf))) {
		(void)snprintf(buf, sizeof(buf), "go-%s", verb);
		await(buf);
		(void)unlink(buf);
	}
	if (strcmp(verb, "update") == 0)
		keep_stdin();
	if (strcmp(verb, "checkpoint") == 0 || strcmp(verb, "restore") == 0)
		note_surroundings();
	text = script(verb, "fail", buf, sizeof(buf));
	if (text) {
		int fd = open("log.json", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

		(void)dprintf(fd, "{\"level\":\"error\",\"msg\":\"%s\"}\n", text);
		(void)fprintf(stderr, "%s\n", text);
		return 1;
	}
	if (strcmp(verb, "kill") == 0 && pid > 1 && !script(verb, "nothing", buf, sizeof(buf)))
		(void)kill(pid, atoi(argv[argc - 1]));
	if (strcmp(verb, "delete") == 0 && pid > 1)
		(void)kill(pid, SIGKILL);
	return 0;
}

/* A mount whose file system does not answer is as good as a folder that says so. */
static int look(const char *bundle)
{
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s/mounts-hang", bundle) == 0 && access(path, F_OK) == 0)
		(void)pause();
	return gpu_look_main(bundle);
}

int rig_main(int argc, char **argv)
{
	const char *verb = NULL, *pid_file = NULL;
	_cleanup_buf_ struct buf call = BUF_NULL;
	int fd;

	/* The shim starts itself for what blocks. */
	if (argc > 2 && strcmp(argv[argc - 1], "sync-rootfs") == 0)
		_exit(0);
	if (argc > 2 && strcmp(argv[argc - 1], "look-at-mounts") == 0)
		_exit(look(argv[argc - 2]));
	if (argc < 3 || strcmp(argv[1], "--root") != 0)
		return -1;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--root") == 0 || strcmp(argv[i], "--log") == 0 ||
		    strcmp(argv[i], "--log-format") == 0) {
			i++;
			continue;
		}
		if (strcmp(argv[i], "--pid-file") == 0)
			pid_file = argv[i + 1];
		if (!verb)
			verb = argv[i];
		(void)buf_printf(&call, "%s%s", buf_len(&call) ? " " : "", argv[i]);
	}
	if (!verb)
		return 93;
	fd = open("calls", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	(void)dprintf(fd, "%s\n", buf_str(&call));
	_exit(act(verb, pid_file, argc, argv)); /* nothing to tidy up, or to look for leaks in */
}

/*
 * The rig
 */

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void note(struct rig *r, const char *topic, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void note(struct rig *r, const char *topic, const char *fmt, ...)
{
	char *to = r->events[r->n_events++];
	size_t n;
	va_list ap;

	assert_true(r->n_events < RIG_EVENTS_MAX);
	n = (size_t)snprintf(to, sizeof(r->events[0]), "%s", topic);
	va_start(ap, fmt);
	(void)vsnprintf(to + n, sizeof(r->events[0]) - n, fmt, ap);
	va_end(ap);
}

static void do_forward(void *arg, struct ttrpc_call *call, const void *request)
{
	const Events__ForwardRequest *req = request;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(65536);
	const Events__Envelope *e = req->envelope;
	struct bytes raw = bytes_of(e->event->value.data, e->event->value.len);

	assert_string_equal(e->namespace_, "k8s.io");
	assert_true(e->timestamp->seconds > 0);
	if (strcmp(e->topic, "/tasks/exit") == 0) {
		const Events__TaskExit *m = pb_unpack(&events__task_exit__descriptor, raw, &mem);

		assert_non_null(m);
		assert_true(m->exited_at && m->exited_at->seconds > 0);
		note(arg, e->topic, " %s %s %u", m->container_id, m->id, m->exit_status);
	} else if (strcmp(e->topic, "/tasks/delete") == 0) {
		const Events__TaskDelete *m =
			pb_unpack(&events__task_delete__descriptor, raw, &mem);

		assert_non_null(m);
		note(arg, e->topic, " %s %u", m->container_id, m->exit_status);
	} else if (strncmp(e->topic, "/tasks/exec-", 12) == 0) {
		const Events__TaskExecAdded *m =
			pb_unpack(&events__task_exec_added__descriptor, raw, &mem);

		assert_non_null(m);
		note(arg, e->topic, " %s %s", m->container_id, m->exec_id);
	} else {
		/* All others have the container's id first. */
		const Events__TaskPaused *m =
			pb_unpack(&events__task_paused__descriptor, raw, &mem);

		assert_non_null(m);
		note(arg, e->topic, " %s", m->container_id);
	}
	ttrpc_call_reply_empty(call);
}

static void caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct shim, signals)->reaper);
}

static void serve_events(struct rig *r)
{
	static const struct ttrpc_method methods[] = {
		{ "Forward", &events__forward_request__descriptor, do_forward },
	};
	static const struct ttrpc_service service = { "containerd.services.events.ttrpc.v1.Events",
						      methods, 1 };
	char path[96];
	int fd;

	assert_int_equal(PATH_PRINTF(path, "%s/events", r->dir), 0);
	fd = socket_listen(path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(ttrpc_server_new(&r->containerd, r->shim.loop, fd, &service, 1, r), 0);
	assert_int_equal(publisher_new(&r->shim.publisher, r->shim.loop, path, r->shim.ns), 0);
}

static void serve_tasks(struct rig *r)
{
	char path[96];
	int fd;

	assert_int_equal(PATH_PRINTF(path, "%s/shim", r->dir), 0);
	fd = socket_listen(path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(ttrpc_server_new(&r->shim.server, r->shim.loop, fd, service_table,
					  service_table_size, &r->shim), 0);
	assert_int_equal(ttrpc_client_new(&r->client, r->shim.loop, path), 0);
}

int rig_open(void **state)
{
	static const int signos[] = { SIGCHLD, 0 };
	static const char settings[] = "[timeouts]\nagent_return = \"1ms\"\n";
	struct rig *r = calloc(1, sizeof(*r));
	struct shim *s = &r->shim;
	ssize_t n;

	assert_non_null(r);
	log_set_fd(-1);
	r->fds = open_fds();
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	(void)strcpy(r->dir, "/tmp/test-shim-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	n = readlink("/proc/self/exe", r->self, sizeof(r->self) - 1);
	assert_true(n > 0);
	assert_int_equal(PATH_PRINTF(r->cgroup, "%s/cgroup", r->dir), 0);
	assert_int_equal(PATH_PRINTF(r->proc, "%s/proc", r->dir), 0);
	s->ns = "k8s.io";
	s->id = "web";
	s->grpc_address = "";
	s->socket_path = "";
	list_init(&s->containers);
	reaper_init(&s->reaper);
	/* An agent that has left is not waited for. */
	assert_int_equal(shim_settings_parse(bytes_of(settings, strlen(settings)), &s->settings,
					     NULL), 0);
	/* No cgroups but those that a test makes itself. */
	assert_int_equal(cgroup_host_open(&s->cgroups, CGROUP_V2, r->cgroup, r->proc, NULL), 0);
	forewarn_init(&s->forewarn, &s->cgroups, &s->reaper);
	assert_int_equal(loop_new(&s->loop), 0);
	assert_int_equal(signals_open(s->loop, &s->signals, signos, caught), 0);
	serve_events(r);
	serve_tasks(r);
	*state = r;
	return 0;
}

static void kill_children(void)
{
	char path[64];
	_cleanup_buf_ struct buf list = BUF_NULL;

	assert_int_equal(PATH_PRINTF(path, "/proc/self/task/%d/children", getpid()), 0);
	assert_int_equal(file_read(AT_FDCWD, path, &list), 0);
	for (const char *at = buf_str(&list); *at; at += strcspn(at, " ") + 1)
		(void)kill(atoi(at), SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* Nothing may be left open, whatever the test has done. */
int rig_close(void **state)
{
	struct rig *r = *state;
	struct shim *s = &r->shim;
	struct container *c;

	timer_cancel(&r->freezer);
	ttrpc_client_free(r->client);
	ttrpc_server_free(s->server);
	publisher_free(s->publisher);
	while ((c = list_first(&s->containers, struct container, node)))
		container_retire(c);
	timer_cancel(&s->orphan.timer);
	ttrpc_server_free(r->containerd);
	forewarn_done(&s->forewarn);
	kill_children();
	signals_close(&s->signals);
	loop_free(s->loop);
	cgroup_host_close(&s->cgroups);
	shim_settings_done(&s->settings);
	if (!r->fd_leaks)
		assert_int_equal(open_fds(), r->fds);
	assert_int_equal(path_remove_tree(AT_FDCWD, r->dir), 0);
	free(r);
	return 0;
}

/*
 * Bundles
 */

static void in_bundle(const struct rig *r, const char *id, const char *name, char *buf, size_t size)
{
	assert_int_equal(path_printf(buf, size, "%s/%s/%s", r->dir, id, name), 0);
}

const char *rig_bundle(struct rig *r, const char *id, const char *spec)
{
	static char path[PATH_MAX];
	char config[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/%s", r->dir, id), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	in_bundle(r, id, "config.json", config, sizeof(config));
	assert_int_equal(file_write(AT_FDCWD, config, spec, strlen(spec), 0600, FILE_PLAIN), 0);
	return path;
}

static void act_frozen(struct timer *t)
{
	struct rig *r = container_of(t, struct rig, freezer);
	char path[PATH_MAX], line[16] = "";

	assert_int_equal(PATH_PRINTF(path, "%s/%s/cgroup.freeze", r->cgroup, r->freezing), 0);
	assert_int_equal(file_read_line(AT_FDCWD, path, line, sizeof(line)), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%s/cgroup.events", r->cgroup, r->freezing), 0);
	if (!r->freezer_stuck)
		assert_int_equal(file_put(AT_FDCWD, path, line[0] == '1' ? "populated 1\nfrozen 1\n"
									: "populated 1\nfrozen 0\n"),
				 0);
	timer_set(r->shim.loop, t, time_now() + 2 * NSEC_PER_MSEC, act_frozen);
}

void rig_cgroup(struct rig *r, const char *id)
{
	static const struct {
		const char *name, *text;
	} files[] = { { "cgroup.freeze", "0\n" }, { "cgroup.events", "populated 1\nfrozen 0\n" },
		      { "cgroup.procs", "" } };
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(r->freezing, "%s", id), 0);
	assert_int_equal(PATH_PRINTF(path, "%s/%s", r->cgroup, id), 0);
	assert_int_equal(path_mkdirs(path, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(PATH_PRINTF(path, "%s/%s/%s", r->cgroup, id, files[i].name), 0);
		assert_int_equal(file_write(AT_FDCWD, path, files[i].text, strlen(files[i].text), 0600,
					    FILE_PLAIN), 0);
	}
	timer_set(r->shim.loop, &r->freezer, time_now(), act_frozen);
}

static void put_freeze(struct rig *r, const char *id, const char *value)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/%s/cgroup.freeze", r->cgroup, id), 0);
	assert_int_equal(file_put(AT_FDCWD, path, value), 0);
	rig_run_for(r, 5 * NSEC_PER_MSEC);
}

void rig_freeze(struct rig *r, const char *id)
{
	put_freeze(r, id, "1");
}

void rig_thaw(struct rig *r, const char *id)
{
	put_freeze(r, id, "0");
}

bool rig_frozen(const struct rig *r, const char *id)
{
	char path[PATH_MAX], line[16];

	assert_int_equal(PATH_PRINTF(path, "%s/%s/cgroup.freeze", r->cgroup, id), 0);
	assert_int_equal(file_read_line(AT_FDCWD, path, line, sizeof(line)), 0);
	return line[0] == '1';
}

void rig_script(const struct rig *r, const char *id, const char *verb, const char *lines)
{
	char path[PATH_MAX];

	in_bundle(r, id, verb, path, sizeof(path));
	assert_int_equal(file_write(AT_FDCWD, path, lines, strlen(lines), 0600, FILE_PLAIN), 0);
}

void rig_go(const struct rig *r, const char *id, const char *verb)
{
	char name[64];

	assert_int_equal(PATH_PRINTF(name, "go-%s", verb), 0);
	rig_script(r, id, name, "");
}

void rig_file(const struct rig *r, const char *id, const char *name, char *buf, size_t size)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(size);
	char path[PATH_MAX];

	in_bundle(r, id, name, path, sizeof(path));
	buf[0] = 0;
	if (file_read(AT_FDCWD, path, &text) == 0)
		(void)snprintf(buf, size, "%s", buf_str(&text));
}

unsigned int rig_calls(const struct rig *r, const char *id, const char *call)
{
	char all[8192];
	size_t n = strlen(call);
	unsigned int count = 0;

	rig_file(r, id, "calls", all, sizeof(all));
	for (const char *at = all; *at; at += strcspn(at, "\n") + 1)
		count += strncmp(at, call, n) == 0 && (at[n] == '\n' || at[n] == ' ');
	return count;
}

/*
 * Calls
 */

static void answered(struct ttrpc_request *req, int r, struct bytes payload,
		     const struct error *err)
{
	struct answer *a = container_of(req, struct answer, req);

	a->done++;
	a->r = r;
	a->err = *err;
	assert_int_equal(buf_append(&a->payload, payload.p, payload.n), 0);
}

void rig_begin_service(struct rig *r, struct answer *a, const char *service, const char *method,
		       const ProtobufCMessage *msg)
{
	*a = (struct answer){ 0 };
	ttrpc_client_call(r->client, &a->req, service, method, msg, "k8s.io", NSEC_NEVER, answered);
}

void rig_begin_until(struct rig *r, struct answer *a, const char *method,
		     const ProtobufCMessage *msg, nsec_t deadline)
{
	*a = (struct answer){ 0 };
	ttrpc_client_call(r->client, &a->req, "containerd.task.v2.Task", method, msg, "k8s.io",
			  deadline, answered);
}

void rig_begin(struct rig *r, struct answer *a, const char *method, const ProtobufCMessage *msg)
{
	rig_begin_service(r, a, "containerd.task.v2.Task", method, msg);
}

enum rpc_code rig_call(struct rig *r, struct answer *a, const char *method,
		       const ProtobufCMessage *msg)
{
	rig_begin(r, a, method, msg);
	UNTIL(r, a->done);
	return a->r == 0 ? RPC_OK : a->err.rpc;
}

void rig_answer_done(struct answer *a)
{
	ttrpc_request_cancel(&a->req);
	buf_done(&a->payload);
}

void *rig_message(const struct answer *a, const ProtobufCMessageDescriptor *type, struct arena *mem)
{
	void *m;

	assert_int_equal(a->done, 1);
	assert_int_equal(a->r, 0);
	m = pb_unpack(type, buf_bytes(&a->payload), mem);
	assert_non_null(m);
	return m;
}

static enum rpc_code end_call(struct rig *r, struct answer *a, struct error *err)
{
	enum rpc_code code;

	UNTIL(r, a->done);
	code = a->r == 0 ? RPC_OK : a->err.rpc;
	if (err)
		*err = a->err;
	rig_answer_done(a);
	return code;
}

static enum rpc_code call(struct rig *r, const char *method, const ProtobufCMessage *msg,
			  struct error *err)
{
	struct answer a;

	rig_begin(r, &a, method, msg);
	return end_call(r, &a, err);
}

void rig_begin_create(struct rig *r, struct answer *a, const char *id)
{
	rig_begin_create_from(r, a, id, "");
}

void rig_begin_create_from(struct rig *r, struct answer *a, const char *id, const char *images)
{
	Task__CreateTaskRequest req = TASK__CREATE_TASK_REQUEST__INIT;
	_cleanup_buf_ struct buf toml = BUF_NULL, packed = BUF_NULL;
	char bundle[PATH_MAX];
	Ctd__Any any = CTD__ANY__INIT;

	assert_int_equal(PATH_PRINTF(bundle, "%s/%s", r->dir, id), 0);
	/* runtimeoptions.v1.Options with a config_body: the test is the runtime. */
	assert_int_equal(buf_printf(&toml, "BinaryName = \"%s\"\nRoot = \"%s/root\"\n", r->self,
				    r->dir), 0);
	assert_true(buf_len(&toml) < 16384);
	assert_int_equal(buf_append_u8(&packed, 3 << 3 | 2), 0);
	assert_int_equal(buf_append_u8(&packed, 0x80 | (uint8_t)(buf_len(&toml) & 0x7f)), 0);
	assert_int_equal(buf_append_u8(&packed, (uint8_t)(buf_len(&toml) >> 7)), 0);
	assert_int_equal(buf_append(&packed, buf_bytes(&toml).p, buf_len(&toml)), 0);
	any.type_url = (char *)"runtimeoptions.v1.Options";
	any.value.data = (uint8_t *)buf_bytes(&packed).p;
	any.value.len = buf_len(&packed);
	req.id = (char *)id;
	req.bundle = bundle;
	req.options = &any;
	req.checkpoint = (char *)images;
	rig_begin(r, a, "Create", &req.base);
}

enum rpc_code rig_create(struct rig *r, const char *id, struct error *err)
{
	struct answer a;

	rig_begin_create(r, &a, id);
	return end_call(r, &a, err);
}

enum rpc_code rig_start(struct rig *r, const char *id, const char *exec_id, struct error *err)
{
	Task__StartRequest req = TASK__START_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	return call(r, "Start", &req.base, err);
}

enum rpc_code rig_exec(struct rig *r, const char *id, const char *exec_id, struct error *err)
{
	static char spec[] = "{\"args\":[\"/x\"],\"cwd\":\"/\"}";
	Task__ExecProcessRequest req = TASK__EXEC_PROCESS_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	any.type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Process";
	any.value.data = (uint8_t *)spec;
	any.value.len = sizeof(spec) - 1;
	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.spec = &any;
	return call(r, "Exec", &req.base, err);
}

enum rpc_code rig_kill(struct rig *r, const char *id, const char *exec_id, unsigned int signo)
{
	Task__KillRequest req = TASK__KILL_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.signal = signo;
	return call(r, "Kill", &req.base, NULL);
}

enum rpc_code rig_delete(struct rig *r, const char *id, const char *exec_id, struct error *err)
{
	Task__DeleteRequest req = TASK__DELETE_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	return call(r, "Delete", &req.base, err);
}

/* The id is the first field of all requests. */
static void simple_request(Task__PauseRequest *req, const char *id)
{
	task__pause_request__init(req);
	req->id = (char *)id;
}

enum rpc_code rig_simple(struct rig *r, const char *method, const char *id, struct error *err)
{
	Task__PauseRequest req;

	simple_request(&req, id);
	return call(r, method, &req.base, err);
}

void rig_begin_simple(struct rig *r, struct answer *a, const char *method, const char *id)
{
	Task__PauseRequest req;

	simple_request(&req, id);
	rig_begin(r, a, method, &req.base);
}

Task__Status rig_state(struct rig *r, const char *id, const char *exec_id)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(65536);
	Task__StateRequest req = TASK__STATE_REQUEST__INIT;
	const Task__StateResponse *m;
	struct answer a;
	Task__Status status;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	assert_int_equal(rig_call(r, &a, "State", &req.base), RPC_OK);
	m = rig_message(&a, &task__state_response__descriptor, &mem);
	status = m->status;
	rig_answer_done(&a);
	return status;
}

struct container *rig_running(struct rig *r, const char *id)
{
	struct container *c;

	(void)rig_bundle(r, id, RIG_SPEC("", RIG_OWN_PIDS));
	assert_int_equal(rig_create(r, id, NULL), RPC_OK);
	assert_int_equal(rig_start(r, id, "", NULL), RPC_OK);
	c = container_find(&r->shim, id, NULL);
	assert_non_null(c);
	return c;
}

/*
 * The loop
 */

void rig_run_for(struct rig *r, nsec_t time)
{
	for (nsec_t end = time_now() + time; time_now() < end;)
		assert_int_equal(loop_round(r->shim.loop, end), 0);
}

void rig_event(struct rig *r, unsigned int n, const char *want)
{
	UNTIL(r, r->n_events > n);
	assert_string_equal(r->events[n], want);
}

void rig_events_end(struct rig *r, unsigned int n)
{
	rig_run_for(r, 20 * NSEC_PER_MSEC);
	for (unsigned int i = n; i < r->n_events; i++)
		fail_msg("one more event: %s", r->events[i]);
	assert_int_equal(r->n_events, n);
}
