/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the tables of docs/annotations.md: annotations-doc annotations|environment. For
 * tools/generated-docs, at build time only. */
#include <stdio.h>
#include <string.h>

#include "oci/bundle.h"

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "annotations") == 0) {
		(void)puts("| annotation | values | effect |\n| --- | --- | --- |");
#define X(id, name, values, doc)                                                                   \
	(void)puts("| `" KYB_ANNOTATION_PREFIX name "` | " values " | " doc " |");
		KYB_ANNOTATIONS(X)
#undef X
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "environment") == 0) {
		(void)puts("| variable | meaning |\n| --- | --- |");
#define X(id, name, doc) (void)puts("| `" name "` | " doc " |");
		KYB_ENVIRONMENT(X)
#undef X
		return 0;
	}
	return 2;
}
