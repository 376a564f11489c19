/* SPDX-License-Identifier: Apache-2.0 */
/* What mounts.c and mounts_restore.c share: the mounts that a config.json makes, and which names
 * are good. */
#ifndef KYB_OCI_MOUNTS_CONFIG_H
#define KYB_OCI_MOUNTS_CONFIG_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"
#include "conf/settings.h"

/* Can CRIU's configuration file, and CRIU's "mnt[NAME]", hold this name? */
bool mounts_plain(const char *name);
/* Does the path begin with one of these? */
bool mounts_allowed(const char *path, const struct setting_list *prefixes);

enum mounted_by {
	MOUNTED_NOT,
	MOUNTED_BIND,  /* a bind mount: the runtime gives it to CRIU */
	MOUNTED_FRESH, /* another mount: CRIU makes it anew */
	MOUNTED_FIXED, /* a device, or a path that is masked: the runtime knows about it */
};

struct mounts_config {
	struct config_mount {
		const char *point; /* free of links */
		enum mounted_by how;
	} * items;
	size_t n;
};

/*
 * Reads config.json in bundle; destinations are resolved within root, the root file system with or
 * without the mounts in it. Returns 0 or negative with err.
 */
int mounts_config_read(int bundle, int root, struct arena *mem, struct mounts_config *ret,
		       struct error *err);

/* Who mounts something at this place. */
enum mounted_by mounts_config_find(const struct mounts_config *c, const char *point);

#endif
