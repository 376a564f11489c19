/* SPDX-License-Identifier: Apache-2.0 */
/* A line of /proc/self/mountinfo: sources and options in it come from whoever mounted. */
#include <assert.h>
#include <string.h>

#include "base/mountinfo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void field(struct bytes b)
{
	char buf[256];

	if (mountinfo_unescape(b, buf, sizeof(buf)) == 0)
		assert(strlen(buf) <= b.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct mountinfo m;

	field(bytes_of(data, n));
	if (mountinfo_parse(bytes_of(data, n), &m) < 0)
		return 0;
	assert(m.point.n > 0 && m.point.p[0] == '/');
	assert(m.root.n + m.point.n + m.type.n + m.source.n + m.super.n < n);
	field(m.root);
	field(m.point);
	field(m.source);
	field(m.super);
	return 0;
}
