/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "shim/args.h"
#include "tests/cmocka.h"

#define ARGV_MAX 16

/* line: words with one space between; "" is written as ''. */
static int parse(const char *line, struct args *ret, struct error *err)
{
	static char copy[512];
	char *argv[ARGV_MAX + 1], *rest = copy, *word;
	int argc = 0;

	assert_true(strlen(line) < sizeof(copy));
	(void)strcpy(copy, line);
	while ((word = strsep(&rest, " "))) {
		assert_true(argc < ARGV_MAX);
		argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
	}
	argv[argc] = NULL;
	return args_parse(argc, argv, ret, err);
}

/* As containerd calls it (shim contract, 1.2). */
static void the_calls_of_containerd(void **state)
{
	struct args a;

	(void)state;
	assert_int_equal(parse("shim -namespace k8s.io -address /run/containerd/containerd.sock "
			       "-publish-binary /usr/bin/containerd -id web -debug start",
			       &a, NULL), 0);
	assert_string_equal(a.ns, "k8s.io");
	assert_string_equal(a.address, "/run/containerd/containerd.sock");
	assert_string_equal(a.publish_binary, "/usr/bin/containerd");
	assert_string_equal(a.id, "web");
	assert_true(a.debug);
	assert_string_equal(a.action, "start");
	assert_string_equal(a.bundle, "");
	assert_int_equal(parse("shim -namespace k8s.io -id web -bundle /b delete", &a, NULL), 0);
	assert_string_equal(a.bundle, "/b");
	assert_string_equal(a.action, "delete");
	assert_false(a.debug);
	assert_int_equal(parse("shim -info", &a, NULL), 0);
	assert_true(a.info);
	assert_int_equal(parse("shim -v", &a, NULL), 0);
	assert_true(a.version);
	assert_int_equal(parse("shim -version", &a, NULL), 0);
	assert_true(a.version);
	assert_int_equal(parse("shim", &a, NULL), 0);
	assert_string_equal(a.action, "");
	assert_string_equal(a.ns, "");
	assert_string_equal(a.socket, "");
	assert_string_equal(a.debug_socket, "");
}

static void the_syntax_of_go(void **state)
{
	struct args a;

	(void)state;
	assert_int_equal(parse("shim --id=web -socket=/a=b -debug-socket= -debug=false -info=T -- -v",
			       &a, NULL), 0);
	assert_string_equal(a.id, "web");
	assert_string_equal(a.socket, "/a=b"); /* the first '=' only */
	assert_string_equal(a.debug_socket, "");
	assert_false(a.debug);
	assert_true(a.info);
	assert_string_equal(a.action, "-v"); /* behind "--" everything is a word */
	assert_false(a.version);
	/* The value may look like a flag, and the last one counts. */
	assert_int_equal(parse("shim -id -v -id two -", &a, NULL), 0);
	assert_string_equal(a.id, "two");
	assert_string_equal(a.action, "-"); /* a dash alone is a word */
	assert_int_equal(parse("shim -id '' start -debug", &a, NULL), 0);
	assert_string_equal(a.id, "");
	assert_false(a.debug); /* behind the action nothing is a flag */
	assert_int_equal(parse("shim --", &a, NULL), 0);
	assert_string_equal(a.action, "");
}

static void booleans(void **state)
{
	static const char *const yes[] = { "1", "t", "T", "true", "TRUE", "True" };
	static const char *const no[] = { "0", "f", "F", "false", "FALSE", "False" };
	static const char *const bad[] = { "", "yes", "tRUE", "2", "on" };
	struct error err = ERROR_NULL;
	char line[64];
	struct args a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		(void)snprintf(line, sizeof(line), "shim -debug=%s", yes[i]);
		assert_int_equal(parse(line, &a, NULL), 0);
		assert_true(a.debug);
		(void)snprintf(line, sizeof(line), "shim -debug -debug=%s", no[i]);
		assert_int_equal(parse(line, &a, NULL), 0);
		assert_false(a.debug);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)snprintf(line, sizeof(line), "shim -debug=%s", bad[i]);
		assert_int_equal(parse(line, &a, &err), -EINVAL);
		assert_non_null(strstr(err.text, "invalid boolean value"));
	}
}

static void what_go_refuses(void **state)
{
	static const struct {
		const char *line, *word;
	} cases[] = {
		{ "shim -unknown start", "flag provided but not defined: -unknown" },
		{ "shim -unknown=1", "flag provided but not defined: -unknown" },
		{ "shim -i x", "flag provided but not defined: -i" },
		{ "shim -idx y", "flag provided but not defined: -idx" },
		{ "shim ---id x", "flag provided but not defined: --id" },
		{ "shim -=x", "flag provided but not defined: -" },
		{ "shim -id", "flag needs an argument: -id" },
		{ "shim -debug -namespace", "flag needs an argument: -namespace" },
	};
	struct args a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NULL;

		assert_int_equal(parse(cases[i].line, &a, &err), -EINVAL);
		assert_string_equal(err.text, cases[i].word);
	}
}

static void no_arguments_at_all(void **state)
{
	char *argv[] = { NULL };
	struct args a;

	(void)state;
	assert_int_equal(args_parse(0, argv, &a, NULL), 0);
	assert_string_equal(a.action, "");
}

static void names_become_parts_of_paths(void **state)
{
	static const struct {
		const char *line, *text;
	} cases[] = {
		{ "shim -id web", "shim namespace cannot be empty" },
		{ "shim -namespace '' -id web", "shim namespace cannot be empty" },
		{ "shim -namespace ../x -id web", "namespace \"../x\" is not a valid identifier" },
		{ "shim -namespace moby", "id \"\" is not a valid identifier" },
		{ "shim -namespace moby -id a/b", "id \"a/b\" is not a valid identifier" },
	};
	struct args a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NULL;

		assert_int_equal(parse(cases[i].line, &a, NULL), 0);
		assert_int_equal(args_check_names(&a, &err), -EINVAL);
		assert_string_equal(err.text, cases[i].text);
	}
	assert_int_equal(parse("shim -namespace moby -id web", &a, NULL), 0);
	assert_int_equal(args_check_names(&a, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_calls_of_containerd),
		cmocka_unit_test(the_syntax_of_go),
		cmocka_unit_test(booleans),
		cmocka_unit_test(what_go_refuses),
		cmocka_unit_test(no_arguments_at_all),
		cmocka_unit_test(names_become_parts_of_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
