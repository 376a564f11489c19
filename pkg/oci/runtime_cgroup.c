/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "conf/json.h"
#include "oci/runtime.h"

#define STATE_MAX (4U << 20) /* runc's holds the whole configuration */
#define MOUNT     "/sys/fs/cgroup"

static int read_state(const struct runtime *rt, json_t **ret, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(STATE_MAX);
	char path[PATH_MAX];
	int r = PATH_PRINTF(path, "%s/%s/%s", rt->root, rt->id, rt->crun ? "status" : "state.json");

	if (r == 0)
		r = file_read(AT_FDCWD, path, &text);
	if (r < 0)
		return error_sys(err, r, "read the state of container %s", rt->id);
	*ret = json_loadb((const char *)buf_bytes(&text).p, buf_len(&text), 0, NULL);
	return *ret ? 0 : error_set(err, -EBADMSG, "%s: not JSON", path);
}

int runtime_cgroup(const struct runtime *rt, char *buf, size_t size, struct error *err)
{
	_cleanup_json_ json_t *state = NULL;
	const char *path = "";
	int r = read_state(rt, &state, err);

	if (r < 0)
		return r;
	/* Of version 2 the one entry has an empty name (runc repo, manager/fs2, GetPaths()). */
	r = json_doc_string(rt->crun ? JSON_DOC_AT(state, "cgroup-path")
				     : JSON_DOC_AT(state, "cgroup_paths", ""), &path);
	if (r < 0)
		return error_set(err, -EBADMSG, "the cgroup of container %s: not a text", rt->id);
	if (strncmp(path, MOUNT "/", sizeof(MOUNT)) == 0)
		path += sizeof(MOUNT) - 1;
	if (!path[strspn(path, "/")])
		return error_set(err, -ENOENT, "container %s has no cgroup", rt->id);
	if (strlen(path) >= size)
		return error_set(err, -ENAMETOOLONG, "the cgroup of container %s", rt->id);
	memcpy(buf, path, strlen(path) + 1);
	return 0;
}
