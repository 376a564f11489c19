/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `delete`: a shim died, or never came to life, and containerd has its bundle cleaned up. The
 * bundle may be that of an older shim, ours or containerd's own. Everything is tried; what fails is
 * said on stderr, which containerd logs as a warning.
 */
#include "shim/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "api/containerd/task.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "event/signals.h"
#include "mnt/mnt.h"
#include "oci/bundle.h"
#include "oci/options.h"
#include "oci/runtime.h"
#include "rpc/pb.h"
#include "shim/exit_status.h"
#include "shim/remains.h"
#include "shim/reply.h"

/* containerd waits 5 s for all of it (io.containerd.timeout.shim.cleanup). */
#define RUNTIME_MAX      (4 * NSEC_PER_SEC)
#define UNMOUNT_PATIENCE (500 * NSEC_PER_MSEC)

struct cleanup {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct timer limit;
	struct runtime rt;
	struct cgroup_host cgroups;
	struct remains remains;
	const char *cgroups_path; /* of the spec, or NULL */
};

static void caught(struct signals *s, int signo)
{
	if (signo == SIGCHLD) /* SIGTERM and SIGINT are ignored: half a cleanup helps nobody */
		reaper_sweep(&container_of(s, struct cleanup, signals)->reaper);
}

static void ended(struct remains *m)
{
	loop_stop(container_of(m, struct cleanup, remains)->loop);
}

static void deleted(void *data, int r, const struct error *err, struct bytes output)
{
	struct cleanup *cl = data;

	(void)output;
	if (r < 0)
		log_warning("failed to remove the container", F_ERR(err));
	remains_await_cgroup(&cl->remains, &cl->cgroups, cl->cgroups_path, ended);
}

static void cleared(struct remains *m)
{
	struct cleanup *cl = container_of(m, struct cleanup, remains);
	struct error err = ERROR_NULL;
	int r = runtime_delete(&cl->rt, true, deleted, cl, &err);

	if (r < 0)
		deleted(cl, r, &err, bytes_of(NULL, 0));
}

static void overdue(struct timer *t)
{
	struct cleanup *cl = container_of(t, struct cleanup, limit);

	log_warning("the container was not removed in time");
	loop_stop(cl->loop);
}

/*
 * What a restore may have left, then `runtime delete --force`, which kills what still lives.
 * cgroups_path: of the spec, or NULL.
 */
static int remove_container(const struct args *args, const char *bundle, const char *cgroups_path,
			    const struct runtime_options *o, struct error *err)
{
	static const int signos[] = { SIGCHLD, SIGTERM, SIGINT, 0 };
	struct cleanup cl = { .loop = NULL };
	char work_path[PATH_MAX];
	int r;

	r = *o->criu_work_path ? PATH_PRINTF(work_path, "%s", o->criu_work_path)
			       : PATH_PRINTF(work_path, "%s/work", bundle);
	if (r < 0)
		work_path[0] = 0;
	reaper_init(&cl.reaper);
	r = loop_new(&cl.loop);
	if (r == 0)
		r = signals_open(cl.loop, &cl.signals, signos, caught);
	if (r == 0)
		r = runtime_init(&cl.rt, cl.loop, &cl.reaper, o->binary_name, o->root, args->ns,
				 bundle, args->id, false);
	if (r == 0)
		r = cgroup_host_open(&cl.cgroups, cgroup_mode_at(CGROUP_ROOT), CGROUP_ROOT, "/proc",
				     err);
	if (r == 0) {
		cl.cgroups_path = cgroups_path;
		remains_clear(&cl.remains, cl.loop, &cl.rt, work_path, &cl.cgroups, cgroups_path,
			      cleared);
		timer_set(cl.loop, &cl.limit, time_now() + RUNTIME_MAX, overdue);
		r = loop_run(cl.loop);
	}
	timer_cancel(&cl.limit);
	signals_close(&cl.signals);
	runtime_done(&cl.rt);
	timer_cancel(&cl.remains.again);
	cgroup_close(&cl.remains.cgroup);
	cgroup_host_close(&cl.cgroups);
	loop_free(cl.loop);
	return r < 0 && err->code == 0 ? error_sys(err, r, "remove the container") : r;
}

static int bundle_path(const struct args *args, char *buf)
{
	char cwd[PATH_MAX];

	if (*args->bundle)
		return path_printf(buf, PATH_MAX, "%s", args->bundle);
	if (!getcwd(cwd, sizeof(cwd)))
		return -errno;
	/* The call may come in the bundle of another container of the pod. */
	*strrchr(cwd, '/') = 0;
	return path_printf(buf, PATH_MAX, "%s/%s", cwd, args->id);
}

static int answer(const struct exit_status *st, struct error *err)
{
	Task__DeleteResponse response = TASK__DELETE_RESPONSE__INIT;
	_cleanup_buf_ struct buf out = BUF_NULL;
	Ctd__Timestamp at;
	int r;

	response.pid = (uint32_t)st->pid;
	response.exit_status = st->status;
	response.exited_at = reply_time(st->exited_at, &at);
	r = pb_pack(&response.base, &out);
	if (r == 0)
		r = fd_write_all(STDOUT_FILENO, buf_bytes(&out).p, buf_len(&out));
	return r < 0 ? error_sys(err, r, "write the answer of delete") : 0;
}

int bootstrap_delete(const struct args *args, struct error *err)
{
	struct runtime_options options;
	struct error problem = ERROR_NULL;
	struct bundle spec = { 0 };
	char bundle[PATH_MAX], rootfs[PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct exit_status st;
	int r;

	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return error_sys(err, errno, "become a subreaper");
	r = bundle_path(args, bundle);
	if (r == 0)
		r = PATH_PRINTF(rootfs, "%s/rootfs", bundle);
	if (r < 0)
		return error_sys(err, r, "the bundle's path");
	fd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "open the bundle %s", bundle);
	/* The usual case: the daemon deleted the container and left when it was told to. */
	if (exit_status_settled(fd, &st))
		return answer(&st, err);
	r = runtime_options_read(fd, &options, &problem);
	if (r < 0) {
		log_warning("the container's options cannot be read", F_ERR(&problem));
		runtime_options_init(&options);
	}
	problem = ERROR_NULL;
	if (bundle_read(fd, &(struct setting_list){ 0 }, &spec, NULL) < 0)
		spec = (struct bundle){ 0 }; /* it goes without */
	if (remove_container(args, bundle, spec.cgroups_path, &options, &problem) < 0)
		log_warning("failed to remove the container", F_ERR(&problem));
	problem = ERROR_NULL;
	if (mnt_unmount_all(rootfs, UNMOUNT_PATIENCE, &problem) < 0)
		log_warning("failed to unmount the root file system", F_ERR(&problem));
	bundle_done(&spec);
	runtime_options_done(&options);
	exit_status_read(fd, &st);
	return answer(&st, err);
}
