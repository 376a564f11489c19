/* SPDX-License-Identifier: Apache-2.0 */
/* Options of every type: the first byte chooses it, the rest is the value of the Any. */
#include <assert.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "oci/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A config_path would be opened: the fuzzer must not wander over the machine's files. */
static int names_a_file(const uint8_t *data, size_t n)
{
	return memchr(data, '/', n) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const types[] = {
		"containerd.runc.v1.Options",
		"runtimeoptions.v1.Options",
		"containerd.linux.runc.CreateOptions",
		"containerd.runc.v1.CheckpointOptions",
		"containerd.linux.runc.CheckpointOptions",
	};
	struct error err = ERROR_NULL;
	struct checkpoint_options c;
	struct runtime_options o;
	const char *type;

	if (n == 0)
		return 0;
	type = types[data[0] % ARRAY_SIZE(types)];
	data++;
	n--;
	if (data[-1] % ARRAY_SIZE(types) < 3) {
		if (data[-1] % ARRAY_SIZE(types) == 1 && names_a_file(data, n))
			return 0;
		if (runtime_options_parse(type, bytes_of(data, n), &o, &err) < 0) {
			assert(err.text[0]);
			return 0;
		}
		assert(o.binary_name && o.root && o.shim_cgroup && o.criu_path &&
		       o.criu_image_path && o.criu_work_path);
		runtime_options_done(&o);
		return 0;
	}
	if (checkpoint_options_parse(type, bytes_of(data, n), &c, &err) < 0) {
		assert(err.text[0]);
		return 0;
	}
	assert(c.image_path && c.work_path && c.parent_path);
	assert(!c.ref || ref_valid(c.ref));
	for (size_t i = 0; i < c.n_empty_namespaces; i++)
		assert(c.empty_namespaces[i]);
	checkpoint_options_done(&c);
	return 0;
}
