/* SPDX-License-Identifier: Apache-2.0 */
#include "base/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"

#define MAP_MAX 32768 /* 340 lines */

bool userns_inside(const char *proc)
{
	_cleanup_buf_ struct buf map = BUF_LIMIT(MAP_MAX);
	uint64_t field[3]; /* first inside, first outside, how many */
	char path[PATH_MAX];
	const char *p;

	if (PATH_PRINTF(path, "%s/self/uid_map", proc) < 0 || file_read(AT_FDCWD, path, &map) < 0)
		return false;
	p = buf_str(&map);
	for (size_t i = 0; i < ARRAY_SIZE(field); i++) {
		size_t n;

		p += strspn(p, " \t");
		n = strcspn(p, " \t\n");
		if (num_parse_n(p, n, UINT32_MAX, &field[i]) < 0)
			return true;
		p += n;
	}
	p += strspn(p, " \t\n");
	return *p || field[0] != 0 || field[1] != 0 || field[2] != UINT32_MAX;
}
