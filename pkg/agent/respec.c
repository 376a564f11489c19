/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/respec.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define NVIDIA_MAJOR 195

static int append(const char *p, size_t n, void *data)
{
	return buf_append(data, p, n) < 0 ? -1 : 0;
}

/*
 * "/default/OLD" becomes "/default/NEW", "system.slice:ctr:OLD" becomes "system.slice:ctr:NEW".
 * A path of another form gets the new id behind it.
 */
static int move_cgroup(json_t *root, const char *old_id, const char *new_id)
{
	json_t *linux_part = json_object_get(root, "linux"), *value;
	const char *path = json_string_value(json_object_get(linux_part, "cgroupsPath"));
	size_t n = path ? strlen(path) : 0, old_n = strlen(old_id);
	char buf[PATH_MAX];

	if (!n)
		return 0;
	if (n > old_n && strcmp(path + n - old_n, old_id) == 0 &&
	    (path[n - old_n - 1] == '/' || path[n - old_n - 1] == ':'))
		n -= old_n;
	else
		old_n = 0;
	if (snprintf(buf, sizeof(buf), "%.*s%s%s", (int)n, path, old_n ? "" : "-", new_id) >=
	    (int)sizeof(buf))
		return -ENAMETOOLONG;
	value = json_string(buf);
	return value && json_object_set_new(linux_part, "cgroupsPath", value) == 0 ? 0 : -ENOMEM;
}

static int annotate(json_t *root, const char *ref)
{
	json_t *annotations = json_object_get(root, "annotations");

	if (!json_is_object(annotations)) {
		annotations = json_object();
		if (!annotations || json_object_set_new(root, "annotations", annotations) < 0)
			return -ENOMEM;
	}
	return json_object_set_new(annotations, "kybernate.io/restore-from", json_string(ref)) < 0
		       ? -ENOMEM
		       : 0;
}

/* What the host has under that name; the numbers of NVIDIA's nodes where it has none. */
static int renumber(json_t *device, const char *node)
{
	unsigned int major_no = NVIDIA_MAJOR, minor_no = 0;
	struct stat st;

	if (stat(node, &st) == 0 && S_ISCHR(st.st_mode)) {
		major_no = major(st.st_rdev);
		minor_no = minor(st.st_rdev);
	} else if (json_integer_value(json_object_get(device, "major")) != NVIDIA_MAJOR ||
		   sscanf(node, "/dev/nvidia%u", &minor_no) != 1) {
		return 0; /* not one of NVIDIA's: as it was, under the new name */
	}
	return json_object_set_new(device, "major", json_integer(major_no)) < 0 ||
			       json_object_set_new(device, "minor", json_integer(minor_no)) < 0
		       ? -ENOMEM
		       : 0;
}

/* The cgroup lets the container use the node under its new numbers. */
static int allow(json_t *linux_part, json_t *device)
{
	json_t *resources = json_object_get(linux_part, "resources");
	json_t *list = json_object_get(resources, "devices");
	json_t *rule = json_pack("{s:b, s:s, s:O, s:O, s:s}", "allow", 1, "type", "c", "major",
				 json_object_get(device, "major"), "minor",
				 json_object_get(device, "minor"), "access", "rwm");

	if (!json_is_array(list)) {
		json_decref(rule);
		return 0; /* nothing is forbidden */
	}
	return json_array_append_new(list, rule) < 0 ? -ENOMEM : 0;
}

static int move_devices(json_t *root, const struct respec_move *moves, size_t n)
{
	json_t *linux_part = json_object_get(root, "linux"), *device;
	size_t i;

	json_array_foreach(json_object_get(linux_part, "devices"), i, device) {
		const char *path = json_string_value(json_object_get(device, "path"));
		size_t k = 0;

		while (path && k < n && strcmp(moves[k].from, path) != 0)
			k++;
		if (!path || k == n)
			continue;
		if (json_object_set_new(device, "path", json_string(moves[k].to)) < 0 ||
		    renumber(device, moves[k].to) < 0 || allow(linux_part, device) < 0)
			return -ENOMEM;
	}
	return 0;
}

int respec(struct bytes spec, const char *old_id, const char *new_id, const char *ref,
	   const struct respec_move *moves, size_t n_moves, struct buf *out, struct error *err)
{
	json_error_t why;
	json_t *root = json_loadb((const char *)spec.p, spec.n, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!json_is_object(root)) {
		json_decref(root);
		return error_reason(err, REASON_IMAGE_CORRUPT, -EBADMSG,
				    "the checkpoint's OCI spec: %s", root ? "not an object" : why.text);
	}
	r = move_cgroup(root, old_id, new_id);
	if (r == 0)
		r = annotate(root, ref);
	if (r == 0)
		r = move_devices(root, moves, n_moves);
	if (r == 0 && json_dump_callback(root, append, out, JSON_COMPACT) < 0)
		r = -ENOMEM;
	json_decref(root);
	return r < 0 ? error_sys(err, r, "the new container's OCI spec") : 0;
}
