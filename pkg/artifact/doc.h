/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON documents as plain structs: a table says which member of the object is which member of
 * the struct, and one reader and one writer serve every document of ours. Documents come from
 * disks and from other nodes, so the reader is strict: what the table does not name is refused,
 * as is a member that is missing, there twice, too long, too many or of another type.
 *
 * A document says what it is in "schema" ("kybernate.io/checkpoint/v1"). A sealed one carries the
 * digest of itself in "sha256": SHA-256 of the document without that member, with keys sorted and
 * no white space, in UTF-8. So a document that was changed by hand or by a disk is told apart.
 */
#ifndef KYB_ARTIFACT_DOC_H
#define KYB_ARTIFACT_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

/* The largest number every JSON reader keeps exactly. */
#define DOC_NUMBER_MAX (((uint64_t)1 << 53) - 1)

/* What a member of the struct is. Arrays "x" have their length in a member "n_x". */
enum doc_kind {
	DOC_TEXT,    /* const char *; UTF-8, not empty, no control characters */
	DOC_NUMBER,  /* uint64_t */
	DOC_OCTAL,   /* uint64_t, as text: "0600" */
	DOC_FLAG,    /* bool */
	DOC_DIGEST,  /* struct digest, as hexadecimal text */
	DOC_OBJECT,  /* a struct */
	DOC_TEXTS,   /* const char *const *, size_t */
	DOC_DIGESTS, /* const struct digest *, size_t */
	DOC_OBJECTS, /* const struct ... *, size_t */
};

enum doc_flags {
	/* May be absent: NULL, 0, all zero or no elements; written only when it is not that. */
	DOC_OPTIONAL = 1,
	/*
	 * Somebody else chose the text (the name of a process): the writer makes it fit, by
	 * doc_clean_text(), instead of refusing it.
	 */
	DOC_FOREIGN = 2,
};

struct doc_shape;

struct doc_field {
	const char *name;
	enum doc_kind kind;
	unsigned int flags;
	size_t offset, count_offset;
	uint64_t max;       /* the number, the bytes of text, or the elements */
	uint64_t text_max;  /* DOC_TEXTS: the bytes of each */
	const struct doc_shape *shape; /* of each object */
};

struct doc_shape {
	size_t size;
	const struct doc_field *fields;
	size_t n_fields;
	/* Optional: what the table cannot say. Returns 0 or negative with err. */
	int (*check)(const void *object, struct error *err);
};

#define DOC_FIELD(type, member, knd, mx, ...)                                                      \
	{                                                                                          \
		.name = #member, .kind = (knd), .offset = offsetof(type, member), .max = (mx),     \
		__VA_ARGS__                                                                        \
	}
#define DOC_ARRAY(type, member, knd, mx, ...)                                                      \
	DOC_FIELD(type, member, knd, mx, .count_offset = offsetof(type, n_##member), __VA_ARGS__)

struct doc_format {
	const char *family;   /* "kybernate.io/checkpoint/v" */
	unsigned int version; /* the one we write; others are refused */
	const struct doc_shape *shape;
	bool sealed;          /* carries its own digest */
	size_t text_max;      /* bytes of the document */
	size_t values_max;    /* values in it, objects and arrays included */
};

/*
 * Fills *to, whose pointers lead into arena. Returns 0; -EBADMSG with REASON_IMAGE_CORRUPT and
 * the place and cause in err; -ENOMEM when arena is too small. *to is undefined on failure.
 */
int doc_read(const struct doc_format *format, struct bytes text, void *to, struct arena *arena,
	     struct error *err);

/*
 * Appends the document to out, indented, with a newline at its end. Whatever it writes, doc_read()
 * accepts: it checks the same limits. Returns 0, -EINVAL with REASON_INTERNAL (a value that may not
 * be written), or -ENOMEM.
 */
int doc_write(const struct doc_format *format, const void *from, struct buf *out,
	      struct error *err);

/*
 * Copies text of unknown origin to buf (size bytes, at least 5): control characters and bytes
 * that are no UTF-8 become '?', and it is cut between characters. Returns buf.
 */
const char *doc_clean_text(const char *text, char *buf, size_t size);

#endif
