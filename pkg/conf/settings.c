/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/settings.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"

#define ROWS_MAX 64
#define KEY_MAX  96

/* One call of settings_apply(). */
struct apply {
	const struct setting *rows;
	size_t n;
	uint64_t seen; /* bit i: the file has rows[i] */
	void *base;
	struct arena *mem;
	struct error *err;
};

__attribute__((format(printf, 3, 4))) static int invalid(struct apply *a, const struct toml *at,
							 const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return error_reason(a->err, REASON_CONFIG_INVALID, -EINVAL, "line %u: %s", at->line, what);
}

static int no_memory(struct apply *a)
{
	return error_sys(a->err, -ENOMEM, "read settings");
}

static int wrong(struct apply *a, const struct setting *row, const struct toml *v, const char *want)
{
	if (v->type == TOML_STRING)
		return invalid(a, v, "'%s' must be %s, not \"%s\"", row->key, want, v->string);
	if (v->type == TOML_INTEGER)
		return invalid(a, v, "'%s' must be %s, not %lld", row->key, want,
			       (long long)v->integer);
	return invalid(a, v, "'%s' must be %s, not %s", row->key, want, toml_type_name(v->type));
}

bool setting_name_valid(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				"._:/@-");

	return n > 0 && n <= SETTING_NAME_MAX && !name[n];
}

static bool absolute(const char *s)
{
	return s[0] == '/' && s[1];
}

static bool not_empty(const char *s)
{
	return s[0];
}

static int set_string(struct apply *a, const struct setting *row, const struct toml *v,
		      bool (*valid)(const char *s), const char *want, const char **ret)
{
	if (v->type != TOML_STRING || !valid(v->string))
		return wrong(a, row, v, want);
	*ret = arena_strdup(a->mem, v->string);
	return *ret ? 0 : no_memory(a);
}

static int set_list(struct apply *a, const struct setting *row, const struct toml *v,
		    bool (*valid)(const char *s), const char *want, struct setting_list *ret)
{
	int r;

	if (v->type != TOML_ARRAY || !v->child.first)
		return wrong(a, row, v, "a list, and not empty");
	*ret = (struct setting_list){ 0 };
	ret->items = arena_alloc(a->mem, toml_count(v) * sizeof(*ret->items));
	if (!ret->items)
		return no_memory(a);
	toml_for_each(i, v) {
		r = set_string(a, row, i, valid, want, &ret->items[ret->n]);
		if (r < 0)
			return r;
		if (setting_list_has(ret, ret->items[ret->n]))
			return invalid(a, i, "'%s' names '%s' twice", row->key, ret->items[ret->n]);
		ret->n++;
	}
	return 0;
}

static int set_uids(struct apply *a, const struct setting *row, const struct toml *v,
		    struct setting_uids *ret)
{
	if (v->type != TOML_ARRAY || !v->child.first)
		return wrong(a, row, v, "a list, and not empty");
	*ret = (struct setting_uids){ 0 };
	ret->items = arena_alloc(a->mem, toml_count(v) * sizeof(*ret->items));
	if (!ret->items)
		return no_memory(a);
	toml_for_each(i, v) {
		/* The highest number is (uid_t)-1: nobody's. */
		if (i->type != TOML_INTEGER || i->integer < 0 || i->integer >= UINT32_MAX)
			return wrong(a, row, i, "a list of user ids");
		ret->items[ret->n++] = (uint32_t)i->integer;
	}
	return 0;
}

static int set_duration(struct apply *a, const struct setting *row, const struct toml *v,
			nsec_t *ret)
{
	nsec_t t;

	if (v->type != TOML_STRING || num_parse_duration(v->string, &t) < 0 || t < NSEC_PER_MSEC ||
	    t > SETTING_DURATION_MAX)
		return wrong(a, row, v, "a duration from \"1ms\" to \"24h\"");
	*ret = t;
	return 0;
}

/* "10GiB", "512MiB", or an integer: bytes. */
static int set_size(struct apply *a, const struct setting *row, const struct toml *v, uint64_t *ret)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	uint64_t size;
	size_t digits;

	if (v->type == TOML_INTEGER && v->integer >= 0) {
		*ret = (uint64_t)v->integer;
		return 0;
	}
	if (v->type != TOML_STRING)
		goto bad;
	digits = strspn(v->string, "0123456789");
	if (num_parse_n(v->string, digits, INT64_MAX, &size) < 0)
		goto bad;
	for (unsigned int i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(v->string + digits, units[i]) != 0)
			continue;
		if (size > (uint64_t)INT64_MAX >> (10 * i))
			goto bad;
		*ret = size << (10 * i);
		return 0;
	}
bad:
	return wrong(a, row, v, "a size such as \"500GiB\", or a number of bytes");
}

static int set_value(struct apply *a, const struct setting *row, const struct toml *v)
{
	void *to = (char *)a->base + row->offset;

	switch (row->type) {
	case SETTING_STRING:
		return set_string(a, row, v, not_empty, "a string, and not empty", to);
	case SETTING_PATH:
		return set_string(a, row, v, absolute, "an absolute path", to);
	case SETTING_NAME:
		return set_string(a, row, v, setting_name_valid, "a name", to);
	case SETTING_PATHS:
		return set_list(a, row, v, absolute, "a list of absolute paths", to);
	case SETTING_NAMES:
		return set_list(a, row, v, setting_name_valid, "a list of names", to);
	case SETTING_UIDS:
		return set_uids(a, row, v, to);
	case SETTING_DURATION:
		return set_duration(a, row, v, to);
	case SETTING_SIZE:
		return set_size(a, row, v, to);
	case SETTING_BOOL:
		if (v->type != TOML_BOOLEAN)
			return wrong(a, row, v, "true or false");
		*(bool *)to = v->boolean;
		return 0;
	case SETTING_COUNT:
		if (v->type != TOML_INTEGER || v->integer < 1 || v->integer > UINT32_MAX)
			return wrong(a, row, v, "an integer from 1");
		*(uint32_t *)to = (uint32_t)v->integer;
		return 0;
	case SETTING_LEVEL:
		if (v->type != TOML_STRING || !log_level_parse(v->string, to))
			return wrong(a, row, v, "\"debug\", \"info\", \"warning\" or \"error\"");
		return 0;
	}
	return invalid(a, v, "'%s' has no type", row->key);
}

/* Goes over what is in the file, so that nothing in it is ignored. */
static int apply_table(struct apply *a, const struct toml *table, const char *prefix,
		       const char *also)
{
	char key[KEY_MAX];
	int r;

	toml_for_each(v, table) {
		bool inner = false, known = false;

		if (also && strcmp(v->key, also) == 0)
			continue;
		if (snprintf(key, sizeof(key), "%s%s", prefix, v->key) >= (int)sizeof(key) ||
		    strchr(v->key, '.'))
			return invalid(a, v, "unknown key '%s%s'", prefix, v->key);
		for (size_t i = 0; i < a->n && !known; i++) {
			size_t len = strlen(key);

			known = strcmp(a->rows[i].key, key) == 0;
			inner = inner || (strncmp(a->rows[i].key, key, len) == 0 &&
					  a->rows[i].key[len] == '.');
			if (!known)
				continue;
			a->seen |= 1ULL << i;
			r = set_value(a, &a->rows[i], v);
			if (r < 0)
				return r;
		}
		if (known)
			continue;
		if (!inner)
			return invalid(a, v, "unknown key '%s'", key);
		if (v->type != TOML_TABLE)
			return invalid(a, v, "'%s' must be a table, not %s", key,
				       toml_type_name(v->type));
		(void)strcat(key, "."); /* a row that starts so was found, hence it fits */
		r = apply_table(a, v, key, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The default of a row, read as if it stood in the file. */
static int apply_fallback(struct apply *a, const struct setting *row, const struct toml *table)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	char text[512];
	int n, r;

	if (!row->fallback)
		return invalid(a, table, "the key '%s' is missing", row->key);
	n = snprintf(text, sizeof(text), "v = %s", row->fallback);
	assert(n > 0 && (size_t)n < sizeof(text));
	r = toml_parse(&doc, bytes_of(text, (size_t)n), a->err);
	return r < 0 ? r : set_value(a, row, toml_get(doc.root, "v"));
}

int settings_apply(const struct setting *rows, size_t n, const struct toml *table, const char *also,
		   void *base, struct arena *mem, struct error *err)
{
	struct apply a = { .rows = rows, .n = n, .base = base, .mem = mem, .err = err };
	int r = 0;

	assert(n <= ROWS_MAX);
	r = apply_table(&a, table, "", also);
	for (size_t i = 0; i < n && r == 0; i++)
		if (!(a.seen & 1ULL << i))
			r = apply_fallback(&a, &rows[i], table);
	return r;
}

int settings_read(struct toml_doc *doc, const char *named, const char *fallback,
		  const char **ret_path, struct error *err)
{
	bool by_name = named && named[0];
	int r;

	*ret_path = by_name ? named : fallback;
	r = toml_read(doc, AT_FDCWD, *ret_path, err);
	if (r == -ENOENT && !by_name) {
		toml_done(doc);
		return toml_parse(doc, (struct bytes){ 0 }, err);
	}
	if (r < 0 && err)
		err->reason = REASON_CONFIG_INVALID;
	return r;
}

bool setting_list_has(const struct setting_list *list, const char *item)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i], item) == 0)
			return true;
	return false;
}
