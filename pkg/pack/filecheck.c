/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/filecheck.h"

#include <inttypes.h>

#include "artifact/fail.h"

static int hashing_failed(const struct filecheck *f, int r, struct error *err)
{
	return fail_sys(err, r, "hash %s", f->want->path);
}

int filecheck_begin(struct filecheck *f, struct digester *digester,
		    const struct manifest_file *want, struct error *err)
{
	int r;

	*f = (struct filecheck){ .digester = digester, .want = want };
	r = digester_begin(digester);
	return r < 0 ? hashing_failed(f, r, err) : 0;
}

/* A chunk is complete: the one that ends at f->at. */
static int end_chunk(struct filecheck *f, struct error *err)
{
	const struct manifest_file *want = f->want;
	size_t i = (size_t)((f->at - 1) / want->chunk_size);
	struct digest is;
	int r = digester_end(f->digester, &is);

	if (r == 0)
		r = digester_begin(f->digester);
	if (r < 0)
		return hashing_failed(f, r, err);
	if (!digest_equal(&is, &want->chunks[i]))
		return fail_corrupt(err, "%s: is damaged in the chunk from offset %" PRIu64,
				    want->path, i * want->chunk_size);
	return 0;
}

static uint64_t left_of_chunk(const struct filecheck *f)
{
	uint64_t of_file = f->want->size - f->at, of_chunk;

	if (!f->want->chunk_size)
		return of_file;
	of_chunk = f->want->chunk_size - f->at % f->want->chunk_size;
	return of_chunk < of_file ? of_chunk : of_file;
}

int filecheck_add(struct filecheck *f, const void *p, size_t n, struct error *err)
{
	const uint8_t *from = p;

	if (n > f->want->size - f->at)
		return fail_corrupt(err, "%s: has more than %" PRIu64 " bytes", f->want->path,
				    f->want->size);
	while (n) {
		uint64_t left = left_of_chunk(f);
		size_t now = n < left ? n : (size_t)left;
		int r = digester_add(f->digester, from, now);

		if (r < 0)
			return hashing_failed(f, r, err);
		f->at += now;
		from += now;
		n -= now;
		if (f->want->chunk_size && now == left) {
			r = end_chunk(f, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int filecheck_end(struct filecheck *f, struct error *err)
{
	struct digest is;
	int r;

	if (f->at != f->want->size)
		return fail_corrupt(err, "%s: has %" PRIu64 " bytes instead of %" PRIu64,
				    f->want->path, f->at, f->want->size);
	/* manifest_read() has computed the root from the chunks, each of which was compared. */
	if (f->want->chunk_size)
		return 0;
	r = digester_end(f->digester, &is);
	if (r < 0)
		return hashing_failed(f, r, err);
	return digest_equal(&is, &f->want->sha256) ? 0 : fail_corrupt(err, "%s: is damaged",
								       f->want->path);
}
