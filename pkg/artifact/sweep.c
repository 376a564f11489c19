/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "base/cleanup.h"
#include "base/path.h"

int sweep_store(int store_fd, unsigned int *ret_n, struct error *err)
{
	int fd = openat(store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int first = 0;

	*ret_n = 0;
	if (!dir) {
		first = fail_sys(err, errno, "list the store");
		if (fd >= 0)
			(void)close(fd);
		return first;
	}
	/* That the names have gone has to be on the disk before their content goes: else a
	 * checkpoint could come back in part. */
	if (fsync(fd) < 0)
		return fail_sys(err, errno, "write the store's directory to the disk");
	while ((errno = 0, e = readdir(dir))) {
		char shown[64];
		int r;

		if (strncmp(e->d_name, SWEEP_PREFIX, sizeof(SWEEP_PREFIX) - 1) != 0)
			continue;
		r = path_remove_tree(fd, e->d_name);
		if (r == 0)
			++*ret_n;
		else if (first == 0)
			first = fail_sys(err, r, "remove %s",
					 doc_clean_text(e->d_name, shown, sizeof(shown)));
	}
	if (errno && first == 0)
		first = fail_sys(err, errno, "list the store");
	return first;
}
