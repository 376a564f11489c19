/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/uri.h"

#include <errno.h>
#include <string.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes n characters; in a query '+' is a space. Returns 0, -EINVAL (malformed) or -ENOMEM. */
static int decode(const char *s, size_t n, bool query, struct arena *arena, char **ret)
{
	char *out = arena_alloc(arena, n + 1);
	size_t at = 0;

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if (c == '%') {
			int high = n - i > 2 ? hex(s[i + 1]) : -1;
			int low = n - i > 2 ? hex(s[i + 2]) : -1;

			if (high < 0 || low < 0 || (high == 0 && low == 0))
				return -EINVAL;
			c = (char)(high * 16 + low);
			i += 2;
		} else if (query && c == '+') {
			c = ' ';
		}
		out[at++] = c;
	}
	out[at] = 0;
	*ret = out;
	return 0;
}

static int parse_query(const char *s, struct arena *arena, struct uri *u, struct error *err)
{
	while (*s) {
		size_t n = strcspn(s, "&"), key = strcspn(s, "=&");
		size_t value = key < n ? key + 1 : n; /* without a '=': "" */
		int r;

		if (n) {
			if (u->n_pairs == URI_PAIRS_MAX)
				return error_set(err, -EINVAL, "more than %d arguments",
						 URI_PAIRS_MAX);
			r = decode(s, key, true, arena, &u->pairs[u->n_pairs].key);
			if (r == 0)
				r = decode(s + value, n - value, true, arena,
					   &u->pairs[u->n_pairs].value);
			if (r < 0)
				return r == -EINVAL ? error_set(err, r, "a malformed argument")
						    : error_set(err, r, "out of memory");
			u->n_pairs++;
		}
		s += n + (s[n] == '&');
	}
	return 0;
}

int uri_parse(const char *text, struct arena *arena, struct uri *ret, struct error *err)
{
	static const struct {
		const char *name;
		enum uri_scheme scheme;
	} schemes[] = { { "fifo", URI_FIFO },
			{ "file", URI_FILE },
			{ "binary", URI_BINARY },
			{ "binary-v2", URI_BINARY_V2 } };
	const char *sep = strstr(text, "://"), *path, *query;
	struct uri u = { .scheme = URI_FIFO };
	size_t i;
	int r;

	if (strlen(text) >= URI_MAX)
		return error_set(err, -ENAMETOOLONG, "STDIO URI is too long");
	if (!sep || text[0] == '/') {
		/* No URI at all: a path, in which '%' and '?' mean themselves. */
		u.path = arena_strdup(arena, text);
		if (!u.path)
			return error_set(err, -ENOMEM, "out of memory");
		*ret = u;
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strlen(schemes[i].name) == (size_t)(sep - text) &&
		    strncmp(schemes[i].name, text, (size_t)(sep - text)) == 0)
			break;
	if (i == ARRAY_SIZE(schemes))
		return error_set(err, -EINVAL, "unknown STDIO scheme %.*s", (int)(sep - text), text);
	u.scheme = schemes[i].scheme;
	path = sep + 3;
	query = strchr(path, '?');
	r = decode(path, query ? (size_t)(query - path) : strlen(path), false, arena, &u.path);
	if (r == -ENOMEM)
		return error_set(err, r, "out of memory");
	if (r < 0 || u.path[0] != '/')
		return error_set(err, -EINVAL, "STDIO URI has no valid path: %s", text);
	r = query ? parse_query(query + 1, arena, &u, err) : 0;
	if (r < 0)
		return error_wrap(err, r, "STDIO URI %s", text);
	*ret = u;
	return 0;
}
