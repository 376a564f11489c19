/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/phase.h"

#include <string.h>

#include "base/cleanup.h"

static const char *const names[] = {
#define X(name, number, text) [number] = (text),
	PHASE_TABLE(X)
#undef X
};

const char *phase_name(enum phase phase)
{
	return (unsigned int)phase < ARRAY_SIZE(names) ? names[phase] : "?";
}

enum phase phase_from_name(const char *name)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], name) == 0)
			return (enum phase)i;
	return PHASE_NONE;
}
