/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON by jansson, with the three things that a caller of jansson otherwise writes again and again:
 * bounded reading with errors that name the place, look-ups that cannot be surprised by a missing
 * or wrongly typed value, and output that is the same for the same content.
 *
 * jansson owns the prefix json_; ours is json_doc_. Values are jansson's: json_decref() them.
 */
#ifndef KYB_CONF_JSON_H
#define KYB_CONF_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

/*
 * Parses one JSON value that fills the text. Integers that do not fit into 64 bits with sign are
 * legal JSON and happen (the rlimit "infinity" of an OCI spec is 18446744073709551615), but jansson
 * refuses them. A text that holds one is read again with all numbers as floating point, which is
 * exact up to 2^53; json_doc_int() and json_doc_uint() know both.
 *
 * The error says where and what is wrong but quotes nothing: the text may hold secrets, such as a
 * container's environment.
 *
 * *ret: free with json_decref(). Returns 0, -EBADMSG (not JSON) or -ENOMEM.
 */
int json_doc_parse(struct bytes text, json_t **ret, struct error *err);

/*
 * The same for a file of at most max bytes, which err names; dirfd may be AT_FDCWD. Also -EFBIG,
 * -ENOENT and other -errno.
 */
int json_doc_read(int dirfd, const char *path, size_t max, json_t **ret, struct error *err);

static inline void json_doc_free_p(json_t **value)
{
	json_decref(*value);
}

#define _cleanup_json_ _cleanup_(json_doc_free_p)

/*
 * Walks down objects by their keys: JSON_DOC_AT(root, "linux", "resources", "memory"). NULL when
 * any step is missing or not an object; root may be NULL. JSON null counts as missing.
 */
const json_t *json_doc_at(const json_t *root, const char *const *keys);
#define JSON_DOC_AT(root, ...) json_doc_at(root, (const char *const[]){ __VA_ARGS__, NULL })

/* What the getters return when there is no value; *ret is unchanged then. */
#define JSON_DOC_MISSING       1

/*
 * value may be NULL (missing). Return 0, JSON_DOC_MISSING, -EBADMSG (another type, a string that
 * holds a NUL, a number with a fraction), or -ERANGE (an integer outside of the type or over max).
 */
int json_doc_string(const json_t *value, const char **ret);
int json_doc_bool(const json_t *value, bool *ret);
int json_doc_int(const json_t *value, int64_t *ret);
int json_doc_uint(const json_t *value, uint64_t max, uint64_t *ret);

enum json_doc_style {
	JSON_DOC_COMPACT, /* one line, no spaces */
	JSON_DOC_PRETTY,  /* for people: indented, a newline at the end */
};

/*
 * Appends value to out. Keys come in the order in which they were set, so that equal code gives
 * equal bytes. Returns 0, -ENOMEM, -EMSGSIZE (out is full) or -EINVAL (not an object or array).
 */
int json_doc_write(const json_t *value, enum json_doc_style style, struct buf *out);

#endif
