/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's socket, fed the raw bytes of one ttrpc connection: frames, envelopes, and the requests
 * of the Task service under both of its names. The first byte says how many bytes come at a time.
 *
 * The shim has one container, "web", that runs, with an exec "sh". The handlers are the real ones;
 * what would lead them out of their folder is taken out of the requests first: mounts, bundles,
 * FIFOs, loggers, options that name files. The OCI runtime is no program at all.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/containerd/task.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "shim/service.h"

#define INPUT_MAX 65536
#define SPEC "{\"process\":{\"args\":[\"x\"]},\"root\":{\"path\":\"r\"},\"linux\":{}}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct world {
	struct shim shim;
	struct cgroup_host none;
	char dir[64], bundle[80], socket[80];
};

static char *nothing(void)
{
	return (char *)"";
}

/* --- requests, made harmless ---------------------------------------------------------------- */

static char bundle_path[80];

static void create(void *arg, struct ttrpc_call *call, const void *request)
{
	Task__CreateTaskRequest *req = (Task__CreateTaskRequest *)(uintptr_t)request;

	req->bundle = bundle_path;
	req->n_rootfs = 0;
	req->stdin = req->stdout = req->stderr = nothing();
	req->terminal = false;
	req->options = NULL;
	if (*req->checkpoint)
		req->checkpoint = bundle_path;
	do_create(arg, call, req);
}

static void exec(void *arg, struct ttrpc_call *call, const void *request)
{
	Task__ExecProcessRequest *req = (Task__ExecProcessRequest *)(uintptr_t)request;

	req->stdin = req->stdout = req->stderr = nothing();
	req->terminal = false;
	do_exec(arg, call, req);
}

static void checkpoint(void *arg, struct ttrpc_call *call, const void *request)
{
	Task__CheckpointTaskRequest *req = (Task__CheckpointTaskRequest *)(uintptr_t)request;

	req->options = NULL;
	req->path = bundle_path;
	do_checkpoint(arg, call, req);
}

static const struct {
	const char *name;
	void (*handle)(void *arg, struct ttrpc_call *call, const void *request);
} harmless[] = { { "Create", create }, { "Exec", exec }, { "Checkpoint", checkpoint } };

static struct ttrpc_method methods[32];
static struct ttrpc_service services[4];

static void make_table(void)
{
	assert(service_table[0].n_methods <= ARRAY_SIZE(methods));
	assert(service_table_size <= ARRAY_SIZE(services));
	memcpy(methods, service_table[0].methods, service_table[0].n_methods * sizeof(*methods));
	for (size_t i = 0; i < service_table[0].n_methods; i++)
		for (size_t k = 0; k < ARRAY_SIZE(harmless); k++)
			if (strcmp(methods[i].name, harmless[k].name) == 0)
				methods[i].handle = harmless[k].handle;
	for (size_t i = 0; i < service_table_size; i++) {
		services[i] = service_table[i];
		services[i].methods = methods;
	}
}

/* --- the shim ------------------------------------------------------------------------------- */

static void must(int r)
{
	if (r < 0)
		abort();
}

static struct container *make_container(struct world *w)
{
	static uint8_t spec[] = "{\"args\":[\"x\"]}";
	struct container *c;
	struct process *p = calloc(1, sizeof(*p));

	must(container_new(&c, &w->shim, "web", w->bundle, NULL));
	must(runtime_init(&c->rt, w->shim.loop, &w->shim.reaper, "/nonexistent", "", "k8s.io",
			  w->bundle, c->id, false));
	must(process_init(&c->init, c, c->id, true, "", "", "", false));
	must(p ? process_init(p, c, "sh", false, "", "", "", false) : -1);
	must(buf_append(&p->spec, spec, sizeof(spec) - 1));
	(void)container_ref(c);
	list_append(&c->execs, &p->node);
	list_append(&w->shim.containers, &c->node);
	c->init.state = PROCESS_RUNNING;
	c->bundle.own_pid_namespace = true;
	container_publish(c);
	return c;
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)strcpy(addr.sun_path, path);
	must(fd);
	must(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

static void open_world(struct world *w)
{
	struct shim *s = &w->shim;
	char config[96];

	*w = (struct world){ .dir = "/tmp/fuzz-task-XXXXXX", .none.mode = CGROUP_NONE };
	if (!mkdtemp(w->dir))
		abort();
	must(PATH_PRINTF(w->bundle, "%s/web", w->dir));
	must(PATH_PRINTF(w->socket, "%s/s", w->dir));
	must(PATH_PRINTF(config, "%s/config.json", w->bundle));
	must(mkdir(w->bundle, 0700));
	must(file_write(AT_FDCWD, config, SPEC, sizeof(SPEC) - 1, 0600, FILE_PLAIN));
	(void)strcpy(bundle_path, w->bundle);
	s->ns = "k8s.io";
	s->id = "web";
	s->grpc_address = s->socket_path = "";
	list_init(&s->containers);
	reaper_init(&s->reaper);
	must(shim_settings_parse(bytes_of("", 0), &s->settings, NULL));
	must(cgroup_host_open(&s->cgroups, CGROUP_V2, w->dir, w->dir, NULL));
	forewarn_init(&s->forewarn, &w->none, &s->reaper); /* no children here */
	must(loop_new(&s->loop));
	must(publisher_new(&s->publisher, s->loop, "", s->ns));
}

static void close_world(struct world *w)
{
	struct shim *s = &w->shim;
	struct container *c;

	timer_cancel(&s->leave);
	publisher_free(s->publisher);
	while ((c = list_first(&s->containers, struct container, node)))
		container_retire(c);
	timer_cancel(&s->orphan.timer);
	ttrpc_server_free(s->server);
	loop_free(s->loop);
	cgroup_host_close(&s->cgroups);
	shim_settings_done(&s->settings);
	must(path_remove_tree(AT_FDCWD, w->dir));
}

/* Until nothing is under way: then every call but Wait has been answered. */
static void rounds(struct shim *s, int n)
{
	while (n--) {
		must(loop_round(s->loop, 0));
		reaper_sweep(&s->reaper);
	}
}

static bool busy(const struct shim *s)
{
	const struct container *c;
	const struct process *p;

	if (!list_empty(&s->reaper.children))
		return true;
	list_for_each(c, &s->containers, node) {
		if (!c->ready || c->refs > 1 + list_count(&c->execs))
			return true;
		list_for_each(p, &c->execs, node)
			if (p->refs > 1)
				return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes in = bytes_of(data, n < INPUT_MAX ? n : INPUT_MAX), piece;
	struct world w;
	uint8_t step;
	int fd;

	if (bytes_u8(&in, &step) != 0)
		return 0;
	log_set_fd(-1);
	make_table();
	open_world(&w);
	fd = socket_listen(w.socket, NULL);
	must(fd);
	must(ttrpc_server_new(&w.shim.server, w.shim.loop, fd, services, service_table_size,
			      &w.shim));
	(void)make_container(&w);
	fd = connect_to(w.socket);
	rounds(&w.shim, 1);
	while (in.n) {
		uint8_t answer[4096];

		must(bytes_take(&in, step && step < in.n ? step : in.n, &piece));
		if (send(fd, piece.p, piece.n, MSG_NOSIGNAL) < 0)
			break;
		rounds(&w.shim, 1);
		while (recv(fd, answer, sizeof(answer), 0) > 0)
			;
	}
	(void)close(fd);
	for (int i = 0; i < 10000 && (i < 4 || busy(&w.shim)); i++) {
		rounds(&w.shim, 1);
		if (i > 100)
			(void)usleep(100);
	}
	assert(!busy(&w.shim));
	close_world(&w);
	return 0;
}
