/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target once over every file of the folders named: the corpus as a regression test,
 * for builds without libFuzzer. Fails when there is not a single file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int run_folder(const char *path)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *e;
	int count = 0;

	if (!dir) {
		perror(path);
		return 0;
	}
	while ((e = readdir(dir))) {
		_cleanup_buf_ struct buf b = BUF_NULL;

		if (e->d_name[0] == '.')
			continue;
		if (file_read(dirfd(dir), e->d_name, &b) < 0) {
			(void)fprintf(stderr, "%s/%s: cannot be read\n", path, e->d_name);
			return 0;
		}
		(void)LLVMFuzzerTestOneInput(buf_bytes(&b).p, buf_len(&b));
		count++;
	}
	return count;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int count = run_folder(argv[i]);

		if (!count)
			return 1;
		(void)printf("%s: %d inputs\n", argv[i], count);
	}
	return 0;
}
