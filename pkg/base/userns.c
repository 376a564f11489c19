/* SPDX-License-Identifier: Apache-2.0 */
#include "base/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/path.h"

#define MAP_MAX 32768 /* 340 lines */

bool userns_inside(const char *proc)
{
	_cleanup_buf_ struct buf map = BUF_LIMIT(MAP_MAX);
	unsigned int first, host, size;
	char path[PATH_MAX], more;

	if (PATH_PRINTF(path, "%s/self/uid_map", proc) < 0 || file_read(AT_FDCWD, path, &map) < 0)
		return false;
	return sscanf(buf_str(&map), "%u %u %u %c", &first, &host, &size, &more) != 3 ||
	       first != 0 || host != 0 || size != UINT32_MAX;
}
