/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options as tables: one row gives the parsing, the help text and (by a test) the place in manual
 * page and completion. Values go into a struct of the verb's own, by offset.
 */
#ifndef KYB_CTL_OPTIONS_H
#define KYB_CTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "text.h"

struct opt {
	const char *name;
	char letter;       /* 0: none */
	const char *value; /* "NS"; NULL: a switch */
	const char *help;  /* in lines of at most 50 columns, cut by '\n' */
	size_t offset;
	/* text: NULL for a switch. Writes to field. Returns 0, or negative with err. */
	int (*set)(const char *text, void *field, struct error *err);
};

struct opt_set {
	const struct opt *opts;
	size_t n;
	void *base; /* what the offsets count from; may be NULL for options_help() */
};

#define OPTIONS_MAX 24 /* of all sets together */

/*
 * Parses argv from argv[1] on. Operands are moved behind the options, and *ret_operands is the
 * index of the first - or, with first_ends, the options end at the first operand. Returns 0, or
 * -EINVAL with err; what getopt_long() finds it says itself, in argv[0]'s name, and err is empty.
 */
int options_parse(const struct opt_set *sets, size_t n_sets, int argc, char **argv,
		  bool first_ends, int *ret_operands, struct error *err);

/* Adds the options of a set, a line or more each. */
void options_help(const struct opt *opts, size_t n, struct text *out);

/* Setters. The field is: a bool; a const char *; the same, checked; an nsec_t. */
int option_switch(const char *text, void *field, struct error *err);
int option_text(const char *text, void *field, struct error *err);
int option_id(const char *text, void *field, struct error *err);
int option_ref(const char *text, void *field, struct error *err);
int option_duration(const char *text, void *field, struct error *err);

#endif
