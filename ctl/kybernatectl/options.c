/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/path.h"
#include "base/time.h"

#define LONG_BASE   256 /* getopt_long()'s values, above every letter */
#define HELP_COLUMN 28

/* The options of all sets as getopt_long() wants them. */
struct known {
	struct option longs[OPTIONS_MAX + 1];
	char letters[2 * OPTIONS_MAX + 2];
	const struct opt *opts[OPTIONS_MAX];
	void *bases[OPTIONS_MAX];
	size_t n;
};

static void collect(struct known *k, const struct opt_set *set)
{
	size_t at = strlen(k->letters);

	for (size_t i = 0; i < set->n; i++) {
		const struct opt *o = &set->opts[i];

		assert(k->n < OPTIONS_MAX);
		k->opts[k->n] = o;
		k->bases[k->n] = set->base;
		k->longs[k->n] = (struct option){ .name = o->name,
						  .has_arg = o->value ? required_argument
								      : no_argument,
						  .val = LONG_BASE + (int)k->n };
		k->n++;
		if (o->letter)
			k->letters[at++] = o->letter;
		if (o->letter && o->value)
			k->letters[at++] = ':';
	}
	k->letters[at] = 0;
}

/* The index of what getopt_long() returned. */
static size_t index_of(const struct known *k, int c)
{
	size_t i = 0;

	if (c >= LONG_BASE)
		return (size_t)(c - LONG_BASE);
	while (i < k->n && k->opts[i]->letter != c)
		i++;
	assert(i < k->n);
	return i;
}

int options_parse(const struct opt_set *sets, size_t n_sets, int argc, char **argv,
		  bool first_ends, int *ret_operands, struct error *err)
{
	struct known k = { .letters = "", .n = 0 };
	int c;

	if (first_ends)
		k.letters[0] = '+';
	for (size_t i = 0; i < n_sets; i++)
		collect(&k, &sets[i]);
	optind = 0; /* glibc: start anew */
	while ((c = getopt_long(argc, argv, k.letters, k.longs, NULL)) != -1) {
		const struct opt *o;
		size_t i;
		int r;

		if (c == '?')
			return -EINVAL;
		i = index_of(&k, c);
		o = k.opts[i];
		r = o->set(o->value ? optarg : NULL, (char *)k.bases[i] + o->offset, err);
		if (r < 0)
			return error_wrap(err, r, "--%s", o->name);
	}
	*ret_operands = optind;
	return 0;
}

void options_help(const struct opt *opts, size_t n, struct text *out)
{
	for (size_t i = 0; i < n; i++) {
		const struct opt *o = &opts[i];
		const char *line = o->help;
		char head[64];
		int used;

		used = snprintf(head, sizeof(head), "  %c%c%s --%s%s%s", o->letter ? '-' : ' ',
				o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
				o->value ? " " : "", o->value ? o->value : "");
		text_add(out, head);
		for (;;) {
			size_t len = strcspn(line, "\n");

			text_spaces(out, used < HELP_COLUMN ? (size_t)(HELP_COLUMN - used) : 1);
			text_add_n(out, line, len);
			text_add(out, "\n");
			if (!line[len])
				break;
			line += len + 1;
			used = 0;
		}
	}
}

/* --- setters -------------------------------------------------------------------------------- */

int option_switch(const char *text, void *field, struct error *err)
{
	(void)text;
	(void)err;
	*(bool *)field = true;
	return 0;
}

int option_text(const char *text, void *field, struct error *err)
{
	(void)err;
	*(const char **)field = text;
	return 0;
}

int option_id(const char *text, void *field, struct error *err)
{
	if (!id_valid(text))
		return error_set(err, -EINVAL, "\"%.160s\" is no name for containerd", text);
	return option_text(text, field, err);
}

int option_ref(const char *text, void *field, struct error *err)
{
	if (!ref_valid(text))
		return error_set(err, -EINVAL, "\"%.160s\" is no name for a checkpoint", text);
	return option_text(text, field, err);
}

int option_duration(const char *text, void *field, struct error *err)
{
	nsec_t d;

	if (num_parse_duration(text, &d) < 0 || d < NSEC_PER_MSEC || d > 24 * 3600 * NSEC_PER_SEC)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is no duration from 1ms to 24h, such as 90s or 1m30s",
				 text);
	*(nsec_t *)field = d;
	return 0;
}
