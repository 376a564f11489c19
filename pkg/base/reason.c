/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reason.h"

#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"

static const struct row {
	enum reason reason;
	bool transient;
	const char *name, *what, *todo;
} rows[] = {
#define X(name, number, transient, what, todo)                                                     \
	{ REASON_##name, transient, #name, what, todo },
	REASON_TABLE(X)
#undef X
};

static const struct row *find(enum reason reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].reason == reason)
			return &rows[i];
	return NULL;
}

const char *reason_name(enum reason reason)
{
	const struct row *row = find(reason);

	return row ? row->name : "REASON_?";
}

const char *reason_meaning(enum reason reason)
{
	const struct row *row = find(reason);

	return row ? row->what : "unknown reason";
}

const char *reason_advice(enum reason reason)
{
	const struct row *row = find(reason);

	return row ? row->todo : "see the message";
}

bool reason_is_transient(enum reason reason)
{
	const struct row *row = find(reason);

	return row && row->transient;
}

enum reason reason_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].reason;
	return REASON_NONE;
}

const char *reason_in_text(const char *text, enum reason *ret)
{
	char name[REASON_NAME_MAX];
	const char *end;

	for (; (end = strstr(text, ": ")); text = end + 2) {
		size_t n = (size_t)(end - text);
		enum reason reason;

		if (n >= sizeof(name))
			continue;
		memcpy(name, text, n);
		name[n] = '\0';
		reason = reason_from_name(name);
		if (reason != REASON_NONE) {
			*ret = reason;
			return end + 2;
		}
	}
	return NULL;
}
