/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "cgroup/parse.h"
#include "tests/cmocka.h"

static struct bytes text_of(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void values(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t v;
	} cases[] = {
		{ "0\n", 0, 0 },
		{ "4096", 0, 4096 },
		{ " 7 \n", 0, 7 },
		{ "18446744073709551615\n", 0, UINT64_MAX },
		{ "max\n", 0, 77 },
		{ "-1\n", 0, 0 },
		{ "-99999999999999999999999\n", 0, 0 },
		{ "", -EINVAL, 5 },
		{ "\n", -EINVAL, 5 },
		{ "maximum", -EINVAL, 5 },
		{ "-", -EINVAL, 5 },
		{ "--1", -EINVAL, 5 },
		{ "1 2", -EINVAL, 5 },
		{ "1\n2\n", -EINVAL, 5 },
		{ "18446744073709551616\n", -ERANGE, 5 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 5;

		assert_int_equal(parse_value(text_of(cases[i].text), 77, &v), cases[i].r);
		assert_true(v == cases[i].v);
	}
}

static void pairs(void **state)
{
	static const char text[] = "b 2\nnonsense\na 1\nthree words here\nc x\n\nd -4\nlong 12 \nlast 9";
	struct table {
		uint64_t a, b, d, last, none;
	} t = { .none = 42 };
	static const struct parse_key keys[] = {
		{ "a", offsetof(struct table, a) },	  { "b", offsetof(struct table, b) },
		{ "d", offsetof(struct table, d) },	  { "none", offsetof(struct table, none) },
		{ "last", offsetof(struct table, last) },
	};

	(void)state;
	parse_pairs(text_of(text), keys, ARRAY_SIZE(keys), &t);
	assert_true(t.a == 1 && t.b == 2 && t.d == 0 && t.last == 9 && t.none == 42);
	assert_true(parse_find(text_of(text), "long") == 12);
	assert_true(parse_find(text_of(text), "lon") == 0);
	assert_true(parse_find(text_of(""), "a") == 0);
}

static void numbers(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(4096);
	uint64_t *list;
	size_t n;

	(void)state;
	assert_int_equal(parse_numbers(text_of("11 22 33 \n"), 3, &a, &list, &n), 0);
	assert_int_equal(n, 3);
	assert_true(list[0] == 11 && list[2] == 33);
	assert_int_equal(parse_numbers(text_of("\n"), 3, &a, &list, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(parse_numbers(text_of("1 2 3 4"), 3, &a, &list, &n), -EBADMSG);
	assert_int_equal(parse_numbers(text_of("1 x"), 3, &a, &list, &n), -EBADMSG);
	arena_done(&a);
	a.max = 16;
	assert_int_equal(parse_numbers(text_of("1 2 3"), 3, &a, &list, &n), -ENOMEM);
}

static void blkio(void **state)
{
	static const char text[] = "254:0 Read 4096\n254:0 Write 0\n254:16 Sync 7\n8:0 99\n"
				   "x:1 Read 1\n8:0 Read x\n8 Read 1\nTotal 4103\n";
	_cleanup_arena_ struct arena a = ARENA_LIMIT(4096);
	struct blkio_entry *list;
	size_t n;

	(void)state;
	assert_int_equal(parse_blkio(text_of(text), 100, &a, &list, &n), 0);
	assert_int_equal(n, 4);
	assert_string_equal(list[0].op, "Read");
	assert_true(list[0].major == 254 && list[0].minor == 0 && list[0].value == 4096);
	assert_string_equal(list[1].op, "Write");
	assert_true(list[2].minor == 16 && list[2].value == 7);
	assert_string_equal(list[3].op, ""); /* blkio.time, blkio.sectors */
	assert_true(list[3].major == 8 && list[3].value == 99);
	assert_string_equal(list[3].device, "");
	assert_int_equal(parse_blkio(text_of(text), 2, &a, &list, &n), 0);
	assert_int_equal(n, 2); /* bounded */
	assert_int_equal(parse_blkio(text_of(""), 2, &a, &list, &n), 0);
	assert_int_equal(n, 0);
}

static void io(void **state)
{
	static const char text[] =
		"8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n"
		"8:0 \n"
		"253:0 252:0 rbytes=5 rbytes=x wios=6 cost.usage=9\n"
		"bad rbytes=1\n";
	_cleanup_arena_ struct arena a = ARENA_LIMIT(4096);
	struct io_entry *list;
	size_t n;

	(void)state;
	assert_int_equal(parse_io(text_of(text), 100, &a, &list, &n), 0);
	assert_int_equal(n, 3);
	assert_true(list[0].major == 8 && list[0].minor == 16 && list[0].rbytes == 1459200 &&
		    list[0].wbytes == 314773504 && list[0].rios == 192 && list[0].wios == 353);
	assert_true(list[1].major == 8 && list[1].minor == 0 && list[1].rbytes == 0);
	assert_true(list[2].major == 253 && list[2].rbytes == 5 && list[2].wios == 6);
}

static void rdma(void **state)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(4096);
	struct rdma_entry *list;
	size_t n;

	(void)state;
	assert_int_equal(parse_rdma(text_of("mlx4_0 hca_handle=2 hca_object=2000\n"
					    "ocrdma1 hca_handle=3 hca_object=max\n"
					    "x hca_handle=1\n"
					    "y hca_handle=1 hca_object=4294967296\n"), 100, &a,
				    &list, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(list[0].device, "mlx4_0");
	assert_true(list[0].hca_handles == 2 && list[0].hca_objects == 2000);
	assert_true(list[1].hca_handles == 3 && list[1].hca_objects == UINT32_MAX);
	assert_true(list[2].hca_handles == 1 && list[2].hca_objects == 0);
}

static void pressure(void **state)
{
	static const char *const bad[] = {
		"some avg10", "some avg10=", "some avg10=1.", "some avg10=x", "some avg10=1.2.3",
		"some avg10=-1.0", "some avg10=1e3", "some total=x", "full avg300=1.1234567",
	};
	struct psi p = { 0 };

	(void)state;
	assert_int_equal(parse_psi(text_of("some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\n"
					   "full avg10=100.00 avg60=0 avg300=0.05 total=7\n"), &p),
			 0);
	assert_true(p.present && p.some.present && p.full.present);
	/* The very doubles that Go's ParseFloat() gives. */
	assert_true(p.some.avg10 == 0.22 && p.some.avg60 == 0.17 && p.some.avg300 == 1.11);
	assert_true(p.full.avg10 == 100.0 && p.full.avg60 == 0.0 && p.full.avg300 == 0.05);
	assert_true(p.some.total == 58761459 && p.full.total == 7);
	for (int i = 0; i < 10000; i++) {
		char line[64];

		(void)snprintf(line, sizeof(line), "some avg10=%d.%02d\n", i / 100, i % 100);
		assert_int_equal(parse_psi(text_of(line), &p), 0);
		assert_true(p.some.avg10 == strtod(line + 11, NULL));
	}
	/* cpu.pressure had no second line before Linux 5.13. */
	p = (struct psi){ 0 };
	assert_int_equal(parse_psi(text_of("some avg10=0.00 new=7 total=1\n\nother x\n"), &p), 0);
	assert_true(p.some.present && !p.full.present);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct psi untouched = { .some.total = 5 };

		assert_int_equal(parse_psi(text_of(bad[i]), &untouched), -EBADMSG);
		assert_true(untouched.some.total == 5 && !untouched.present);
	}
}

static void partitions(void **state)
{
	static const char text[] = "major minor  #blocks  name\n\n"
				   "   7        0       4096 loop0\n"
				   " 254        0  264241152 vda\n"
				   " 254        0  264241152 twice\n";
	_cleanup_arena_ struct arena a = ARENA_LIMIT(4096);

	(void)state;
	assert_string_equal(parse_partition(text_of(text), 254, 0, &a), "/dev/vda");
	assert_string_equal(parse_partition(text_of(text), 7, 0, &a), "/dev/loop0");
	assert_string_equal(parse_partition(text_of(text), 254, 1, &a), "");
	assert_string_equal(parse_partition(text_of(""), 0, 0, &a), "");
	/* What is no UTF-8 would make Go drop the whole message. */
	assert_string_equal(parse_partition(text_of("8 0 1 a\xff\xc3\xa4\x01"), 8, 0, &a),
			    "/dev/a????");
}

static void hugepages(void **state)
{
	static const struct {
		const char *folder, *want;
	} cases[] = {
		{ "hugepages-1048576kB", "1GB" }, { "hugepages-16777216kB", "16GB" },
		{ "hugepages-2048kB", "2MB" },	  { "hugepages-64kB", "64KB" },
		{ "hugepages-32768kB", "32MB" },  { "hugepages-0kB", NULL },
		{ "hugepages-2048", NULL },	  { "hugepages-kB", NULL },
		{ "hugepages-2048kBx", NULL },	  { "2048kB", NULL },
		{ "..", NULL },
	};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = parse_hugepage_size(cases[i].folder, buf, sizeof(buf));

		assert_int_equal(r, cases[i].want ? 0 : -EINVAL);
		if (cases[i].want)
			assert_string_equal(buf, cases[i].want);
	}
	assert_int_equal(parse_hugepage_size("hugepages-2048kB", buf, 3), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),   cmocka_unit_test(pairs),	  cmocka_unit_test(numbers),
		cmocka_unit_test(blkio),    cmocka_unit_test(io),	  cmocka_unit_test(rdma),
		cmocka_unit_test(pressure), cmocka_unit_test(partitions), cmocka_unit_test(hugepages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
