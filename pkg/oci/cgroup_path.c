/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/cgroup_path.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/path.h"

#define SLICE ".slice"

static bool ends_with(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len >= n && strncmp(text + len - n, end, n) == 0;
}

/* Appends part[0..n) to a path; the path stays terminated. */
static int append(char *path, size_t size, const char *part, size_t n)
{
	size_t at = strlen(path);

	if (n >= size - at)
		return -ENAMETOOLONG;
	memcpy(path + at, part, n);
	path[at + n] = '\0';
	return 0;
}

/* "a-b.slice" lies in "a.slice": /a.slice/a-b.slice. "-.slice" is the root. */
static int expand_slice(const char *slice, size_t len, char *buf, size_t size)
{
	size_t stem;
	int r = 0;

	if (!ends_with(slice, len, SLICE) || memchr(slice, '/', len))
		return -EINVAL;
	stem = len - strlen(SLICE);
	buf[0] = '\0';
	if (stem == 1 && slice[0] == '-')
		return 0;
	if (stem == 0 || slice[0] == '-' || slice[stem - 1] == '-')
		return -EINVAL;
	for (size_t i = 1; i <= stem && r == 0; i++) {
		if (i < stem && slice[i] != '-')
			continue;
		if (i < stem && slice[i + 1] == '-')
			return -EINVAL;
		r = append(buf, size, "/", 1);
		if (r == 0)
			r = append(buf, size, slice, i);
		if (r == 0)
			r = append(buf, size, SLICE, strlen(SLICE));
	}
	return r;
}

static int systemd_path(const char *spec, char *buf, size_t size)
{
	static const char default_slice[] = "system.slice";
	const char *prefix = strchr(spec, ':');
	const char *name = prefix ? strchr(prefix + 1, ':') : NULL;
	size_t prefix_len;
	int r;

	if (!name || !name[1] || strchr(name + 1, ':') || strchr(name, '/'))
		return -EINVAL;
	r = prefix == spec ? expand_slice(default_slice, strlen(default_slice), buf, size)
			   : expand_slice(spec, (size_t)(prefix - spec), buf, size);
	prefix++;
	prefix_len = (size_t)(name - prefix);
	name++;
	if (r == 0)
		r = append(buf, size, "/", 1);
	/* A name that is a slice's stands for itself, any other one is a scope's. */
	if (r == 0 && !ends_with(name, strlen(name), SLICE)) {
		if (prefix_len > 0)
			r = append(buf, size, prefix, prefix_len);
		if (r == 0 && prefix_len > 0)
			r = append(buf, size, "-", 1);
		if (r == 0)
			r = append(buf, size, name, strlen(name));
		return r == 0 ? append(buf, size, ".scope", strlen(".scope")) : r;
	}
	return r == 0 ? append(buf, size, name, strlen(name)) : r;
}

/* crun's delegated cgroup: "container", or what the annotation says; "" is none. */
static int add_subgroup(const char *name, char *buf, size_t size)
{
	int r;

	if (!name)
		name = "container";
	if (!*name)
		return 0;
	r = append(buf, size, "/", 1);
	return r == 0 ? append(buf, size, name, strlen(name)) : r;
}

int cgroup_path_of(const struct runtime *rt, const struct bundle *b, char *buf, size_t size)
{
	const char *path = b->cgroups_path && *b->cgroups_path ? b->cgroups_path : NULL;
	char unnamed[NAME_MAX];
	int r;

	if (!rt->systemd_cgroup)
		return path && path[0] == '/' ? path_printf(buf, size, "%s", path) : -ENOENT;
	if (!path) {
		r = PATH_PRINTF(unnamed, ":%s:%s", rt->crun ? "crun" : "runc", rt->id);
		if (r < 0)
			return r;
		path = unnamed;
	}
	r = systemd_path(path, buf, size);
	return r == 0 && rt->crun ? add_subgroup(b->systemd_subgroup, buf, size) : r;
}
