/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/json.h"

#include <errno.h>
#include <string.h>

#include "base/fd.h"

/* A NUL in a string is legal JSON as well: kept out by json_doc_string(), not here. */
#define LOAD_FLAGS (JSON_DECODE_ANY | JSON_ALLOW_NUL)

/* jansson's message, without the piece of the text that it may end with. */
static void cut_quote(char *message)
{
	char *near = strstr(message, " near ");

	if (near)
		*near = 0;
}

int json_doc_parse(struct bytes text, json_t **ret, struct error *err)
{
	const char *start = text.n ? (const char *)text.p : "";
	json_error_t why;
	json_t *value = json_loadb(start, text.n, LOAD_FLAGS, &why);

	if (!value && json_error_code(&why) == json_error_numeric_overflow)
		value = json_loadb(start, text.n, LOAD_FLAGS | JSON_DECODE_INT_AS_REAL, &why);
	if (!value && json_error_code(&why) == json_error_out_of_memory)
		return error_sys(err, -ENOMEM, "read JSON");
	if (!value) {
		cut_quote(why.text);
		return error_set(err, -EBADMSG, "line %d, column %d: %s", why.line, why.column,
				 why.text);
	}
	*ret = value;
	return 0;
}

int json_doc_read(int dirfd, const char *path, size_t max, json_t **ret, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(max);
	int r = file_read(dirfd, path, &text);

	if (r < 0)
		return error_sys(err, r, "read %s", path);
	r = json_doc_parse(buf_bytes(&text), ret, err);
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

const json_t *json_doc_at(const json_t *root, const char *const *keys)
{
	for (; root && *keys; keys++)
		root = json_object_get(root, *keys);
	return json_is_null(root) ? NULL : root;
}

int json_doc_string(const json_t *value, const char **ret)
{
	const char *s;

	if (!value || json_is_null(value))
		return JSON_DOC_MISSING;
	s = json_string_value(value);
	if (!s || strlen(s) != json_string_length(value))
		return -EBADMSG;
	*ret = s;
	return 0;
}

int json_doc_bool(const json_t *value, bool *ret)
{
	if (!value || json_is_null(value))
		return JSON_DOC_MISSING;
	if (!json_is_boolean(value))
		return -EBADMSG;
	*ret = json_is_true(value);
	return 0;
}

int json_doc_int(const json_t *value, int64_t *ret)
{
	double v;

	if (!value || json_is_null(value))
		return JSON_DOC_MISSING;
	if (json_is_integer(value)) {
		*ret = json_integer_value(value);
		return 0;
	}
	if (!json_is_real(value))
		return -EBADMSG;
	v = json_real_value(value);
	if (!(v >= -0x1p63 && v < 0x1p63))
		return -ERANGE;
	if ((double)(int64_t)v != v)
		return -EBADMSG;
	*ret = (int64_t)v;
	return 0;
}

int json_doc_uint(const json_t *value, uint64_t max, uint64_t *ret)
{
	int64_t v;
	int r = json_doc_int(value, &v);

	if (r)
		return r;
	if (v < 0 || (uint64_t)v > max)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

static int append(const char *p, size_t n, void *arg)
{
	return buf_append(arg, p, n) < 0 ? -1 : 0;
}

int json_doc_write(const json_t *value, enum json_doc_style style, struct buf *out)
{
	size_t flags = style == JSON_DOC_PRETTY ? JSON_INDENT(2) : JSON_COMPACT;

	if (!json_is_object(value) && !json_is_array(value))
		return -EINVAL;
	/* The callback leaves the cause of a failure in errno, as buf_reserve() sets it. */
	errno = ENOMEM;
	if (json_dump_callback(value, append, out, flags) < 0)
		return -errno;
	return style == JSON_DOC_PRETTY ? buf_append_u8(out, '\n') : 0;
}
