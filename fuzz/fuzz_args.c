/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a shim, the arguments ended by NULs. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shim/args.h"

#define ARGS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* One of the arguments, a part of one, or our own "". */
static void check(const char *s, const char *text, size_t n)
{
	assert(s && (!*s || (s >= text && s < text + n)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = malloc(n + 1);
	char *argv[ARGS_MAX + 2] = { (char *)"shim" };
	struct error err = ERROR_NULL;
	struct args args;
	int argc = 1;

	if (!text)
		abort();
	if (n)
		memcpy(text, data, n);
	text[n] = 0;
	for (size_t at = 0; at < n && argc <= ARGS_MAX; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	if (args_parse(argc, argv, &args, &err) < 0) {
		assert(err.text[0]);
		return 0;
	}
	check(args.ns, text, n);
	check(args.id, text, n);
	check(args.bundle, text, n);
	check(args.address, text, n);
	check(args.publish_binary, text, n);
	check(args.socket, text, n);
	check(args.debug_socket, text, n);
	check(args.action, text, n);
	return 0;
}
