/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/time.h"
#include "options.h"
#include "tests/cmocka.h"

struct common {
	bool quiet;
	const char *socket;
};

struct own {
	const char *ns, *ref;
	nsec_t time;
	bool exit;
};

static const struct opt common_options[] = {
	{ "quiet", 'q', NULL, "say less", offsetof(struct common, quiet), option_switch },
	{ "socket", 0, "PATH", "where\nit is", offsetof(struct common, socket), option_text },
};

static const struct opt own_options[] = {
	{ "namespace", 'n', "NS", "which", offsetof(struct own, ns), option_id },
	{ "ref", 'r', "REF", "which", offsetof(struct own, ref), option_ref },
	{ "timeout", 't', "TIME", "how long", offsetof(struct own, time), option_duration },
	{ "exit", 0, NULL, "end it", offsetof(struct own, exit), option_switch },
};

static int parse(struct common *c, struct own *o, bool first_ends, int *operands,
		 struct error *err, char **argv)
{
	const struct opt_set sets[] = { { common_options, ARRAY_SIZE(common_options), c },
					{ own_options, ARRAY_SIZE(own_options), o } };
	int argc = 0;

	while (argv[argc])
		argc++;
	return options_parse(sets, ARRAY_SIZE(sets), argc, argv, first_ends, operands, err);
}

#define ARGV(...) ((char *[]){ (char *)"test", __VA_ARGS__, NULL })
#define A(s)      ((char *)(s))

static void taken(void **state)
{
	struct error err = ERROR_NULL;
	struct common c = { 0 };
	struct own o = { 0 };
	char **argv = ARGV(A("web"), A("-qn"), A("ns"), A("--ref=r-1"), A("db"), A("-t1m30s"),
			   A("--exit"), A("--"), A("-x"));
	int operands;

	(void)state;
	assert_int_equal(parse(&c, &o, false, &operands, &err, argv), 0);
	assert_true(c.quiet && o.exit);
	assert_string_equal(o.ns, "ns");
	assert_string_equal(o.ref, "r-1");
	assert_true(o.time == 90 * NSEC_PER_SEC);
	assert_int_equal(operands, 7);
	assert_string_equal(argv[7], "web");
	assert_string_equal(argv[8], "db");
	assert_string_equal(argv[9], "-x");
}

static void ends_at_the_first_operand(void **state)
{
	struct error err = ERROR_NULL;
	struct common c = { 0 };
	struct own o = { 0 };
	int operands;

	(void)state;
	assert_int_equal(parse(&c, &o, true, &operands, &err,
			       ARGV(A("-q"), A("list"), A("--exit"))), 0);
	assert_int_equal(operands, 2);
	assert_true(c.quiet && !o.exit);
}

static void refused(void **state)
{
	static const struct {
		const char *option, *value, *text;
	} cases[] = {
		{ "-n", "a/b", "--namespace: \"a/b\" is no name for containerd" },
		{ "--ref", "..", "--ref: \"..\" is no name for a checkpoint" },
		{ "--timeout", "5", "--timeout: \"5\" is no duration from 1ms to 24h, such as 90s "
				    "or 1m30s" },
		{ "-t", "999us", "--timeout: \"999us\" is no duration from 1ms to 24h, such as 90s "
				 "or 1m30s" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NULL;
		struct common c = { 0 };
		struct own o = { 0 };
		int operands;

		assert_int_equal(parse(&c, &o, false, &operands, &err,
				       ARGV(A(cases[i].option), A(cases[i].value))), -EINVAL);
		assert_string_equal(error_text(&err), cases[i].text);
	}
}

static void help(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	options_help(common_options, ARRAY_SIZE(common_options), &t);
	assert_string_equal(text_str(&t), "  -q, --quiet               say less\n"
					  "      --socket PATH         where\n"
					  "                            it is\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken),
		cmocka_unit_test(ends_at_the_first_operand),
		cmocka_unit_test(refused),
		cmocka_unit_test(help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
