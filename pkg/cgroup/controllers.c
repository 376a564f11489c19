/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/controllers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define LIST_MAX 1024 /* some ten short words */

static bool has_word(const char *list, const char *word, size_t n)
{
	for (size_t len; *list; list += len) {
		list += strspn(list, " \n");
		len = strcspn(list, " \n");
		if (len == n && strncmp(list, word, n) == 0)
			return true;
	}
	return false;
}

/* "+memory +pids" for those of all that are not on in dir; empty when none is missing. */
static int missing(int dir, const char *all, struct buf *out)
{
	_cleanup_buf_ struct buf on = BUF_LIMIT(LIST_MAX);
	int r = file_read(dir, "cgroup.subtree_control", &on);

	for (size_t n; r == 0 && *all; all += n) {
		all += strspn(all, " \n");
		n = strcspn(all, " \n");
		if (n && !has_word(buf_str(&on), all, n))
			r = buf_printf(out, "%s+%.*s", buf_len(out) ? " " : "", (int)n, all);
	}
	return r;
}

static int enable_in(const char *path, const char *all)
{
	_cleanup_close_ int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf words = BUF_LIMIT(2 * LIST_MAX);
	int r;

	if (dir < 0)
		return -errno;
	r = missing(dir, all, &words);
	if (r < 0 || buf_len(&words) == 0)
		return r;
	return file_put(dir, "cgroup.subtree_control", buf_str(&words));
}

int controllers_enable(const struct cgroup *cg, struct error *err)
{
	_cleanup_buf_ struct buf all = BUF_LIMIT(LIST_MAX);
	char path[PATH_MAX];
	size_t at;
	int r;

	if (cg->host->mode != CGROUP_V2)
		return 0;
	at = strlen(cg->host->root);
	r = cgroup_path(cg, CGROUP_MEMORY, path, sizeof(path));
	if (r < 0)
		return error_sys(err, r, "enable controllers");
	path[at] = 0;
	{
		_cleanup_close_ int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

		r = root < 0 ? -errno : file_read(root, "cgroup.controllers", &all);
		if (r < 0)
			return error_sys(err, r, "read %s/cgroup.controllers", path);
	}
	/* path is cut behind the root, then behind each element; the last one is not reached. */
	for (;;) {
		size_t next = at + 1;

		r = enable_in(path, buf_str(&all));
		if (r < 0)
			(void)error_sys(err, r, "enable controllers in %s", path);
		path[at] = '/';
		next += strcspn(path + next, "/");
		if (!path[next])
			return r;
		path[next] = 0;
		at = next;
	}
}
