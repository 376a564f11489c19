/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the table of docs/reason-codes.md: "reasons". For tools/generated-docs, at build time
 * only. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/reason.h"

/* A name in small letters for links to the row. */
static void print_anchor(const char *name)
{
	(void)fputs("<a id=\"", stdout);
	for (; *name; name++)
		(void)putchar(tolower((unsigned char)*name));
	(void)fputs("\"></a>", stdout);
}

static void print_row(enum reason reason)
{
	const char *name = reason_name(reason);

	(void)fputs("| ", stdout);
	print_anchor(name);
	(void)printf("`%s` | %d | %s | %s | %s |\n", name, (int)reason,
		     reason_is_transient(reason) ? "yes" : "no", reason_meaning(reason),
		     reason_advice(reason));
}

int main(int argc, char **argv)
{
	static const enum reason all[] = {
#define X(name, number, transient, what, todo) REASON_##name,
		REASON_TABLE(X)
#undef X
	};

	if (argc != 2 || strcmp(argv[1], "reasons") != 0)
		return 2;
	(void)puts("| reason | number | retry | what it means | what to do |\n"
		   "| --- | --- | --- | --- | --- |");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i] != REASON_NONE)
			print_row(all[i]);
	return fflush(stdout) == 0 ? 0 : 1;
}
