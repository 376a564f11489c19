/* SPDX-License-Identifier: Apache-2.0 */
#include "cu.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int cu_load(struct cu *cu, const char **ret_missing)
{
	struct {
		void *member;
		const char *symbol;
	} const table[] = {
#define X(member, symbol, parameters) { &cu->member, symbol },
		CU_TABLE(X)
#undef X
	};

	*ret_missing = "libcuda.so.1";
	cu->lib = dlopen("libcuda.so.1", RTLD_NOW);
	if (!cu->lib)
		return -ENOENT;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		void *p = dlsym(cu->lib, table[i].symbol);

		*ret_missing = table[i].symbol;
		if (!p)
			return -ENOENT;
		memcpy(table[i].member, &p, sizeof(p));
	}
	return 0;
}

const char *cu_name(const struct cu *cu, int code)
{
	const char *name = NULL;

	return cu->error_name(code, &name) == 0 && name ? name : "an unknown error";
}
