/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints the table of settings that docs/configuration.md holds: settings-doc shim|agent|group.
 * For tools/generated-docs, at build time only: the programs do not carry these texts.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "conf/agent_settings.h"
#include "conf/shim_settings.h"

struct row {
	enum setting_type type;
	const char *key, *fallback, *doc;
};

#define X(type, member, fallback, doc) { SETTING_##type, #member, fallback, doc },
static const struct row shim[] = { SHIM_SETTINGS(X) };
static const struct row agent[] = { AGENT_SETTINGS(X) };
static const struct row group[] = { AGENT_GROUP_SETTINGS(X) };
#undef X

static const struct {
	const char *name;
	const struct row *rows;
	size_t n;
} tables[] = {
	{ "shim", shim, ARRAY_SIZE(shim) },
	{ "agent", agent, ARRAY_SIZE(agent) },
	{ "group", group, ARRAY_SIZE(group) },
};

static const char *type_name(enum setting_type type)
{
	static const char *const names[] = {
#define X(type, c_type, name) [SETTING_##type] = (name),
		SETTING_TYPES(X)
#undef X
	};

	return names[type];
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		if (strcmp(tables[i].name, argv[1]) != 0)
			continue;
		(void)puts("| key | type | default | meaning |\n| --- | --- | --- | --- |");
		for (size_t k = 0; k < tables[i].n; k++) {
			const struct row *row = &tables[i].rows[k];

			(void)printf("| `%s` | %s | %s%s%s | %s |\n", row->key,
				     type_name(row->type), row->fallback ? "`" : "",
				     row->fallback ? row->fallback : "required",
				     row->fallback ? "`" : "", row->doc);
		}
		return 0;
	}
	return 2;
}
