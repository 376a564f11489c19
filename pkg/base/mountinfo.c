/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/num.h"

#define LINE_MAX_BYTES ((size_t)64 << 10)
#define READ_STEP      ((size_t)16 << 10)

static bool is_dash(struct bytes field)
{
	return field.n == 1 && field.p[0] == '-';
}

static int number(struct bytes field, uint64_t *ret)
{
	return num_parse_n((const char *)field.p, field.n, UINT64_MAX, ret);
}

int mountinfo_parse(struct bytes line, struct mountinfo *ret)
{
	struct mountinfo m = { 0 };
	struct bytes id, parent, skip;

	if (bytes_until(&line, ' ', &id) || bytes_until(&line, ' ', &parent) ||
	    bytes_until(&line, ' ', &m.dev) ||
	    bytes_until(&line, ' ', &m.root) || bytes_until(&line, ' ', &m.point) ||
	    bytes_until(&line, ' ', &skip)) /* options of the mount */
		return -EBADMSG;
	do /* optional fields, ended by a dash */
		if (bytes_until(&line, ' ', &skip))
			return -EBADMSG;
	while (!is_dash(skip));
	/* The source is empty when it was so in mount(2): two blanks in a row. */
	if (bytes_until(&line, ' ', &m.type) || bytes_until(&line, ' ', &m.source))
		return -EBADMSG;
	m.super = line;
	if (number(id, &m.id) < 0 || number(parent, &m.parent) < 0 || m.point.n == 0 ||
	    m.point.p[0] != '/')
		return -EBADMSG;
	*ret = m;
	return 0;
}

static bool octal(uint8_t c)
{
	return c >= '0' && c <= '7';
}

int mountinfo_unescape(struct bytes field, char *buf, size_t size)
{
	size_t n = 0;

	while (field.n) {
		uint8_t c = field.p[0];
		size_t used = 1;

		/* At most \377; anything else after a backslash stands for itself. */
		if (c == '\\' && field.n >= 4 && field.p[1] <= '3' && octal(field.p[1]) &&
		    octal(field.p[2]) && octal(field.p[3])) {
			c = (uint8_t)((field.p[1] - '0') << 6 | (field.p[2] - '0') << 3 |
				      (field.p[3] - '0'));
			used = 4;
		}
		if (c == 0)
			return -EBADMSG;
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		buf[n++] = (char)c;
		field = bytes_of(field.p + used, field.n - used);
	}
	if (n >= size)
		return -ENAMETOOLONG;
	buf[n] = 0;
	return 0;
}

int mountinfo_each(const char *file, int (*each)(void *arg, const struct mountinfo *m), void *arg)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC);
	_cleanup_buf_ struct buf b = BUF_LIMIT(LINE_MAX_BYTES + READ_STEP);

	if (fd < 0)
		return -errno;
	for (;;) {
		uint8_t *to = buf_reserve(&b, READ_STEP);
		struct mountinfo m;
		struct bytes line;
		ssize_t got;

		if (!to)
			return -errno;
		got = read(fd, to, READ_STEP);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : 0;
		buf_commit(&b, (size_t)got);
		for (;;) {
			struct bytes rest = buf_bytes(&b);
			int r;

			if (bytes_until(&rest, '\n', &line))
				break;
			r = mountinfo_parse(line, &m) < 0 ? 0 : each(arg, &m);
			if (r)
				return r;
			buf_consume(&b, line.n + 1);
		}
	}
}
