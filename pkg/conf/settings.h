/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed settings from a TOML file. A program's settings are one table of rows (an X macro in its
 * header): type, member, default, documentation. The member's name is the key in the file, the
 * default is TOML text that goes through the same checks as the file, and docs/configuration.md is
 * generated from the same rows. An unknown key is an error, because a misspelt time-out that is
 * silently ignored is found on the day it is needed.
 */
#ifndef KYB_CONF_SETTINGS_H
#define KYB_CONF_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "conf/toml.h"

/* X(type, its member's C type, what the documentation calls it) */
#define SETTING_TYPES(X)                                                                           \
	X(STRING, const char *, "string")                                                          \
	X(PATH, const char *, "absolute path")                                                     \
	X(NAME, const char *, "name")                                                              \
	X(BOOL, bool, "boolean")                                                                   \
	X(LEVEL, enum log_level, "`\"debug\"`, `\"info\"`, `\"warning\"` or `\"error\"`")          \
	X(DURATION, nsec_t, "duration")                                                            \
	X(COUNT, uint32_t, "integer from 1")                                                       \
	X(SIZE, uint64_t, "size")                                                                  \
	X(PATHS, struct setting_list, "list of absolute paths")                                    \
	X(NAMES, struct setting_list, "list of names")                                             \
	X(UIDS, struct setting_uids, "list of user ids")

struct setting_list {
	const char **items;
	size_t n;
};

struct setting_uids {
	uint32_t *items;
	size_t n;
};

enum setting_type {
#define X(type, c_type, name) SETTING_##type,
	SETTING_TYPES(X)
#undef X
};

/* Durations are from 1 ms to this; nothing in this project waits for ever. */
#define SETTING_DURATION_MAX (24 * 3600 * NSEC_PER_SEC)
#define SETTING_NAME_MAX     128

struct setting {
	enum setting_type type;
	const char *key;      /* "timeouts.lock"; at most one dot */
	size_t offset;        /* of the member in the struct */
	const char *fallback; /* TOML text; NULL = the key must be there */
};

/* One row of the X macro as a struct setting; owner is the struct's type. */
#define SETTING_ROW(owner, type, member, fallback)                                                 \
	{                                                                                          \
		SETTING_##type, #member, offsetof(owner, member), fallback                         \
	}

/*
 * Fills the struct at base from table and the defaults. also: one key more that the caller reads
 * by itself, or NULL. Strings go into mem. Returns 0, -EINVAL (err names line and key) or -ENOMEM.
 */
int settings_apply(const struct setting *rows, size_t n, const struct toml *table, const char *also,
		   void *base, struct arena *mem, struct error *err);

/*
 * Reads the file that a program's settings are in: named (what its environment variable says; NULL
 * or "" when unset), which must then exist, else fallback, which need not. *ret_path is the one.
 */
int settings_read(struct toml_doc *doc, const char *named, const char *fallback,
		  const char **ret_path, struct error *err);

/*
 * A name of a group or seat: 1 to SETTING_NAME_MAX of letters, digits and "._:/@-". They come from
 * a device plugin, and end up in logs, metrics and messages.
 */
bool setting_name_valid(const char *name);

bool setting_list_has(const struct setting_list *list, const char *item);

#endif
