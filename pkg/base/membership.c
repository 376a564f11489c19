/* SPDX-License-Identifier: Apache-2.0 */
#include "base/membership.h"

#include <errno.h>
#include <string.h>

int membership_next(struct bytes *text, struct membership *ret)
{
	struct bytes line, id, list;

	if (text->n == 0)
		return 0;
	if (bytes_until(text, '\n', &line)) {
		line = *text;
		*text = bytes_of(NULL, 0);
	}
	if (bytes_until(&line, ':', &id) || bytes_until(&line, ':', &list) || line.n == 0 ||
	    line.p[0] != '/' || memchr(line.p, 0, line.n)) {
		*text = bytes_of(NULL, 0);
		return -EBADMSG;
	}
	*ret = (struct membership){ .controllers = list, .path = line };
	return 1;
}

bool membership_controls(const struct membership *m, const char *controller)
{
	struct bytes list = m->controllers, name;
	size_t n = strlen(controller);

	if (n == 0)
		return list.n == 0;
	while (list.n) {
		if (bytes_until(&list, ',', &name)) {
			name = list;
			list.n = 0;
		}
		if (name.n == n && memcmp(name.p, controller, n) == 0)
			return true;
	}
	return false;
}

int membership_path(const struct membership *m, char *buf, size_t size)
{
	static const char deleted[] = " (deleted)";
	size_t n = m->path.n, tail = sizeof(deleted) - 1;

	if (n > tail && memcmp(m->path.p + n - tail, deleted, tail) == 0)
		return -ENOENT;
	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, m->path.p, n);
	buf[n] = 0;
	return 0;
}
