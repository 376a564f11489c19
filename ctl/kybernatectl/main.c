/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kybernatectl: the operator's hand on a node. Talks gRPC to the node agent's socket and holds no
 * state. Here: the table of verbs, the options that all of them know, and the way from argv to
 * the verb. ctl.h says how to add a verb, kybernatectl(1) what each does.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "ctl.h"
#include "socket.h"

#define X(name) &verb_##name,
static const struct verb *const verbs[] = { VERB_TABLE(X) };
#undef X

static int set_output(const char *text, void *field, struct error *err)
{
	static const char *const names[] = { "text", "json", "jsonl" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*(enum output *)field = (enum output)i;
			return 0;
		}
	}
	return error_set(err, -1, "\"%.80s\" is none of text, json and jsonl", text);
}

static const struct opt common[] = {
	{ "socket", 0, "PATH",
	  "the agent's socket (environment:\n" SOCKET_ENV ";\ndefault: " SOCKET_DEFAULT ")",
	  offsetof(struct ctl, socket), option_text },
	{ "output", 'o', "FORMAT", "text (default), json, or jsonl: a JSON\ndocument a line",
	  offsetof(struct ctl, output), set_output },
	{ "quiet", 'q', NULL, "print names only, no progress",
	  offsetof(struct ctl, quiet), option_switch },
	{ "help", 'h', NULL, "print this help", offsetof(struct ctl, help), option_switch },
};

static const struct opt version_option[] = {
	{ "version", 0, NULL, "print the version of this program",
	  offsetof(struct ctl, version), option_switch },
};

const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

static void program_help(struct text *out)
{
	text_add(out, "kybernatectl checkpoints and restores GPU containers, through the agent of "
		      "this\nnode.\n\nUsage: kybernatectl [OPTION...] VERB [ARGUMENT...]\n\nVerbs:\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		text_printf(out, "  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
	text_add(out, "\nOptions, before or after the verb:\n");
	options_help(common, ARRAY_SIZE(common), out);
	options_help(version_option, ARRAY_SIZE(version_option), out);
	text_add(out, "\n'kybernatectl help VERB' tells more. Exit status: 0 done, 1 failed (and "
		      "undone),\n2 wrong usage, 3 agent not reachable, 4 not found, 5 refused, "
		      "6 degraded,\n7 time-out.\n");
}

void ctl_help(const struct verb *verb, struct text *out)
{
	if (!verb) {
		program_help(out);
		return;
	}
	text_printf(out, "Usage: kybernatectl %s [OPTION...]%s%s\n\n%s\n", verb->name,
		    *verb->operands ? " " : "", verb->operands, verb->about);
	if (verb->n_options) {
		text_add(out, "\nOptions:\n");
		options_help(verb->options, verb->n_options, out);
	}
	text_add(out, "\nOptions of all verbs:\n");
	options_help(common, ARRAY_SIZE(common), out);
}

static int print_help(const struct ctl *ctl, const struct verb *verb)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	ctl_help(verb, &t);
	return ctl_print(ctl, &t);
}

/* What options_parse() has not said itself. */
static int complain(const struct ctl *ctl, const struct error *err)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	if (err->code)
		return ctl_usage(ctl, "%s", error_text(err));
	text_printf(&t, "Try 'kybernatectl help%s%s'.\n", ctl->what ? " " : "",
		    ctl->what ? ctl->what : "");
	(void)screen_write(&ctl->err, &t, -1);
	return CTL_USAGE;
}

/* argv[0] is the verb's name. */
static int run_verb(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
	_cleanup_free_ void *args = calloc(1, verb->args_size ? verb->args_size : 1);
	const struct opt_set sets[] = { { common, ARRAY_SIZE(common), ctl },
					{ verb->options, verb->n_options, args } };
	struct error err = ERROR_NULL;
	int operands, n;

	ctl->what = verb->name;
	if (!args)
		return ctl_usage(ctl, "out of memory");
	argv[0] = (char *)"kybernatectl"; /* whose name getopt_long() complains in */
	if (options_parse(sets, ARRAY_SIZE(sets), argc, argv, false, &operands, &err) < 0)
		return complain(ctl, &err);
	if (ctl->help)
		return print_help(ctl, verb);
	n = argc - operands;
	if (n < verb->min_operands)
		return ctl_usage(ctl, "missing operand: %s", verb->operands);
	if (n > verb->max_operands)
		return ctl_usage(ctl, "\"%s\" is one operand too many",
				 argv[operands + verb->max_operands]);
	return verb->run(ctl, args, argv + operands);
}

/*
 * A standard descriptor that is closed would become the agent's socket, and be written to. What is
 * opened in its place refuses output, so that ctl_print() reports it.
 */
static void keep_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	const char *from_env = getenv(SOCKET_ENV);
	struct ctl ctl = { .socket = from_env && *from_env ? from_env : SOCKET_DEFAULT };
	const struct opt_set sets[] = { { common, ARRAY_SIZE(common), &ctl },
					{ version_option, ARRAY_SIZE(version_option), &ctl } };
	struct error err = ERROR_NULL;
	const struct verb *verb;
	int first;

	keep_standard_fds();
	screen_open(&ctl.out, STDOUT_FILENO);
	screen_open(&ctl.err, STDERR_FILENO);
	if (argc < 1)
		return ctl_usage(&ctl, "no arguments at all");
	argv[0] = (char *)"kybernatectl";
	if (options_parse(sets, ARRAY_SIZE(sets), argc, argv, true, &first, &err) < 0)
		return complain(&ctl, &err);
	if (ctl.version) {
		_cleanup_text_ struct text t = TEXT_NULL;

		text_add(&t, "kybernatectl " KYB_VERSION "\n");
		return ctl_print(&ctl, &t);
	}
	if (first == argc)
		return ctl.help ? print_help(&ctl, NULL) : ctl_usage(&ctl, "missing verb");
	verb = verb_find(argv[first]);
	if (!verb)
		return ctl_usage(&ctl, "\"%s\" is not a verb", argv[first]);
	return run_verb(&ctl, verb, argc - first, argv + first);
}
