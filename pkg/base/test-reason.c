/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "base/reason.h"
#include "tests/cmocka.h"

#define X(name, number, transient, what, todo) REASON_##name,
static const enum reason all[] = { REASON_TABLE(X) };
#undef X

/* Both lists hold the same names with the same numbers; neither has one that the other lacks. */
static void equal_to_the_wire(void **state)
{
	const ProtobufCEnumDescriptor *wire = &kybernate__agent__v1__reason__descriptor;

	(void)state;
	assert_int_equal(wire->n_values, ARRAY_SIZE(all));
	for (unsigned int i = 0; i < wire->n_values; i++) {
		const ProtobufCEnumValue *v = &wire->values[i];

		assert_memory_equal(v->name, "REASON_", 7);
		assert_int_equal(reason_from_name(v->name + 7), v->value);
		assert_string_equal(reason_name((enum reason)v->value), v->name + 7);
	}
}

static void every_row(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const char *what = reason_meaning(all[i]), *todo = reason_advice(all[i]);

		assert_int_equal(all[i], i); /* no gaps, no doubles */
		assert_int_equal(reason_from_name(reason_name(all[i])), all[i]);
		assert_true(strlen(what) > 5 && what[strlen(what) - 1] != '.');
		assert_true(strlen(todo) > 5 && todo[strlen(todo) - 1] != '.');
	}
}

static void unknown(void **state)
{
	(void)state;
	assert_string_equal(reason_name((enum reason)999), "REASON_?");
	assert_non_null(reason_meaning((enum reason)999));
	assert_non_null(reason_advice((enum reason)-1));
	assert_false(reason_is_transient((enum reason)999));
	assert_int_equal(reason_from_name("NO_SUCH_REASON"), REASON_NONE);
	assert_int_equal(reason_from_name(""), REASON_NONE);
	assert_true(reason_is_transient(REASON_TIMEOUT));
	assert_false(reason_is_transient(REASON_MIG));
}

static void in_a_text(void **state)
{
	static const struct {
		const char *text, *rest;
		enum reason reason;
	} cases[] = {
		{ "SEAT_MISMATCH: no seat: not found", "no seat: not found", REASON_SEAT_MISMATCH },
		{ "failed to create shim task: MIG: TIMEOUT: x", "TIMEOUT: x", REASON_MIG },
		{ "x: NONE: y: MIG: z", "z", REASON_MIG },
		{ "MIG: ", "", REASON_MIG },
		{ "the MIG: z", NULL, REASON_NONE },
		{ "MIG:z", NULL, REASON_NONE },
		{ "MIG", NULL, REASON_NONE },
		{ "", NULL, REASON_NONE },
		{ ": : ", NULL, REASON_NONE },
	};
	char text[400];
	enum reason reason;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *rest;

		reason = REASON_NONE;
		rest = reason_in_text(cases[i].text, &reason);
		assert_int_equal(reason, cases[i].reason);
		assert_int_equal(rest != NULL, cases[i].rest != NULL);
		if (rest)
			assert_string_equal(rest, cases[i].rest);
	}
	/* A word longer than any name, and every name there is. */
	memset(text, 'A', sizeof(text));
	memcpy(text + sizeof(text) - 8, ": MIG: ", 8);
	assert_non_null(reason_in_text(text, &reason));
	for (size_t i = 1; i < ARRAY_SIZE(all); i++) {
		(void)snprintf(text, sizeof(text), "%s: x", reason_name(all[i]));
		assert_non_null(reason_in_text(text, &reason));
		assert_int_equal(reason, all[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_to_the_wire),
		cmocka_unit_test(every_row),
		cmocka_unit_test(unknown),
		cmocka_unit_test(in_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
