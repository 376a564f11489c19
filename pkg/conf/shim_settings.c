/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/shim_settings.h"

#include "base/cleanup.h"

#define MEM_MAX (2 * TOML_TEXT_MAX)

static const struct setting rows[] = {
#define X(type, member, fallback, doc) SETTING_ROW(struct shim_settings, type, member, fallback),
	SHIM_SETTINGS(X)
#undef X
};

static int apply(const struct toml_doc *doc, struct shim_settings *ret, struct error *err)
{
	struct shim_settings s = { .mem = ARENA_LIMIT(MEM_MAX) };
	int r = settings_apply(rows, ARRAY_SIZE(rows), doc->root, NULL, &s, &s.mem, err);

	if (r < 0)
		arena_done(&s.mem);
	else
		*ret = s;
	return r;
}

int shim_settings_parse(struct bytes text, struct shim_settings *ret, struct error *err)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	int r = toml_parse(&doc, text, err);

	return r < 0 ? r : apply(&doc, ret, err);
}

int shim_settings_load(const char *named, struct shim_settings *ret, struct error *err)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	const char *path;
	int r = settings_read(&doc, named, SHIM_SETTINGS_FILE, &path, err);

	if (r < 0)
		return r;
	r = apply(&doc, ret, err);
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

void shim_settings_done(struct shim_settings *s)
{
	arena_done(&s->mem);
}
