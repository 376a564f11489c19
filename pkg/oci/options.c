/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/containerd/options.pb-c.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "conf/toml.h"
#include "oci/unpack.h"

#define VALUE_MAX            TOML_TEXT_MAX
#define UNPACK_MEM_MAX       (8 * VALUE_MAX)
#define STRINGS_MAX          (2 * VALUE_MAX)
#define UNKNOWN_MAX          256 /* bytes of the list of unknown keys */
#define EMPTY_NAMESPACES_MAX 16

static const struct field {
	enum { FIELD_BOOL, FIELD_UINT, FIELD_STRING } type;
	const char *key;
	size_t offset;
} fields[] = {
#define X(type, member, key) { FIELD_##type, key, offsetof(struct runtime_options, member) },
	RUNTIME_OPTIONS(X)
#undef X
};

/* Of containerd's envelope: they stand in the CRI options table when that names a file. */
static const char *const envelope[] = { "TypeUrl", "ConfigPath", "ConfigBody" };

static const char *bare_type(const char *type_url)
{
	static const char prefix[] = "type.googleapis.com/";
	size_t n = sizeof(prefix) - 1;

	return strncmp(type_url, prefix, n) == 0 ? type_url + n : type_url;
}

static int keep(struct arena *mem, const char *s, const char **ret, struct error *err)
{
	if (!s[0])
		return 0;
	*ret = arena_strdup(mem, s);
	return *ret ? 0 : error_sys(err, -ENOMEM, "read options");
}

void runtime_options_init(struct runtime_options *ret)
{
	*ret = (struct runtime_options){ .mem = ARENA_LIMIT(STRINGS_MAX) };
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].type == FIELD_STRING)
			*(const char **)(void *)((char *)ret + fields[i].offset) = "";
}

void runtime_options_done(struct runtime_options *o)
{
	arena_done(&o->mem);
}

static int set_from_toml(struct runtime_options *o, const struct field *f, const struct toml *v,
			 struct error *err)
{
	void *to = (char *)o + f->offset;
	const char *want = NULL;

	switch (f->type) {
	case FIELD_BOOL:
		if (v->type == TOML_BOOLEAN)
			*(bool *)to = v->boolean;
		else
			want = "true or false";
		break;
	case FIELD_UINT:
		if (v->type == TOML_INTEGER && v->integer >= 0 && v->integer <= UINT32_MAX)
			*(uint32_t *)to = (uint32_t)v->integer;
		else
			want = "an integer from 0 to 4294967295";
		break;
	case FIELD_STRING:
		if (v->type == TOML_STRING)
			return keep(&o->mem, v->string, to, err);
		want = "a string";
		break;
	}
	if (!want)
		return 0;
	return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL, "line %u: '%s' must be %s, not %s",
			 v->line, f->key, want, toml_type_name(v->type));
}

/* Keys are compared as Go's TOML readers do, which is how they reach runc's own options. */
static int from_toml(struct runtime_options *o, const struct toml *table, struct error *err)
{
	char unknown[UNKNOWN_MAX] = "";
	int r;

	toml_for_each(v, table) {
		const struct field *f = NULL;
		bool skip = false;
		size_t n = strlen(unknown);

		for (size_t i = 0; i < ARRAY_SIZE(fields) && !f; i++)
			if (strcasecmp(fields[i].key, v->key) == 0)
				f = &fields[i];
		for (size_t i = 0; i < ARRAY_SIZE(envelope); i++)
			skip = skip || strcasecmp(envelope[i], v->key) == 0;
		if (f) {
			r = set_from_toml(o, f, v, err);
			if (r < 0)
				return r;
		} else if (!skip) {
			(void)snprintf(unknown + n, sizeof(unknown) - n, "%s%s", n ? ", " : "",
				       v->key);
		}
	}
	return unknown[0] ? keep(&o->mem, unknown, &o->unknown, err) : 0;
}

static int from_config_file(struct runtime_options *o, const char *path, struct error *err)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	int r;

	if (path[0] != '/')
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "ConfigPath must be an absolute path, not \"%.128s\"", path);
	r = toml_read(&doc, AT_FDCWD, path, err);
	if (r < 0)
		return r;
	r = from_toml(o, doc.root, err);
	return r < 0 ? error_wrap(err, r, "%.256s", path) : 0;
}

static int from_runtimeoptions(void *options, const void *message, struct error *err)
{
	struct runtime_options *o = options;
	const Options__Runtime *m = message;
	_cleanup_toml_ struct toml_doc doc = { 0 };
	int r;

	if (m->config_path[0])
		return from_config_file(o, m->config_path, err);
	r = toml_parse(&doc, bytes_of(m->config_body.data, m->config_body.len), err);
	if (r == 0)
		r = from_toml(o, doc.root, err);
	if (r < 0 && err && err->rpc == RPC_OK)
		err->rpc = RPC_INVALID_ARGUMENT;
	return r;
}

/* The members of the two proto messages that hold runtime options have the names of ours. */
#define COPY_BOOL(member)   o->member = m->member
#define COPY_UINT(member)   o->member = m->member
#define COPY_STRING(member) r = r < 0 ? r : keep(&o->mem, m->member, &o->member, err)

static int from_runc(void *options, const void *message, struct error *err)
{
	struct runtime_options *o = options;
	const Options__Runc *m = message;
	int r = 0;

#define X(type, member, key) COPY_##type(member);
	RUNTIME_OPTIONS(X)
#undef X
	return r;
}

/* Its dump options (open_tcp, file_locks, ...) were for a restore by containerd's runtime v1, whose
 * successors ignore them; ours remembers what the dump was made with. */
static int from_legacy_create(void *options, const void *message, struct error *err)
{
	struct runtime_options *o = options;
	const Options__LegacyCreate *m = message;
	int r = 0;

	COPY_BOOL(no_pivot_root);
	COPY_BOOL(no_new_keyring);
	COPY_UINT(io_uid);
	COPY_UINT(io_gid);
	COPY_STRING(shim_cgroup);
	COPY_STRING(criu_work_path);
	COPY_STRING(criu_image_path);
	return r;
}

/* A message that carries options. */
struct message {
	const char *name;
	const ProtobufCMessageDescriptor *type;
	int (*read)(void *options, const void *message, struct error *err);
};

static const struct message *find_message(const struct message *rows, size_t n,
					  const char *type_url)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, bare_type(type_url)) == 0)
			return &rows[i];
	return NULL;
}

/* Decodes the Any by one of the messages into options; what: "runtime options". */
static int read_any(const struct message *rows, size_t n, const char *what, const char *type_url,
		    struct bytes value, void *options, struct error *err)
{
	_cleanup_arena_ struct arena scratch = ARENA_LIMIT(UNPACK_MEM_MAX);
	const struct message *m = find_message(rows, n, type_url);
	const void *message;
	int r;

	if (!type_url[0] && value.n == 0)
		return 0;
	if (!m)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "%s of the type \"%.128s\" are not understood", what, type_url);
	message = value.n <= VALUE_MAX ? unpack(m->type, value, &scratch) : NULL;
	if (!message)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL,
				 "%s: malformed or too large: %s", what, m->name);
	r = m->read(options, message, err);
	return r < 0 ? error_wrap(err, r, "%s", what) : 0;
}

static const struct message runtime_messages[] = {
	{ "containerd.runc.v1.Options", &options__runc__descriptor, from_runc },
	{ "runtimeoptions.v1.Options", &options__runtime__descriptor, from_runtimeoptions },
	{ "containerd.linux.runc.CreateOptions", &options__legacy_create__descriptor,
	  from_legacy_create },
};

bool runtime_options_type(const char *type_url)
{
	return find_message(runtime_messages, ARRAY_SIZE(runtime_messages), type_url) != NULL;
}

int runtime_options_parse(const char *type_url, struct bytes value, struct runtime_options *ret,
			  struct error *err)
{
	struct runtime_options o;
	int r;

	runtime_options_init(&o);
	r = read_any(runtime_messages, ARRAY_SIZE(runtime_messages), "runtime options", type_url,
		     value, &o, err);
	if (r < 0)
		runtime_options_done(&o);
	else
		*ret = o;
	return r;
}

static int keep_namespaces(struct checkpoint_options *o, char **names, size_t n, struct error *err)
{
	int r = 0;

	if (n > EMPTY_NAMESPACES_MAX)
		return error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL, "too many empty namespaces");
	if (n == 0)
		return 0;
	o->empty_namespaces = arena_alloc(&o->mem, n * sizeof(*o->empty_namespaces));
	if (!o->empty_namespaces)
		return error_sys(err, -ENOMEM, "read options");
	for (size_t i = 0; i < n && r == 0; i++) {
		o->empty_namespaces[i] = "";
		r = keep(&o->mem, names[i], &o->empty_namespaces[i], err);
	}
	o->n_empty_namespaces = n;
	return r;
}

#define COPY_CHECKPOINT                                                                            \
	do {                                                                                       \
		COPY_BOOL(exit);                                                                   \
		COPY_BOOL(open_tcp);                                                               \
		COPY_BOOL(external_unix_sockets);                                                  \
		COPY_BOOL(terminal);                                                               \
		COPY_BOOL(file_locks);                                                             \
		COPY_STRING(image_path);                                                           \
		COPY_STRING(work_path);                                                            \
		r = r < 0 ? r                                                                      \
			  : keep_namespaces(o, m->empty_namespaces, m->n_empty_namespaces, err);   \
	} while (0)

static int from_checkpoint(void *options, const void *message, struct error *err)
{
	struct checkpoint_options *o = options;
	const Options__Checkpoint *m = message;
	int r = 0;

	COPY_CHECKPOINT;
	COPY_STRING(parent_path);
	if (r == 0 && m->kybernate_ref[0] && !ref_valid(m->kybernate_ref))
		return error_reason(err, REASON_REF_INVALID, -EINVAL,
				    "\"%.128s\" is not a checkpoint reference", m->kybernate_ref);
	if (r == 0)
		r = keep(&o->mem, m->kybernate_ref, &o->ref, err);
	return r;
}

static int from_legacy_checkpoint(void *options, const void *message, struct error *err)
{
	struct checkpoint_options *o = options;
	const Options__LegacyCheckpoint *m = message;
	int r = 0;

	COPY_CHECKPOINT;
	return r;
}

static const struct message checkpoint_messages[] = {
	{ "containerd.runc.v1.CheckpointOptions", &options__checkpoint__descriptor,
	  from_checkpoint },
	{ "containerd.linux.runc.CheckpointOptions", &options__legacy_checkpoint__descriptor,
	  from_legacy_checkpoint },
};

int checkpoint_options_parse(const char *type_url, struct bytes value,
			     struct checkpoint_options *ret, struct error *err)
{
	struct checkpoint_options o = { .mem = ARENA_LIMIT(STRINGS_MAX),
					.image_path = "",
					.work_path = "",
					.parent_path = "" };
	int r = read_any(checkpoint_messages, ARRAY_SIZE(checkpoint_messages), "checkpoint options",
			 type_url, value, &o, err);

	if (r < 0)
		checkpoint_options_done(&o);
	else
		*ret = o;
	return r;
}

void checkpoint_options_done(struct checkpoint_options *o)
{
	arena_done(&o->mem);
}
