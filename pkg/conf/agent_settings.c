/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/agent_settings.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define MEM_MAX (4 * TOML_TEXT_MAX)

static const struct setting rows[] = {
#define X(type, member, fallback, doc) SETTING_ROW(struct agent_settings, type, member, fallback),
	AGENT_SETTINGS(X)
#undef X
};

static const struct setting group_rows[] = {
#define X(type, member, fallback, doc) SETTING_ROW(struct agent_group, type, member, fallback),
	AGENT_GROUP_SETTINGS(X)
#undef X
};

static int invalid_group(struct error *err, const struct toml *at, const char *what,
			 const char *name)
{
	return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
			    "line %u: the %s '%s' is in two groups", at->line, what, name);
}

/* Is anything of the new group another group's already? Seats are: each group numbers its own. */
static int check_group(const struct agent_settings *s, const struct agent_group *g,
		       const struct toml *at, struct error *err)
{
	if (agent_settings_group(s, g->name))
		return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
				    "line %u: there are two groups of the name '%s'", at->line,
				    g->name);
	for (size_t i = 0; i < s->n_groups; i++) {
		for (size_t k = 0; k < g->gpu_uuids.n; k++)
			if (setting_list_has(&s->groups[i].gpu_uuids, g->gpu_uuids.items[k]))
				return invalid_group(err, at, "GPU", g->gpu_uuids.items[k]);
		for (size_t k = 0; k < g->device_paths.n; k++)
			if (setting_list_has(&s->groups[i].device_paths, g->device_paths.items[k]))
				return invalid_group(err, at, "device", g->device_paths.items[k]);
	}
	return 0;
}

static int apply_groups(struct agent_settings *s, const struct toml *groups, struct error *err)
{
	int r;

	if (!groups)
		return 0;
	if (groups->type != TOML_ARRAY)
		return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
				    "line %u: write [[group]], once for each group", groups->line);
	s->groups = arena_alloc(&s->mem, toml_count(groups) * sizeof(*s->groups));
	if (!s->groups)
		return error_sys(err, -ENOMEM, "read settings");
	toml_for_each(i, groups) {
		struct agent_group *g = &s->groups[s->n_groups];

		if (i->type != TOML_TABLE)
			return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
					    "line %u: write [[group]], once for each group",
					    i->line);
		r = settings_apply(group_rows, ARRAY_SIZE(group_rows), i, NULL, g, &s->mem, err);
		if (r == 0)
			r = check_group(s, g, i, err);
		if (r < 0)
			return error_wrap(err, r, "[[group]]");
		s->n_groups++;
	}
	return 0;
}

static int apply(const struct toml_doc *doc, struct agent_settings *ret, struct error *err)
{
	struct agent_settings s = { .mem = ARENA_LIMIT(MEM_MAX) };
	int r = settings_apply(rows, ARRAY_SIZE(rows), doc->root, "group", &s, &s.mem, err);

	if (r == 0)
		r = apply_groups(&s, toml_get(doc->root, "group"), err);
	if (r < 0)
		arena_done(&s.mem);
	else
		*ret = s;
	return r;
}

int agent_settings_parse(struct bytes text, struct agent_settings *ret, struct error *err)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	int r = toml_parse(&doc, text, err);

	return r < 0 ? r : apply(&doc, ret, err);
}

int agent_settings_load(const char *named, struct agent_settings *ret, struct error *err)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	const char *path;
	int r = settings_read(&doc, named, AGENT_SETTINGS_FILE, &path, err);

	if (r < 0)
		return r;
	r = apply(&doc, ret, err);
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

void agent_settings_done(struct agent_settings *s)
{
	arena_done(&s->mem);
}

const struct agent_group *agent_settings_group(const struct agent_settings *s, const char *name)
{
	for (size_t i = 0; i < s->n_groups; i++)
		if (strcmp(s->groups[i].name, name) == 0)
			return &s->groups[i];
	return NULL;
}
