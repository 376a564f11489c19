/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 through OpenSSL's EVP interface, which picks the CPU's SHA instructions. */
#include "artifact/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fits the second-level cache, so that hashing does not fetch what read() has just stored. */
#define READ_SIZE ((size_t)256 << 10)

struct digester {
	EVP_MD *md; /* fetched once: a fetch by name costs more than hashing a small file */
	EVP_MD_CTX *ctx;
	uint8_t *buffer; /* for files only: made when the first is read */
};

const char *digest_hex(const struct digest *d, char *buf)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		buf[2 * i] = hex[d->byte[i] >> 4];
		buf[2 * i + 1] = hex[d->byte[i] & 15];
	}
	buf[2 * DIGEST_SIZE] = 0;
	return buf;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int digest_parse(const char *hex, struct digest *ret)
{
	struct digest d;

	if (strnlen(hex, DIGEST_HEX_MAX) != DIGEST_HEX_MAX - 1)
		return -EINVAL;
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		d.byte[i] = (uint8_t)(high << 4 | low);
	}
	*ret = d;
	return 0;
}

int digester_new(struct digester **ret)
{
	struct digester *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->ctx = EVP_MD_CTX_new();
	d->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!d->ctx || !d->md) {
		int r = d->ctx ? -ELIBACC : -ENOMEM;

		digester_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void digester_free(struct digester *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->ctx);
	EVP_MD_free(d->md);
	free(d->buffer);
	free(d);
}

int digester_begin(struct digester *d)
{
	return EVP_DigestInit_ex2(d->ctx, d->md, NULL) == 1 ? 0 : -ELIBACC;
}

int digester_add(struct digester *d, const void *p, size_t n)
{
	return EVP_DigestUpdate(d->ctx, p, n) == 1 ? 0 : -ELIBACC;
}

int digester_end(struct digester *d, struct digest *ret)
{
	unsigned int n = 0;

	if (EVP_DigestFinal_ex(d->ctx, ret->byte, &n) != 1 || n != DIGEST_SIZE)
		return -ELIBACC;
	return 0;
}

int digester_bytes(struct digester *d, struct bytes in, struct digest *ret)
{
	int r = digester_begin(d);

	if (r == 0 && in.n)
		r = digester_add(d, in.p, in.n);
	return r < 0 ? r : digester_end(d, ret);
}

int digester_range(struct digester *d, int fd, uint64_t offset, uint64_t length,
		   struct digest *ret, uint64_t *ret_at)
{
	int r = digester_begin(d);

	if (r == 0 && !d->buffer) {
		d->buffer = malloc(READ_SIZE);
		r = d->buffer ? 0 : -ENOMEM;
	}
	while (r == 0 && length) {
		size_t want = length < READ_SIZE ? (size_t)length : READ_SIZE;
		ssize_t got = pread(fd, d->buffer, want, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			r = got < 0 ? -errno : -ENODATA;
			break;
		}
		r = digester_add(d, d->buffer, (size_t)got);
		offset += (uint64_t)got;
		length -= (uint64_t)got;
	}
	if (r < 0) {
		if (ret_at)
			*ret_at = offset;
		return r;
	}
	return digester_end(d, ret);
}

uint64_t digest_chunk_count(uint64_t file_size, uint64_t chunk_size)
{
	return file_size / chunk_size + (file_size % chunk_size != 0);
}

uint64_t digest_chunk_size(uint64_t file_size, uint64_t chunks_max)
{
	uint64_t size = DIGEST_CHUNK_MIN;

	while (size < DIGEST_CHUNK_MAX && digest_chunk_count(file_size, size) > chunks_max)
		size *= 2;
	return size;
}

int digest_root(struct digester *d, const struct digest *chunks, size_t n, struct digest *ret)
{
	return digester_bytes(d, bytes_of(chunks, n * sizeof(*chunks)), ret);
}
