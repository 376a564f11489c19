/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The structure of a TOML document: which table a line belongs to, and that nothing is defined
 * twice. The invariant: every entry of the tree was added through insert(), so no table holds a
 * key twice and no document more than TOML_NODES_MAX entries.
 */
#include "conf/toml.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "conf/toml_scan.h"

/* Nodes and strings. The worst text is all one-letter parts of keys, 16 bytes of arena for two. */
#define MEM_MAX (TOML_TEXT_MAX * 8)

struct parser {
	struct toml_scan scan;
	struct toml_doc *doc;
	struct toml *section; /* the table that keys go into now */
	unsigned int nodes;
	unsigned int depth;
};

static int parse_value(struct parser *p, struct toml *node);

static struct toml *find(const struct toml *table, const char *key)
{
	for (struct toml *i = table->child.first; i; i = i->next)
		if (strcmp(i->key, key) == 0)
			return i;
	return NULL;
}

/* A new entry at the end of parent; its type and value are the caller's to set. */
static int insert(struct parser *p, struct toml *parent, const char *key, struct toml **ret)
{
	struct toml *node;

	if (++p->nodes > TOML_NODES_MAX)
		return toml_scan_error(&p->scan, "more than %d entries", TOML_NODES_MAX);
	node = arena_alloc(&p->doc->mem, sizeof(*node));
	if (!node)
		return error_sys(p->scan.err, -ENOMEM, "read TOML");
	node->key = key;
	node->line = p->scan.line;
	if (parent->child.last)
		parent->child.last->next = node;
	else
		parent->child.first = node;
	parent->child.last = node;
	*ret = node;
	return 0;
}

static int insert_table(struct parser *p, struct toml *parent, const char *key,
			enum toml_origin origin, struct toml **ret)
{
	int r = insert(p, parent, key, ret);

	if (r < 0)
		return r;
	(*ret)->type = TOML_TABLE;
	(*ret)->origin = origin;
	return 0;
}

/* a.b.c: each part's key, until the character that ends the whole. */
struct key_path {
	const char *parts[TOML_DEPTH_MAX];
	unsigned int n;
};

static int parse_key_path(struct parser *p, struct key_path *ret)
{
	int r;

	for (ret->n = 0;; ret->n++) {
		if (ret->n == TOML_DEPTH_MAX)
			return toml_scan_error(&p->scan, "a key of more than %d parts",
					       TOML_DEPTH_MAX);
		toml_scan_blank(&p->scan);
		r = toml_scan_key(&p->scan, &ret->parts[ret->n]);
		if (r < 0)
			return r;
		toml_scan_blank(&p->scan);
		if (!toml_scan_eat(&p->scan, "."))
			break;
	}
	ret->n++;
	return 0;
}

static int twice(struct parser *p, const struct toml *there)
{
	return toml_scan_error(&p->scan, "'%s' is defined already, in line %u", there->key,
			       there->line);
}

/* key.key.key = value, in table. */
static int parse_pair(struct parser *p, struct toml *table)
{
	struct key_path path;
	struct toml *node;
	int r = parse_key_path(p, &path);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i + 1 < path.n; i++) {
		node = find(table, path.parts[i]);
		if (!node) {
			r = insert_table(p, table, path.parts[i], TOML_DOTTED, &node);
			if (r < 0)
				return r;
		} else if (node->type != TOML_TABLE ||
			   (node->origin != TOML_DOTTED && node->origin != TOML_IMPLICIT)) {
			return twice(p, node);
		}
		node->origin = TOML_DOTTED;
		table = node;
	}
	node = find(table, path.parts[path.n - 1]);
	if (node)
		return twice(p, node);
	if (!toml_scan_eat(&p->scan, "="))
		return toml_scan_error(&p->scan, "expected '=' after the key");
	toml_scan_blank(&p->scan);
	r = insert(p, table, path.parts[path.n - 1], &node);
	return r < 0 ? r : parse_value(p, node);
}

/* [ v, v, v ]; after the bracket. */
static int parse_array(struct parser *p, struct toml *node)
{
	struct toml *element = NULL;
	int r;

	node->type = TOML_ARRAY;
	for (;;) {
		toml_scan_blank_lines(&p->scan);
		if (toml_scan_eat(&p->scan, "]"))
			return 0;
		r = insert(p, node, NULL, &element);
		if (r == 0)
			r = parse_value(p, element);
		if (r < 0)
			return r;
		toml_scan_blank_lines(&p->scan);
		if (toml_scan_eat(&p->scan, "]"))
			return 0;
		if (!toml_scan_eat(&p->scan, ","))
			return toml_scan_error(&p->scan, "expected ',' or ']' in the array");
	}
}

/* { k = v, k = v }, in one line; after the brace. */
static int parse_inline_table(struct parser *p, struct toml *node)
{
	int r;

	node->type = TOML_TABLE;
	toml_scan_blank(&p->scan);
	if (toml_scan_eat(&p->scan, "}"))
		return 0;
	for (;;) {
		r = parse_pair(p, node);
		if (r < 0)
			return r;
		toml_scan_blank(&p->scan);
		if (toml_scan_eat(&p->scan, "}"))
			return 0;
		if (!toml_scan_eat(&p->scan, ","))
			return toml_scan_error(&p->scan, "expected ',' or '}' in the inline table");
	}
}

/* Recursion: arrays and inline tables hold values. p->depth bounds it. */
static int parse_value(struct parser *p, struct toml *node)
{
	int c = toml_scan_peek(&p->scan), r;

	node->origin = TOML_CLOSED;
	if (c == '"' || c == '\'') {
		node->type = TOML_STRING;
		return toml_scan_string(&p->scan, &node->string);
	}
	if (c != '[' && c != '{')
		return toml_scan_scalar(&p->scan, node);
	if (p->depth == TOML_DEPTH_MAX)
		return toml_scan_error(&p->scan, "values nested more than %d deep", TOML_DEPTH_MAX);
	p->depth++;
	p->scan.at++;
	r = c == '[' ? parse_array(p, node) : parse_inline_table(p, node);
	p->depth--;
	return r;
}

/* The table that a part of a header names on the way to the last part. */
static int step_into(struct parser *p, struct toml *table, const char *key, struct toml **ret)
{
	struct toml *node = find(table, key);

	if (!node)
		return insert_table(p, table, key, TOML_IMPLICIT, ret);
	if (node->type == TOML_ARRAY && node->origin == TOML_OF_HEADERS)
		node = node->child.last;
	if (node->type != TOML_TABLE || node->origin == TOML_CLOSED)
		return twice(p, node);
	*ret = node;
	return 0;
}

static int define_table(struct parser *p, struct toml *table, const char *key)
{
	struct toml *node = find(table, key);

	if (!node)
		return insert_table(p, table, key, TOML_HEADER, &p->section);
	if (node->type != TOML_TABLE || node->origin != TOML_IMPLICIT)
		return twice(p, node);
	node->origin = TOML_HEADER;
	node->line = p->scan.line;
	p->section = node;
	return 0;
}

static int define_array_element(struct parser *p, struct toml *table, const char *key)
{
	struct toml *node = find(table, key);
	int r;

	if (!node) {
		r = insert(p, table, key, &node);
		if (r < 0)
			return r;
		node->type = TOML_ARRAY;
		node->origin = TOML_OF_HEADERS;
	}
	if (node->type != TOML_ARRAY || node->origin != TOML_OF_HEADERS)
		return twice(p, node);
	return insert_table(p, node, NULL, TOML_HEADER, &p->section);
}

/* [a.b] or [[a.b]]; after the first bracket. */
static int parse_header(struct parser *p)
{
	bool array = toml_scan_eat(&p->scan, "[");
	struct toml *table = p->doc->root;
	struct key_path path;
	int r = parse_key_path(p, &path);

	if (r < 0)
		return r;
	if (!toml_scan_eat(&p->scan, array ? "]]" : "]"))
		return toml_scan_error(&p->scan, "expected '%s' after the name of the table",
				       array ? "]]" : "]");
	for (unsigned int i = 0; i + 1 < path.n; i++) {
		r = step_into(p, table, path.parts[i], &table);
		if (r < 0)
			return r;
	}
	if (array)
		return define_array_element(p, table, path.parts[path.n - 1]);
	return define_table(p, table, path.parts[path.n - 1]);
}

static int parse_document(struct parser *p)
{
	int r;

	(void)toml_scan_eat(&p->scan, "\xef\xbb\xbf"); /* a byte order mark */
	r = toml_scan_check(&p->scan);
	while (r == 0) {
		toml_scan_blank_lines(&p->scan);
		if (toml_scan_peek(&p->scan) < 0)
			return 0;
		r = toml_scan_eat(&p->scan, "[") ? parse_header(p) : parse_pair(p, p->section);
		if (r == 0)
			r = toml_scan_line_end(&p->scan);
	}
	return r;
}

int toml_parse(struct toml_doc *doc, struct bytes text, struct error *err)
{
	const uint8_t *start = text.n ? text.p : (const uint8_t *)"";
	struct parser p = {
		.doc = doc,
		.scan = { .at = start,
			  .end = start + text.n,
			  .line_start = start,
			  .line = 1,
			  .text = BUF_LIMIT(TOML_TEXT_MAX),
			  .mem = &doc->mem,
			  .err = err },
	};
	int r;

	*doc = (struct toml_doc){ .mem = ARENA_LIMIT(MEM_MAX) };
	if (text.n > TOML_TEXT_MAX)
		return error_set(err, -EINVAL, "more than %zu bytes of TOML", TOML_TEXT_MAX);
	doc->root = arena_alloc(&doc->mem, sizeof(*doc->root));
	if (!doc->root)
		return error_sys(err, -ENOMEM, "read TOML");
	doc->root->type = TOML_TABLE;
	doc->root->origin = TOML_HEADER;
	doc->root->line = 1;
	p.section = doc->root;
	r = parse_document(&p);
	buf_done(&p.scan.text);
	assert(p.depth == 0 || r < 0);
	return r;
}

int toml_read(struct toml_doc *doc, int dirfd, const char *path, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(TOML_TEXT_MAX);
	int r = file_read(dirfd, path, &text);

	*doc = (struct toml_doc){ 0 };
	if (r < 0)
		return error_sys(err, r, "read %s", path);
	r = toml_parse(doc, buf_bytes(&text), err);
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

void toml_done(struct toml_doc *doc)
{
	arena_done(&doc->mem);
	doc->root = NULL;
}

const struct toml *toml_get(const struct toml *table, const char *key)
{
	return find(table, key);
}

size_t toml_count(const struct toml *parent)
{
	size_t n = 0;

	toml_for_each(i, parent)
		n++;
	return n;
}

const char *toml_type_name(enum toml_type type)
{
	static const char *const names[] = {
		[TOML_STRING] = "a string", [TOML_INTEGER] = "an integer",
		[TOML_FLOAT] = "a float",   [TOML_BOOLEAN] = "a boolean",
		[TOML_ARRAY] = "an array",  [TOML_TABLE] = "a table",
	};

	return names[type];
}
