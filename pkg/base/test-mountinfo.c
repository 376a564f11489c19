/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/mountinfo.h"
#include "tests/cmocka.h"

static struct bytes text_of(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void is(struct bytes field, const char *want)
{
	assert_int_equal(field.n, strlen(want));
	assert_memory_equal(field.p, want, field.n);
}

static void lines(void **state)
{
	struct mountinfo m;

	(void)state;
	/* proc(5)'s own example; then no and several optional fields, an empty source. */
	assert_int_equal(mountinfo_parse(text_of("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - "
						 "ext3 /dev/root rw,errors=continue"), &m), 0);
	assert_true(m.id == 36 && m.parent == 35);
	is(m.dev, "98:0");
	is(m.root, "/mnt1");
	is(m.point, "/mnt2");
	is(m.type, "ext3");
	is(m.source, "/dev/root");
	is(m.super, "rw,errors=continue");
	assert_int_equal(mountinfo_parse(text_of("1 0 0:1 / / rw - tmpfs  rw"), &m), 0);
	is(m.source, "");
	is(m.super, "rw");
	assert_int_equal(mountinfo_parse(text_of("1 0 0:1 - /- rw a b:1 - fuse.x - rw"), &m), 0);
	is(m.root, "-");
	is(m.type, "fuse.x");
}

static void refused(void **state)
{
	static const char good[] = "36 35 98:0 / /mnt rw shared:2 - ext3 /dev/root rw";
	struct mountinfo m;

	(void)state;
	assert_int_equal(mountinfo_parse(text_of(good), &m), 0);
	/* Cut anywhere before the last field: never half a result. */
	for (size_t n = 0; n < sizeof(good) - 3; n++)
		assert_int_equal(mountinfo_parse(bytes_of(good, n), &m), -EBADMSG);
	assert_int_equal(mountinfo_parse(text_of("x 35 98:0 / /mnt rw - e d rw"), &m), -EBADMSG);
	assert_int_equal(mountinfo_parse(text_of("1 35 98:0 / mnt rw - e d rw"), &m), -EBADMSG);
	assert_int_equal(mountinfo_parse(text_of("1 35 98:0 /  rw - e d rw"), &m), -EBADMSG);
}

static void unescape(void **state)
{
	char buf[32];

	(void)state;
	assert_int_equal(mountinfo_unescape(text_of("/a\\040b\\011c\\012d\\134e\\043"), buf,
					    sizeof(buf)), 0);
	assert_string_equal(buf, "/a b\tc\nd\\e#");
	assert_int_equal(mountinfo_unescape(text_of("\\303\\244"), buf, sizeof(buf)), 0);
	assert_string_equal(buf, "\xc3\xa4");
	/* What the kernel does not write stands for itself. */
	assert_int_equal(mountinfo_unescape(text_of("\\4\\40\\08\\400\\9\\"), buf, sizeof(buf)), 0);
	assert_string_equal(buf, "\\4\\40\\08\\400\\9\\");
	assert_int_equal(mountinfo_unescape(text_of("a\\000b"), buf, sizeof(buf)), -EBADMSG);
	assert_int_equal(mountinfo_unescape(text_of("123"), buf, 3), -ENAMETOOLONG);
	assert_int_equal(mountinfo_unescape(text_of("123"), buf, 4), 0);
	assert_int_equal(mountinfo_unescape(text_of(""), buf, 1), 0);
	assert_string_equal(buf, "");
}

static int count(void *arg, const struct mountinfo *m)
{
	int *n = arg;

	assert_true(m->point.n > 0);
	return ++*n == 1000 ? 77 : 0;
}

static int has_proc(void *arg, const struct mountinfo *m)
{
	(void)arg;
	return m->point.n == 5 && memcmp(m->point.p, "/proc", 5) == 0 ? 5 : 0;
}

static void files(void **state)
{
	char name[] = "/tmp/test-mountinfo.XXXXXX";
	_cleanup_close_ int fd = mkostemp(name, O_CLOEXEC);
	_cleanup_buf_ struct buf b = BUF_NULL;
	int n = 0;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(mountinfo_each("/proc/self/mountinfo", has_proc, NULL), 5);
	assert_int_equal(mountinfo_each("/proc/none", count, &n), -ENOENT);
	/* More than is held in memory at once; a line that makes no sense is passed over. */
	for (int i = 0; i < 999; i++)
		assert_int_equal(buf_printf(&b, "%d 1 0:1 / /m%d rw - overlay overlay %0200d\n%s",
					    i, i, i, i == 500 ? "nonsense\n" : ""), 0);
	assert_int_equal(fd_write_all(fd, buf_bytes(&b).p, buf_len(&b)), 0);
	assert_int_equal(mountinfo_each(name, count, &n), 0);
	assert_int_equal(n, 999);
	n = 0;
	assert_int_equal(fd_write_all(fd, buf_bytes(&b).p, buf_len(&b)), 0);
	assert_int_equal(mountinfo_each(name, count, &n), 77);
	/* A line without end. */
	buf_clear(&b);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(buf_append_str(&b, "0123456789"), 0);
	assert_int_equal(file_write(AT_FDCWD, name, buf_bytes(&b).p, buf_len(&b), 0600,
				    FILE_PLAIN), 0);
	assert_int_equal(mountinfo_each(name, count, &n), -EMSGSIZE);
	assert_int_equal(unlink(name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(refused),
		cmocka_unit_test(unescape),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
