/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "mnt/idmap.h"
#include "mnt/lowerdirs.h"
#include "mnt/options.h"
#include "tests/cmocka.h"

static void parse(struct mnt_options *o, const char *const *options, int want)
{
	struct error err = ERROR_NULL;
	size_t n = 0;

	while (options[n])
		n++;
	assert_int_equal(mnt_options_parse(options, n, o, &err), want);
	assert_int_equal(err.code, want);
}

#define PARSE(o, want, ...) parse(o, (const char *const[]){ __VA_ARGS__, NULL }, want)

static void data_is(const struct mnt_options *o, const char *lowerdir, const char *want)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	assert_int_equal(mnt_options_data(o, lowerdir, &b), 0);
	assert_string_equal(buf_str(&b), want);
}

/* Every word of containerd's table, and the one that takes it back. */
static void words(void **state)
{
	static const struct {
		const char *set, *clear;
		unsigned long flag;
	} cases[] = {
		{ "sync", "async", MS_SYNCHRONOUS },
		{ "noatime", "atime", MS_NOATIME },
		{ "nodev", "dev", MS_NODEV },
		{ "nodiratime", "diratime", MS_NODIRATIME },
		{ "noexec", "exec", MS_NOEXEC },
		{ "mand", "nomand", MS_MANDLOCK },
		{ "relatime", "norelatime", MS_RELATIME },
		{ "strictatime", "nostrictatime", MS_STRICTATIME },
		{ "nosuid", "suid", MS_NOSUID },
		{ "ro", "rw", MS_RDONLY },
		{ "bind", NULL, MS_BIND },
		{ "rbind", NULL, MS_BIND | MS_REC },
		{ "remount", NULL, MS_REMOUNT },
		{ "dirsync", NULL, MS_DIRSYNC },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_mnt_options_ struct mnt_options set = { 0 }, cleared = { 0 };

		PARSE(&set, 0, cases[i].set);
		assert_true(set.flags == cases[i].flag);
		assert_int_equal(set.n_data, 0);
		if (!cases[i].clear)
			continue;
		PARSE(&cleared, 0, "noexec", cases[i].set, cases[i].clear);
		assert_true(cleared.flags == (MS_NOEXEC & ~cases[i].flag));
	}
}

static void propagation(void **state)
{
	_cleanup_mnt_options_ struct mnt_options o = { 0 }, p = { 0 };

	(void)state;
	PARSE(&o, 0, "rbind", "rslave", "ro");
	assert_true(o.flags == (MS_BIND | MS_REC | MS_RDONLY));
	assert_true(o.propagation == (MS_SLAVE | MS_REC));
	PARSE(&p, 0, "shared", "unbindable");
	assert_true(p.flags == 0 && p.propagation == MS_UNBINDABLE);
	data_is(&p, NULL, "");
}

static void data(void **state)
{
	_cleanup_mnt_options_ struct mnt_options o = { 0 }, none = { 0 };

	(void)state;
	PARSE(&o, 0, "index=off", "rw", "lowerdir=/b:/a", "workdir=/w", "ro=1", "lowerdir=x",
	      "Ro", "");
	assert_true(o.flags == 0);
	assert_string_equal(o.lowerdir, "/b:/a");
	data_is(&o, o.lowerdir, "index=off,workdir=/w,ro=1,lowerdir=x,Ro,,lowerdir=/b:/a");
	data_is(&o, NULL, "index=off,workdir=/w,ro=1,lowerdir=x,Ro,");
	parse(&none, (const char *const[]){ NULL }, 0);
	data_is(&none, NULL, "");
	data_is(&none, "/a", "lowerdir=/a");
}

static void special_words(void **state)
{
	_cleanup_mnt_options_ struct mnt_options loop = { 0 }, plain = { 0 }, map = { 0 };

	(void)state;
	PARSE(&loop, 0, "direct-io", "loop", "direct-io", "defaults", "errors=panic");
	assert_true(loop.loop && loop.direct_io);
	data_is(&loop, NULL, "direct-io,errors=panic"); /* the first is taken, as containerd does */
	PARSE(&plain, 0, "direct-io");
	assert_false(plain.loop || plain.direct_io);
	data_is(&plain, NULL, "direct-io");
	PARSE(&map, 0, "uidmap=0:1000:1", "gidmap=0:1:1,1:5:5", "ro");
	assert_string_equal(map.uidmap, "0:1000:1");
	assert_string_equal(map.gidmap, "0:1:1,1:5:5");
	data_is(&map, NULL, "");
}

static void refused(void **state)
{
	struct mnt_options o = { 0 };
	const char *many[MNT_OPTIONS_MAX + 2] = { NULL };

	(void)state;
	PARSE(&o, -EINVAL, "ro", "X-containerd.mkfs=1");
	PARSE(&o, -EINVAL, "X-containerd.");
	PARSE(&o, -EINVAL, "uidmap=0:1:1");
	PARSE(&o, -EINVAL, "gidmap=0:1:1");
	for (int i = 0; i < MNT_OPTIONS_MAX + 1; i++)
		many[i] = "a";
	parse(&o, many, -E2BIG);
	assert_null(o.data);
}

static void id_maps(void **state)
{
	static const struct {
		const char *text;
		int r;
		const char *want;
	} cases[] = {
		{ "0:100000:65536", 0, "0 100000 65536\n" },
		{ "0:1:2,5:6:7", 0, "0 1 2\n5 6 7\n" },
		{ "0:0:4294967295", 0, "0 0 4294967295\n" },
		{ "", -EINVAL, NULL },
		{ "0:1", -EINVAL, NULL },
		{ "0:1:", -EINVAL, NULL },
		{ "0:1:2:3", -EINVAL, NULL },
		{ "0:1:2,", -EINVAL, NULL },
		{ ",0:1:2", -EINVAL, NULL },
		{ "-1:1:2", -EINVAL, NULL },
		{ "0:1:2\n0:0:1", -EINVAL, NULL },
		{ "0:1:4294967296", -ERANGE, NULL },
	};
	_cleanup_buf_ struct buf many = BUF_NULL, out = BUF_NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf b = BUF_NULL;

		assert_int_equal(idmap_parse(cases[i].text, &b), cases[i].r);
		if (cases[i].want)
			assert_string_equal(buf_str(&b), cases[i].want);
	}
	for (int i = 0; i < IDMAP_LINES_MAX; i++)
		assert_int_equal(buf_printf(&many, "%s%d:%d:1", i ? "," : "", i, i), 0);
	assert_int_equal(idmap_parse(buf_str(&many), &out), 0);
	assert_int_equal(buf_append_str(&many, ",9:9:1"), 0);
	assert_int_equal(idmap_parse(buf_str(&many), &out), -EINVAL);
}

static void layers(void **state)
{
	static const struct {
		const char *value;
		size_t n;
		const char *parent; /* NULL = none */
		const char *shorter;
	} cases[] = {
		{ "/s/12/fs:/s/1/fs", 2, "/s/", "12/fs:1/fs" },
		{ "/s/12/fs:/s/12/fs", 2, "/s/12/", "fs:fs" },
		{ "/s/12/fs:/s/13/fs", 2, "/s/", "12/fs:13/fs" }, /* not "/s/1" */
		{ "/s/1/fs", 1, "/s/1/", "fs" },
		{ "/a/x:/b/x", 2, NULL, NULL }, /* "/" is no gain */
		{ "/s/a:/s/", 2, NULL, NULL },
		{ "/s/a:/s", 2, NULL, NULL },
		{ "a/b:a/c", 2, NULL, NULL }, /* relative to what? */
		{ "/s/a::/s/b", 3, NULL, NULL }, /* data-only layers */
		{ "/s/a\\:b:/s/c", 2, "/s/", "a\\:b:c" },
		{ "/s\\:t/a:/s\\:t/b", 2, NULL, NULL },
		{ "", 1, NULL, NULL },
		{ "/s/a\\", 1, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf b = BUF_NULL;
		struct lowerdirs l;
		char parent[64];

		assert_int_equal(lowerdirs_parse(cases[i].value, &l), 0);
		assert_int_equal(l.n, cases[i].n);
		assert_int_equal(lowerdirs_write(&l, 0, "", &b), 0);
		assert_string_equal(buf_str(&b), cases[i].value); /* nothing is lost */
		buf_clear(&b);
		if (i == ARRAY_SIZE(cases) - 1)
			break;
		if (!cases[i].parent) {
			assert_int_equal(lowerdirs_parent(&l, parent, sizeof(parent)), -ENOENT);
			continue;
		}
		assert_int_equal(lowerdirs_parent(&l, parent, sizeof(parent)), 0);
		assert_string_equal(parent, cases[i].parent);
		assert_int_equal(lowerdirs_write(&l, strlen(parent), "", &b), 0);
		assert_string_equal(buf_str(&b), cases[i].shorter);
		assert_int_equal(lowerdirs_parent(&l, parent, strlen(parent)), -ENAMETOOLONG);
	}
}

static void many_layers(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct lowerdirs l;

	(void)state;
	for (int i = 0; i < LOWERDIRS_MAX - 1; i++)
		assert_int_equal(buf_append_u8(&b, ':'), 0);
	assert_int_equal(lowerdirs_parse(buf_str(&b), &l), 0);
	assert_int_equal(l.n, LOWERDIRS_MAX);
	assert_int_equal(buf_append_u8(&b, ':'), 0);
	assert_int_equal(lowerdirs_parse(buf_str(&b), &l), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),	 cmocka_unit_test(propagation),
		cmocka_unit_test(data),		 cmocka_unit_test(special_words),
		cmocka_unit_test(refused),	 cmocka_unit_test(id_maps),
		cmocka_unit_test(layers),	 cmocka_unit_test(many_layers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
