/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all verbs share, and what a verb is. To add one: a file NAME.c that defines verb_NAME, its
 * line in meson.build, and its row in VERB_TABLE. Help, usage errors and option parsing follow
 * from the row; a test demands that manual page and completion know it, too.
 */
#ifndef KYB_CTL_CTL_H
#define KYB_CTL_CTL_H

#include <stdbool.h>
#include <stddef.h>

#include "client.h"
#include "fault.h"
#include "options.h"
#include "screen.h"
#include "text.h"

enum output {
	OUTPUT_TEXT,
	OUTPUT_JSON,  /* one document */
	OUTPUT_JSONL, /* a document a line, where there are several */
};

struct ctl {
	struct screen out, err; /* standard output and error */
	const char *socket;
	enum output output;
	bool quiet;
	bool help, version;
	const char *what; /* the verb's name, as errors say it */
};

struct verb {
	const char *name;
	const char *operands; /* for the usage line: "CONTAINER", "REF...", "" */
	const char *summary;  /* a line for the list of verbs */
	const char *about;    /* for its own help; whole lines of at most 80 columns */
	const struct opt *options;
	size_t n_options;
	size_t args_size; /* of the struct that the options fill; it begins zeroed */
	int min_operands, max_operands;
	/* operands ends with NULL. Returns the exit status (enum ctl_exit). */
	int (*run)(struct ctl *ctl, const void *args, char *const *operands);
};

/* In the order of the help text. */
#define VERB_TABLE(X)                                                                              \
	X(checkpoint)                                                                              \
	X(restore)                                                                                 \
	X(suspend)                                                                                 \
	X(resume)                                                                                  \
	X(list)                                                                                    \
	X(inspect)                                                                                 \
	X(delete)                                                                                  \
	X(status)                                                                                  \
	X(doctor)                                                                                  \
	X(version)                                                                                 \
	X(help)

#define X(name) extern const struct verb verb_##name;
VERB_TABLE(X)
#undef X

/* The verb named so, or NULL. */
const struct verb *verb_find(const char *name);
/* What --help prints: of a verb, or of the program (verb NULL). */
void ctl_help(const struct verb *verb, struct text *out);

static inline bool ctl_json(const struct ctl *ctl)
{
	return ctl->output != OUTPUT_TEXT;
}

/* One call of the agent; client_ask() with this ctl's socket. */
const void *ctl_ask(const struct ctl *ctl, const struct client_method *method,
		    const ProtobufCMessage *request, nsec_t time, struct arena *mem,
		    struct fault *f);

/* Writes to standard output and clears the text. Returns CTL_OK, or CTL_FAILED once it is said. */
int ctl_print(const struct ctl *ctl, struct text *t);
/* The same for a document in the form that -o asks for; takes over the reference. */
int ctl_print_doc(const struct ctl *ctl, json_t *doc);

/* Says what went wrong on standard error, nothing else. Returns f->exit. */
int ctl_complain(const struct ctl *ctl, const struct fault *f);
/* The same, and with -o json {"error": ...} on standard output: the end of a verb. */
int ctl_fail(const struct ctl *ctl, const struct fault *f);
/* Wrong arguments. Returns CTL_USAGE. */
int ctl_usage(const struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
