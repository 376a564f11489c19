/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/mounts_config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "conf/json.h"
#include "oci/bundle.h"

#define POINTS_MAX  4096
#define ATTEMPTS_MAX 8

bool mounts_plain(const char *name)
{
	for (; *name; name++)
		if (*name <= ' ' || *name > '~' || strchr("\"'#\\[]", *name))
			return false;
	return true;
}

bool mounts_allowed(const char *path, const struct setting_list *prefixes)
{
	for (size_t i = 0; i < prefixes->n; i++)
		if (strncmp(path, prefixes->items[i], strlen(prefixes->items[i])) == 0)
			return true;
	return false;
}

/* What the kernel calls the file behind a descriptor. */
static int name_of(int fd, char *buf)
{
	char link[64];
	ssize_t n;

	(void)PATH_PRINTF(link, "/proc/self/fd/%d", fd);
	n = readlink(link, buf, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	buf[n] = 0;
	return buf[0] == '/' ? 0 : -EBADMSG;
}

/* A rename or mount anywhere on the node may disturb a look-up in a root: -EAGAIN, openat2(2). */
static int open_in(int root, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };

	for (unsigned int i = 1;; i++) {
		int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));

		if (fd >= 0)
			return fd;
		if ((errno != EAGAIN && errno != EINTR) || i == ATTEMPTS_MAX)
			return -errno;
	}
}

/* The name of path seen from root, free of links. What does not exist yet is taken as it is. */
static int resolve(int root, const char *path, char *buf)
{
	char top[PATH_MAX], name[PATH_MAX], head[PATH_MAX];
	size_t cut = strlen(path), skip;
	int r = name_of(root, top);

	if (r < 0 || cut >= sizeof(head))
		return r < 0 ? r : -ENAMETOOLONG;
	memcpy(head, path, cut + 1);
	for (;;) {
		_cleanup_close_ int fd = open_in(root, cut ? head : "/");

		if (fd >= 0) {
			r = name_of(fd, name);
			break;
		}
		if (fd != -ENOENT || cut == 0)
			return fd;
		while (cut && head[--cut] != '/')
			;
		head[cut] = 0;
	}
	if (r < 0)
		return r;
	skip = strcmp(top, "/") == 0 ? 0 : strlen(top);
	if (strncmp(name, top, skip) != 0)
		return -EXDEV; /* out of the root: it was moved meanwhile */
	return path_join(buf, PATH_MAX,
			 (const char *const[]){ "/", name + skip, path + cut, NULL });
}

/* A name that leads nowhere; any other error leaves open what is there. */
static bool is_nowhere(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -ENAMETOOLONG || r == -EXDEV;
}

static int add(struct mounts_config *c, struct arena *mem, int root, const json_t *path,
	       enum mounted_by how, struct error *err)
{
	char raw[PATH_MAX], point[PATH_MAX];
	const char *s;
	int r;

	if (json_doc_string(path, &s) != 0 || !*s)
		return 0;
	/* Destinations may lack the slash; the OCI runtimes take them from the root then. */
	r = PATH_PRINTF(raw, "/%s", s);
	if (r == 0)
		r = resolve(root, raw, point);
	if (is_nowhere(r))
		return 0; /* nothing is mounted there */
	if (r < 0)
		return error_sys(err, r, "config.json: the mount %.200s", s);
	c->items[c->n].point = arena_strdup(mem, point);
	if (!c->items[c->n].point)
		return error_set(err, -ENOMEM, "out of memory");
	c->items[c->n++].how = how;
	return 0;
}

static enum mounted_by how_of(const json_t *mount)
{
	const json_t *options = JSON_DOC_AT(mount, "options");
	const char *s = "";
	json_t *v;
	size_t i;

	if (json_doc_string(JSON_DOC_AT(mount, "type"), &s) == 0 && strcmp(s, "bind") == 0)
		return MOUNTED_BIND;
	json_array_foreach(options, i, v)
	{
		if (json_doc_string(v, &s) == 0 &&
		    (strcmp(s, "bind") == 0 || strcmp(s, "rbind") == 0))
			return MOUNTED_BIND;
	}
	return MOUNTED_FRESH;
}

int mounts_config_read(int bundle, int root, struct arena *mem, struct mounts_config *ret,
		       struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	const json_t *mounts, *devices, *masked;
	int r = json_doc_read(bundle, "config.json", BUNDLE_CONFIG_MAX, &doc, err);
	size_t i, n;
	json_t *v;

	if (r < 0)
		return r;
	mounts = JSON_DOC_AT(doc, "mounts");
	devices = JSON_DOC_AT(doc, "linux", "devices");
	masked = JSON_DOC_AT(doc, "linux", "maskedPaths");
	n = json_array_size(mounts) + json_array_size(devices) + json_array_size(masked);
	if (n > POINTS_MAX)
		return error_set(err, -E2BIG, "config.json: more than %d mounts", POINTS_MAX);
	*ret = (struct mounts_config){ .items = arena_alloc(mem, (n + 1) * sizeof(*ret->items)) };
	if (!ret->items)
		return error_set(err, -ENOMEM, "out of memory");
	json_array_foreach(mounts, i, v)
	{
		r = r < 0 ? r : add(ret, mem, root, JSON_DOC_AT(v, "destination"), how_of(v), err);
	}
	json_array_foreach(devices, i, v)
	{
		r = r < 0 ? r : add(ret, mem, root, JSON_DOC_AT(v, "path"), MOUNTED_FIXED, err);
	}
	json_array_foreach(masked, i, v)
	{
		r = r < 0 ? r : add(ret, mem, root, v, MOUNTED_FIXED, err);
	}
	return r;
}

/* The last one is on top. */
enum mounted_by mounts_config_find(const struct mounts_config *c, const char *point)
{
	enum mounted_by how = MOUNTED_NOT;

	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->items[i].point, point) == 0)
			how = c->items[i].how;
	return how;
}
