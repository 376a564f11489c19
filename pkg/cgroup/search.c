/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/search.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"

#define MEMBERSHIP_MAX ((size_t)64 << 10)
#define SCOPE	       ".scope"

/* Is this component of a path, n bytes, the container's? */
static bool names(const char *c, size_t n, const char *id)
{
	size_t k = strlen(id), scope = strlen(SCOPE);

	if (n == k && memcmp(c, id, k) == 0)
		return true;
	if (n > scope && memcmp(c + n - scope, SCOPE, scope) == 0)
		n -= scope;
	return n > k && memcmp(c + n - k, id, k) == 0 && c[n - k - 1] == '-';
}

/* The length of a line up to and with the component; 0 = it has none. */
static size_t own_part(const char *line, size_t n, const char *id)
{
	const char *at = memchr(line, '/', n), *end = line + n;

	while (at && at < end) {
		const char *next = memchr(at + 1, '/', (size_t)(end - at - 1));

		if (!next)
			next = end;
		if (names(at + 1, (size_t)(next - at - 1), id))
			return (size_t)(next - line);
		at = next;
	}
	return 0;
}

/* Is that a word of the path? */
static bool says(const char *path, size_t n, const char *word)
{
	size_t k = strlen(word);

	for (size_t i = 1; i + k < n; i++)
		if (strchr("/-", path[i - 1]) && memcmp(path + i, word, k) == 0 &&
		    strchr("/-", path[i + k]))
			return true;
	return false;
}

/* The lines of a /proc/PID/cgroup that are the container's, without what lies below it. */
static int own_lines(const char *text, const char *ns, const char *id, struct buf *ret)
{
	int r = 0;

	for (; r == 0 && *text; text += strcspn(text, "\n"), text += *text == '\n') {
		size_t n = own_part(text, strcspn(text, "\n"), id);

		if (n && (!ns || says(text, n, ns)))
			r = buf_printf(ret, "%.*s\n", (int)n, text);
	}
	return r;
}

static int read_membership(const struct cgroup_host *host, const char *pid, struct buf *ret)
{
	char path[PATH_MAX];
	int r = PATH_PRINTF(path, "%s/%s/cgroup", host->proc, pid);

	return r < 0 ? r : file_read(AT_FDCWD, path, ret);
}

/* A process may end, or not be ours to look at: then it is not this one that tells. */
static int look_at(const struct cgroup_host *host, const char *pid, const char *ns, const char *id,
		   struct buf *found)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(MEMBERSHIP_MAX);
	_cleanup_buf_ struct buf own = BUF_LIMIT(MEMBERSHIP_MAX);
	int r;

	if (read_membership(host, pid, &text) < 0)
		return 0;
	r = own_lines(buf_str(&text), ns, id, &own);
	if (r < 0 || buf_len(&own) == 0)
		return r;
	if (buf_len(found) == 0)
		return buf_append(found, buf_bytes(&own).p, buf_len(&own));
	return strcmp(buf_str(found), buf_str(&own)) == 0 ? 0 : -EEXIST;
}

static int look_at_all(const struct cgroup_host *host, const char *ns, const char *id,
		       struct buf *found)
{
	_cleanup_closedir_ DIR *dir = opendir(host->proc);
	struct dirent *e;
	int r = dir ? 0 : -errno;

	while (r == 0 && (e = readdir(dir)))
		if (*e->d_name >= '1' && *e->d_name <= '9')
			r = look_at(host, e->d_name, ns, id, found);
	return r == 0 && buf_len(found) == 0 ? -ENOENT : r;
}

int cgroup_search(struct cgroup *cg, const struct cgroup_host *host, const char *ns, const char *id,
		  struct error *err)
{
	_cleanup_buf_ struct buf found = BUF_LIMIT(MEMBERSHIP_MAX);
	int r = look_at_all(host, ns, id, &found);

	*cg = (struct cgroup){ 0 };
	if (r == -ENOENT)
		r = look_at_all(host, NULL, id, &found);
	if (r < 0)
		return error_sys(err, r, "search the cgroup of container %s", id);
	return cgroup_open(cg, host, buf_bytes(&found), err);
}
