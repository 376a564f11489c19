/* SPDX-License-Identifier: Apache-2.0 */
/* Mount options as a client of containerd sends them: NUL-separated here. */
#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "mnt/idmap.h"
#include "mnt/lowerdirs.h"
#include "mnt/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void layers(const char *value)
{
	_cleanup_buf_ struct buf whole = BUF_NULL, shorter = BUF_NULL;
	struct lowerdirs l;
	char parent[256];

	if (lowerdirs_parse(value, &l) < 0)
		return;
	assert(l.n > 0);
	assert(lowerdirs_write(&l, 0, "", &whole) == 0);
	assert(strcmp(buf_str(&whole), value) == 0);
	if (lowerdirs_parent(&l, parent, sizeof(parent)) < 0)
		return;
	/* What is written shorter, seen from the parent, is the same. */
	buf_clear(&whole);
	assert(lowerdirs_write(&l, strlen(parent), parent, &whole) == 0);
	assert(strcmp(buf_str(&whole), value) == 0);
	assert(lowerdirs_write(&l, strlen(parent), "", &shorter) == 0);
	assert(buf_len(&shorter) == strlen(value) - l.n * strlen(parent));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_mnt_options_ struct mnt_options o = { 0 };
	_cleanup_buf_ struct buf text = BUF_NULL, out = BUF_NULL, ids = BUF_NULL;
	const char *options[64];
	size_t count = 0, at = 0;

	if (n > 4096 || buf_append(&text, data, n) < 0)
		return 0;
	while (at < n && count < ARRAY_SIZE(options)) {
		options[count] = buf_str(&text) + at;
		at += strlen(options[count++]) + 1;
	}
	if (mnt_options_parse(options, count, &o, NULL) < 0)
		return 0;
	assert(!o.uidmap == !o.gidmap);
	assert(mnt_options_data(&o, o.lowerdir, &out) == 0);
	assert(buf_len(&out) <= n + 1);
	if (o.uidmap)
		(void)idmap_parse(o.uidmap, &ids);
	if (o.lowerdir)
		layers(o.lowerdir);
	return 0;
}
