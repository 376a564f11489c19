/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/process_spec.h"

#include <errno.h>
#include <jansson.h>

static int append(const char *p, size_t n, void *data)
{
	return buf_append(data, p, n) < 0 ? -1 : 0;
}

int process_spec_rewrite(struct bytes json, bool terminal, struct buf *out, struct error *err)
{
	json_error_t why;
	json_t *root = json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &why);
	int r = 0;

	if (!json_is_object(root))
		r = error_rpc(err, RPC_INVALID_ARGUMENT, -EINVAL, "the exec's process: %s",
			      root ? "not an object" : why.text);
	else if (json_object_set_new(root, "terminal", json_boolean(terminal)) < 0 ||
		 json_dump_callback(root, append, out, JSON_COMPACT) < 0)
		r = error_set(err, -ENOMEM, "the exec's process: out of memory");
	json_decref(root);
	return r;
}
