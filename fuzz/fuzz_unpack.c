/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed checkpoint from anywhere: taken whole or refused with a reason, and then nothing of it
 * stays. What is no archive is read as a layer too, which digests keep out of reach otherwise.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "pack/infile.h"
#include "pack/unpack.h"

#define BYTES_MAX ((uint64_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_layer(int fd, size_t n)
{
	const struct infile_member all = { .name = "", .offset = 0, .size = n };
	struct inlayer in = INLAYER_NULL;
	struct error err = ERROR_NULL;
	struct inlayer_entry e;
	struct digest none = { 0 };
	uint64_t at = 0, got;
	struct bytes b;
	int r = inlayer_open(&in, fd, &all, BYTES_MAX, &err);

	while (r == 0 && (r = inlayer_next(&in, &e, &err)) == 0) {
		assert(e.name[0] && in.at > at);
		at = in.at;
		for (got = 0; (r = inlayer_data(&in, &b, &err)) == 0;)
			got += b.n;
		assert(r < 0 || got <= e.size);
		r = r < 0 ? r : 0;
	}
	/* No layer has these digests. */
	if (r == 1)
		assert(inlayer_finish(&in, &none, &none, &err) < 0);
	assert(err.code < 0 && err.text[0]);
	inlayer_done(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char shm[] = "/dev/shm/kyb-unpack-XXXXXX", tmp[] = "/tmp/kyb-unpack-XXXXXX";
	char *dir = access("/dev/shm", W_OK) == 0 ? shm : tmp;
	struct unpack_options options = { .max_bytes = BYTES_MAX };
	struct unpack_result result;
	struct error err = ERROR_NULL;
	int fd = memfd_create("archive", MFD_CLOEXEC), dirfd;

	assert(fd >= 0 && fd_write_all(fd, data, n) == 0);
	assert(mkdtemp(dir));
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert(dirfd >= 0);
	if (unpack_checkpoint(fd, dirfd, "d", &options, &result, &err) == 0) {
		assert(result.bytes <= BYTES_MAX && result.ref[0]);
		assert(path_remove_tree(dirfd, "d") == 0);
	} else {
		assert(err.code < 0 && err.reason != REASON_NONE && err.text[0]);
	}
	/* Nothing else is there, or it could not be removed. */
	assert(rmdir(dir) == 0);
	read_layer(fd, n);
	assert(close(dirfd) == 0 && close(fd) == 0);
	return 0;
}
