/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/spool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fd.h"

#define PIPE_FD 3
#define FILE_FD 4
/* Fast enough to be limited by the disk; changed files of a container are mostly text and code. */
#define LEVEL 3

static ssize_t read_some(int fd, void *p, size_t n)
{
	ssize_t got;

	do
		got = read(fd, p, n);
	while (got < 0 && errno == EINTR);
	return got;
}

static int compress_all(ZSTD_CCtx *ctx, void *in_mem, size_t in_size, void *out_mem,
			size_t out_size)
{
	ZSTD_inBuffer in = { in_mem, 0, 0 };
	bool last = false;

	while (!last) {
		ssize_t n = read_some(PIPE_FD, in_mem, in_size);
		size_t left;

		if (n < 0)
			return -errno;
		last = n == 0;
		in.size = (size_t)n;
		in.pos = 0;
		do {
			ZSTD_outBuffer out = { out_mem, out_size, 0 };
			int r;

			left = ZSTD_compressStream2(ctx, &out, &in,
						    last ? ZSTD_e_end : ZSTD_e_continue);
			if (ZSTD_isError(left))
				return -EIO;
			r = fd_write_all(FILE_FD, out_mem, out.pos);
			if (r < 0)
				return r;
		} while (last ? left != 0 : in.pos < in.size);
	}
	return fsync(FILE_FD) < 0 ? -errno : 0;
}

static int spool_in(void)
{
	size_t in_size = ZSTD_CStreamInSize(), out_size = ZSTD_CStreamOutSize();
	_cleanup_free_ void *in = malloc(in_size);
	_cleanup_free_ void *out = malloc(out_size);
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	int r = in && out && ctx ? 0 : -ENOMEM;

	if (r == 0 && (ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, LEVEL)) ||
		       ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1))))
		r = -EINVAL;
	if (r == 0)
		r = compress_all(ctx, in, in_size, out, out_size);
	(void)ZSTD_freeCCtx(ctx);
	return r;
}

static int expand_all(ZSTD_DCtx *ctx, void *in_mem, size_t in_size, void *out_mem,
		      size_t out_size)
{
	size_t left = 1; /* 0 = a frame is complete */

	for (;;) {
		ssize_t n = read_some(FILE_FD, in_mem, in_size);
		ZSTD_inBuffer in = { in_mem, n > 0 ? (size_t)n : 0, 0 };

		if (n < 0)
			return -errno;
		if (n == 0)
			return left ? -EBADMSG : 0; /* cut off */
		while (in.pos < in.size) {
			ZSTD_outBuffer out = { out_mem, out_size, 0 };
			int r;

			left = ZSTD_decompressStream(ctx, &out, &in);
			if (ZSTD_isError(left))
				return -EBADMSG;
			r = fd_write_all(PIPE_FD, out_mem, out.pos);
			if (r < 0)
				return r;
		}
	}
}

static int spool_out(void)
{
	size_t in_size = ZSTD_DStreamInSize(), out_size = ZSTD_DStreamOutSize();
	_cleanup_free_ void *in = malloc(in_size);
	_cleanup_free_ void *out = malloc(out_size);
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	int r = in && out && ctx ? expand_all(ctx, in, in_size, out, out_size) : -ENOMEM;

	(void)ZSTD_freeDCtx(ctx);
	return r;
}

bool spool_role(int argc, char *const *argv, int *ret_status)
{
	int r;

	if (argc != 2)
		return false;
	if (strcmp(argv[1], "--spool-in") == 0)
		r = spool_in();
	else if (strcmp(argv[1], "--spool-out") == 0)
		r = spool_out();
	else
		return false;
	if (r < 0)
		(void)fprintf(stderr, "%s", strerror(-r)); /* captured by spool_start()'s owner */
	*ret_status = r < 0 ? 1 : 0;
	return true;
}

int spool_start(struct command *c, struct loop *loop, struct reaper *reaper, bool in, int pipe,
		int file, nsec_t deadline, void (*done)(struct command *c), struct error *err)
{
	const char *argv[] = { "kybernate-spool", in ? "--spool-in" : "--spool-out", NULL };
	struct spawn s = { .program = "/proc/self/exe", .argv = argv, .die_with_parent = true };

	spawn_fd(&s, pipe, PIPE_FD);
	spawn_fd(&s, file, FILE_FD);
	return command_start(c, loop, reaper, &s, COMMAND_CAPTURE_STDERR, NULL, deadline, done, err);
}
