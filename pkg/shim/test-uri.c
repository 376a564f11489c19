/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shim/uri.h"
#include "tests/cmocka.h"

static struct arena mem;

static int setup(void **state)
{
	(void)state;
	mem = ARENA_LIMIT(4 * URI_MAX);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	arena_done(&mem);
	return 0;
}

static void schemes(void **state)
{
	static const struct {
		const char *text;
		enum uri_scheme scheme;
		const char *path;
	} cases[] = {
		{ "", URI_FIFO, "" },
		{ "/run/containerd/fifo/1/a-stdout", URI_FIFO, "/run/containerd/fifo/1/a-stdout" },
		{ "fifo:///run/a", URI_FIFO, "/run/a" },
		{ "file:///var/log/a.log", URI_FILE, "/var/log/a.log" },
		{ "binary:///usr/bin/logger", URI_BINARY, "/usr/bin/logger" },
		{ "binary-v2:///usr/bin/logger", URI_BINARY_V2, "/usr/bin/logger" },
		/* A plain path is no URI: what would be syntax in one means itself. */
		{ "/a%41?b=c&d", URI_FIFO, "/a%41?b=c&d" },
		{ "/a://b", URI_FIFO, "/a://b" },
		{ "relative", URI_FIFO, "relative" },
		{ "fifo:///with%20space", URI_FIFO, "/with space" },
		{ "file:///a%2Fb%2f%7e", URI_FILE, "/a/b/~" },
		{ "file:///a+b", URI_FILE, "/a+b" }, /* '+' is a space in a query only */
		{ "file:///a?mode=blue", URI_FILE, "/a" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct uri u;

		assert_int_equal(uri_parse(cases[i].text, &mem, &u, NULL), 0);
		assert_int_equal(u.scheme, cases[i].scheme);
		assert_string_equal(u.path, cases[i].path);
	}
}

static void arguments_keep_their_order_and_are_decoded(void **state)
{
	static const char *const want[][2] = {
		{ "b", "2" }, { "a", "one two" }, { "key", "" },  { "", "value" },
		{ "b", "3" }, { "x=", "=y" },	  { "a/b", "?c" },
	};
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("binary:///l?b=2&a=one+two&key&=value&b=3&x%3d==y&&a/b=?c&", &mem,
				   &u, NULL), 0);
	assert_int_equal(u.n_pairs, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_string_equal(u.pairs[i].key, want[i][0]);
		assert_string_equal(u.pairs[i].value, want[i][1]);
	}
	assert_int_equal(uri_parse("binary:///l?", &mem, &u, NULL), 0);
	assert_int_equal(u.n_pairs, 0);
}

static void refused(const char *text, int code, const char *word)
{
	struct error err = ERROR_NULL;
	struct uri u;

	assert_int_equal(uri_parse(text, &mem, &u, &err), code);
	if (!strstr(err.text, word))
		fail_msg("%s: '%s' is not in: %s", text, word, err.text);
}

static void what_is_no_uri_is_refused(void **state)
{
	static const char *const no_path[] = {
		"file://",	"binary://",	  "fifo://host/path", "file://relative",
		"file:///a%",	"file:///a%2",	  "file:///a%zz",     "file:///a%0",
		"file:///%00",	"binary:///%2G?", "file://?x=y",
	};

	(void)state;
	/* containerd's own words, which its tests look for. */
	refused("npipe:////./pipe/x", -EINVAL, "unknown STDIO scheme npipe");
	refused("://", -EINVAL, "unknown STDIO scheme ");
	refused("binary-v22:///x", -EINVAL, "unknown STDIO scheme binary-v22");
	refused("FILE:///x", -EINVAL, "unknown STDIO scheme FILE");
	for (size_t i = 0; i < ARRAY_SIZE(no_path); i++)
		refused(no_path[i], -EINVAL, "has no valid path");
	refused("binary:///l?a=%", -EINVAL, "a malformed argument");
	refused("binary:///l?%00=b", -EINVAL, "a malformed argument");
}

static void everything_is_bounded(void **state)
{
	_cleanup_arena_ struct arena small = ARENA_LIMIT(64);
	char text[URI_MAX + 2];
	struct error err = ERROR_NULL;
	struct uri u;
	size_t n;

	(void)state;
	memset(text, 'a', sizeof(text));
	text[0] = '/';
	text[URI_MAX] = 0;
	refused(text, -ENAMETOOLONG, "too long");
	text[URI_MAX - 1] = 0;
	assert_int_equal(uri_parse(text, &mem, &u, NULL), 0);
	assert_int_equal(uri_parse(text, &small, &u, &err), -ENOMEM);
	n = (size_t)snprintf(text, sizeof(text), "binary:///l?");
	for (int i = 0; i < URI_PAIRS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "k%d=v&", i);
	assert_int_equal(uri_parse(text, &mem, &u, NULL), 0);
	assert_int_equal(u.n_pairs, URI_PAIRS_MAX);
	(void)snprintf(text + n, sizeof(text) - n, "one=more");
	refused(text, -EINVAL, "more than 64 arguments");
}

/* "Malformed" would send its reader looking for a mistake that is not there. */
static void being_out_of_memory_is_not_a_malformed_uri(void **state)
{
	_cleanup_arena_ struct arena small = ARENA_LIMIT(64), medium = ARENA_LIMIT(96);
	struct error err = ERROR_NULL;
	char text[128];
	struct uri u;

	(void)state;
	(void)snprintf(text, sizeof(text), "file:///%0100d", 7);
	assert_int_equal(uri_parse(text, &small, &u, &err), -ENOMEM);
	(void)snprintf(text, sizeof(text), "binary:///l?k=%0100d", 7);
	assert_int_equal(uri_parse(text, &medium, &u, &err), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(schemes),
		T(arguments_keep_their_order_and_are_decoded),
		T(what_is_no_uri_is_refused),
		T(everything_is_bounded),
		T(being_out_of_memory_is_not_a_malformed_uri),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
