/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TOML, read strictly into a read-only tree: our settings files, and the runtime options that
 * containerd's CRI plugin sends as TOML text.
 *
 * TOML 1.0 (https://toml.io/en/v1.0.0), less two things that no setting needs and that are refused
 * with a text that says so: dates and times, and strings that hold a NUL. Integers are 64 bits
 * wide. Bounded in size, depth and number of entries, so that a file cannot cost more than a few
 * megabytes for the moment in which it is read.
 */
#ifndef KYB_CONF_TOML_H
#define KYB_CONF_TOML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

#define TOML_TEXT_MAX  ((size_t)1 << 20)
#define TOML_NODES_MAX 4096 /* tables, arrays and values together */
#define TOML_DEPTH_MAX 32   /* of nested values, and of the parts of a key */

enum toml_type {
	TOML_STRING,
	TOML_INTEGER,
	TOML_FLOAT,
	TOML_BOOLEAN,
	TOML_ARRAY,
	TOML_TABLE,
};

/* How a table or array came to be, which decides what may still be added to it. */
enum toml_origin {
	TOML_CLOSED,     /* written out as a value: nothing */
	TOML_IMPLICIT,   /* named on the way to a deeper table: may be defined once */
	TOML_HEADER,     /* [table] */
	TOML_DOTTED,     /* by a dotted key: more dotted keys */
	TOML_OF_HEADERS, /* [[array]] */
};

struct toml {
	enum toml_type type;
	enum toml_origin origin; /* of tables and arrays; for the parser */
	unsigned int line;       /* where the value or the table's heading stands, from 1 */
	const char *key;         /* NULL for the root and for what is in an array */
	struct toml *next;       /* the next one of the same table or array, in the file's order */
	union {
		const char *string; /* UTF-8 */
		int64_t integer;
		double real;
		bool boolean;
		struct {
			struct toml *first, *last;
		} child; /* of tables and arrays */
	};
};

struct toml_doc {
	struct arena mem;
	struct toml *root; /* a table; NULL before toml_parse() */
};

/*
 * Returns 0, -EINVAL (not TOML, or over a limit; err has line and column), or -ENOMEM. The text is
 * not needed any more when this returns. Free with toml_done(), also after a failure.
 */
int toml_parse(struct toml_doc *doc, struct bytes text, struct error *err);
/* The same for a file, which err names; dirfd may be AT_FDCWD. Also -ENOENT and other -errno. */
int toml_read(struct toml_doc *doc, int dirfd, const char *path, struct error *err);
/* Harmless on a zeroed or freed document. */
void toml_done(struct toml_doc *doc);

#define _cleanup_toml_ _cleanup_(toml_done)

/* The entry of that name (exactly, no dots), or NULL. */
const struct toml *toml_get(const struct toml *table, const char *key);

#define toml_for_each(pos, parent)                                                                 \
	for (const struct toml *pos = (parent)->child.first; pos; pos = pos->next)

/* How many entries a table or array has. */
size_t toml_count(const struct toml *parent);

/* "a string", "a table" and so on, for messages. */
const char *toml_type_name(enum toml_type type);

#endif
