/* SPDX-License-Identifier: Apache-2.0 */
/* options.json and runtime, the two files of a bundle: see options.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "conf/json.h"
#include "oci/options.h"

#define OPTIONS_FILE        "options.json"
#define RUNTIME_FILE        "runtime"
#define OPTIONS_FILE_MAX    ((size_t)1 << 20)
#define RUNTIME_FILE_MAX    4096

#define SET_BOOL(o, member) ((o)->member ? json_object_set_new(doc, #member, json_true()) : 0)
#define SET_UINT(o, member)                                                                        \
	((o)->member ? json_object_set_new(doc, #member, json_integer((o)->member)) : 0)
#define SET_STRING(o, member)                                                                      \
	((o)->member[0] ? json_object_set_new(doc, #member, json_string((o)->member)) : 0)

int runtime_options_write(int bundle_fd, const struct runtime_options *o, struct error *err)
{
	_cleanup_json_ json_t *doc = json_object();
	_cleanup_buf_ struct buf text = BUF_LIMIT(OPTIONS_FILE_MAX);
	int r = 0;

	if (!doc)
		return error_sys(err, -ENOMEM, "write %s", OPTIONS_FILE);
#define X(type, member, key) r = r < 0 ? r : SET_##type(o, member);
	RUNTIME_OPTIONS(X)
#undef X
	/* A string that is not UTF-8, which no JSON can hold; jansson says no more than "no". */
	if (r < 0)
		return error_set(err, -EINVAL, "write %s: an option is not UTF-8", OPTIONS_FILE);
	r = json_doc_write(doc, JSON_DOC_COMPACT, &text);
	if (r == 0)
		r = file_write(bundle_fd, OPTIONS_FILE, buf_str(&text), buf_len(&text), 0600,
			       FILE_PLAIN);
	if (r < 0)
		return error_sys(err, r, "write %s", OPTIONS_FILE);
	r = file_write(bundle_fd, RUNTIME_FILE, o->binary_name, strlen(o->binary_name), 0600,
		       FILE_PLAIN);
	return r < 0 ? error_sys(err, r, "write %s", RUNTIME_FILE) : 0;
}

static int get_bool(struct runtime_options *o, const json_t *v, bool *ret)
{
	(void)o;
	return json_doc_bool(v, ret);
}

static int get_uint(struct runtime_options *o, const json_t *v, uint32_t *ret)
{
	uint64_t n = 0;
	int r = json_doc_uint(v, UINT32_MAX, &n);

	(void)o;
	if (r == 0)
		*ret = (uint32_t)n;
	return r;
}

static int get_string(struct runtime_options *o, const json_t *v, const char **ret)
{
	const char *s;
	int r = json_doc_string(v, &s);

	if (r || !s[0])
		return r;
	*ret = arena_strdup(&o->mem, s);
	return *ret ? 0 : -ENOMEM;
}

#define GET_BOOL   get_bool
#define GET_UINT   get_uint
#define GET_STRING get_string

static int read_options(int bundle_fd, struct runtime_options *o, struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = json_doc_read(bundle_fd, OPTIONS_FILE, OPTIONS_FILE_MAX, &doc, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (!json_is_object(doc))
		return error_set(err, -EBADMSG, "%s: not an object", OPTIONS_FILE);
#define X(type, member, key)                                                                       \
	r = GET_##type(o, JSON_DOC_AT(doc, #member), &o->member);                                  \
	if (r < 0)                                                                                 \
		return error_sys(err, r, "%s: '%s'", OPTIONS_FILE, #member);
	RUNTIME_OPTIONS(X)
#undef X
	return 0;
}

/* The name of the OCI runtime; where both files have one, they agree, or the older wins. */
static int read_runtime(int bundle_fd, struct runtime_options *o, struct error *err)
{
	char name[RUNTIME_FILE_MAX];
	int r = file_read_line(bundle_fd, RUNTIME_FILE, name, sizeof(name));

	if (r < 0 && r != -ENOENT)
		return error_sys(err, r, "read %s", RUNTIME_FILE);
	if (r < 0 || !name[0])
		return 0;
	o->binary_name = arena_strdup(&o->mem, name);
	return o->binary_name ? 0 : error_sys(err, -ENOMEM, "read %s", RUNTIME_FILE);
}

int runtime_options_read(int bundle_fd, struct runtime_options *ret, struct error *err)
{
	struct runtime_options o;
	int r;

	runtime_options_init(&o);
	r = read_options(bundle_fd, &o, err);
	if (r == 0)
		r = read_runtime(bundle_fd, &o, err);
	if (r < 0)
		runtime_options_done(&o);
	else
		*ret = o;
	return r;
}
