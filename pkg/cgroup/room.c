/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "cgroup/parse.h"
#include "cgroup/stats_file.h"

/* Version 1 says "no limit" with the largest multiple of a page. */
#define LIMIT_MAX ((uint64_t)1 << 62)

static const struct {
	const char *limit, *usage, *dropped, *anon, *shmem;
} names[] = {
	[CGROUP_V1] = { "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
			"total_rss", "total_shmem" },
	[CGROUP_V2] = { "memory.max", "memory.current", "inactive_file", "anon", "shmem" },
};

/* What this one cgroup leaves. */
static void look(int dir, enum cgroup_mode mode, const char *path, struct cgroup_room *ret)
{
	_cleanup_buf_ struct buf stat = BUF_NULL;
	uint64_t limit, usage, dropped, used, room;

	if (stats_u64(dir, names[mode].limit, CGROUP_NO_LIMIT, &limit) < 0 || limit >= LIMIT_MAX ||
	    stats_u64(dir, names[mode].usage, CGROUP_NO_LIMIT, &usage) < 0)
		return;
	dropped = stats_text(dir, "memory.stat", &stat) == 0
			  ? parse_find(buf_bytes(&stat), names[mode].dropped)
			  : 0;
	used = usage > dropped ? usage - dropped : 0;
	room = limit > used ? limit - used : 0;
	if (room < ret->room) {
		size_t n = strlen(path), skip = n >= sizeof(ret->path) ? n - sizeof(ret->path) + 1 : 0;

		ret->room = room;
		ret->limit = limit;
		(void)snprintf(ret->path, sizeof(ret->path), "%s", path + skip);
	}
}

static uint64_t resident(int dir, enum cgroup_mode mode)
{
	_cleanup_buf_ struct buf stat = BUF_NULL;

	if (stats_text(dir, "memory.stat", &stat) < 0)
		return 0;
	return parse_find(buf_bytes(&stat), names[mode].anon) +
	       parse_find(buf_bytes(&stat), names[mode].shmem);
}

int cgroup_room(const struct cgroup *cg, struct cgroup_room *ret)
{
	enum cgroup_mode mode = cg->host->mode;
	bool v2 = mode == CGROUP_V2;
	const char *mount = v2 ? cg->host->root : cg->host->mounts[CGROUP_MEMORY].point;
	const char *own = cg->path[v2 ? 0 : CGROUP_MEMORY];
	char path[PATH_MAX], at[PATH_MAX], *slash;
	struct cgroup_room room = { .room = CGROUP_NO_LIMIT, .limit = CGROUP_NO_LIMIT };
	bool first = true;

	if (!cgroup_exists(cg))
		return -ENOENT;
	*ret = room;
	if (mode == CGROUP_NONE || !mount || !own || PATH_PRINTF(path, "%s", own) < 0)
		return 0;
	for (;; first = false) {
		_cleanup_close_ int dir = -1;

		if (PATH_PRINTF(at, "%s%s", mount, path) < 0)
			break;
		dir = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0) {
			look(dir, mode, path, &room);
			if (first)
				room.resident = resident(dir, mode);
		}
		slash = strrchr(path, '/');
		if (!slash)
			break;
		*slash = 0;
	}
	*ret = room;
	return 0;
}
