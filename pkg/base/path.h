/* SPDX-License-Identifier: Apache-2.0 */
/* Names and paths. An id is validated before it becomes a file name. */
#ifndef KYB_BASE_PATH_H
#define KYB_BASE_PATH_H

#include <stdbool.h>
#include <stddef.h>

#define ID_MAX 76 /* containerd's maxLength; repo path pkg/identifiers/validate.go */

/*
 * A containerd identifier (container, exec, namespace): 1 to ID_MAX of [A-Za-z0-9], with single
 * '.', '_' or '-' between. Hence never "", ".", ".." or anything with a '/'.
 */
bool id_valid(const char *id);

#define REF_MAX 128

/*
 * A checkpoint reference: 1 to REF_MAX of [A-Za-z0-9._-], starting with a letter or digit.
 * Hence never a path, never hidden.
 */
bool ref_valid(const char *ref);

/*
 * Joins the parts with '/' and cleans the result lexically as Go's filepath.Join does: no "//",
 * ".", or "..", no slash at the end; empty parts are dropped. parts ends with NULL.
 * Returns 0 or -ENAMETOOLONG.
 */
int path_join(char *buf, size_t size, const char *const *parts);
#define PATH_JOIN(buf, ...) path_join(buf, sizeof(buf), (const char *const[]){ __VA_ARGS__, NULL })

/* snprintf() into an array that must fit. Returns 0 or -ENAMETOOLONG. */
int path_printf(char *buf, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define PATH_PRINTF(buf, ...) path_printf(buf, sizeof(buf), __VA_ARGS__)

/* mkdir -p, new directories with mode. Returns 0 or -errno (-ENOTDIR: a file is in the way). */
int path_mkdirs(const char *path, unsigned int mode);

/* Removes a tree below dirfd without following symlinks. Missing is fine. 0 or -errno. */
int path_remove_tree(int dirfd, const char *name);

/*
 * Opens path beneath dirfd: "..", absolute paths, symlinks and magic links are refused
 * (openat2, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS; by hand where that call is not to be had). flags
 * are for what exists. Returns a descriptor or -errno.
 */
int path_open_beneath(int dirfd, const char *path, int flags);

#endif
