/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/mounts_wire.h"

#include <errno.h>
#include <string.h>

#include "conf/json.h"
#include "oci/mounts.h"

/* --- what is to be looked at ---------------------------------------------------------------- */

int mounts_wire_put_prefixes(const struct setting_list *prefixes, struct buf *out)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < prefixes->n; i++)
		if (json_array_append_new(list, json_string(prefixes->items[i])) < 0)
			return -ENOMEM;
	return list ? json_doc_write(list, JSON_DOC_COMPACT, out) : -ENOMEM;
}

int mounts_wire_take_prefixes(struct bytes text, struct arena *mem, struct setting_list *ret,
			      struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = json_doc_parse(text, &doc, err);
	const char **items;
	size_t i;
	json_t *v;

	if (r < 0)
		return r;
	items = arena_alloc(mem, (json_array_size(doc) + 1) * sizeof(*items));
	if (!items)
		return error_set(err, -ENOMEM, "out of memory");
	json_array_foreach(doc, i, v)
	{
		const char *s;

		if (json_doc_string(v, &s) != 0)
			return error_set(err, -EBADMSG, "a prefix is no text");
		items[i] = arena_strdup(mem, s);
		if (!items[i])
			return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = (struct setting_list){ items, json_array_size(doc) };
	return json_is_array(doc) ? 0 : error_set(err, -EBADMSG, "no list of prefixes");
}

/* --- what was found ------------------------------------------------------------------------- */

static json_t *record(const struct mount_record *m)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s*, s:I, s:b, s:b, s:b}", "destination",
			 m->destination, "kind", m->kind, "type", m->type, "root", m->root,
			 "source", m->source, "size", (json_int_t)m->size, "external",
			 (int)m->external, "configured", (int)m->configured, "in_root",
			 (int)m->in_root);
}

int mounts_wire_put(const struct mount_records *records, struct buf *out)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < records->n; i++)
		if (json_array_append_new(list, record(&records->items[i])) < 0)
			return -ENOMEM;
	return list ? json_doc_write(list, JSON_DOC_COMPACT, out) : -ENOMEM;
}

static int text_at(const json_t *v, const char *key, struct arena *mem, const char **ret)
{
	const char *s;
	int r = json_doc_string(JSON_DOC_AT(v, key), &s);

	if (r != 0)
		return r < 0 ? r : -EBADMSG;
	*ret = arena_strdup(mem, s);
	return *ret ? 0 : -ENOMEM;
}

static const char *kind_of(const json_t *v)
{
	static const char *const kinds[] = { MOUNT_DIRECTORY, MOUNT_FILE, MOUNT_NODE };
	const char *s = "";

	(void)json_doc_string(JSON_DOC_AT(v, "kind"), &s);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(s, kinds[i]) == 0)
			return kinds[i];
	return NULL;
}

static int take(const json_t *v, struct arena *mem, struct mount_record *ret)
{
	struct mount_record m = { .kind = kind_of(v) };
	int r = m.kind ? text_at(v, "destination", mem, &m.destination) : -EBADMSG;

	if (r == 0)
		r = text_at(v, "type", mem, &m.type);
	if (r == 0)
		r = text_at(v, "root", mem, &m.root);
	if (r == 0 && JSON_DOC_AT(v, "source"))
		r = text_at(v, "source", mem, &m.source);
	if (r == 0 && (json_doc_uint(JSON_DOC_AT(v, "size"), INT64_MAX, &m.size) != 0 ||
		       json_doc_bool(JSON_DOC_AT(v, "external"), &m.external) != 0 ||
		       json_doc_bool(JSON_DOC_AT(v, "configured"), &m.configured) != 0 ||
		       json_doc_bool(JSON_DOC_AT(v, "in_root"), &m.in_root) != 0))
		r = -EBADMSG;
	*ret = m;
	return r;
}

int mounts_wire_take(struct bytes text, struct arena *mem, struct mount_records *ret,
		     struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = json_doc_parse(text, &doc, err);
	size_t i;
	json_t *v;

	if (r < 0)
		return r;
	if (!json_is_array(doc) || json_array_size(doc) > MOUNT_RECORDS_MAX)
		return error_set(err, -EBADMSG, "no list of mounts");
	*ret = (struct mount_records){
		.items = arena_alloc(mem, (json_array_size(doc) + 1) * sizeof(*ret->items))
	};
	if (!ret->items)
		return error_set(err, -ENOMEM, "out of memory");
	json_array_foreach(doc, i, v)
	{
		r = take(v, mem, &ret->items[i]);
		if (r < 0)
			return error_sys(err, r, "mount %zu of the list", i);
	}
	ret->n = json_array_size(doc);
	return 0;
}
