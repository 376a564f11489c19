/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/member.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "artifact/layout.h"
#include "base/cleanup.h"

static const struct {
	const char *path, *name;
} renamed[] = {
	{ "rootfs-diff.tar.zst", "rootfs-diff.tar" },
	{ "spec.json", "spec.dump" },
	{ LAYOUT_LOGS "/dump.log", "dump.log" },
	{ LAYOUT_LOGS "/stats-dump", "stats-dump" },
};

static const char *const extras[] = { MEMBER_CONFIG, MEMBER_STATUS };

bool member_is_extra(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++)
		if (strcmp(name, extras[i]) == 0)
			return true;
	return false;
}

/* Does a name that is kept belong to something else? */
static bool is_taken(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(renamed); i++)
		if (strcmp(path, renamed[i].name) == 0)
			return true;
	return member_is_extra(path) || strncmp(path, MEMBER_IMAGES, strlen(MEMBER_IMAGES)) == 0 ||
	       strcmp(path, layout_checkpoint.description) == 0 ||
	       strcmp(path, layout_checkpoint.manifest) == 0;
}

static int set(char *ret, const char *prefix, const char *name)
{
	int n = snprintf(ret, MEMBER_NAME_MAX + 1, "%s%s", prefix, name);

	return n < 0 || n > MEMBER_NAME_MAX ? -ENAMETOOLONG : 0;
}

int member_name(const char *path, char *ret)
{
	size_t n = strlen(LAYOUT_CRIU "/");

	if (strncmp(path, LAYOUT_CRIU "/", n) == 0)
		return set(ret, MEMBER_IMAGES, path + n);
	for (size_t i = 0; i < ARRAY_SIZE(renamed); i++)
		if (strcmp(path, renamed[i].path) == 0)
			return set(ret, "", renamed[i].name);
	return is_taken(path) ? -EEXIST : set(ret, "", path);
}
