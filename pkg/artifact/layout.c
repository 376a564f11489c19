/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/layout.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

const struct layout layout_checkpoint = { "metadata.json", "manifest.json", false };
const struct layout layout_image = { "kybernate.json", "kybernate-manifest.json", true };

/*
 * CRIU writes log and statistics into its work directory, which is the image directory where the
 * runtime was given no other (runc --work-path); a restore writes its own.
 */
static const char *const uncovered[] = {
	"dump.log", "restore.log", "stats-dump", "stats-restore",
};

/* What runc and crun write beside the images: the container's standard descriptors. */
#define DESCRIPTORS "descriptors.json"

static bool is_own(const char *path, const char *name)
{
	char tmp[LAYOUT_TMP_MAX];

	return strcmp(path, name) == 0 || strcmp(path, layout_tmp_name(name, tmp)) == 0;
}

enum coverage layout_coverage(const struct layout *layout, const char *path)
{
	if (is_own(path, layout->description) || is_own(path, layout->manifest))
		return OWN;
	if (layout != &layout_image)
		return COVERED;
	for (size_t i = 0; i < ARRAY_SIZE(uncovered); i++)
		if (strcmp(path, uncovered[i]) == 0)
			return UNCOVERED;
	return strcmp(path, DESCRIPTORS) == 0 ? TOLERATED : COVERED;
}

static bool name_valid_n(const char *name, size_t n)
{
	if (n == 0 || n > LAYOUT_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

bool layout_name_valid(const char *name)
{
	return name_valid_n(name, strlen(name));
}

bool layout_path_valid(const struct layout *layout, const char *path)
{
	const char *slash = strchr(path, '/');

	if (!slash)
		return layout_name_valid(path);
	return !layout->flat && name_valid_n(path, (size_t)(slash - path)) &&
	       layout_name_valid(slash + 1);
}

const char *layout_tmp_name(const char *name, char *buf)
{
	(void)snprintf(buf, LAYOUT_TMP_MAX, ".%.*s.tmp", LAYOUT_NAME_MAX, name);
	return buf;
}
