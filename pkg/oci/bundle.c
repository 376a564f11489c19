/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/bundle.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "conf/json.h"

#define CONFIG_FILE     "config.json"
#define KEPT_MAX        ((size_t)256 << 10)
#define ID_MAPS_MAX     340 /* the kernel's own limit: UID_GID_MAP_MAX_EXTENTS */
#define UNKNOWN_KEY_MAX 128

struct parser {
	struct bundle *b;
	const struct setting_list *gpu_prefixes;
	struct error *err;
};

static int bad(struct parser *p, const char *what)
{
	return error_set(p->err, -EBADMSG, "%s is not what the runtime specification says", what);
}

static int no_room(struct parser *p)
{
	return error_set(p->err, -E2BIG, "out of memory, or more than %zu bytes to keep", KEPT_MAX);
}

static int keep(struct parser *p, const char *s, const char **ret)
{
	*ret = arena_strdup(&p->b->mem, s);
	return *ret ? 0 : no_room(p);
}

/* A string of the spec, if it is there. */
static int keep_string(struct parser *p, const json_t *v, const char *what, const char **ret)
{
	const char *s;
	int r = json_doc_string(v, &s);

	if (r)
		return r < 0 ? bad(p, what) : 0;
	return s[0] ? keep(p, s, ret) : 0;
}

static int get_bool(struct parser *p, const json_t *v, const char *what, bool *ret)
{
	return json_doc_bool(v, ret) < 0 ? bad(p, what) : 0;
}

/* --- annotations -------------------------------------------------------------------------- */

static const char *const annotation_names[] = {
#define X(id, name, values, doc) [ANNOTATION_##id] = (name),
	KYB_ANNOTATIONS(X)
#undef X
};

/* One of ours, for every container of the pod ("pause") or one ("pause.trainer")? */
static bool annotation_find(const char *name, enum kyb_annotation *ret, const char **ret_container)
{
	for (unsigned int i = 0; i < ANNOTATION_COUNT; i++) {
		size_t n = strlen(annotation_names[i]);

		if (strncmp(name, annotation_names[i], n) != 0 || (name[n] && name[n] != '.'))
			continue;
		*ret = (enum kyb_annotation)i;
		*ret_container = name[n] ? name + n + 1 : NULL;
		return true;
	}
	return false;
}

static int unknown_annotation(struct parser *p, const char *key)
{
	struct bundle_strings *list = &p->b->unknown;
	char cut[UNKNOWN_KEY_MAX];

	if (list->n == BUNDLE_UNKNOWN_MAX)
		return 0;
	if (!list->items)
		list->items = arena_alloc(&p->b->mem, BUNDLE_UNKNOWN_MAX * sizeof(*list->items));
	if (!list->items)
		return no_room(p);
	(void)snprintf(cut, sizeof(cut), "%s", key);
	return keep(p, cut, &list->items[list->n++]);
}

static int parse_our_annotation(struct parser *p, const char *key, const json_t *value)
{
	const char *container = NULL, *s;
	enum kyb_annotation which;

	if (!annotation_find(key + strlen(KYB_ANNOTATION_PREFIX), &which, &container))
		return unknown_annotation(p, key);
	if (json_doc_string(value, &s) != 0)
		return bad(p, "annotations");
	if (container) {
		const char *mine = p->b->container_name;

		return mine && strcmp(mine, container) == 0 ? keep(p, s, &p->b->annotation[which])
							    : 0;
	}
	return p->b->annotation[which] ? 0 : keep(p, s, &p->b->annotation[which]);
}

/* CDI names devices in annotations too: "nvidia.com/gpu=0,nvidia.com/gpu=1".
 * Source: cncf-tags/container-device-interface SPEC.md, "CDI annotations". */
static bool names_nvidia(const char *devices)
{
	static const char vendor[] = "nvidia.com/";
	const char *at = devices;

	while ((at = strstr(at, vendor))) {
		if (at == devices || at[-1] == ',' || at[-1] == '.' || at[-1] == ' ')
			return true;
		at++;
	}
	return false;
}

static int parse_annotations(struct parser *p, json_t *annotations)
{
	static const char prefix[] = KYB_ANNOTATION_PREFIX, cdi[] = "cdi.k8s.io/";
	const char *key, *s;
	json_t *value;
	int r = 0;

	if (annotations && !json_is_object(annotations) && !json_is_null(annotations))
		return bad(p, "annotations");
	/* One container's own annotations win over the pod's, so they come first. */
	for (int pass = 0; pass < 2; pass++) {
		json_object_foreach(annotations, key, value)
		{
			bool own;

			if (strncmp(key, cdi, sizeof(cdi) - 1) == 0 &&
			    json_doc_string(value, &s) == 0 && names_nvidia(s))
				p->b->gpu = true;
			if (strncmp(key, prefix, sizeof(prefix) - 1) != 0)
				continue;
			own = strchr(key + sizeof(prefix) - 1, '.') != NULL;
			if (own != (pass == 0))
				continue;
			r = parse_our_annotation(p, key, value);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int parse_identity(struct parser *p, const json_t *annotations)
{
	struct bundle *b = p->b;
	const char *type = "";
	const struct {
		const char *key;
		const char **to;
	} wanted[] = {
		{ "io.kubernetes.cri.sandbox-id", &b->sandbox_id },
		{ "io.kubernetes.cri.container-name", &b->container_name },
		{ "io.kubernetes.cri.sandbox-uid", &b->pod_uid },
		{ "io.kubernetes.cri.sandbox-name", &b->pod_name },
		{ "io.kubernetes.cri.sandbox-namespace", &b->pod_namespace },
		{ "io.containerd.runc.v2.group", &b->group },
		{ "run.oci.systemd.subgroup", &b->systemd_subgroup },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(wanted) && r == 0; i++)
		r = keep_string(p, JSON_DOC_AT(annotations, wanted[i].key), "annotations",
				wanted[i].to);
	if (r < 0)
		return r;
	(void)json_doc_string(JSON_DOC_AT(annotations, "io.kubernetes.cri.container-type"), &type);
	b->is_sandbox = strcmp(type, "sandbox") == 0;
	if (!b->group)
		b->group = b->sandbox_id;
	return 0;
}

/* --- process and root --------------------------------------------------------------------- */

static const char *const env_names[] = {
#define X(id, name, doc) [ENV_##id] = (name),
	KYB_ENVIRONMENT(X)
#undef X
};

static int parse_env(struct parser *p, const json_t *env)
{
	const char *s;
	json_t *v;
	size_t i;

	json_array_foreach(env, i, v)
	{
		if (json_doc_string(v, &s) != 0)
			continue; /* the OCI runtime will say so better than we could */
		for (unsigned int k = 0; k < ENV_COUNT; k++) {
			size_t n = strlen(env_names[k]);
			int r;

			if (strncmp(s, env_names[k], n) != 0 || s[n] != '=')
				continue;
			/* Of two, the OCI runtime takes the last. Empty counts as not set. */
			p->b->env[k] = NULL;
			r = s[n + 1] ? keep(p, s + n + 1, &p->b->env[k]) : 0;
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static bool names_gpus(const char *visible)
{
	return visible && strcmp(visible, "void") != 0 && strcmp(visible, "none") != 0;
}

static int parse_process(struct parser *p, const json_t *root)
{
	struct bundle *b = p->b;
	int r = get_bool(p, JSON_DOC_AT(root, "process", "terminal"), "process.terminal",
			 &b->terminal);

	if (r == 0)
		r = parse_env(p, JSON_DOC_AT(root, "process", "env"));
	if (r == 0)
		r = keep_string(p, JSON_DOC_AT(root, "root", "path"), "root.path", &b->rootfs);
	if (r == 0)
		r = get_bool(p, JSON_DOC_AT(root, "root", "readonly"), "root.readonly",
			     &b->rootfs_readonly);
	if (names_gpus(b->env[ENV_VISIBLE_DEVICES]) || b->env[ENV_GPU_GROUP] ||
	    b->env[ENV_GPU_SEAT])
		b->gpu = true;
	return r;
}

/* --- linux -------------------------------------------------------------------------------- */

static int parse_id_maps(struct parser *p, const json_t *maps, const char *what,
			 struct bundle_id_maps *ret)
{
	size_t n = json_array_size(maps), i;
	json_t *v;

	if (n > ID_MAPS_MAX)
		return bad(p, what);
	if (n == 0)
		return 0;
	ret->items = arena_alloc(&p->b->mem, n * sizeof(*ret->items));
	if (!ret->items)
		return no_room(p);
	json_array_foreach(maps, i, v)
	{
		uint64_t inside = 0, outside = 0, count = 0;

		/* Go leaves out a zero. */
		if (json_doc_uint(JSON_DOC_AT(v, "containerID"), UINT32_MAX, &inside) < 0 ||
		    json_doc_uint(JSON_DOC_AT(v, "hostID"), UINT32_MAX, &outside) < 0 ||
		    json_doc_uint(JSON_DOC_AT(v, "size"), UINT32_MAX, &count) < 0)
			return bad(p, what);
		ret->items[ret->n++] = (struct id_map){ (uint32_t)inside, (uint32_t)outside,
							(uint32_t)count };
	}
	return 0;
}

static void parse_namespaces(struct parser *p, const json_t *namespaces)
{
	json_t *v;
	size_t i;

	json_array_foreach(namespaces, i, v)
	{
		const char *type = "", *path = "";

		(void)json_doc_string(JSON_DOC_AT(v, "type"), &type);
		(void)json_doc_string(JSON_DOC_AT(v, "path"), &path);
		if (strcmp(type, "pid") == 0 && !path[0])
			p->b->own_pid_namespace = true;
		else if (strcmp(type, "user") == 0)
			p->b->user_namespace = true;
	}
}

static bool is_gpu_path(const struct parser *p, const char *path)
{
	for (size_t i = 0; i < p->gpu_prefixes->n; i++) {
		const char *prefix = p->gpu_prefixes->items[i];

		if (strncmp(path, prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

/* The first of two keys of an entry whose value is the path of a GPU device; NULL = neither. */
static const char *gpu_path(const struct parser *p, const json_t *entry, const char *first,
			    const char *second)
{
	const char *s;

	if (json_doc_string(JSON_DOC_AT(entry, first), &s) == 0 && is_gpu_path(p, s))
		return s;
	if (json_doc_string(JSON_DOC_AT(entry, second), &s) == 0 && is_gpu_path(p, s))
		return s;
	return NULL;
}

static int add_gpu_path(struct parser *p, const char *path)
{
	struct bundle_strings *list = &p->b->gpu_devices;

	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i], path) == 0)
			return 0;
	return keep(p, path, &list->items[list->n++]);
}

static void number_node(const json_t *device, struct bundle_node *ret)
{
	json_int_t major_no = json_integer_value(json_object_get(device, "major"));
	json_int_t minor_no = json_integer_value(json_object_get(device, "minor"));

	if (major_no <= 0 || major_no > UINT32_MAX || minor_no < 0 || minor_no > UINT32_MAX)
		return;
	*ret = (struct bundle_node){ (uint32_t)major_no, (uint32_t)minor_no, true };
}

/* A device node of the spec is named by its path; a bind mount by where it comes from on the host,
 * or where it goes if only that looks like a GPU. */
static int parse_gpu_devices(struct parser *p, const json_t *devices, const json_t *mounts)
{
	struct bundle_strings *list = &p->b->gpu_devices;
	size_t max = 0, i;
	const char *path;
	json_t *v;
	int r;

	json_array_foreach(devices, i, v) max += gpu_path(p, v, "path", "path") != NULL;
	json_array_foreach(mounts, i, v) max += gpu_path(p, v, "source", "destination") != NULL;
	if (max == 0)
		return 0;
	p->b->gpu = true;
	list->items = arena_alloc(&p->b->mem, max * sizeof(*list->items));
	p->b->gpu_nodes = arena_alloc(&p->b->mem, max * sizeof(*p->b->gpu_nodes));
	r = list->items && p->b->gpu_nodes ? 0 : no_room(p);
	json_array_foreach(devices, i, v)
	{
		path = gpu_path(p, v, "path", "path");
		if (r == 0 && path)
			r = add_gpu_path(p, path);
		if (r == 0 && path)
			number_node(v, &p->b->gpu_nodes[list->n - 1]);
	}
	json_array_foreach(mounts, i, v)
	{
		path = gpu_path(p, v, "source", "destination");
		if (r == 0 && path)
			r = add_gpu_path(p, path);
	}
	return r;
}

static int parse_linux(struct parser *p, const json_t *root)
{
	struct bundle *b = p->b;
	int64_t limit = 0;
	int r = keep_string(p, JSON_DOC_AT(root, "linux", "cgroupsPath"), "linux.cgroupsPath",
			    &b->cgroups_path);

	if (r < 0)
		return r;
	parse_namespaces(p, JSON_DOC_AT(root, "linux", "namespaces"));
	r = parse_id_maps(p, JSON_DOC_AT(root, "linux", "uidMappings"), "linux.uidMappings",
			  &b->uid_maps);
	if (r == 0)
		r = parse_id_maps(p, JSON_DOC_AT(root, "linux", "gidMappings"), "linux.gidMappings",
				  &b->gid_maps);
	if (r < 0)
		return r;
	r = json_doc_int(JSON_DOC_AT(root, "linux", "resources", "memory", "limit"), &limit);
	if (r == -EBADMSG)
		return bad(p, "linux.resources.memory.limit");
	/* -1 is "unlimited", and what does not fit into 64 bits is so in fact. */
	b->memory_limit = r == 0 && limit > 0 ? limit : 0;
	return parse_gpu_devices(p, JSON_DOC_AT(root, "linux", "devices"),
				 JSON_DOC_AT(root, "mounts"));
}

/* --- the whole ---------------------------------------------------------------------------- */

static int parse_spec(json_t *root, const struct setting_list *gpu_prefixes, struct bundle *ret,
		      struct error *err)
{
	struct bundle b = { .mem = ARENA_LIMIT(KEPT_MAX) };
	struct parser p = { .b = &b, .gpu_prefixes = gpu_prefixes, .err = err };
	json_t *annotations = json_object_get(root, "annotations");
	int r;

	if (!json_is_object(root))
		return bad(&p, "the file");
	r = parse_identity(&p, annotations);
	if (r == 0)
		r = parse_annotations(&p, annotations);
	if (r == 0)
		r = parse_process(&p, root);
	if (r == 0)
		r = parse_linux(&p, root);
	if (r < 0)
		bundle_done(&b);
	else
		*ret = b;
	return r;
}

int bundle_parse(struct bytes text, const struct setting_list *gpu_prefixes, struct bundle *ret,
		 struct error *err)
{
	_cleanup_json_ json_t *root = NULL;
	int r = json_doc_parse(text, &root, err);

	return r < 0 ? r : parse_spec(root, gpu_prefixes, ret, err);
}

int bundle_read(int bundle_fd, const struct setting_list *gpu_prefixes, struct bundle *ret,
		struct error *err)
{
	json_t *root = NULL;
	int r = json_doc_read(bundle_fd, CONFIG_FILE, BUNDLE_CONFIG_MAX, &root, err);

	if (r < 0)
		return r;
	r = parse_spec(root, gpu_prefixes, ret, err);
	json_decref(root);
	/* The tree took eight times the file. A shim lives as long as its pod: hand it back. What
	 * stays is what malloc keeps for this thread, 30 to 60 kB, and nothing at all when the
	 * process runs with GLIBC_TUNABLES=glibc.malloc.tcache_count=0. */
	(void)malloc_trim(0);
	return r < 0 ? error_wrap(err, r, CONFIG_FILE) : 0;
}

void bundle_done(struct bundle *b)
{
	arena_done(&b->mem);
}
