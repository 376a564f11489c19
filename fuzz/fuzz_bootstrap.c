/* SPDX-License-Identifier: Apache-2.0 */
/* The stdin of `start`: BootstrapParams, an Any, or garbage. */
#include <assert.h>
#include <string.h>

#include "base/path.h"
#include "oci/bootstrap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(struct bytes input, const char *id, const char *namespace)
{
	struct error err = ERROR_NULL;
	struct bootstrap b;

	if (bootstrap_parse(input, id, namespace, &b, &err) < 0) {
		assert(err.text[0]);
		return;
	}
	if (b.params) {
		assert(id ? strcmp(b.id, id) == 0 : id_valid(b.id));
		assert(namespace ? strcmp(b.namespace, namespace) == 0 : id_valid(b.namespace));
	}
	assert(b.ttrpc_address && b.grpc_address && b.socket_dir && b.options.root);
	bootstrap_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	/* A config_path would be opened: keep the fuzzer away from the machine's files. */
	if (memmem(data, n, "\x12\x1b/", 3) || memmem(data, n, "runtimeoptions", 14))
		return 0;
	check(bytes_of(data, n), "web", "k8s.io");
	check(bytes_of(data, n), NULL, NULL);
	return 0;
}
