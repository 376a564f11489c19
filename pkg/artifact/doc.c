/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/doc.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "artifact/fail.h"
#include "base/num.h"

#define DEPTH_MAX  8
#define NAME_SHOWN 64 /* bytes of an unknown member's name in an error */


/* -- text ------------------------------------------------------------------------------------ */

/* The bytes of the UTF-8 character at s, 0 when there is none (RFC 3629). */
static size_t utf8_char(const char *text)
{
	const uint8_t *s = (const uint8_t *)text;
	size_t n;

	if (s[0] < 0x80)
		return s[0] != 0;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Longer forms of shorter characters, surrogates, and what is beyond U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static bool is_control(char c)
{
	return (c > 0 && c < 0x20) || c == 0x7f;
}

const char *doc_clean_text(const char *text, char *buf, size_t size)
{
	size_t at = 0;

	while (*text) {
		size_t n = utf8_char(text);
		bool plain = n > 0 && !is_control(*text);

		if (at + (plain ? n : 1) >= size)
			break;
		if (plain)
			memcpy(buf + at, text, n);
		else
			buf[at] = '?';
		at += plain ? n : 1;
		text += n ? n : 1;
	}
	buf[at] = 0;
	return buf;
}

/* What is wrong with it, or NULL. */
static const char *text_problem(const char *s, size_t n, uint64_t max)
{
	if (n == 0)
		return "is empty";
	if (n > max)
		return "is too long";
	while (*s) {
		size_t len = utf8_char(s);

		if (!len || is_control(*s))
			return "holds a control character, or is not UTF-8";
		s += len;
	}
	return NULL;
}

/* -- reading --------------------------------------------------------------------------------- */

/*
 * Bounds what the JSON library will build before it builds anything: how deep, and how many
 * values. Says nothing of whether the text is JSON.
 */
static int check_bounds(struct bytes text, size_t values_max, struct error *err)
{
	size_t depth = 0, values = 1;
	bool quoted = false;

	for (size_t i = 0; i < text.n; i++) {
		char c = (char)text.p[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
			continue;
		}
		if (c == '"')
			quoted = true;
		else if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth)
			depth--;
		values += c == ',' || c == '{' || c == '[';
		if (depth > DEPTH_MAX)
			return fail_corrupt(err, "is nested deeper than %d levels", DEPTH_MAX);
		if (values > values_max)
			return fail_corrupt(err, "holds more than %zu values", values_max);
	}
	return 0;
}

static int load(struct bytes text, json_t **ret, struct error *err)
{
	json_error_t e = { 0 };
	json_t *root = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, &e);

	if (root) {
		*ret = root;
		return 0;
	}
	/* Not e.text: it quotes the input. */
	switch (json_error_code(&e)) {
	case json_error_out_of_memory:
		return error_set(err, -ENOMEM, "out of memory");
	case json_error_duplicate_key:
		return fail_corrupt(err, "has a member twice (line %d)", e.line);
	default:
		return fail_corrupt(err, "is not JSON (line %d, column %d)", e.line, e.column);
	}
}

static int read_text(json_t *value, uint64_t max, struct arena *arena, const char **to,
		     struct error *err)
{
	const char *problem;

	if (!json_is_string(value))
		return fail_corrupt(err, "is not text");
	problem = text_problem(json_string_value(value), json_string_length(value), max);
	if (problem)
		return fail_corrupt(err, "%s", problem);
	*to = arena_strdup(arena, json_string_value(value));
	return *to ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int read_number(json_t *value, uint64_t max, uint64_t *to, struct error *err)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return fail_corrupt(err, "is not a number from 0");
	if ((uint64_t)json_integer_value(value) > max)
		return fail_corrupt(err, "is over its maximum");
	*to = (uint64_t)json_integer_value(value);
	return 0;
}

static int read_octal(json_t *value, uint64_t max, uint64_t *to, struct error *err)
{
	const char *s = json_string_value(value);
	uint64_t v = 0;

	if (!s || s[0] != '0' || strlen(s) > 8)
		return fail_corrupt(err, "is not an octal number");
	for (; *s; s++) {
		if (*s < '0' || *s > '7')
			return fail_corrupt(err, "is not an octal number");
		v = v << 3 | (uint64_t)(*s - '0');
	}
	if (v > max)
		return fail_corrupt(err, "is over its maximum");
	*to = v;
	return 0;
}

static int read_digest(json_t *value, struct digest *to, struct error *err)
{
	if (!json_is_string(value) || digest_parse(json_string_value(value), to) < 0)
		return fail_corrupt(err, "is not a SHA-256 in lower-case hexadecimal");
	return 0;
}

static int read_object(const struct doc_shape *shape, json_t *object, void *to,
		       struct arena *arena, struct error *err);

static int read_element(const struct doc_field *f, json_t *value, void *to, struct arena *arena,
			struct error *err)
{
	if (f->kind == DOC_TEXTS)
		return read_text(value, f->text_max, arena, to, err);
	if (f->kind == DOC_DIGESTS)
		return read_digest(value, to, err);
	return read_object(f->shape, value, to, arena, err);
}

static size_t element_size(const struct doc_field *f)
{
	if (f->kind == DOC_TEXTS)
		return sizeof(const char *);
	return f->kind == DOC_DIGESTS ? sizeof(struct digest) : f->shape->size;
}

static int read_array(const struct doc_field *f, json_t *value, uint8_t *to, struct arena *arena,
		      struct error *err)
{
	size_t n = json_array_size(value), size = element_size(f);
	uint8_t *mem = NULL;

	if (!json_is_array(value))
		return fail_corrupt(err, "is not an array");
	if (n > f->max)
		return fail_corrupt(err, "has more than %llu elements", (unsigned long long)f->max);
	if (n) {
		mem = arena_alloc(arena, n * size); /* both bounded by the table */
		if (!mem)
			return error_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < n; i++) {
		int r = read_element(f, json_array_get(value, i), mem + i * size, arena, err);

		if (r < 0)
			return error_wrap(err, r, "[%zu]", i);
	}
	memcpy(to + f->offset, &mem, sizeof(mem));
	memcpy(to + f->count_offset, &n, sizeof(n));
	return 0;
}

static int read_value(const struct doc_field *f, json_t *value, uint8_t *to, struct arena *arena,
		      struct error *err)
{
	void *at = to + f->offset;

	switch (f->kind) {
	case DOC_TEXT:
		return read_text(value, f->max, arena, at, err);
	case DOC_NUMBER:
		return read_number(value, f->max, at, err);
	case DOC_OCTAL:
		return read_octal(value, f->max, at, err);
	case DOC_FLAG:
		if (!json_is_boolean(value))
			return fail_corrupt(err, "is neither true nor false");
		*(bool *)at = json_is_true(value);
		return 0;
	case DOC_DIGEST:
		return read_digest(value, at, err);
	case DOC_OBJECT:
		return read_object(f->shape, value, at, arena, err);
	default:
		return read_array(f, value, to, arena, err);
	}
}

static const struct doc_field *find_field(const struct doc_shape *shape, const char *name)
{
	for (size_t i = 0; i < shape->n_fields; i++)
		if (strcmp(shape->fields[i].name, name) == 0)
			return &shape->fields[i];
	return NULL;
}

static int read_object(const struct doc_shape *shape, json_t *object, void *to,
		       struct arena *arena, struct error *err)
{
	char shown[NAME_SHOWN];
	const char *name;
	json_t *value;

	memset(to, 0, shape->size);
	if (!json_is_object(object))
		return fail_corrupt(err, "is not an object");
	json_object_foreach(object, name, value)
		if (!find_field(shape, name))
			return fail_corrupt(err, "has an unknown member '%s'",
				   doc_clean_text(name, shown, sizeof(shown)));
	for (size_t i = 0; i < shape->n_fields; i++) {
		const struct doc_field *f = &shape->fields[i];
		int r;

		value = json_object_get(object, f->name);
		if (!value) {
			if (f->flags & DOC_OPTIONAL)
				continue;
			return fail_corrupt(err, "lacks the member '%s'", f->name);
		}
		r = read_value(f, value, to, arena, err);
		if (r < 0)
			return error_wrap(err, r, "%s", f->name);
	}
	return shape->check ? shape->check(to, err) : 0;
}

/* Removes "schema" from the document, if it is the one we know. */
static int take_schema(const struct doc_format *format, json_t *root, struct error *err)
{
	const char *schema = json_string_value(json_object_get(root, "schema"));
	size_t n = strlen(format->family);
	char shown[NAME_SHOWN];
	uint64_t version;

	if (!schema)
		return fail_corrupt(err, "does not say what it is: there is no text 'schema'");
	if (strncmp(schema, format->family, n) != 0 ||
	    num_parse(schema + n, UINT32_MAX, &version) < 0)
		return fail_corrupt(err, "is not a %s%u: its schema is '%s'", format->family,
			   format->version, doc_clean_text(schema, shown, sizeof(shown)));
	if (version != format->version)
		return fail_corrupt(err,
				    "has schema version %llu, and this kybernate reads version %u "
				    "only: use the release that wrote it",
				    (unsigned long long)version, format->version);
	(void)json_object_del(root, "schema");
	return 0;
}

static int append_json(const char *p, size_t n, void *arg)
{
	return buf_append(arg, p, n) < 0 ? -1 : 0;
}

/* The digest of a document that has no "sha256" (yet, or any more). */
static int own_digest(json_t *root, struct digest *ret, struct error *err)
{
	_cleanup_digester_ struct digester *digester = NULL;
	_cleanup_buf_ struct buf text = BUF_NULL;
	int r = digester_new(&digester);

	if (r == 0 &&
	    json_dump_callback(root, append_json, &text, JSON_COMPACT | JSON_SORT_KEYS) < 0)
		r = -ENOMEM;
	if (r == 0)
		r = digester_bytes(digester, buf_bytes(&text), ret);
	return r < 0 ? error_sys(err, r, "hash the document") : 0;
}

/* Removes "sha256" from the document; *ret_same: was it that of the rest? */
static int take_own_digest(json_t *root, bool *ret_same, struct error *err)
{
	struct digest told, found;
	json_t *value = json_object_get(root, "sha256");
	int r;

	if (!value)
		return fail_corrupt(err, "lacks the member 'sha256'");
	r = read_digest(value, &told, err);
	if (r < 0)
		return error_wrap(err, r, "sha256");
	(void)json_object_del(root, "sha256");
	r = own_digest(root, &found, err);
	if (r == 0)
		*ret_same = digest_equal(&told, &found);
	return r;
}

static int read_root(const struct doc_format *format, json_t *root, void *to, struct arena *arena,
		     struct error *err)
{
	bool same = true;
	int r;

	if (!json_is_object(root))
		return fail_corrupt(err, "is not an object");
	if (format->sealed) {
		r = take_own_digest(root, &same, err);
		if (r < 0)
			return r;
	}
	r = take_schema(format, root, err);
	if (r == 0)
		r = read_object(format->shape, root, to, arena, err);
	if (r < 0)
		return r;
	/* Last, because whatever else is wrong with it is a better answer than this. */
	return same ? 0 : fail_corrupt(err, "was changed: its own sha256 does not fit");
}

int doc_read(const struct doc_format *format, struct bytes text, void *to, struct arena *arena,
	     struct error *err)
{
	json_t *root;
	int r;

	if (text.n > format->text_max)
		return fail_corrupt(err, "is larger than %zu bytes", format->text_max);
	r = check_bounds(text, format->values_max, err);
	if (r == 0)
		r = load(text, &root, err);
	if (r < 0)
		return r;
	r = read_root(format, root, to, arena, err);
	json_decref(root);
	return r;
}

/* -- writing --------------------------------------------------------------------------------- */

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int write_text(const char *s, uint64_t max, bool foreign, json_t **ret, struct error *err)
{
	char clean[1024];
	const char *problem;

	if (foreign && s)
		s = doc_clean_text(s, clean, max < sizeof(clean) ? (size_t)max + 1 : sizeof(clean));
	problem = s ? text_problem(s, strlen(s), max) : "is missing";
	if (problem)
		return error_set(err, -EINVAL, "%s", problem);
	*ret = json_string(s);
	return *ret ? 0 : no_memory(err);
}

static int write_digest(const struct digest *d, json_t **ret, struct error *err)
{
	char hex[DIGEST_HEX_MAX];

	*ret = json_string(digest_hex(d, hex));
	return *ret ? 0 : no_memory(err);
}

static int write_object(const struct doc_shape *shape, const void *from, json_t **ret,
			struct error *err);

static int write_array(const struct doc_field *f, const uint8_t *from, json_t **ret,
		       struct error *err)
{
	json_t *array = json_array();
	const uint8_t *mem;
	size_t n;
	int r = 0;

	memcpy(&mem, from + f->offset, sizeof(mem));
	memcpy(&n, from + f->count_offset, sizeof(n));
	if (!array)
		return no_memory(err);
	if (n > f->max)
		r = error_set(err, -EINVAL, "more than %llu elements", (unsigned long long)f->max);
	for (size_t i = 0; r == 0 && i < n; i++) {
		const void *at = mem + i * element_size(f);
		json_t *value = NULL;

		if (f->kind == DOC_TEXTS)
			r = write_text(*(const char *const *)at, f->text_max,
				       f->flags & DOC_FOREIGN, &value, err);
		else if (f->kind == DOC_DIGESTS)
			r = write_digest(at, &value, err);
		else
			r = write_object(f->shape, at, &value, err);
		if (r < 0)
			(void)error_wrap(err, r, "[%zu]", i);
		else if (json_array_append_new(array, value) < 0)
			r = no_memory(err);
	}
	if (r < 0)
		json_decref(array);
	else
		*ret = array;
	return r;
}

static int write_number(const struct doc_field *f, uint64_t v, json_t **ret, struct error *err)
{
	char octal[32];

	if (v > f->max || v > INT64_MAX)
		return error_set(err, -EINVAL, "is over its maximum");
	if (f->kind == DOC_OCTAL) {
		(void)snprintf(octal, sizeof(octal), "0%llo", (unsigned long long)v);
		*ret = json_string(octal);
	} else {
		*ret = json_integer((json_int_t)v);
	}
	return *ret ? 0 : no_memory(err);
}

static int write_value(const struct doc_field *f, const uint8_t *from, json_t **ret,
		       struct error *err)
{
	const void *at = from + f->offset;

	switch (f->kind) {
	case DOC_TEXT:
		return write_text(*(const char *const *)at, f->max, f->flags & DOC_FOREIGN, ret,
				  err);
	case DOC_NUMBER:
	case DOC_OCTAL:
		return write_number(f, *(const uint64_t *)at, ret, err);
	case DOC_FLAG:
		*ret = json_boolean(*(const bool *)at);
		return 0;
	case DOC_DIGEST:
		return write_digest(at, ret, err);
	case DOC_OBJECT:
		return write_object(f->shape, at, ret, err);
	default:
		return write_array(f, from, ret, err);
	}
}

/* Is the member what an absent one reads as? */
static bool is_absent(const struct doc_field *f, const uint8_t *from)
{
	static const struct digest none;
	const void *at = from + f->offset;
	size_t n;

	switch (f->kind) {
	case DOC_TEXT:
		return !*(const char *const *)at;
	case DOC_NUMBER:
	case DOC_OCTAL:
		return *(const uint64_t *)at == 0;
	case DOC_FLAG:
		return !*(const bool *)at;
	case DOC_DIGEST:
		return digest_equal(at, &none);
	case DOC_OBJECT:
		return false;
	default:
		memcpy(&n, from + f->count_offset, sizeof(n));
		return n == 0;
	}
}

static int write_object(const struct doc_shape *shape, const void *from, json_t **ret,
			struct error *err)
{
	json_t *object = json_object();
	int r = object ? 0 : no_memory(err);

	if (r == 0 && shape->check)
		r = shape->check(from, err);
	for (size_t i = 0; r == 0 && i < shape->n_fields; i++) {
		const struct doc_field *f = &shape->fields[i];
		json_t *value = NULL;

		if ((f->flags & DOC_OPTIONAL) && is_absent(f, from))
			continue;
		r = write_value(f, from, &value, err);
		if (r < 0)
			(void)error_wrap(err, r, "%s", f->name);
		else if (json_object_set_new(object, f->name, value) < 0)
			r = no_memory(err);
	}
	if (r < 0)
		json_decref(object);
	else
		*ret = object;
	return r;
}

/* The whole document: what it is, then the members, then the digest of all that. */
static int add_head(const struct doc_format *format, json_t *members, json_t **ret,
		    struct error *err)
{
	json_t *root = json_object(), *value;
	struct digest digest;
	int r = 0;

	*ret = root;
	/* Setting refuses a value that could not be made. */
	if (!root ||
	    json_object_set_new(root, "schema",
				json_sprintf("%s%u", format->family, format->version)) < 0 ||
	    json_object_update(root, members) < 0)
		return no_memory(err);
	if (!format->sealed)
		return 0;
	r = own_digest(root, &digest, err);
	if (r == 0)
		r = write_digest(&digest, &value, err);
	if (r == 0 && json_object_set_new(root, "sha256", value) < 0)
		r = no_memory(err);
	return r;
}

static int write_root(const struct doc_format *format, const void *from, struct buf *out,
		      struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(format->text_max);
	json_t *members = NULL, *root = NULL;
	int r;

	r = write_object(format->shape, from, &members, err);
	if (r < 0)
		return r;
	r = add_head(format, members, &root, err);
	json_decref(members);
	if (r == 0 && (json_dump_callback(root, append_json, &text, JSON_INDENT(1)) < 0 ||
		       buf_append_u8(&text, '\n') < 0))
		r = error_set(err, -EINVAL, "larger than %zu bytes", format->text_max);
	json_decref(root);
	if (r == 0)
		r = check_bounds(buf_bytes(&text), format->values_max, err);
	if (r == 0 && buf_append(out, buf_bytes(&text).p, buf_len(&text)) < 0)
		r = no_memory(err);
	return r;
}

int doc_write(const struct doc_format *format, const void *from, struct buf *out,
	      struct error *err)
{
	int r = write_root(format, from, out, err);

	if (r == 0 || r == -ENOMEM)
		return r;
	/* The checks are the reader's and speak of a damaged document; here it is our own. */
	if (err)
		err->reason = REASON_INTERNAL;
	return error_wrap(err, -EINVAL, "cannot be written");
}
