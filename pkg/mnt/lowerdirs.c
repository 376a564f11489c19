/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/lowerdirs.h"

#include <errno.h>
#include <string.h>

int lowerdirs_parse(const char *value, struct lowerdirs *ret)
{
	ret->n = 0;
	for (;;) {
		const char *end = value;

		while (*end && *end != ':')
			end += *end == '\\' && end[1] ? 2 : 1;
		if (ret->n == LOWERDIRS_MAX)
			return -E2BIG;
		ret->dir[ret->n++] = bytes_of(value, (size_t)(end - value));
		if (!*end)
			return 0;
		value = end + 1;
	}
}

int lowerdirs_parent(const struct lowerdirs *l, char *buf, size_t size)
{
	struct bytes common = l->dir[0];

	for (size_t i = 1; i < l->n; i++) {
		size_t n = 0;

		while (n < common.n && n < l->dir[i].n && common.p[n] == l->dir[i].p[n])
			n++;
		common.n = n;
	}
	while (common.n > 0 && common.p[common.n - 1] != '/')
		common.n--;
	/* "/" gains nothing, and a layer must keep a name below the parent. */
	if (common.n < 2 || common.p[0] != '/' || memchr(common.p, '\\', common.n))
		return -ENOENT;
	for (size_t i = 0; i < l->n; i++)
		if (l->dir[i].n <= common.n)
			return -ENOENT;
	if (common.n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, common.p, common.n);
	buf[common.n] = 0;
	return 0;
}

int lowerdirs_write(const struct lowerdirs *l, size_t skip, const char *prefix, struct buf *out)
{
	int r = 0;

	for (size_t i = 0; i < l->n && r == 0; i++) {
		if (i > 0)
			r = buf_append_u8(out, ':');
		if (r == 0)
			r = buf_append_str(out, prefix);
		if (r == 0)
			r = buf_append(out, l->dir[i].p + skip, l->dir[i].n - skip);
	}
	return r;
}
