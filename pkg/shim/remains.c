/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/remains.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/mountinfo.h"
#include "base/path.h"

#define TIME_MAX   (10 * NSEC_PER_SEC) /* for killed processes to die */
#define LEAVE_MAX  (2 * NSEC_PER_SEC)  /* for those whom the runtime has killed to leave */
#define YARDS_MAX  8
#define LOOK_AGAIN (20 * NSEC_PER_MSEC)

/* Then it finds, ends and removes everything itself. */
static bool known_to_runtime(const struct runtime *rt)
{
	const char *file = rt->crun ? "status" : "state.json";
	char path[PATH_MAX];

	return PATH_PRINTF(path, "%s/%s/%s", rt->root, rt->id, file) == 0 &&
	       access(path, F_OK) == 0;
}

static void unmount(const struct remains *m)
{
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s/%s/criu-root", m->rt->root, m->rt->id) < 0)
		return;
	/* Once for each time that it was mounted; a folder that is no mount point is EINVAL. */
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		log_info("a half restored root file system was unmounted", F_STR("path", path));
	if (errno != EINVAL && errno != ENOENT)
		log_warning("a half restored root file system stays mounted", F_STR("path", path),
			    F_STR("err", strerror(errno)));
}

/* A mount point is hidden by those below it, which go with it: the first one found is the top. */
static int find_yard(void *data, const struct mountinfo *mi)
{
	char *prefix = data, point[PATH_MAX];

	if (mountinfo_unescape(mi->point, point, sizeof(point)) < 0 ||
	    strncmp(point, prefix, strlen(prefix)) != 0)
		return 0;
	(void)strcpy(prefix, point); /* both PATH_MAX */
	return 1;
}

static void remove_yards(const char *work_path)
{
	_cleanup_free_ char *real = realpath(work_path, NULL);
	char path[PATH_MAX];

	for (int i = 0; real && i < YARDS_MAX; i++) {
		if (PATH_PRINTF(path, "%s/.criu.cgyard.", real) < 0 ||
		    mountinfo_each("/proc/self/mountinfo", find_yard, path) <= 0)
			return;
		if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
			log_warning("CRIU's cgroup mounts stay", F_STR("path", path),
				    F_STR("err", strerror(errno)));
			return;
		}
		(void)rmdir(path);
	}
}

/* Returns whether there was anybody. */
static bool kill_all(const struct remains *m)
{
	struct cgroup_pids pids;
	bool any = false;

	if (cgroup_pids(&m->cgroup, &pids, NULL) < 0)
		return false;
	for (size_t i = 0; i < pids.n; i++)
		any |= kill(pids.pid[i], SIGKILL) == 0;
	cgroup_pids_free(&pids);
	return any;
}

static void end(struct remains *m)
{
	cgroup_close(&m->cgroup);
	m->done(m);
}

static void look(struct timer *t)
{
	struct remains *m = container_of(t, struct remains, again);
	bool living = m->cgroup.host && m->kill && kill_all(m);
	int r = m->cgroup.host && !living ? cgroup_remove(&m->cgroup) : 0;

	if ((living || r == -EBUSY) && time_now() < m->until) {
		timer_set(m->loop, t, time_now() + LOOK_AGAIN, look);
		return;
	}
	if (living || r < 0)
		log_warning("the cgroup stays", F_STR("container", m->rt->id),
			    F_STR("err", living ? "processes do not die" : strerror(-r)));
	end(m);
}

/* systemd removes its scopes by itself. */
static void open_cgroup(struct remains *m, const struct cgroup_host *host, const char *cgroups_path)
{
	if (cgroups_path && cgroups_path[0] == '/' &&
	    cgroup_open_path(&m->cgroup, host, cgroups_path, NULL) < 0)
		m->cgroup = (struct cgroup){ 0 };
}

void remains_clear(struct remains *m, struct loop *loop, const struct runtime *rt,
		   const char *work_path, const struct cgroup_host *host, const char *cgroups_path,
		   void (*done)(struct remains *m))
{
	*m = (struct remains){ .loop = loop,
			       .rt = rt,
			       .until = time_now() + TIME_MAX,
			       .kill = true,
			       .done = done };
	unmount(m);
	remove_yards(work_path);
	if (!known_to_runtime(rt))
		open_cgroup(m, host, cgroups_path);
	timer_set(loop, &m->again, time_now(), look);
}

void remains_await_cgroup(struct remains *m, const struct cgroup_host *host,
			  const char *cgroups_path, void (*done)(struct remains *m))
{
	m->until = time_now() + LEAVE_MAX;
	m->kill = false;
	m->done = done;
	open_cgroup(m, host, cgroups_path);
	timer_set(m->loop, &m->again, time_now(), look);
}
